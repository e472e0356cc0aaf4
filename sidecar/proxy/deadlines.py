"""How long an exchange and each of its attempts may take. The sweeper looks at all of them every 50 ms.

A stream's codec has a third deadline, for silence, which every read begins anew; these two are apart from it, so no
read moves them. An exchange without limits costs nothing here. One that has them makes no task, and no cancel scope
with a deadline: what it waits for is aborted. Only opening an upstream, when there is nothing to abort yet, is
cancelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import trio

from sidecar.errors import ProxyError, Reason
from sidecar.http.streams import ClientStream, ServerStream, StreamOpener
from sidecar.policy.authorize import Permit


class Deadline:
    """One of ``Deadlines``. ``passed``: ``abort`` was called."""

    __slots__ = ("_all", "abort", "due", "passed")

    def __init__(self, due: float, abort: Callable[[], None], all_of_them: set[Deadline]) -> None:
        self.due = due
        self.abort = abort
        self.passed = False
        self._all = all_of_them

    def disarm(self) -> None:
        """Let nothing happen when it is due; safe to call twice."""
        self._all.discard(self)


class Deadlines:
    """The deadlines of all exchanges of the process."""

    __slots__ = ("_armed",)

    def __init__(self) -> None:
        self._armed: set[Deadline] = set()

    def __len__(self) -> int:
        return len(self._armed)

    def arm(self, seconds: float, abort: Callable[[], None]) -> Deadline:
        """Call ``abort`` once ``seconds`` have passed, up to 50 ms late, unless it is disarmed before."""
        deadline = Deadline(monotonic() + seconds, abort, self._armed)
        self._armed.add(deadline)
        return deadline

    def sweep(self, now: float, late: float = 0.0) -> None:
        """Abort what was due before ``now`` (monotonic); ``late`` is of no interest here."""
        if self._armed:
            for deadline in [each for each in self._armed if each.due < now]:
                deadline.disarm()
                deadline.passed = True
                deadline.abort()


@dataclass(frozen=True, slots=True)
class Limits:
    """``total`` seconds for an exchange, from its first attempt to the end of its reply; ``per_try`` for an attempt,
    until the head of its answer is there."""

    deadlines: Deadlines
    total: float = float("inf")
    per_try: float = float("inf")


class TimeBudget:
    """The time that one exchange has by its limits; ``over`` ends it."""

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

    async def open(self, client: StreamOpener, permit: Permit, *, fresh: bool) -> ClientStream:
        """Begin an attempt: as ``StreamOpener.open``. Raises ProxyError(UPSTREAM_TIMEOUT) as well."""
        self._upstream = None
        self._try = self._limits.deadlines.arm(self._limits.per_try, self._abort)
        with trio.CancelScope() as scope:
            self._opening = scope
            upstream = await client.open(permit, fresh=fresh)
            self._opening = None
            if not scope.cancel_called:
                self._upstream = upstream
                return upstream
            upstream.close()  # it came in the moment in which the time was over
        raise ProxyError(Reason.UPSTREAM_TIMEOUT, f"no connection to {client.name} within the time of the attempt")

    def end_try(self) -> None:
        """The head of the answer is there, or the attempt has failed: the rest has what is left of the total."""
        if self._try is not None:
            self._try.disarm()

    def over(self) -> None:
        """The exchange has ended. A stream that was aborted carries no other one."""
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
            self._stream.abort(Reason.UPSTREAM_TIMEOUT)  # it may be the client that is waited for
