"""Handshakes take turns: in which order, with whom in between, and what becomes of those that end while they wait."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sidecar.errors import Reason
from sidecar.net.connection import Connection, ConnectionClosed, DeadlineExceeded
from sidecar.policy.fairness import FEW
from sidecar.tls.handshake_scheduler import HandshakeScheduler

MANY = FEW + 1


@pytest.fixture
def connections() -> Iterator[Callable[[], Connection]]:
    with contextlib.ExitStack() as stack:

        def connection() -> Connection:
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            stack.enter_context(theirs)
            return Connection(ours, "a peer", set())

        yield connection


async def test_who_comes_alone_passes_a_crowd(connections: Callable[[], Connection]) -> None:
    scheduler, done = HandshakeScheduler(), list[str]()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(scheduler.run, connections(), "flood", MANY, lambda: done.append("flood"))
        await trio.lowlevel.checkpoint()
        nursery.start_soon(scheduler.run, connections(), "alone", MANY, lambda: done.append("alone"))
    assert len(done) == 21
    assert done.index("alone") <= 4


async def test_who_has_begun_passes_a_crowd_that_begins(connections: Callable[[], Connection]) -> None:
    scheduler, done = HandshakeScheduler(), list[str]()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(scheduler.run, connections(), "a", MANY, lambda: done.append("begins"))
        await trio.lowlevel.checkpoint()
        nursery.start_soon(partial(scheduler.run, connections(), "a", MANY, lambda: done.append("ends"), begun=True))
    assert len(done) == 21
    assert done.index("ends") <= 4


async def test_between_two_steps_everybody_else_has_a_turn(connections: Callable[[], Connection]) -> None:
    scheduler, done = HandshakeScheduler(), list[str]()

    async def at_work() -> None:
        while True:
            done.append("work")
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(at_work)
        async with trio.open_nursery() as handshakes:
            for peer in ("a", "a", "b", "b", "c"):
                handshakes.start_soon(scheduler.run, connections(), peer, MANY, lambda: done.append("step"))
        nursery.cancel_scope.cancel()
    assert done.count("step") == 5
    assert ["step", "step"] not in [done[at : at + 2] for at in range(len(done))]


async def test_a_few_without_other_work_do_not_wait(connections: Callable[[], Connection]) -> None:
    scheduler, done = HandshakeScheduler(), list[str]()
    with trio.CancelScope() as scope:
        scope.cancel()  # a waiting task would be cancelled
        await scheduler.run(connections(), "a", FEW, lambda: done.append("step"))
    assert done == ["step"]


async def test_a_peer_rests_while_others_are_at_work(
    connections: Callable[[], Connection], mock_clock: MockClock
) -> None:
    mock_clock.autojump_threshold = 0
    scheduler, began, work = (
        HandshakeScheduler(trio.current_time, trio.current_time),
        dict[str, list[float]](),
        iter(range(1, 10**6)),
    )
    scheduler.forwarded = lambda: next(work)

    async def handshakes(peer: str, count: int) -> None:
        def step() -> None:
            began.setdefault(peer, []).append(trio.current_time())
            mock_clock.jump(0.005)

        for _ in range(count):
            await scheduler.run(connections(), peer, 1, step)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(handshakes, "flood", 30)
        await trio.sleep(5.0)
        nursery.start_soon(handshakes, "alone", 2)
    at = began["alone"]
    assert at[-1] - 5.0 < 0.4  # it owes nothing
    apart = [after - before for before, after in pairwise(began["flood"][10:])]
    assert min(apart) > 0.05  # 0.005 s of steps, each time


async def test_without_other_work_no_peer_rests(connections: Callable[[], Connection], mock_clock: MockClock) -> None:
    scheduler = HandshakeScheduler(trio.current_time)
    async with trio.open_nursery() as nursery:  # the clock stands still but for the steps, so who rested would stay
        for _ in range(100):
            nursery.start_soon(scheduler.run, connections(), "flood", MANY, lambda: mock_clock.jump(0.01))
    assert trio.current_time() == pytest.approx(1.0)


async def test_a_task_that_ends_while_it_waits_does_nothing_and_keeps_no_other(
    connections: Callable[[], Connection],
) -> None:
    scheduler, done = HandshakeScheduler(), list[str]()
    late, gone = connections(), connections()
    failed: list[type[BaseException]] = []

    async def ended(connection: Connection) -> None:
        try:
            await scheduler.run(connection, "a", MANY, lambda: done.append("never"))
        except (DeadlineExceeded, ConnectionClosed) as error:
            failed.append(type(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run, connections(), "a", MANY, lambda: done.append("first"))
        await trio.lowlevel.checkpoint()
        for connection in (late, gone):
            nursery.start_soon(ended, connection)
        nursery.start_soon(scheduler.run, connections(), "a", MANY, lambda: done.append("last"))
        late.expire(Reason.HANDSHAKE_TIMEOUT)
        gone.close()
    assert done == ["first", "last"]
    assert {*failed} == {DeadlineExceeded, ConnectionClosed}


async def test_a_step_that_fails_and_a_wait_that_is_cancelled_hand_the_turn_on(
    connections: Callable[[], Connection],
) -> None:
    scheduler, done = HandshakeScheduler(), list[str]()

    def fail() -> None:
        raise ZeroDivisionError

    async with trio.open_nursery() as cancelled:
        cancelled.start_soon(scheduler.run, connections(), "a", MANY, lambda: done.append("never"))
        cancelled.start_soon(scheduler.run, connections(), "a", MANY, lambda: done.append("never"))
        cancelled.cancel_scope.cancel()
    with pytest.raises(ZeroDivisionError):
        await scheduler.run(connections(), "a", MANY, fail)
    await scheduler.run(connections(), "a", MANY, lambda: done.append("last"))
    await wait_all_tasks_blocked()
    assert done == ["last"]


async def test_peers_that_are_gone_are_forgotten(connections: Callable[[], Connection]) -> None:
    scheduler, one = HandshakeScheduler(), connections()
    for number in range(2000):
        await scheduler.run(one, f"peer {number}", MANY, lambda: None)
    assert scheduler.queues <= 300
