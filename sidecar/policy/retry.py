"""The decision to send a request again after an attempt that failed, or whose answer is worth a retry. Pure.

Called by ``proxy.exchange`` after each attempt, with its outcome.

Source: RFC 9110 section 9.2.2 (idempotent methods); Envoy's ``retry_on`` and ``retriable_status_codes``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from sidecar.errors import Reason
from sidecar.http.message import Request

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})


class RetryPolicy(msgspec.Struct, frozen=True):
    """The conditions for another attempt.

    ``attempts`` bounds all attempts of a request, including the first. A request with one of ``methods`` is sent again
    after an answer with one of ``statuses``, or a failure for one of ``reasons``.
    """

    attempts: int = 2
    statuses: frozenset[int] = frozenset()
    reasons: frozenset[Reason] = frozenset()
    methods: frozenset[bytes] = IDEMPOTENT

    def again_after_answer(self, request: Request, number: int, *, kept: bool) -> bool:
        """Return whether there is another attempt after attempt ``number`` (from 1), which was answered with one of
        ``statuses``. ``kept``: all sent bytes of the request's body are kept."""
        return number < self.attempts and kept and request.method in self.methods

    def again_after_failure(
        self, reason: Reason, request: Request, number: int, *, kept: bool, reused: bool, answered: bool, wrote: bool
    ) -> bool:
        """Return whether there is another attempt after one that failed: on a ``reused`` connection, after a byte of
        the answer came (``answered``), after a byte of the request may have been taken (``wrote``)."""
        if number >= self.attempts or not kept:
            return False
        stale = reason is Reason.UPSTREAM_CLOSED and reused and not answered
        if stale and (not wrote or (request.method in IDEMPOTENT and not request.body)):
            return True
        return reason in self.reasons and (not wrote or request.method in self.methods)


REPLACE_STALE: Final = RetryPolicy()
"""The default: retry only if a reused connection was closed before it answered."""
