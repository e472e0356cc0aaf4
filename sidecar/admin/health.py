"""Is it well? ``/ready`` and ``/live`` for probes, ``/server_info`` and ``/listeners`` for people."""

from __future__ import annotations

from time import monotonic

from sidecar.admin.context import AdminContext
from sidecar.admin.replies import Reply, Request, as_json


async def ready(context: AdminContext, _: Request) -> Reply:
    state = context.lifecycle.state
    return Reply(200 if state == "live" else 503, f"{state.upper()}\n".encode())


async def live(_: AdminContext, __: Request) -> Reply:
    return Reply(200, b"LIVE\n")


async def listeners(context: AdminContext, request: Request) -> Reply:
    if request.json:
        return as_json(
            [{"name": each.name, "host": each.address.host, "port": each.address.port} for each in context.listeners]
        )
    return Reply(200, "".join(f"{each.name}::{each.address}\n" for each in context.listeners).encode())


async def server_info(context: AdminContext, _: Request) -> Reply:
    return as_json(
        {
            "version": context.version,
            "state": context.lifecycle.state.upper(),
            "uptime_seconds": round(monotonic() - context.started, 3),
        }
    )
