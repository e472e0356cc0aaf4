"""The retries of one exchange: which attempt is followed by another one, after how long, and at which endpoint.

Made by ``exchange`` when its first attempt has failed, or was answered with a status that its route retries; an
exchange that goes well has none. ``policy.retry`` decides what is worth a retry; the number of retries, the time that
is left and the cluster's budget bound them, in this order, so that only a retry that is made costs the budget anything.

The one attempt that replaces a stale connection is none of these retries: it costs neither their number nor the budget.
"""

from __future__ import annotations

from random import random
from time import monotonic
from typing import Any

import trio

from sidecar.errors import ProxyError, Reason
from sidecar.http import headers
from sidecar.http.headers import Field
from sidecar.http.message import Request, Response
from sidecar.http.streams import ClientStream, ServerStream, StreamOpener
from sidecar.policy.authorize import Permit
from sidecar.policy.retry import (
    ELSEWHERE_ONLY,
    RETRY_AFTER_SECONDS,
    RetryPolicy,
    backoff,
    replaces_stale,
    retry_after,
)
from sidecar.proxy.attempt import Kept
from sidecar.proxy.deadlines import TimeBudget
from sidecar.proxy.pause import pause
from sidecar.telemetry.record import Record


class Retrying:
    """The retries of one exchange. ``number`` have begun; ``fresh``: the next attempt is to use a new connection;
    ``tried`` are the endpoints of attempts that failed."""

    __slots__ = (
        "_allotted",
        "_client",
        "_connecting",
        "_counted",
        "_over_budget",
        "_policy",
        "_record",
        "_replaced",
        "_request",
        "_stream",
        "_wait",
        "fresh",
        "number",
        "tried",
    )

    def __init__(
        self,
        policy: RetryPolicy,
        client: StreamOpener[Any],
        stream: ServerStream,
        request: Request,
        record: Record,
        allotted: TimeBudget | None,
    ) -> None:
        self._policy = policy
        self._client = client
        self._stream = stream
        self._request = request
        self._record = record
        self._allotted = allotted
        self._connecting = 0.0  # seconds spent on connections that were not made
        self._counted = False  # a retry in progress is counted in the cluster's load
        self._replaced = False  # a stale connection was replaced
        self._over_budget = False  # the last attempt failed, and only the budget forbids another one
        self._wait = 0.0
        self.fresh = False
        self.number = 0
        self.tried: list[Any] = []

    # -- decisions ---------------------------------------------------------------------------------------------------

    def after_answer(self, head: Response, endpoint: object, kept: Kept | None) -> bool:
        """Return whether an attempt follows the one with this answer, whose status the policy names."""
        if not self._policy.wants_after_answer(self._request, head) or not _whole(kept):
            return False
        record = self._record
        wait = retry_after(head, record.start + monotonic() - record.began)
        if wait > RETRY_AFTER_SECONDS or not self._begin(wait):
            return False
        self.fresh = False
        self.tried.append(endpoint)
        return True

    def after_failure(
        self, reason: Reason, endpoint: object | None, upstream: ClientStream | None, kept: Kept | None
    ) -> bool:
        """Return whether an attempt follows the one that failed for this reason. ``endpoint`` and ``upstream`` are None
        if the attempt had none."""
        wrote = upstream is not None and upstream.wrote
        if upstream is None:
            self._connecting += monotonic() - self._record.tried
        elif (
            not self._replaced
            and replaces_stale(reason, self._request, reused=upstream.reused, answered=upstream.answered, wrote=wrote)
            and self._has_time
            and _whole(kept)
        ):
            self._replaced = self.fresh = True
            return True
        if not self._policy.wants_after_failure(reason, self._request, wrote=wrote) or not _whole(kept):
            return False
        if self._connecting >= self._client.patience:
            return False
        if reason in ELSEWHERE_ONLY and not self._client.has_others(len(self.tried) + 1):
            return False
        if not self._begin(0.0):
            self._over_budget = self._record.exhausted == "budget"
            return False
        self.fresh = reason is Reason.UPSTREAM_CLOSED
        if endpoint is not None:
            self.tried.append(endpoint)
        return True

    @property
    def _has_time(self) -> bool:
        return self._allotted is None or not self._allotted.spent

    def _begin(self, least: float) -> bool:
        """Schedule a retry after ``least`` seconds and the backoff, if there is one left, and time and budget for
        it."""
        self.end()
        if not self._has_time:
            return False
        if self.number >= self._policy.retries:
            if self._policy.retries:
                self._record.exhaust("attempts")
            return False
        wait = least + backoff(self.number + 1, self._policy.base, random())
        if self._allotted is not None and wait >= self._allotted.left:
            return False
        load = self._client.load
        if load is not None:
            if not load.begin_retry(trio.current_time()):
                self._record.exhaust("budget")
                return False
            self._counted = True
        self.number += 1
        self._wait = wait
        return True

    def ending(self, error: ProxyError) -> ProxyError:
        """Return the error that the exchange ends with after an attempt that failed with this one."""
        if not self._over_budget:
            return error
        self._record.keep_try(error)
        detail = f"{error.detail} ({error.reason.word}); the cluster's budget for retries is used up"
        return ProxyError(Reason.RETRY_BUDGET, detail)

    # -- the next attempt --------------------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Wait until the next attempt may begin. Raises ProxyError if the client leaves or the time runs out before."""
        seconds, self._wait = self._wait, 0.0
        if not seconds:
            return
        await pause(self._stream, seconds, self._allotted)

    def pick(self, permit: Permit) -> Any:
        """Return the endpoint of the next attempt. Raises ProxyError."""
        return self._client.pick(permit, self.tried if self._policy.elsewhere else ())

    @property
    def patience(self) -> float:
        """The seconds that may still be spent on connections."""
        return max(0.0, self._client.patience - self._connecting)

    @property
    def left(self) -> bool:
        """Whether another retry may follow."""
        return self.number < self._policy.retries

    def end(self) -> None:
        """Note the end of a retry's attempt, if one is in progress."""
        load = self._client.load
        if self._counted and load is not None:
            self._counted = False
            load.end_retry()


def marked(fields: list[Field], number: int, allotted: TimeBudget | None) -> list[Field]:
    """Return ``fields`` with those that an attempt adds which is not the first: its number, if it is one of these
    retries, and the time it has."""
    kept = list(fields)
    if number:
        kept = [field for field in fields if field[0] != headers.ATTEMPT_COUNT]
        kept.append((headers.ATTEMPT_COUNT, b"%d" % (number + 1)))
    if allotted is not None:
        kept += allotted.expected()
    return kept


def _whole(kept: Kept | None) -> bool:
    """Return whether all that was sent of the body is kept; from now on, everything is."""
    return kept is None or kept.freeze()
