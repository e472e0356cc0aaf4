"""``/tap``: records as they come, as server-sent events, for whoever watches.

Costs the hot path nothing while nobody does. A tap that can't keep up holds nobody up: it is dropped, told so, and
counted.
"""

from __future__ import annotations

import json

from sidecar.admin import record_filters
from sidecar.admin.context import AdminContext
from sidecar.admin.recent_requests import row
from sidecar.admin.responses import EVENTS, Reply, Request, Send, Stream
from sidecar.telemetry.history import TAP_BUFFER


async def tap(context: AdminContext, request: Request) -> Reply | Stream:
    """A stream of what the parameters ask for; it ends after ``limit=`` records, if there is one."""
    try:
        wanted = record_filters.wanted(request.parameters)
        limit = record_filters.limit(request.parameters, 0)
    except ValueError as error:
        return Reply(400, f"{error}\n".encode())

    async def run(send: Send) -> None:
        taps = context.telemetry.taps
        tapped = taps.open(wanted)
        try:
            left = limit
            await send(b": tapping\n\n")
            while records := await tapped.next_batch():
                if limit:
                    records = records[:left]
                    left -= len(records)
                await send(b"".join([b"data: %b\n\n" % json.dumps(row(record)).encode() for record in records]))
                if limit and not left:
                    return
            await send(b"event: dropped\ndata: more than %d records were waiting to be read\n\n" % TAP_BUFFER)
        finally:
            taps.close(tapped)

    return Stream(EVENTS, run)
