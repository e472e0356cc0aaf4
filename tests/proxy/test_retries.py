"""Retries, their waits and their deadlines over real sockets: what the client gets, what each app got, and what the
record says."""

from __future__ import annotations

import json

import pytest
import trio

from sidecar.errors import Reason
from sidecar.policy.retry import DEFAULT, REPLACE_STALE, RetryPolicy, compile_retry
from sidecar.policy.retry_budget import ConcurrencyBudget
from sidecar.proxy.attempt import KEPT_BYTES
from sidecar.resources.virtual_service import HTTPRetry
from tests.proxy.routed import OK, App, Routed, field, hangs, leaves, says, status, until

COUNT, EXPECTED = b"x-envoy-attempt-count", b"x-envoy-expected-rq-timeout-ms"
KEY = b'Idempotency-Key: "8e03978e"'
SAFE, UNSAFE = (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"), (b"POST", b"PATCH")


def policy(attempts: int, retry_on: str = "5xx", *, repeatable: bool = False, **fields: object) -> RetryPolicy:
    """The policy of a document, whose backoff takes no time that matters."""
    terms = {"backoff": "1ms", **fields}
    return compile_retry(HTTPRetry(attempts, retry_on=retry_on, **terms), repeatable=repeatable)  # type: ignore[arg-type]


async def test_an_answer_that_is_retried_is_not_seen_by_the_client() -> None:
    app = App(says(status(503)), says(status(500)), says(OK))
    async with Routed([app], policy(3)).running() as proxy:
        assert (await proxy.ask())[0] == 200
    assert [field(head, COUNT) for head in app.heads] == [b"", b"2", b"3"]
    (record,) = proxy.records
    assert (record.flags, [each.status for each in record.all_tries]) == ("-", [503, 500, 200])
    counters = proxy.context.telemetry.counters
    assert (counters.retries, counters.retries_succeeded, counters.retries_exhausted) == (2, 1, 0)


async def test_the_last_answer_is_passed_on_with_its_flag() -> None:
    app = App(says(status(503, b"X-Try: 1\r\n")), says(status(503, b"X-Try: 2\r\n")))
    async with Routed([app], policy(1)).running() as proxy:
        code, reply = await proxy.ask()
    assert (code, b"X-Try: 2" in reply, len(app.heads)) == (503, True, 2)
    (record,) = proxy.records
    assert (record.flags, record.reason) == ("URX", None)
    assert proxy.context.telemetry.counters.retries_exhausted == 1


@pytest.mark.parametrize("method", [*SAFE, *UNSAFE])
async def test_only_what_may_be_repeated_is_sent_again_after_an_answer(method: bytes) -> None:
    for fields, repeatable in (((), False), ((KEY,), False), ((), True)):
        app = App(says(status(503)), says(OK))
        body = b"" if method in (b"GET", b"HEAD", b"DELETE") else b"body"
        async with Routed([app], policy(1, repeatable=repeatable)).running() as proxy:
            code, _ = await proxy.ask(method, *fields, body=body)
        again = method in SAFE or bool(fields) or repeatable
        assert (code, len(app.heads)) == ((200, 2) if again else (503, 1))


@pytest.mark.parametrize(("size", "times"), [(KEPT_BYTES, 2), (KEPT_BYTES + 60_000, 1)])
async def test_only_a_body_that_is_kept_is_sent_again(size: int, times: int) -> None:
    app = App(says(status(503)))
    async with Routed([app], policy(1)).running() as proxy:
        assert (await proxy.ask(b"PUT", body=b"x" * size))[0] == 503
    assert [field(head, b"content-length") for head in app.heads] == [b"%d" % size] * times


# -- endpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_dead_endpoint_costs_the_first_caller_a_moment_and_no_failure(method: bytes) -> None:
    dead, alive = App(down=True), App()
    async with Routed([dead, alive], DEFAULT).running() as proxy:
        assert [(await proxy.ask(method))[0] for _ in range(40)] == [200] * 40
    attempts = [record.attempts for record in proxy.records]
    assert sum(attempts) <= 41 and max(attempts) <= 2
    assert all(record.flags == "-" for record in proxy.records)


async def test_the_next_attempt_goes_to_another_endpoint() -> None:
    well, ill = App(), App(says(status(503)))
    async with Routed([well, ill], policy(1)).running() as proxy:
        assert {(await proxy.ask())[0] for _ in range(40)} == {200}
    assert len(ill.heads) > 5


async def test_without_regard_of_previous_hosts_it_may_be_the_same() -> None:
    well, ill = App(), App(says(status(503)))
    async with Routed([well, ill], policy(1, retry_ignore_previous_hosts=False)).running() as proxy:
        assert {(await proxy.ask())[0] for _ in range(60)} == {200, 503}


async def test_when_every_endpoint_was_tried_any_is_tried_again() -> None:
    apps = [App(says(status(503))), App(says(status(503)))]
    async with Routed(apps, policy(3)).running() as proxy:
        assert (await proxy.ask())[0] == 503
    assert sorted(len(app.heads) for app in apps) in ([1, 3], [2, 2])


async def test_when_all_are_down_the_flags_say_what_failed_and_that_it_was_retried() -> None:
    async with Routed([App(down=True), App(down=True)], DEFAULT).running() as proxy:
        code, reply = await proxy.ask(b"POST", body=b"x")
    problem = json.loads(reply.partition(b"\r\n\r\n")[2])
    assert (code, problem["flag"], problem["reason"]) == (503, "UF,URX", "connect_failed")
    (record,) = proxy.records
    assert (record.flags, [each.reason for each in record.all_tries]) == ("UF,URX", [Reason.CONNECT_FAILED] * 3)


async def test_a_route_without_retries_dials_once() -> None:
    dead = App(down=True)
    async with Routed([dead, App(down=True)], REPLACE_STALE).running() as proxy:
        code, reply = await proxy.ask()
    assert (code, json.loads(reply.partition(b"\r\n\r\n")[2])["flag"]) == (503, "UF")
    assert proxy.records[0].attempts == 1


@pytest.mark.parametrize(("retry_on", "method", "code"), [
    ("reset", b"GET", 200), ("reset", b"POST", 503), ("5xx", b"GET", 200), ("gateway-error", b"GET", 200),
    ("reset-before-request", b"GET", 503), ("connect-failure", b"GET", 503), ("", b"GET", 503), ("409", b"GET", 503),
])  # fmt: skip
async def test_a_reset_in_place_of_an_answer(retry_on: str, method: bytes, code: int) -> None:
    app = App(leaves, says(OK))
    async with Routed([app], policy(1, retry_on)).running() as proxy:
        assert (await proxy.ask(method))[0] == code
    assert len(app.heads) == (2 if code == 200 else 1)


async def test_a_rate_limited_answer_is_retried_only_if_the_policy_names_that() -> None:
    for retry_on, limited, code in (
        ("429", False, 200),
        ("429", True, 429),
        ("envoy-ratelimited", True, 200),
        ("envoy-ratelimited", False, 429),
    ):
        app = App(says(status(429, b"x-envoy-ratelimited: true\r\n" if limited else b"")), says(OK))
        async with Routed([app], policy(1, retry_on)).running() as proxy:
            assert (await proxy.ask())[0] == code


# -- waits -----------------------------------------------------------------------------------------------------------


async def test_retry_after_is_followed() -> None:
    app = App(says(status(503, b"Retry-After: 1\r\n")), says(OK))
    async with Routed([app], policy(1)).running() as proxy:
        assert (await proxy.ask())[0] == 200
    first, second = proxy.records[0].all_tries
    assert second.began - first.ended >= 1.0


@pytest.mark.parametrize(("seconds", "total"), [(11, 0.0), (5, 2.0)])
async def test_beyond_its_bound_the_answer_is_passed_on(seconds: int, total: float) -> None:
    app = App(says(status(503, b"Retry-After: %d\r\n" % seconds)), says(OK))
    async with Routed([app], policy(1), total=total).running() as proxy:
        code, reply = await proxy.ask()
    assert (code, b"Retry-After: %d" % seconds in reply, len(app.heads)) == (503, True, 1)
    assert (proxy.records[0].flags, proxy.context.telemetry.counters.retries) == ("-", 0)


async def test_a_client_that_leaves_ends_the_wait() -> None:
    app = App(says(status(503, b"Retry-After: 9\r\n")), says(OK))
    async with Routed([app], policy(1)).running() as proxy:
        stream = await trio.open_tcp_stream("127.0.0.1", proxy.port)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        await until(lambda: proxy.cluster.load.retries == 1)
        await stream.aclose()
        await until(lambda: bool(proxy.records))
        assert (proxy.cluster.load.requests, proxy.cluster.load.retries) == (0, 0)
    (record,) = proxy.records
    assert (record.reason, record.attempts, len(app.heads)) == (Reason.CLIENT_CLOSED, 1, 1)
    assert [each.status for each in record.all_tries] == [503]


# -- deadlines -------------------------------------------------------------------------------------------------------


async def test_the_timeout_is_for_all_attempts_and_waits() -> None:
    app = App(hangs)
    async with Routed([app], policy(50), total=0.6, per_try=0.1).running() as proxy:
        code, reply = await proxy.ask()
    problem = json.loads(reply.partition(b"\r\n\r\n")[2])
    assert (code, problem["flag"], problem["reason"]) == (504, "UT", "upstream_timeout")
    assert 2 <= len(app.heads) <= 7
    left = [int(field(head, EXPECTED)) for head in app.heads]
    assert left[0] == 100 and left == sorted(left, reverse=True)


async def test_a_wait_is_a_part_of_the_timeout() -> None:
    app = App(says(status(503, b"Retry-After: 1\r\n")), hangs)
    async with Routed([app], policy(1), total=1.3).running() as proxy:
        assert (await proxy.ask())[0] == 504
    assert proxy.records[0].reason is Reason.UPSTREAM_TIMEOUT
    assert [int(field(head, EXPECTED)) > 1000 for head in app.heads] == [True, False]


async def test_the_timeout_alone_is_named() -> None:
    async with Routed([App(hangs)], REPLACE_STALE, total=0.2).running() as proxy:
        code, reply = await proxy.ask(b"POST", body=b"x")
    assert (code, json.loads(reply.partition(b"\r\n\r\n")[2])["detail"]) == (
        504, "the route's timeout of 0.2 s has passed",
    )  # fmt: skip


async def test_attempts_that_time_out_are_exhausted() -> None:
    app = App(hangs)
    async with Routed([app], policy(1), per_try=0.1).running() as proxy:
        assert (await proxy.ask())[0] == 504
    assert (proxy.records[0].flags, len(app.heads)) == ("UT,URX", 2)


async def test_without_limits_no_time_is_passed_on() -> None:
    app = App()
    async with Routed([app]).running() as proxy:
        await proxy.ask()
    assert field(app.heads[0], EXPECTED) == b""


async def test_the_timeout_ends_with_a_101() -> None:
    async def echo(stream: trio.SocketStream, head: bytes) -> bool:
        await stream.send_all(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        async for data in stream:
            await stream.send_all(data)
        return False

    async with Routed([App(echo)], total=30.0).running() as proxy:
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
            with trio.fail_after(5):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
            assert len(proxy.context.deadlines) == 0


# -- the budget ------------------------------------------------------------------------------------------------------


async def test_a_budget_that_is_used_up() -> None:
    proxy = Routed([App(leaves, says(status(503)))], policy(3))
    proxy.cluster.set_budget(ConcurrencyBudget(0, 0))
    async with proxy.running():
        failed, reply = await proxy.ask()
        answered, _ = await proxy.ask()
    problem = json.loads(reply.partition(b"\r\n\r\n")[2])
    assert (failed, problem["flag"], problem["reason"]) == (503, "URX", "retry_budget")
    assert "upstream_closed" in problem["detail"]
    assert answered == 503
    assert [(each.flags, each.reason) for each in proxy.records] == [("URX", Reason.RETRY_BUDGET), ("URX", None)]
    counters = proxy.context.telemetry.counters
    assert (counters.retries_over_budget, counters.retries) == (2, 0)


async def test_a_stale_connection_is_replaced_beside_the_budget() -> None:
    app = App(says(OK), leaves, says(OK))
    proxy = Routed([app], REPLACE_STALE)
    proxy.cluster.set_budget(ConcurrencyBudget(0, 0))
    async with proxy.running():
        assert [(await proxy.ask())[0] for _ in range(2)] == [200, 200]
    assert [field(head, COUNT) for head in app.heads] == [b"", b"", b""]
    assert [record.attempts for record in proxy.records] == [1, 2]
