"""Scheduling of handshakes: one step at a time, and between two steps all other tasks.

Called by ``acceptor``, which passes each step to ``run``. ``policy.fairness`` decides how long handshakes rest.

Theory of operation. A step (one call of OpenSSL) holds the loop for up to half a millisecond, and nothing can interrupt
it. If a hundred clients have sent something, a hundred steps would follow each other, and a request that comes
meanwhile would wait for all of them. So there is one turn, and each peer has a queue for it. The first handshake of a
queue waits for the rest that the peer owes, then queues for the turn with at most one handshake of each other peer: a
flood waits for itself, and a peer's only handshake waits for one step. In a queue, handshakes that have begun compete
with one newcomer at most, so the work done for them is not wasted while a crowd begins. The handshake that gets the
turn first yields to all tasks that are ready, so no two steps follow each other. If there are few handshakes and no
other traffic, scheduling gains nothing, and a step is done at once.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, thread_time
from typing import Final

import trio

from sidecar.net.connection import Connection
from sidecar.policy.fairness import FEW, PEER_SHARE, SHARE, Activity, RateShare

_DEBT_SECONDS: Final = 0.005  # the most that one step is charged: the machine causes longer ones
_MOST_QUEUES: Final = 256  # beyond so many, unused queues are removed


class _PeerQueue:
    """A peer's queue. The holder of ``lock`` is next; the others follow in order, newcomers through ``newcomers``."""

    __slots__ = ("lock", "newcomers", "share", "users")

    def __init__(self, share: float) -> None:
        self.newcomers = trio.Lock()
        self.lock = trio.Lock()
        self.share = RateShare(share)
        self.users = 0


class HandshakeScheduler:
    """The scheduler of one process. ``forwarded``, which is set from outside, returns a number that changes whenever
    something is forwarded: handshakes leave room for that traffic. ``clock`` is monotonic. ``spent`` returns this
    thread's processor time: other processes may interrupt a step, and the peer is not charged for them."""

    def __init__(self, clock: Callable[[], float] = monotonic, spent: Callable[[], float] = thread_time) -> None:
        self._spent = spent
        self.forwarded: Callable[[], int] = int
        self._clock = clock
        self._flow = Activity()
        self._all = _PeerQueue(SHARE)
        self._queues: dict[str, _PeerQueue] = {}
        self._most = _MOST_QUEUES

    @property
    def queues(self) -> int:
        """The number of peers that have a queue."""
        return len(self._queues)

    async def run(
        self, connection: Connection, peer: str, under_way: int, step: Callable[[], None], *, begun: bool = False
    ) -> None:
        """Run ``step``, which must not wait, when the turn of this connection of ``peer`` comes. ``under_way`` is the
        number of handshakes of all peers; ``begun``: this is not the first step of this handshake.

        Raises what ``step`` raises. Raises DeadlineExceeded or ConnectionClosed if the connection has ended, which is
        noticed when its turn comes. Cancelling it leaves the turn to others.
        """
        if under_way <= FEW and not self._flows():
            step()
            return
        queue = self._queue(peer)
        queue.users += 1
        try:
            if begun:
                await self._in_turn(connection, step, queue)
            else:
                async with queue.newcomers:
                    await self._in_turn(connection, step, queue)
        finally:
            queue.users -= 1
            await trio.lowlevel.checkpoint()  # what follows, above all the end of a handshake, takes as long as a step
        connection.check()

    async def _in_turn(self, connection: Connection, step: Callable[[], None], queue: _PeerQueue) -> None:
        async with queue.lock:
            connection.check()
            await self._rest(queue)
            async with self._all.lock:
                await trio.lowlevel.checkpoint()
                await self._rest(self._all)
                connection.check()
                self._do(step, queue)

    def _do(self, step: Callable[[], None], queue: _PeerQueue) -> None:
        began, before = self._clock(), self._spent()
        try:
            step()
        finally:
            took = min(self._spent() - before, _DEBT_SECONDS)
            queue.share.spent(began, took)
            self._all.share.spent(began, took)

    async def _rest(self, queue: _PeerQueue) -> None:
        rest = queue.share.rest(self._clock())
        if rest > 0.0 and self._flows():
            await trio.sleep(rest)

    def _flows(self) -> bool:
        return self._flow.goes_on(self._clock(), self.forwarded())

    def _queue(self, peer: str) -> _PeerQueue:
        queue = self._queues.get(peer)
        if queue is None:
            if len(self._queues) >= self._most:
                now = self._clock()
                self._queues = {key: each for key, each in self._queues.items() if each.users or each.share.rest(now)}
                self._most = max(_MOST_QUEUES, 2 * len(self._queues))  # do not sweep again at each new peer
            queue = self._queues[peer] = _PeerQueue(PEER_SHARE)
        return queue
