"""The decision to send a request again after an attempt that failed, or whose answer is worth a retry. Pure.

Called by ``proxy.retrying`` after each attempt, with its outcome. ``compile_retry`` makes the policy of a route from a
VirtualService's ``retries``.

One rule stands above every policy: a request of which a byte may have reached an app is sent again only if its method
is idempotent, it carries Idempotency-Key, or an operator named its route as safe to repeat.

Sources: RFC 9110 sections 9.2.2 (idempotent methods) and 10.2.3 (Retry-After); Envoy's documentation of
``x-envoy-retry-on`` and its ``JitteredExponentialBackOffStrategy``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from sidecar.durations import positive_duration
from sidecar.errors import Reason
from sidecar.http import headers
from sidecar.http.message import Request, Response

if TYPE_CHECKING:  # a proxy without documents does not load these
    from sidecar.resources.virtual_service import HTTPRetry

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
BASE_SECONDS: Final = 0.025
MOST_BASES: Final = 10  # the longest backoff, in bases
RETRY_AFTER_SECONDS: Final = 10.0  # an upstream that asks for more is not asked again

# Nothing of the request was sent, since there was no connection.
NOT_CONNECTED: Final = frozenset(
    {
        Reason.CONNECT_FAILED,
        Reason.CONNECT_TIMEOUT,
        Reason.DNS_FAILED,
        Reason.BLACK_HOLE,
        Reason.UPSTREAM_HANDSHAKE,
        Reason.UPSTREAM_IDENTITY,
    }
)
# Found out before anything was dialed, and not by chance: the same endpoint would fail in the same way.
ELSEWHERE_ONLY: Final = frozenset({Reason.DNS_FAILED, Reason.BLACK_HOLE})
# There is no answer: the connection ended, or nothing came in time, or what came was no HTTP.
NO_ANSWER: Final = NOT_CONNECTED | {
    Reason.UPSTREAM_CLOSED,
    Reason.UPSTREAM_TIMEOUT,
    Reason.UPSTREAM_IDLE,
    Reason.UPSTREAM_PROTOCOL,
}
_SERVER_ERRORS: Final = frozenset(range(500, 600))
_GATEWAY_ERRORS: Final = frozenset({502, 503, 504})
_RATE_LIMITED: Final = frozenset(range(400, 600))  # statuses that may come with x-envoy-ratelimited
_IDEMPOTENCY_KEY: Final = b"idempotency-key"
_ENVOY_RATELIMITED: Final = b"x-envoy-ratelimited"
_RETRY_AFTER: Final = b"retry-after"

DEFAULT_RETRIES: Final = 2
DEFAULT_RETRY_ON: Final = "connect-failure,reset-before-request,refused-stream,unavailable,cancelled"
# Accepted, and without effect on HTTP/1: streams are HTTP/2's, and the others read gRPC's trailers.
NOT_YET: Final = frozenset(
    {"refused-stream", "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}
)
# Accepted, and without effect: Istio has no field for the headers, and this list follows from numbers in retryOn.
_WITHOUT_EFFECT: Final = frozenset({"retriable-headers", "retriable-status-codes"})
_ACTING: Final = frozenset(
    {
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "retriable-4xx",
        "envoy-ratelimited",
    }
)
RETRY_ON: Final = _ACTING | NOT_YET | _WITHOUT_EFFECT


class RetryPolicy(msgspec.Struct, frozen=True):
    """The conditions for another attempt, of which there are at most ``retries``.

    A request is sent again after an answer with one of ``statuses``, or a failure for one of ``reasons``; for one of
    ``unsent`` only if no byte of it may have been taken. An answer with one of ``limited`` counts only with
    x-envoy-ratelimited; without ``rate_limited``, no answer with that field does. ``repeatable``: the operator allows
    any method. ``elsewhere``: prefer an endpoint that has not failed this request. ``base`` is the backoff's, in
    seconds.
    """

    retries: int = 0
    statuses: frozenset[int] = frozenset()
    reasons: frozenset[Reason] = frozenset()
    unsent: frozenset[Reason] = frozenset()
    limited: frozenset[int] = frozenset()
    rate_limited: bool = False
    repeatable: bool = False
    elsewhere: bool = True
    base: float = BASE_SECONDS

    def wants_after_answer(self, request: Request, head: Response) -> bool:
        """Return whether an answer with one of ``statuses`` is worth a retry, and the request may be sent again."""
        if headers.MESH_ONLY in head.known and _field(head.fields, _ENVOY_RATELIMITED) is not None:
            wanted = self.rate_limited
        else:
            wanted = head.status not in self.limited
        return wanted and self._may_repeat(request)

    def wants_after_failure(self, reason: Reason, request: Request, *, wrote: bool) -> bool:
        """Return whether a failed attempt is worth a retry, and the request may be sent again; ``wrote``: a byte of it
        may have been taken."""
        if not wrote:
            return reason in self.reasons or reason in self.unsent
        return reason in self.reasons and self._may_repeat(request)

    def _may_repeat(self, request: Request) -> bool:
        return request.method in IDEMPOTENT or self.repeatable or bool(_field(request.fields, _IDEMPOTENCY_KEY))


def replaces_stale(reason: Reason, request: Request, *, reused: bool, answered: bool, wrote: bool) -> bool:
    """Return whether a connection that fails was stale, and another one takes its place: it was ``reused`` and closed
    before it ``answered``; no byte may have been taken, or the method is idempotent and there is no body. It is no
    retry: pools make such connections, not the upstream."""
    if reason is not Reason.UPSTREAM_CLOSED or not reused or answered:
        return False
    return not wrote or (request.method in IDEMPOTENT and not request.body)


def backoff(number: int, base: float, chance: float) -> float:
    """Return the seconds to wait before retry ``number`` (from 1): Envoy's full jitter. ``chance`` is of [0, 1)."""
    return chance * min(((1 << number) - 1) * base, MOST_BASES * base)


def retry_after(head: Response, now: float) -> float:
    """Return the seconds that an answer's Retry-After asks for; 0.0 without one that can be read. ``now`` is on the
    wall clock."""
    value = _field(head.fields, _RETRY_AFTER)
    if not value:
        return 0.0
    if value.isdigit():
        return float(value[:9])
    from datetime import UTC
    from email.utils import parsedate_to_datetime  # few answers have a date here, and it takes half a megabyte

    try:
        when = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(0.0, (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp() - now)


def compile_retry(spec: HTTPRetry | None, *, repeatable: bool = False) -> RetryPolicy:
    """Return the policy of a route with these ``retries``; None: the default. ``repeatable``: the route is one of
    ``nonIdempotentRoutes``. Names that are not known have no effect; ``retry_on_names`` returns them. Raises ValueError
    for a backoff that is no time."""
    if spec is None:
        return msgspec.structs.replace(DEFAULT, repeatable=True) if repeatable else DEFAULT
    statuses: set[int] = set()
    reasons: set[Reason] = set()
    unsent: set[Reason] = set()
    names = retry_on_names(spec.retry_on or DEFAULT_RETRY_ON)
    for name in names:
        if name == "5xx":
            statuses |= _SERVER_ERRORS
            reasons |= NO_ANSWER
        elif name == "gateway-error":
            statuses |= _GATEWAY_ERRORS
            reasons |= NO_ANSWER
        elif name == "reset":
            reasons |= NO_ANSWER
        elif name == "reset-before-request":
            unsent |= NO_ANSWER
        elif name == "connect-failure":
            unsent |= NOT_CONNECTED
        elif name == "retriable-4xx":
            statuses.add(409)
        elif is_status(name):
            statuses.add(int(name))
    rate_limited = "envoy-ratelimited" in names
    return RetryPolicy(
        spec.attempts,
        frozenset(statuses) | (_RATE_LIMITED if rate_limited else frozenset()),
        frozenset(reasons),
        frozenset(unsent),
        _RATE_LIMITED - statuses if rate_limited else frozenset(),
        rate_limited,
        repeatable,
        spec.retry_ignore_previous_hosts is not False,
        positive_duration(spec.backoff) if spec.backoff else BASE_SECONDS,
    )


def retry_on_names(retry_on: str) -> list[str]:
    """Return the conditions of a ``retryOn``."""
    return [name for name in (each.strip() for each in retry_on.split(",")) if name]


def is_status(name: str) -> bool:
    """Return whether a condition of ``retryOn`` is the number of a status."""
    return len(name) == 3 and name.isascii() and name.isdigit() and "100" <= name <= "599"


def _field(fields: list[headers.Field], wanted: bytes) -> bytes | None:
    for name, value in fields:
        if len(name) == len(wanted) and name.lower() == wanted:
            return value
    return None


REPLACE_STALE: Final = RetryPolicy()
"""No retry; only a stale connection is replaced."""
DEFAULT: Final = RetryPolicy(DEFAULT_RETRIES, unsent=NO_ANSWER)
"""The policy of an outbound route without ``retries``: only what no app may have seen is sent again."""
