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
from tests.proxy.messages import MemoryClient, MemoryUpstream, Run, answer, question

AGAIN = RetryPolicy(reasons=frozenset({Reason.UPSTREAM_TIMEOUT}))


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
    run.limits = Limits(deadlines, **{limit: 1.0})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.fails, Reason.UPSTREAM_TIMEOUT)
        await wait_all_tasks_blocked()
        deadlines.sweep(in_seconds(2))
    assert not deadlines


async def test_a_body_that_still_comes_when_the_time_is_over() -> None:
    deadlines = Deadlines()
    upstream = MemoryUpstream()
    run = Run(MemoryClient(first=b"a", body=True), question(b"PUT", body=UNKNOWN), upstream)
    run.limits = Limits(deadlines, total=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.fails, Reason.CLIENT_IDLE)  # which owed the rest of its body
        await wait_all_tasks_blocked()
        deadlines.sweep(in_seconds(2))
    assert not deadlines


async def test_an_exchange_in_time_leaves_nothing_behind() -> None:
    deadlines = Deadlines()
    upstream = MemoryUpstream(answer(), b"all", b"")
    run = Run(MemoryClient(), question(), upstream)
    run.limits = Limits(deadlines, total=1, per_try=1)
    await run.go()
    assert not deadlines
    deadlines.sweep(in_seconds(2))
    assert upstream.aborted is None
