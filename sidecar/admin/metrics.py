"""Numbers for scrapers and people: ``/metrics`` and ``/memory``."""

from __future__ import annotations

import trio

from sidecar.admin.context import AdminContext
from sidecar.admin.responses import Reply, Request, as_json
from sidecar.telemetry.process import open_descriptors, resident_bytes

_one_page = trio.CapacityLimiter(1)


async def metrics(context: AdminContext, request: Request) -> Reply:
    """Rendered on a thread, one page at a time: many series take long, and traffic goes first."""
    figures = context.telemetry.read()  # here, on the loop, so that all of them belong to one moment

    def page() -> tuple[str, bytes]:
        from sidecar.telemetry.exposition import render  # not before somebody scrapes: 3 MB, 40 ms

        return render(figures, context.version, request.accept)

    content_type, body = await trio.to_thread.run_sync(page, limiter=_one_page)
    return Reply(200, body, content_type)


async def memory(context: AdminContext, _: Request) -> Reply:
    telemetry = context.telemetry
    log = telemetry.access_log
    return as_json(
        {
            "rss_bytes": resident_bytes(),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "descriptors": open_descriptors(),
            "channels": len(context.connections),
            "loop_lag_seconds": {"last": round(telemetry.lag.last, 6), "max": round(telemetry.lag.max, 6)},
            "buffers": {"access_log_bytes": 0 if log is None else log.writer.pending},
            "guard": {
                "state": context.memory.state.value,
                "used_bytes": context.memory.used,
                "limit_bytes": context.memory.limit,
            },
        }
    )
