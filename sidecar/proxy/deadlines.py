"""Deadlines of an exchange and of each of its attempts. The sweeper checks all of them every 50 ms.

A stream's codec has a third deadline, for silence, which every read restarts. The two deadlines here are separate, so
no read moves them. An exchange without limits costs nothing here. An exchange with limits needs no task, and no cancel
scope with a deadline: the stream that it waits for is aborted. Only opening an upstream is cancelled, because there is
nothing to abort yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

import trio

from sidecar.errors import ProxyError, Reason
from sidecar.http.streams import ClientStream, ServerStream, StreamOpener

E = TypeVar("E")


class Deadline:
    """A deadline of ``Deadlines``. ``passed``: ``abort`` was called."""

    __slots__ = ("_all", "abort", "due", "passed")

    def __init__(self, due: float, abort: Callable[[], None], all_of_them: set[Deadline]) -> None:
        self.due = due
        self.abort = abort
        self.passed = False
        self._all = all_of_them

    def disarm(self) -> None:
        """Cancel the deadline. Safe to call twice."""
        self._all.discard(self)


class Deadlines:
    """The deadlines of all exchanges of the process."""

    __slots__ = ("_armed",)

    def __init__(self) -> None:
        self._armed: set[Deadline] = set()

    def __len__(self) -> int:
        return len(self._armed)

    def arm(self, seconds: float, abort: Callable[[], None]) -> Deadline:
        """Call ``abort`` once ``seconds`` have passed, up to 50 ms late, unless the deadline is disarmed before."""
        deadline = Deadline(monotonic() + seconds, abort, self._armed)
        self._armed.add(deadline)
        return deadline

    def sweep(self, now: float, late: float = 0.0) -> None:
        """Abort what was due before ``now`` (monotonic); ``late`` is not used here."""
        if self._armed:
            for deadline in [each for each in self._armed if each.due < now]:
                deadline.disarm()
                deadline.passed = True
                deadline.abort()


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of an exchange: ``total`` seconds from its first attempt to the end of its reply, and ``per_try``
    seconds for an attempt, until the head of its answer is there."""

    deadlines: Deadlines
    total: float = float("inf")
    per_try: float = float("inf")


class TimeBudget:
    """The time left to one exchange under its limits; ``over`` ends it."""

    __slots__ = ("_limits", "_opening", "_stream", "_total", "_try", "_upstream")

    def __init__(self, limits: Limits, stream: ServerStream) -> None:
        self._limits = limits
        self._stream = stream
        self._upstream: ClientStream | None = None
        self._opening: trio.CancelScope | None = None
        self._try: Deadline | None = None
        self._total = limits.deadlines.arm(limits.total, self._abort)

    @property
    def spent(self) -> bool:
        """Whether there is no time for another attempt."""
        return self._total.passed

    async def open(self, client: StreamOpener[E], endpoint: E, *, fresh: bool) -> ClientStream:
        """Begin an attempt, as ``StreamOpener.open`` does. Also raises ProxyError(UPSTREAM_TIMEOUT)."""
        self._upstream = None
        self._try = self._limits.deadlines.arm(self._limits.per_try, self._abort)
        with trio.CancelScope() as scope:
            self._opening = scope
            upstream = await client.open(endpoint, fresh=fresh)
            self._opening = None
            if not scope.cancel_called:
                self._upstream = upstream
                return upstream
            upstream.close()  # it opened at the very moment when the time ran out
        raise ProxyError(Reason.UPSTREAM_TIMEOUT, f"no connection to {client.name} within the time of the attempt")

    def end_try(self) -> None:
        """End the limit of the attempt: its answer's head is there, or it has failed. Only the total applies now."""
        if self._try is not None:
            self._try.disarm()

    def over(self) -> None:
        """End the exchange's limits. A stream that was aborted carries no further exchange."""
        self.end_try()
        self._total.disarm()
        if self._total.passed:
            self._stream.close_after_reply()

    def _abort(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        if self._upstream is not None:
            self._upstream.abort(Reason.UPSTREAM_TIMEOUT)
        if self._stream.reply_begun:
            self._stream.abort(Reason.UPSTREAM_TIMEOUT)  # the exchange may be waiting for the client
