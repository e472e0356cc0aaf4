"""What the admin and the scrape port answer: a table of paths each, and a function per path.

Who calls it: ``admin.server``, with a request that was let in. Names and texts are Envoy's where Envoy has the path. A
page shows figures and addresses; no header, key or token ever comes near one of them (CTL-7).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from urllib.parse import parse_qs

import trio

from sidecar.admin.context import AdminContext
from sidecar.telemetry.memory import MemoryState
from sidecar.telemetry.process import open_descriptors, resident_bytes

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

logger = logging.getLogger("sidecar.admin")


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was let in. ``query`` is the target's part after "?"."""

    method: str
    path: str
    query: str
    accept: str
    peer: str


@dataclass(frozen=True, slots=True)
class Reply:
    """``then`` is called once the reply was sent, or could not be."""

    status: int
    body: bytes
    content_type: str = TEXT
    allow: str = ""
    then: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """``mutates``: it changes something, so only POST reaches it; otherwise GET and HEAD do."""

    answer: Callable[[AdminContext, Request], Awaitable[Reply]]
    help: str
    mutates: bool = False

    @property
    def allow(self) -> str:
        return "POST" if self.mutates else "GET, HEAD"


Routes = dict[str, Route]


async def dispatch(routes: Routes, context: AdminContext, request: Request) -> Reply:
    """The answer to a request; 404 and 405 included. Raises what a route raises."""
    route = routes.get(request.path)
    if route is None:
        return Reply(404, b"unknown path; there are:\n" + help_text(routes))
    if request.method not in route.allow.split(", "):
        return Reply(405, f"{request.path} takes {route.allow}\n".encode(), allow=route.allow)
    return await route.answer(context, request)


def help_text(routes: Routes) -> bytes:
    """One line per path."""
    width = max(map(len, routes))
    lines = (f"{'POST' if route.mutates else 'GET':4} {path:{width}}  {route.help}" for path, route in routes.items())
    return "".join(f"{line}\n" for line in lines).encode()


async def ready(context: AdminContext, _: Request) -> Reply:
    state = context.lifecycle.state
    return Reply(200 if state == "live" else 503, f"{state.upper()}\n".encode())


async def live(_: AdminContext, __: Request) -> Reply:
    return Reply(200, b"LIVE\n")


async def metrics(context: AdminContext, request: Request) -> Reply:
    """Rendered on a thread, one page at a time: many series take long, and traffic goes first."""
    telemetry = context.telemetry
    # Read here, on the loop, so that the figures belong to one moment.
    counters, requests = telemetry.counters.read(), telemetry.requests.read()
    gauges = (
        ("sidecar_loop_lag_seconds", "How late the event loop was last.", telemetry.lag.last),
        ("sidecar_loop_lag_max_seconds", "How late the event loop ever was.", telemetry.lag.max),
        ("sidecar_memory_limit_bytes", "What memory in use is held against; 0: no limit.", context.memory.limit),
        ("sidecar_memory_used_bytes", "Memory in use as the limit counts it.", context.memory.used),
        (
            "sidecar_memory_pressure",
            "0 normal, 1 keep-alive off, 2 new work refused.",
            list(MemoryState).index(context.memory.state),
        ),
        ("sidecar_draining", "1 while the process drains.", context.lifecycle.state == "draining"),
    )

    def page() -> tuple[str, bytes]:
        from sidecar.telemetry.exposition import Figures, render  # not before somebody scrapes: 3 MB, 40 ms

        return render(Figures(counters, requests, gauges, context.version), request.accept)

    content_type, body = await trio.to_thread.run_sync(page, limiter=_one_page)
    return Reply(200, body, content_type)


async def memory(context: AdminContext, _: Request) -> Reply:
    telemetry = context.telemetry
    log = telemetry.access_log
    return _json(
        {
            "rss_bytes": resident_bytes(),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "descriptors": open_descriptors(),
            "channels": len(context.channels),
            "loop_lag_seconds": {"last": round(telemetry.lag.last, 6), "max": round(telemetry.lag.max, 6)},
            "buffers": {"access_log_bytes": 0 if log is None else log.writer.pending},
            "guard": {
                "state": context.memory.state.value,
                "used_bytes": context.memory.used,
                "limit_bytes": context.memory.limit,
            },
        }
    )


async def listeners(context: AdminContext, request: Request) -> Reply:
    if parse_qs(request.query).get("format") == ["json"]:
        return _json(
            [{"name": each.name, "host": each.address.host, "port": each.address.port} for each in context.listeners]
        )
    return Reply(200, "".join(f"{each.name}::{each.address}\n" for each in context.listeners).encode())


async def server_info(context: AdminContext, _: Request) -> Reply:
    return _json(
        {
            "version": context.version,
            "state": context.lifecycle.state.upper(),
            "uptime_seconds": round(monotonic() - context.started, 3),
        }
    )


async def help_page(_: AdminContext, __: Request) -> Reply:
    return Reply(200, help_text(ADMIN))


async def quit_quit_quit(context: AdminContext, request: Request) -> Reply:
    logger.info("admin: POST /quitquitquit from %s: draining", request.peer)
    return Reply(200, b"OK\n", then=context.quit)


def _json(value: object) -> Reply:
    return Reply(200, json.dumps(value, indent=1).encode() + b"\n", JSON)


_one_page = trio.CapacityLimiter(1)

ADMIN: Routes = {
    "/help": Route(help_page, "this list"),
    "/ready": Route(ready, "200 LIVE once everything is bound; 503 before, and while draining"),
    "/live": Route(live, "200 as long as the process answers"),
    "/stats/prometheus": Route(metrics, "metrics, as text or OpenMetrics"),
    "/metrics": Route(metrics, "the same"),
    "/memory": Route(memory, "resident memory, tasks, descriptors, loop lag, buffers"),
    "/listeners": Route(listeners, "what is bound where; ?format=json"),
    "/server_info": Route(server_info, "version, state, uptime"),
    "/quitquitquit": Route(quit_quit_quit, "drains and ends the process", mutates=True),
}

SCRAPE: Routes = {
    "/metrics": Route(metrics, "metrics, as text or OpenMetrics"),
    "/stats/prometheus": Route(metrics, "the same"),
    "/healthz/ready": Route(ready, "200 LIVE once everything is bound; 503 before, and while draining"),
    "/healthz/live": Route(live, "200 as long as the process answers"),
}
