"""Waits of a request that is not with an upstream: before a retry, and for a fault that is a delay.

Called by ``retrying`` and ``routed_request``. The client's leaving ends the wait, as it ends an exchange: the sweeper
watches the client's connection, and cancels what waits. There is no task, and no deadline of a cancel scope.
"""

from __future__ import annotations

import trio

from sidecar.errors import ProxyError, Reason
from sidecar.http.streams import ServerStream
from sidecar.proxy.deadlines import TimeBudget


async def pause(stream: ServerStream, seconds: float, allotted: TimeBudget | None = None) -> None:
    """Wait so long. Raises ProxyError if the client leaves, if it is cut, or if the time ``allotted`` ends before."""
    wait = _Wait()
    stream.watch(wait)
    if allotted is not None:
        allotted.wait(wait)
    try:
        await wait.sleep(seconds)
    finally:
        stream.watch(None)
    if (cut := stream.cut_off()) is not None:
        raise cut
    if wait.aborted is Reason.CLIENT_CLOSED:
        raise ProxyError(Reason.CLIENT_CLOSED, "the client went away while its request waited here")
    if wait.aborted is not None:
        raise ProxyError(wait.aborted, "the time of the request ended while it waited here")


class _Wait:
    """A wait that the client's leaving, or the end of the time, ends."""

    __slots__ = ("_scope", "aborted")

    def __init__(self) -> None:
        self._scope = trio.CancelScope()
        self.aborted: Reason | None = None

    def abort(self, reason: Reason) -> None:
        """See ``Abortable``."""
        if self.aborted is None:
            self.aborted = reason
        self._scope.cancel()

    async def sleep(self, seconds: float) -> None:
        """Wait so long, or until ``abort``."""
        with self._scope:
            await trio.sleep(seconds)
