"""The pool: who gets which connection, who waits, and what is never handed out."""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sidecar.errors import ProxyError, Reason
from sidecar.net.connection import Connection
from sidecar.net.connection_pool import Lease, Limits, Pool


class Counted:
    """The numbers that a pool counts up."""

    def __init__(self) -> None:
        self.pool_hits = self.pool_misses = self.pool_waits = 0


class Peers:
    """Dials connections whose other ends the test holds, in ``ends``. ``failure`` is what dialing raises."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []
        self.registry: set[Connection] = set()
        self.failure: Exception | None = None

    async def dial(self, seconds: float) -> Connection:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.ends.append(theirs)
        return Connection(ours, f"peer-{len(self.ends)}", self.registry)


class Bed:
    """A pool over ``Peers``."""

    def __init__(self, *, limit: int = 2, max_waiting: int = 2, wait: float = 5.0, idle: float = 50.0) -> None:
        self.peers = Peers()
        self.counters = Counted()
        self.pool = Pool(self.peers.dial, Limits(limit, max_waiting, wait, idle), self.counters)

    async def idle(self, count: int) -> list[Lease]:
        """So many connections, all given back."""
        leases = [await self.pool.acquire() for _ in range(count)]
        for lease in leases:
            lease.release(reusable=True)
        return leases


@asynccontextmanager
async def bed(limit: int = 2, max_waiting: int = 2, wait: float = 5.0, idle: float = 50.0) -> AsyncIterator[Bed]:
    made = Bed(limit=limit, max_waiting=max_waiting, wait=wait, idle=idle)
    with trio.fail_after(5):
        yield made
    made.pool.close()
    for connection in list(made.peers.registry):
        connection.close()
    for end in made.peers.ends:
        end.close()


async def test_last_in_first_out() -> None:
    async with bed() as b:
        one, two = await b.idle(2)
        assert not one.reused
        again = await b.pool.acquire()
        assert again is two
        assert again.reused
        assert b.pool.take_idle() is one
        assert b.pool.take_idle() is None
        assert (b.counters.pool_hits, b.counters.pool_misses, b.pool.open) == (2, 2, 2)


@pytest.mark.parametrize("event", ["bytes", "fin"])
async def test_a_connection_whose_peer_has_spoken_is_not_handed_out(event: str) -> None:
    async with bed() as b:
        (lease,) = await b.idle(1)
        if event == "bytes":
            b.peers.ends[0].sendall(b"HTTP/1.1 200 late\r\n\r\n")
        else:
            b.peers.ends[0].shutdown(socket.SHUT_WR)
        assert not lease.quiet()
        other = await b.pool.acquire()
        assert other is not lease
        assert lease.connection.closed
        assert (b.pool.open, b.counters.pool_hits) == (1, 0)


async def test_what_is_not_reusable_is_closed() -> None:
    async with bed() as b:
        lease = await b.pool.acquire()
        lease.release(reusable=False)
        assert lease.connection.closed
        assert b.pool.unused


async def test_what_is_overdue_is_closed() -> None:
    async with bed() as b:
        lease = await b.pool.acquire()
        lease.connection.expire(Reason.CLIENT_CLOSED)
        lease.release(reusable=True)
        assert lease.connection.closed
        assert b.pool.take_idle() is None


async def test_fresh_is_new_even_where_one_is_idle() -> None:
    async with bed() as b:
        (lease,) = await b.idle(1)
        other = await b.pool.acquire(fresh=True)
        assert other is not lease
        assert not other.reused
        assert b.pool.take_idle() is lease


async def test_fresh_at_the_limit_takes_the_place_of_the_oldest_idle_one() -> None:
    async with bed() as b:
        one, two = await b.idle(2)
        await b.pool.acquire(fresh=True)
        assert one.connection.closed
        assert not two.connection.closed
        assert b.pool.open == 2


async def test_waiting_in_turn() -> None:
    async with bed() as b:
        held = [await b.pool.acquire() for _ in range(2)]
        got: list[tuple[str, Lease]] = []

        async def wait(name: str) -> None:
            got.append((name, await b.pool.acquire()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "first")
            await wait_all_tasks_blocked()
            nursery.start_soon(wait, "second")
            await wait_all_tasks_blocked()
            with pytest.raises(ProxyError) as refused:
                await b.pool.acquire()
            assert refused.value.reason is Reason.POOL_FULL
            held[1].release(reusable=True)
            await wait_all_tasks_blocked()
            assert got == [("first", held[1])]
            assert held[1].reused
            held[0].release(reusable=False)  # its place is free for a new connection
        assert [name for name, _ in got] == ["first", "second"]
        assert got[1][1] not in held
        assert (b.pool.open, b.counters.pool_waits) == (2, 2)


async def test_waiting_too_long() -> None:
    async with bed(limit=1, wait=0.05) as b:
        lease = await b.pool.acquire()
        with trio.fail_after(30), pytest.raises(ProxyError) as late:  # without a wait of its own it would be for ever
            await b.pool.acquire()
        assert late.value.reason is Reason.POOL_TIMEOUT
        lease.release(reusable=True)
        assert b.pool.take_idle() is lease


async def test_whoever_gives_up_waiting_takes_nobodys_turn() -> None:
    async with bed(limit=1) as b:
        lease = await b.pool.acquire()
        got: list[Lease] = []

        async def wait() -> None:
            got.append(await b.pool.acquire())

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(wait)
                await wait_all_tasks_blocked()
                async with trio.open_nursery() as inner:
                    inner.start_soon(wait)
                    await wait_all_tasks_blocked()
                    scope.cancel()
            assert scope.cancelled_caught
            lease.release(reusable=True)
        assert got == [lease]
        assert b.pool.open == 1


@pytest.mark.parametrize("reusable", [True, False])
async def test_whoever_is_cancelled_as_the_turn_comes_passes_it_on(reusable: bool) -> None:
    async with bed(limit=1) as b:
        lease = await b.pool.acquire()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(b.pool.acquire)
                await wait_all_tasks_blocked()
                scope.cancel()
                lease.release(reusable=reusable)
        assert (await b.pool.acquire() is lease) == reusable
        assert b.pool.open == 1


async def test_a_dial_that_fails_leaves_its_place() -> None:
    async with bed(limit=1) as b:
        b.peers.failure = ProxyError(Reason.CONNECT_FAILED, "x")
        with pytest.raises(ProxyError):
            await b.pool.acquire()
        assert b.pool.unused
        b.peers.failure = None
        await b.pool.acquire()


async def test_a_dial_that_fails_lets_the_next_one_try() -> None:
    async with bed(limit=1) as b:
        lease = await b.pool.acquire()
        failures: list[Reason] = []

        async def wait() -> None:
            try:
                await b.pool.acquire()
            except ProxyError as error:
                failures.append(error.reason)

        b.peers.failure = ProxyError(Reason.CONNECT_FAILED, "x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            lease.release(reusable=False)
        assert failures == [Reason.CONNECT_FAILED] * 2
        assert b.pool.unused


async def test_idle_time() -> None:
    async with bed(idle=50.0) as b:
        one, two = await b.idle(2)
        two.idle_until = one.idle_until + 5
        b.pool.sweep(one.idle_until - 1)
        assert not one.connection.closed
        b.pool.sweep(one.idle_until + 1)
        assert one.connection.closed
        assert not two.connection.closed
        assert b.pool.open == 1


async def test_closing() -> None:
    async with bed() as b:
        one = await b.pool.acquire()
        (two,) = await b.idle(1)
        b.pool.close()
        assert two.connection.closed
        assert not one.connection.closed
        one.release(reusable=True)
        assert one.connection.closed
        assert b.pool.unused


async def test_a_pool_that_failed_goes_at_once_when_nobody_has_it() -> None:
    """Whoever tries all ports of a pod makes thousands of them; the collector comes by too seldom for that."""

    async def dial(seconds: float) -> Connection:
        raise ProxyError(Reason.CONNECT_FAILED, "nobody is there")

    gc.collect()
    gc.disable()
    try:
        pool = Pool(dial, Limits(1, 0, 1.0, 1.0), Counted())
        gone = weakref.ref(pool)
        with pytest.raises(ProxyError):
            await pool.acquire()
        assert pool.last_failure is not None and pool.last_failure[1].detail == "nobody is there"
        del pool
        assert gone() is None
    finally:
        gc.enable()
