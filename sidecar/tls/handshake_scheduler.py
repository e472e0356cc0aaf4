"""Handshakes take turns: their steps come one after the other, and between two of them everybody else.

Called by ``acceptor``, which gives each step to ``run``. How long handshakes rest is decided by ``policy.fairness``.

Theory of operation. A step (one call of OpenSSL's) holds the loop for up to half a millisecond, and nothing can
interrupt it. If a hundred clients have said something, a hundred steps would follow each other, and a request that
comes meanwhile waits for all of them. So there is one turn, and each peer has a queue that leads to it. Who is first in
its queue takes the rest that the peer owes, then queues for the turn, where it meets at most one of each other peer: so
a flood waits for itself, and who comes alone waits for one step. In a queue those that have begun meet one newcomer at
most: what was done for them is not thrown away while a crowd begins. Whoever gets the turn yields first to all tasks
that are ready, so that no two steps follow each other. Where there are few handshakes and nothing else goes on, nobody
would gain by all that, and a step is done at once.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, thread_time
from typing import Final

import trio

from sidecar.net.connection import Connection
from sidecar.policy.fairness import FEW, PEER_SHARE, SHARE, Activity, RateShare

_DEBT_SECONDS: Final = 0.005  # of a step, at most: a longer one is the machine's doing
_MOST_QUEUES: Final = 256  # beyond so many, those that nobody uses are taken away


class _PeerQueue:
    """Whoever has ``lock`` is next; the others of the queue come in their order, newcomers by way of ``newcomers``."""

    __slots__ = ("lock", "newcomers", "share", "users")

    def __init__(self, share: float) -> None:
        self.newcomers = trio.Lock()
        self.lock = trio.Lock()
        self.share = RateShare(share)
        self.users = 0


class HandshakeScheduler:
    """Of one process. ``forwarded``, which whoever knows sets, gives a number that changes whenever something is
    forwarded: handshakes leave room for that then. ``clock`` is monotonic, ``spent`` what this thread has had of the
    processor: a step may be interrupted by other processes, which it does not answer for."""

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
        """How many peers are known."""
        return len(self._queues)

    async def run(
        self, connection: Connection, peer: str, under_way: int, step: Callable[[], None], *, begun: bool = False
    ) -> None:
        """Does ``step``, which must not wait, when it is the turn of this connection of ``peer``'s. Of all peers so
        many handshakes are ``under_way``; ``begun``: this is not the first step of this one.

        Raises what it raises, and DeadlineExceeded or ConnectionClosed where the connection has ended before its turn
        comes, which is when that is noticed. Cancelling it leaves the turn to others.
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
            await trio.lowlevel.checkpoint()  # what is done next, with an end above all, takes as long as a step
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
                self._most = max(_MOST_QUEUES, 2 * len(self._queues))  # not at each one that comes then
            queue = self._queues[peer] = _PeerQueue(PEER_SHARE)
        return queue
