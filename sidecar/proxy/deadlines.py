"""Deadlines of an exchange and of each of its attempts. The sweeper checks all of them every 50 ms.

A stream's codec has a third deadline, for silence, which every read restarts. The two deadlines here are separate, so
no read moves them. Both run from the end of the request: while its body still comes, only the third one applies. An
exchange without limits costs nothing here. An exchange with limits needs no task, and no cancel scope with a deadline:
the stream that it waits for is aborted. Only what has no stream yet is cancelled: opening an upstream, and the wait
before a retry.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

import msgspec
import trio

from sidecar.errors import ProxyError, Reason
from sidecar.http.headers import Field
from sidecar.http.streams import Abortable, ClientStream, ServerStream, StreamOpener

EXPECTED: Final = b"x-envoy-expected-rq-timeout-ms"
_NEVER: Final = float("inf")


class Deadlines:
    """The exchanges of the process whose time runs."""

    __slots__ = ("running",)

    def __init__(self) -> None:
        self.running: set[TimeBudget] = set()

    def __len__(self) -> int:
        return len(self.running)

    def sweep(self, now: float, late: float = 0.0) -> None:
        """End what was due before ``now`` (monotonic); ``late`` is not used here. Called every 50 ms."""
        if self.running:
            for each in [each for each in self.running if each.due < now]:
                each.pass_due(now)


class Limits(msgspec.Struct, frozen=True, gc=False):
    """Time limits of an exchange: ``total`` seconds from the end of its request to the end of its reply, over all
    attempts and the waits between them; ``per_try`` seconds for an attempt, until the head of its answer is there."""

    deadlines: Deadlines
    total: float = _NEVER
    per_try: float = _NEVER
    first: tuple[Field, ...] = ()  # the field that passes on the time of the first attempt; made from the others

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "first", _expected(min(self.total, self.per_try)))


def _expected(seconds: float) -> tuple[Field, ...]:
    """Return the field that passes on the time of an attempt, if there is a limit."""
    return () if seconds == _NEVER else ((EXPECTED, b"%d" % max(1, int(seconds * 1000))),)


class TimeBudget:
    """The time left to one exchange under its limits; ``over`` ends it. ``due`` is the next end of a limit, of the
    exchange or of its attempt. ``spent``: there is no time for another attempt.

    ``request_ended`` starts the clocks; it is called once, when the last byte of the request's body has been taken.
    """

    __slots__ = ("_doing", "_ended", "_ends", "_limits", "_opening", "_stream", "_trying", "due", "spent")

    def __init__(self, limits: Limits, stream: ServerStream) -> None:
        self._limits = limits
        self._stream = stream
        self._doing: Abortable | None = None  # the attempt, or the wait before the next one
        self._opening: trio.CancelScope | None = None
        self._trying = False  # an attempt waits for the head of its answer
        self.spent = False
        self._ended = stream.body_done  # from then on the clocks run
        if self._ended:
            self.due = self._ends = monotonic() + limits.total
            limits.deadlines.running.add(self)

    def request_ended(self) -> None:
        """Start the clocks: the last byte of the request was taken. Safe to call twice."""
        if self._ended:
            return
        self._ended = True
        self.due = self._ends = monotonic() + self._limits.total
        self._limits.deadlines.running.add(self)
        if self._trying:
            self._begin_try()

    @property
    def left(self) -> float:
        """The seconds that are left to the exchange."""
        return max(0.0, self._ends - monotonic()) if self._ended else self._limits.total

    def expected(self) -> tuple[Field, ...]:
        """Return the field that passes on the time of an attempt that begins now, if it has a limit."""
        return _expected(min(self.left, self._limits.per_try))

    def attach(self, upstream: ClientStream) -> None:
        """Begin an attempt over a stream that is open."""
        self._doing = upstream
        self._begin_try()

    async def open(
        self, client: StreamOpener[Any], endpoint: object, *, fresh: bool, seconds: float, hasty: bool
    ) -> ClientStream:
        """Begin an attempt, as ``StreamOpener.open`` does. Also raises ProxyError(UPSTREAM_TIMEOUT)."""
        self._doing = None
        self._begin_try()
        with trio.CancelScope() as scope:
            self._opening = scope
            try:
                upstream = await client.open(endpoint, fresh=fresh, seconds=seconds, hasty=hasty)
            finally:
                self._opening = None
            if not scope.cancel_called:
                self._doing = upstream
                return upstream
            upstream.close()  # it opened at the very moment when the time ran out
        raise ProxyError(Reason.UPSTREAM_TIMEOUT, f"no connection to {client.name} within the time of the attempt")

    def wait(self, pause: Abortable) -> None:
        """Abort ``pause``, a wait between two attempts, when the total passes."""
        self._doing = pause

    def end_try(self) -> None:
        """End the limit of the attempt: its answer's head is there, or it has failed. Only the total applies now."""
        self._trying = False
        if self._ended:
            self.due = self._ends

    def over(self) -> None:
        """End the exchange's limits. A stream that was aborted carries no further exchange."""
        self._doing = None
        self._limits.deadlines.running.discard(self)
        if self.spent:
            self._stream.close_after_reply()

    def pass_due(self, now: float) -> None:
        """End what was due before ``now``: the exchange, or its attempt alone."""
        if self._ends < now:
            self.spent = True
            self._limits.deadlines.running.discard(self)
        else:
            self.due = self._ends
        self._abort()

    def explained(self, error: ProxyError) -> ProxyError:
        """Return the error with the limit that it broke, if it is the end of the total."""
        if error.reason is not Reason.UPSTREAM_TIMEOUT or not self.spent:
            return error
        return ProxyError(error.reason, f"the route's timeout of {self._limits.total:g} s has passed")

    def _begin_try(self) -> None:
        self._trying = True
        if self._ended:
            due = monotonic() + self._limits.per_try
            if due < self._ends:
                self.due = due

    def _abort(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        if self._doing is not None:
            self._doing.abort(Reason.UPSTREAM_TIMEOUT)
        if self._stream.reply_begun:
            self._stream.abort(Reason.UPSTREAM_TIMEOUT)  # the exchange may be waiting for the client
