"""The pool's queue: what a waiter is handed, with real sockets and no proxy around."""

from __future__ import annotations

import trio
import trio.testing

from sidecar.errors import ProxyError, Reason
from sidecar.net.connection import Connection
from sidecar.net.connection_pool import Lease, Limits, Pool
from sidecar.telemetry.metrics import Counters
from tests.proxy.ends import tcp_pair


class Destination:
    """A pool of one connection, and the far ends of those it made."""

    def __init__(self) -> None:
        self.far_ends: list[trio.SocketStream] = []
        self.registry: set[Connection] = set()
        self.pool = Pool(self._dial, Limits(1, 8, 5.0, 60.0), Counters())

    async def _dial(self, seconds: float) -> Connection:
        far, near = tcp_pair()
        self.far_ends.append(far)
        return Connection(near, "far", self.registry)

    async def hand_over(self, first: Lease, *, fresh: bool) -> Lease:
        """Releases ``first`` to somebody who waits; returns what that one got."""
        got: list[Lease] = []

        async def wait() -> None:
            got.append(await self.pool.acquire(fresh=fresh))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            first.release(reusable=True)
        return got[0]

    async def close(self) -> None:
        self.pool.close()
        for far in self.far_ends:
            await far.aclose()


async def test_a_waiter_gets_the_connection_that_became_free() -> None:
    there = Destination()
    first = await there.pool.acquire()
    second = await there.hand_over(first, fresh=False)
    assert second is first and second.reused and there.pool.open == 1
    second.release(reusable=False)
    assert there.pool.open == 0
    await there.close()


async def test_a_waiter_never_gets_a_connection_with_unread_bytes() -> None:
    """They would be taken for the answer to its request."""
    there = Destination()
    first = await there.pool.acquire()
    await there.far_ends[0].send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")
    assert not first.quiet()
    second = await there.hand_over(first, fresh=False)
    assert second is not first and not second.reused and second.quiet() and first.connection.closed
    assert there.pool.open == 1 and len(there.registry) == 1
    second.release(reusable=False)
    assert there.pool.open == 0
    await there.close()


async def test_who_waits_for_a_fresh_connection_gets_a_fresh_one() -> None:
    there = Destination()
    first = await there.pool.acquire()
    second = await there.hand_over(first, fresh=True)
    assert second is not first and not second.reused and first.connection.closed
    assert there.pool.open == 1
    second.release(reusable=False)
    await there.close()


async def test_a_dial_that_fails_in_place_of_an_old_connection_gives_its_place_back() -> None:
    there = Destination()
    first = await there.pool.acquire()
    failures: list[ProxyError] = []

    async def fail(seconds: float) -> Connection:
        raise ProxyError(Reason.CONNECT_FAILED, "refused")

    async def wait() -> None:
        try:
            await there.pool.acquire(fresh=True)
        except ProxyError as error:
            failures.append(error)

    there.pool._dial = fail
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        first.release(reusable=True)
    assert failures and first.connection.closed and there.pool.open == 0
    await there.close()
