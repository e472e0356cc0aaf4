"""``GET /events``: a summary per second as server-sent events, for the page.

However many pages are open, a second is summed up once, and only while somebody listens: each listener sleeps until the
next summary is due, the first to wake makes it, and the others take what it made. A listener that is slow misses
seconds, and has never more than one piece on its way; the server drops it when it does not take that one in time.
"""

from __future__ import annotations

from time import monotonic, time
from typing import Final

import msgspec
import trio

from sidecar.admin.context import AdminContext
from sidecar.admin.responses import EVENTS, Request, Send, Stream
from sidecar.admin.status_summary import summarize
from sidecar.admin.totals import Latest, totals

EVERY: Final = 1.0  # seconds
STALE: Final = 3.0  # seconds after which a difference to the last totals would be no "now" any more
_RECONNECT: Final = b"retry: 1000\n\n"  # milliseconds; the page asks again on its own


async def events(context: AdminContext, _: Request) -> Stream:
    """The summary of now, and from then on one per second."""

    async def run(send: Send) -> None:
        latest = context.latest
        await send(_RECONNECT)
        while True:
            bring_up_to_date(latest, context, monotonic())
            await send(latest.event)
            assert latest.totals is not None
            await trio.sleep(max(0.0, latest.totals.at + EVERY - monotonic()))

    return Stream(EVENTS, run)


def bring_up_to_date(latest: Latest, context: AdminContext, now: float) -> None:
    """Makes the summary of this second if nobody has made it yet. ``now`` is on the monotonic clock."""
    last = latest.totals
    if last is not None and now < last.at + EVERY:
        return
    latest.totals = totals(context.telemetry.requests.read(), now)
    before = last if last is not None and now - last.at <= STALE else None
    latest.event = b"data: %b\n\n" % msgspec.json.encode(summarize(context, before, latest.totals, time()))
    latest.made += 1
