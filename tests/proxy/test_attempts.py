"""Attempts that end with the head of an answer in hand: which are followed by another one, with what of the request,
and what the record keeps. Both sides are streams of messages in memory.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sidecar.errors import ProxyError, Reason
from sidecar.http.message import EMPTY, UNKNOWN, Body
from sidecar.policy.retry import DEFAULT, RetryPolicy
from sidecar.proxy.attempt import KEPT_BYTES
from tests.proxy.messages import FIELDS, MemoryClient, MemoryUpstream, Run, answer, question

UNAVAILABLE = RetryPolicy(2, statuses=frozenset({503}), base=0.0)
SECOND = (*FIELDS, (b"x-envoy-attempt-count", b"2"))
CLOSED = ProxyError(Reason.UPSTREAM_CLOSED, "closed")


async def test_a_503_is_the_reply_by_default() -> None:
    run = Run(MemoryClient(), question(), MemoryUpstream(answer(503, body=EMPTY)), MemoryUpstream(answer(body=EMPTY)))
    await run.go()
    assert run.client.heard == [("head", 503, (), b"", True)]
    assert (run.record.attempts, run.record.status, run.record.tries) == (1, 503, ())
    run.check_closed()


async def test_a_503_that_is_tried_again_is_not_seen_by_the_client() -> None:
    busy, well = MemoryUpstream(answer(503), b"busy", b""), MemoryUpstream(answer(body=EMPTY))
    run = Run(MemoryClient(), question(), busy, well)
    run.retry = UNAVAILABLE
    await run.go()
    assert run.client.heard == [("head", 200, (), b"", True)]
    assert busy.heard == [("begin", b"GET", b"/x", tuple(FIELDS), b"", True)]
    assert well.heard == [("begin", b"GET", b"/x", SECOND, b"", True)]
    assert run.origin.opened == [False, False]
    run.check_closed()


async def test_the_last_attempt_is_the_reply() -> None:
    run = Run(MemoryClient(), question(), *[MemoryUpstream(answer(503, body=EMPTY)) for _ in range(4)])
    run.retry = UNAVAILABLE
    await run.go()
    assert run.client.heard == [("head", 503, (), b"", True)]
    assert (run.record.attempts, run.record.status) == (3, 503)
    run.check_closed()


@pytest.mark.parametrize(("status", "method"), [(500, b"GET"), (503, b"PATCH")])
async def test_another_status_or_method_is_not_tried_again(status: int, method: bytes) -> None:
    run = Run(MemoryClient(), question(method), MemoryUpstream(answer(status, body=EMPTY)))
    run.retry = UNAVAILABLE
    await run.go()
    assert run.client.heard == [("head", status, (), b"", True)]


async def test_a_body_goes_up_again() -> None:
    client = MemoryClient(b"b", b"c", b"", first=b"a", body=True)
    busy, well = MemoryUpstream(answer(503, body=EMPTY)), MemoryUpstream(answer(body=EMPTY))
    run = Run(client, question(b"PUT", body=UNKNOWN), busy, well)
    run.retry = UNAVAILABLE
    await run.go()
    assert well.heard == [("begin", b"PUT", b"/x", SECOND, b"abc", True)]
    assert client.heard == [("head", 200, (), b"", True)]
    run.check_closed()


async def test_a_body_that_still_comes_goes_on_at_the_next_attempt() -> None:
    client = MemoryClient(first=b"a", body=True)
    busy, well = MemoryUpstream(), MemoryUpstream()
    run = Run(client, question(b"PUT", body=UNKNOWN), busy, well)
    run.retry = UNAVAILABLE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.go)
        client.said.say(b"b")
        await wait_all_tasks_blocked()
        busy.said.say(answer(503, body=EMPTY))
        await wait_all_tasks_blocked()
        assert well.heard == [("begin", b"PUT", b"/x", SECOND, b"ab", False)]
        client.said.say(b"c")
        client.said.say(b"")
        await well.finished.wait()
        well.said.say(answer(body=EMPTY))
    assert busy.heard == [("begin", b"PUT", b"/x", tuple(FIELDS), b"a", False), ("body", b"b")]
    assert well.heard[1:] == [("body", b"c"), ("end", ())]
    assert client.heard == [("head", 200, (), b"", True)]
    run.check_closed()


@pytest.mark.parametrize(("size", "again"), [(KEPT_BYTES, True), (KEPT_BYTES + 1, False)])
async def test_only_a_body_that_is_kept_goes_up_again(size: int, again: bool) -> None:
    client = MemoryClient(b"x" * (size - 1), b"", first=b"x", body=True)
    busy, well = MemoryUpstream(answer(503, body=EMPTY)), MemoryUpstream(answer(body=EMPTY))
    run = Run(client, question(b"PUT", body=Body(size)), busy, well)
    run.retry = UNAVAILABLE
    await run.go()
    assert run.record.attempts == 1 + again
    assert run.record.status == (200 if again else 503)


async def test_a_failure_for_a_named_reason_is_tried_again() -> None:
    silent = MemoryUpstream(ProxyError(Reason.UPSTREAM_TIMEOUT, "silent"))
    run = Run(MemoryClient(), question(), silent, MemoryUpstream(answer(body=EMPTY)))
    run.retry = RetryPolicy(1, reasons=frozenset({Reason.UPSTREAM_TIMEOUT}), base=0.0)
    await run.go()
    assert run.client.heard == [("head", 200, (), b"", True)]
    run.check_closed()


async def test_a_destination_that_opens_nothing_is_tried_again_if_that_is_a_reason() -> None:
    run = Run(MemoryClient(), question(b"POST"), MemoryUpstream(answer(body=EMPTY)))
    run.origin.refusals.append(ProxyError(Reason.CONNECT_FAILED, "refused"))
    run.retry = RetryPolicy(1, reasons=frozenset({Reason.CONNECT_FAILED}), base=0.0)
    await run.go()
    first, last = run.record.all_tries
    assert (first.reason, first.upstream, last.reason) == (Reason.CONNECT_FAILED, "memory", None)


@pytest.mark.parametrize("reason", [Reason.DNS_FAILED, Reason.BLACK_HOLE])
@pytest.mark.parametrize(("endpoints", "attempts"), [(1, 1), (2, 2), (3, 3), (9, 3)])
async def test_what_an_endpoint_can_never_do_is_tried_at_others_alone(
    reason: Reason, endpoints: int, attempts: int
) -> None:
    run = Run(MemoryClient(), question())
    run.origin.endpoints = [str(number) for number in range(endpoints)]
    run.origin.refusals = [ProxyError(reason, "no")] * 9
    run.retry = DEFAULT
    await run.fails(reason)
    assert (run.record.attempts, len(set(run.origin.picked))) == (attempts, attempts)


async def test_connecting_takes_no_longer_than_it_may_in_all_attempts() -> None:
    """An attempt that has used up all the time is the last, and flags do not call it retried."""
    run = Run(MemoryClient(), question())
    run.origin.patience = 0.0
    run.origin.refusals = [ProxyError(Reason.CONNECT_TIMEOUT, "silent")] * 9
    run.retry = DEFAULT
    await run.fails(Reason.CONNECT_TIMEOUT)
    assert (run.record.attempts, run.record.exhausted) == (1, "")


async def test_a_reply_that_has_begun_is_not_tried_again() -> None:
    half = MemoryUpstream(answer(), b"half", CLOSED, reused=True)
    run = Run(MemoryClient(), question(), half, MemoryUpstream(answer(body=EMPTY)))
    run.retry = RetryPolicy(1, reasons=frozenset({Reason.UPSTREAM_CLOSED}), base=0.0)
    await run.fails(Reason.UPSTREAM_CLOSED)
    assert run.record.attempts == 1


async def test_every_attempt_is_recorded() -> None:
    stale = MemoryUpstream(CLOSED, reused=True)
    busy, well = MemoryUpstream(answer(503, body=EMPTY)), MemoryUpstream(answer(body=EMPTY))
    run = Run(MemoryClient(), question(), stale, busy, well)
    run.retry = UNAVAILABLE
    await run.go()
    tries = run.record.all_tries
    assert [(each.reason, each.status, each.reused) for each in tries] == [
        (Reason.UPSTREAM_CLOSED, 0, True),
        (None, 503, False),
        (None, 200, False),
    ]
    assert tries[0].first_byte == 0.0 < tries[1].began <= tries[1].first_byte <= tries[1].ended
    assert 0.0 < tries[0].began <= tries[0].ended <= tries[1].began <= tries[2].began
