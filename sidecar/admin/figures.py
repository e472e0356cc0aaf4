"""Numbers for scrapers and people: ``/metrics`` and ``/memory``."""

from __future__ import annotations

import trio

from sidecar.admin.context import AdminContext
from sidecar.admin.replies import Reply, Request, as_json
from sidecar.telemetry.memory import MemoryState
from sidecar.telemetry.process import open_descriptors, resident_bytes

_one_page = trio.CapacityLimiter(1)


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
    return as_json(
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
