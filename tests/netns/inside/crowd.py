"""Many connections of an app: ``crowd.py HOST PORT TOTAL OPEN``. A program.

Each connection makes one request and reads its answer; OPEN of them are open before the first is closed, and from then
on as many. It prints how many answers came, and how many connections were open at most, as ``answered N open N``; what
went wrong is printed by kind.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from collections import Counter


class Crowd:
    """The connections; ``open`` is how many there are now."""

    def __init__(self, host: str, port: int, total: int, at_once: int) -> None:
        self.host, self.port, self.left, self.at_once = host, port, total, at_once
        self.open = self.most = self.answered = 0
        self.full = asyncio.Event()
        self.failures: Counter[str] = Counter()

    async def one(self) -> None:
        """One connection, one request; waits with its end until as many are open as may be."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        self.open += 1
        self.most = max(self.most, self.open)
        if self.open == self.at_once:
            self.full.set()
        try:
            writer.write(b"GET /crowd HTTP/1.1\r\nHost: app.example\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readuntil(b"\n")
            self.answered += head.startswith(b"HTTP/1.1 200 ") and body.endswith(b"/crowd\n")
            await self.full.wait()
        finally:
            self.open -= 1
            writer.close()
            await writer.wait_closed()

    async def worker(self) -> None:
        while self.left:
            self.left -= 1
            try:
                await asyncio.wait_for(self.one(), 60)
            except Exception as error:  # counted by kind, and told at the end
                self.failures[repr(error)[:80]] += 1

    async def run(self) -> None:
        await asyncio.gather(*(self.worker() for _ in range(self.at_once)))
        print(
            "answered", self.answered, "open", self.most, *(f"\n{n} times {what}" for what, n in self.failures.items())
        )


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(Crowd(sys.argv[1], *map(int, sys.argv[2:])).run())
