"""An app that speaks HTTP, on both families: ``web.py PORT``. A program.

``GET /PATH`` is answered with a line of what it saw: the caller's address, the connection's own, and the path; so is a
POST with a Content-Length. It says ``listening`` on standard output when it does.
"""

from __future__ import annotations

import asyncio
import re
import sys

_LENGTH = re.compile(rb"^content-length: *([0-9]+)\r$", re.IGNORECASE | re.MULTILINE)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer, here = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if length := _LENGTH.search(head):
                await reader.readexactly(int(length[1]))
            path = head.split(b" ", 2)[1].decode()
            body = f"from {peer[0]} to {here[0]} {here[1]} {path}\n".encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the caller is done
    finally:
        writer.close()


async def _main(port: int) -> None:
    server = await asyncio.start_server(_serve, ["0.0.0.0", "::"], port, backlog=4096)
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
