"""The time that an exchange and each of its attempts may take, over streams in memory and a sweeper that is called."""

from __future__ import annotations

from time import monotonic

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sidecar.errors import Reason
from sidecar.http.message import EMPTY, UNKNOWN
from sidecar.policy.retry import RetryPolicy
from sidecar.proxy.deadlines import Deadlines, Limits
from tests.proxy.messages import FIELDS, MemoryClient, MemoryUpstream, Run, answer, question

NEVER = float("inf")
AGAIN = RetryPolicy(1, reasons=frozenset({Reason.UPSTREAM_TIMEOUT}), base=0.0)


def in_seconds(seconds: float) -> float:
    return monotonic() + seconds


async def test_an_attempt_that_takes_too_long_is_followed_by_another_one() -> None:
    deadlines = Deadlines()
    silent = MemoryUpstream()
    run = Run(MemoryClient(), question(), silent, MemoryUpstream(answer(body=EMPTY)))
    run.retry, run.limits = AGAIN, Limits(deadlines, total=60, per_try=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.go)
        await wait_all_tasks_blocked()
        deadlines.sweep(in_seconds(0.5))
        assert silent.aborted is None
        deadlines.sweep(in_seconds(2))
    assert silent.aborted is Reason.UPSTREAM_TIMEOUT
    assert run.client.heard == [("head", 200, (), b"", True)]
    assert run.record.attempts == 2
    assert not deadlines
    run.check_closed()


async def test_the_total_is_for_all_attempts() -> None:
    deadlines = Deadlines()
    run = Run(MemoryClient(), question(), MemoryUpstream(), MemoryUpstream(answer(body=EMPTY)))
    run.retry, run.limits = AGAIN, Limits(deadlines, total=1, per_try=60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.fails, Reason.UPSTREAM_TIMEOUT)
        await wait_all_tasks_blocked()
        deadlines.sweep(in_seconds(2))
    assert run.record.attempts == 1
    assert run.client.aborted is None
    assert not deadlines


async def test_reads_do_not_move_the_total_and_the_try_ends_with_the_head() -> None:
    """An answer that goes on and on, a piece at a time, is cut in its midst; its client, too, is not waited for."""
    deadlines = Deadlines()
    upstream = MemoryUpstream(answer(), b"one")
    run = Run(MemoryClient(), question(), upstream)
    run.limits = Limits(deadlines, total=10, per_try=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.fails, Reason.UPSTREAM_TIMEOUT)
        await wait_all_tasks_blocked()
        deadlines.sweep(in_seconds(5))
        upstream.said.say(b"two")
        await wait_all_tasks_blocked()
        assert upstream.aborted is None
        assert run.client.heard[-1:] == [("body", b"two")]
        deadlines.sweep(in_seconds(11))
    assert run.client.aborted is Reason.UPSTREAM_TIMEOUT
    assert not deadlines


@pytest.mark.parametrize("limit", ["total", "per_try"])
async def test_a_connection_that_does_not_come_is_part_of_the_time(limit: str) -> None:
    deadlines = Deadlines()
    run = Run(MemoryClient(), question())
    run.origin.opens = trio.Event()
    run.limits = Limits(deadlines, total=1.0) if limit == "total" else Limits(deadlines, per_try=1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.fails, Reason.UPSTREAM_TIMEOUT)
        await wait_all_tasks_blocked()
        deadlines.sweep(in_seconds(2))
    assert not deadlines


@pytest.mark.parametrize("limit", ["total", "per_try"])
async def test_the_time_begins_when_the_body_has_ended(limit: str) -> None:
    """An upload that takes longer than the limits is not cut; the app has its time once it has all of the request."""
    deadlines = Deadlines()
    client, upstream = MemoryClient(first=b"a", body=True), MemoryUpstream()
    run = Run(client, question(b"PUT", body=UNKNOWN), upstream)
    run.limits = Limits(deadlines, total=1.0) if limit == "total" else Limits(deadlines, per_try=1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.fails, Reason.UPSTREAM_TIMEOUT)
        await wait_all_tasks_blocked()
        deadlines.sweep(in_seconds(60))
        assert upstream.aborted is None
        client.said.say(b"")
        await wait_all_tasks_blocked()
        deadlines.sweep(in_seconds(0.5))
        assert upstream.aborted is None
        deadlines.sweep(in_seconds(2))
    assert not deadlines


async def test_a_body_that_ends_behind_the_answer_begins_no_time_for_the_attempt() -> None:
    deadlines = Deadlines()
    client, upstream = MemoryClient(first=b"a", body=True), MemoryUpstream(answer(), b"early")
    run = Run(client, question(b"PUT", body=UNKNOWN), upstream)
    run.limits = Limits(deadlines, total=60, per_try=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.go)
        await wait_all_tasks_blocked()
        client.said.say(b"")
        await wait_all_tasks_blocked()
        deadlines.sweep(in_seconds(2))
        assert upstream.aborted is None
        upstream.said.say(b"")
    assert not deadlines


async def test_what_is_left_is_passed_on() -> None:
    """Each attempt gets the smaller of its own time and what is left of all; without a limit there is no such field."""
    for total, per_try, most in ((60.0, NEVER, 60_000), (60.0, 1.5, 1500), (NEVER, 2.0, 2000)):
        upstream = MemoryUpstream(answer(body=EMPTY))
        run = Run(MemoryClient(), question(), upstream)
        run.limits = Limits(Deadlines(), total, per_try)
        await run.go()
        (name, value) = upstream.heard[0][3][-1]  # type: ignore[index]
        assert name == b"x-envoy-expected-rq-timeout-ms" and most - 1000 < int(value) <= most
    upstream = MemoryUpstream(answer(body=EMPTY))
    run = Run(MemoryClient(), question(), upstream)
    run.limits = Limits(Deadlines())
    await run.go()
    assert upstream.heard[0][3] == tuple(FIELDS)


async def test_an_exchange_in_time_leaves_nothing_behind() -> None:
    deadlines = Deadlines()
    upstream = MemoryUpstream(answer(), b"all", b"")
    run = Run(MemoryClient(), question(), upstream)
    run.limits = Limits(deadlines, total=1, per_try=1)
    await run.go()
    assert not deadlines
    deadlines.sweep(in_seconds(2))
    assert upstream.aborted is None
