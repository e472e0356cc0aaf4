"""Which outcomes of an attempt are worth another one: each condition of ``retryOn``, by method and by what had happened
to the request; and how long to wait before."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from sidecar.errors import Reason
from sidecar.http.headers import MESH_ONLY, Field
from sidecar.http.message import EMPTY, UNKNOWN, Body, Request, Response
from sidecar.policy.retry import (
    DEFAULT,
    IDEMPOTENT,
    REPLACE_STALE,
    RETRY_ON,
    RetryPolicy,
    backoff,
    compile_retry,
    replaces_stale,
    retry_after,
)
from sidecar.resources.virtual_service import HTTPRetry

NOT_IDEMPOTENT = (b"POST", b"PATCH", b"BREW", b"get")
# What can become of an attempt: a failure, before or after a byte of the request may have been taken, or an answer.
UNSENT = ("refused", "connect timeout", "no TLS", "closed unsent", "silent unsent")
SENT = ("closed", "silent", "no HTTP", "refused us")
FAILURES = {
    "refused": (Reason.CONNECT_FAILED, False),
    "connect timeout": (Reason.CONNECT_TIMEOUT, False),
    "no TLS": (Reason.UPSTREAM_HANDSHAKE, False),
    "closed unsent": (Reason.UPSTREAM_CLOSED, False),
    "silent unsent": (Reason.UPSTREAM_TIMEOUT, False),
    "closed": (Reason.UPSTREAM_CLOSED, True),
    "silent": (Reason.UPSTREAM_TIMEOUT, True),
    "no HTTP": (Reason.UPSTREAM_PROTOCOL, True),
    "refused us": (Reason.UPSTREAM_HANDSHAKE, True),
}
STATUSES = (200, 302, 404, 409, 418, 429, 500, 501, 502, 503, 504, 599)
LIMITED = {f"{status} limited": status for status in (429, 503)}
NEVER = ("pool full", "pool timeout", "client gone", "policy")
OTHERS = {
    "pool full": Reason.POOL_FULL,
    "pool timeout": Reason.POOL_TIMEOUT,
    "client gone": Reason.CLIENT_CLOSED,
    "policy": Reason.POLICY_CHANGED,
}
ALL_5XX = (500, 501, 502, 503, 504, 599)
NOT_CONNECTED = ("refused", "connect timeout", "no TLS")
# By condition: the outcomes after which an idempotent request is sent again.
WANTED: dict[str, tuple[object, ...]] = {
    "5xx": (*UNSENT, *SENT, *ALL_5XX),
    "gateway-error": (*UNSENT, *SENT, 502, 503, 504),
    "reset": (*UNSENT, *SENT),
    "reset-before-request": UNSENT,
    "connect-failure": NOT_CONNECTED,
    "retriable-4xx": (409,),
    "envoy-ratelimited": tuple(LIMITED),
    "retriable-status-codes": (),
    "retriable-headers": (),
    "refused-stream": (),
    "cancelled": (),
    "deadline-exceeded": (),
    "internal": (),
    "resource-exhausted": (),
    "unavailable": (),
    "418": (418,),
    "5xx,envoy-ratelimited": (*UNSENT, *SENT, *ALL_5XX, *LIMITED),
    " connect-failure , 503 ,": (*NOT_CONNECTED, 503),
    "": UNSENT,  # Istio's default list
    "a-name-of-the-future": (),
}


def request(method: bytes, *fields: Field, body: Body = EMPTY) -> Request:
    return Request(method, b"/", b"app", list(fields), {}, body)


def response(status: int, *fields: Field) -> Response:
    return Response(status, list(fields), {MESH_ONLY: b""} if fields else {}, EMPTY)


def outcomes(policy: RetryPolicy, asked: Request) -> set[object]:
    """The outcomes after which this request is sent again."""
    again: set[object] = set()
    for name, (reason, wrote) in FAILURES.items():
        if policy.wants_after_failure(reason, asked, wrote=wrote):
            again.add(name)
    for name, reason in OTHERS.items():
        if any(policy.wants_after_failure(reason, asked, wrote=wrote) for wrote in (False, True)):
            again.add(name)
    for status in STATUSES:
        if status in policy.statuses and policy.wants_after_answer(asked, response(status)):
            again.add(status)
    for name, status in LIMITED.items():
        limited = response(status, (b"X-Envoy-RateLimited", b"true"))
        if status in policy.statuses and policy.wants_after_answer(asked, limited):
            again.add(name)
    return again


def test_every_condition_is_in_the_table() -> None:
    assert set(WANTED) >= RETRY_ON


@pytest.mark.parametrize("retry_on", WANTED)
def test_what_is_sent_again(retry_on: str) -> None:
    policy = compile_retry(HTTPRetry(attempts=2, retry_on=retry_on))
    assert policy.retries == 2
    wanted = set(WANTED[retry_on])
    for method in IDEMPOTENT:
        assert outcomes(policy, request(method)) == wanted
    for method in NOT_IDEMPOTENT:
        assert outcomes(policy, request(method)) == wanted & set(UNSENT)
    assert outcomes(policy, request(b"POST", (b"Idempotency-Key", b'"a"'))) == wanted
    assert outcomes(policy, request(b"POST", (b"idempotency-key", b""))) == wanted & set(UNSENT)
    named = compile_retry(HTTPRetry(attempts=2, retry_on=retry_on), repeatable=True)
    for method in NOT_IDEMPOTENT:
        assert outcomes(named, request(method)) == wanted


def test_the_default_sends_again_what_no_app_has_seen() -> None:
    assert (compile_retry(None), DEFAULT.retries) == (DEFAULT, 2)
    for method in (*IDEMPOTENT, *NOT_IDEMPOTENT):
        assert outcomes(DEFAULT, request(method)) == set(UNSENT)
    assert compile_retry(None, repeatable=True).repeatable


def test_no_attempts_are_no_retries() -> None:
    assert compile_retry(HTTPRetry()).retries == 0
    assert REPLACE_STALE.retries == 0


def test_the_other_fields() -> None:
    assert compile_retry(HTTPRetry(attempts=1)).elsewhere
    assert not compile_retry(HTTPRetry(attempts=1, retry_ignore_previous_hosts=False)).elsewhere
    assert compile_retry(HTTPRetry(attempts=1, backoff="100ms")).base == 0.1
    with pytest.raises(ValueError, match="soon"):
        compile_retry(HTTPRetry(attempts=1, backoff="soon"))


def test_a_stale_connection_is_replaced_if_the_request_is_safe() -> None:
    def replaced(
        method: bytes, *, body: Body = EMPTY, reused: bool = True, answered: bool = False, wrote: bool
    ) -> bool:
        asked = request(method, body=body)
        return replaces_stale(Reason.UPSTREAM_CLOSED, asked, reused=reused, answered=answered, wrote=wrote)

    assert replaced(b"GET", wrote=True) and replaced(b"POST", wrote=False)
    assert replaced(b"PUT", body=UNKNOWN, wrote=False)
    assert not replaced(b"POST", wrote=True) and not replaced(b"PUT", body=UNKNOWN, wrote=True)
    assert not replaced(b"GET", wrote=True, answered=True) and not replaced(b"GET", wrote=False, reused=False)
    for reason in set(Reason) - {Reason.UPSTREAM_CLOSED}:
        assert not replaces_stale(reason, request(b"GET"), reused=True, answered=False, wrote=False)


def spread(number: int, base: float = 0.025) -> Iterable[float]:
    return [round(backoff(number, base, chance), 9) for chance in (0.0, 0.5, 1.0)]


def test_backoff_is_full_jitter_up_to_ten_bases() -> None:
    assert [list(spread(number)) for number in (1, 2, 3, 4, 50)] == [
        [0.0, 0.0125, 0.025],
        [0.0, 0.0375, 0.075],
        [0.0, 0.0875, 0.175],
        [0.0, 0.125, 0.25],
        [0.0, 0.125, 0.25],
    ]
    assert list(spread(9, 1.0))[-1] == 10.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"3", 3.0),
        (b"0", 0.0),
        (b"99999999999999999999", 999_999_999.0),
        (b"Tue, 14 Nov 2023 22:13:25 GMT", 5.0),
        (b"Tue, 14 Nov 2023 22:13:25 -0000", 5.0),
        (b"Tue, 14 Nov 2023 22:13:15 GMT", 0.0),
        (b"soon", 0.0),
        (b"-3", 0.0),
        (b"\xb2", 0.0),
        (b"Tue, 14 Nov 2023 22:13:99999999999 GMT", 0.0),
        (b"Tue, 14 Nov 99999999999 22:13:25 GMT", 0.0),
        (b"Mon, +2359 Jan : 23:59:60 99999999999", 0.0),
        (b"", 0.0),
    ],
)
def test_retry_after(value: bytes, seconds: float) -> None:
    """By seconds or by date (RFC 9110 section 10.2.3); what can't be read asks for nothing."""
    assert retry_after(response(503, (b"Retry-After", value)), 1_700_000_000.0) == seconds
    assert retry_after(response(503), 0.0) == 0.0
