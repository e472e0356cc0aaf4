"""An app on Hypercorn, which speaks HTTP/1.1 and HTTP/2, that prints what each request says of its caller. Arguments
are HOST:PORT to listen on."""

from __future__ import annotations

import json
import sys
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

NAMES = (b"x-forwarded-client-cert", b"x_forwarded_client_cert")


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        return
    said = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() in NAMES]
    print(json.dumps({"path": scope["path"], "said": ", ".join(said)}), flush=True)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"seen"})


if __name__ == "__main__":
    config = Config()
    config.bind = sys.argv[1:]
    config.accesslog = config.errorlog = None
    trio.run(serve, app, config)
