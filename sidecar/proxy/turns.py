"""Handshakes take turns: their steps come one after the other, and between two of them everybody else.

Called by ``gate``, which gives each step to ``run``. How long handshakes rest is decided by ``policy.fairness``.

Theory of operation. A step (one call of OpenSSL's) holds the loop for up to half a millisecond, and nothing can
interrupt it. If a hundred clients have said something, a hundred steps would follow each other, and a request that
comes meanwhile waits for all of them. So there is one turn, and each peer has a lane that leads to it. Who is first in
its lane takes the rest that the peer owes, then queues for the turn, where it meets at most one of each other peer: so
a flood waits for itself, and who comes alone waits for one step. In a lane those that have begun meet one newcomer at
most: what was done for them is not thrown away while a crowd begins. Whoever gets the turn yields first to all tasks
that are ready, so that no two steps follow each other. Where there are few handshakes and nothing else goes on, nobody
would gain by all that, and a step is done at once.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, thread_time
from typing import Final

import trio

from sidecar.net.channel import Channel
from sidecar.policy.fairness import FEW, PEER_SHARE, SHARE, Flow, Pace

_DEBT_SECONDS: Final = 0.005  # of a step, at most: a longer one is the machine's doing
_LANES: Final = 256  # beyond so many, those that nobody uses are taken away


class _Lane:
    """Whoever has ``lock`` is next; the others of the lane come in their order, newcomers by way of ``door``."""

    __slots__ = ("door", "lock", "pace", "users")

    def __init__(self, share: float) -> None:
        self.door = trio.Lock()
        self.lock = trio.Lock()
        self.pace = Pace(share)
        self.users = 0


class Turns:
    """Of one process. ``forwarded``, which whoever knows sets, gives a number that changes whenever something is
    forwarded: handshakes leave room for that then. ``clock`` is monotonic, ``spent`` what this thread has had of the
    processor: a step may be interrupted by other processes, which it does not answer for."""

    def __init__(self, clock: Callable[[], float] = monotonic, spent: Callable[[], float] = thread_time) -> None:
        self._spent = spent
        self.forwarded: Callable[[], int] = int
        self._clock = clock
        self._flow = Flow()
        self._all = _Lane(SHARE)
        self._lanes: dict[str, _Lane] = {}
        self._most = _LANES

    @property
    def lanes(self) -> int:
        """How many peers are known."""
        return len(self._lanes)

    async def run(
        self, channel: Channel, peer: str, under_way: int, step: Callable[[], None], *, begun: bool = False
    ) -> None:
        """Does ``step``, which must not wait, when it is the turn of this channel of ``peer``'s. Of all peers so many
        handshakes are ``under_way``; ``begun``: this is not the first step of this one.

        Raises what it raises, and Overdue or ChannelClosed where the channel has ended before its turn comes, which is
        when that is noticed. Cancelling it leaves the turn to others.
        """
        if under_way <= FEW and not self._flows():
            step()
            return
        lane = self._lane(peer)
        lane.users += 1
        try:
            if begun:
                await self._in_turn(channel, step, lane)
            else:
                async with lane.door:
                    await self._in_turn(channel, step, lane)
        finally:
            lane.users -= 1
            await trio.lowlevel.checkpoint()  # what is done next, with an end above all, takes as long as a step
        channel.check()

    async def _in_turn(self, channel: Channel, step: Callable[[], None], lane: _Lane) -> None:
        async with lane.lock:
            channel.check()
            await self._rest(lane)
            async with self._all.lock:
                await trio.lowlevel.checkpoint()
                await self._rest(self._all)
                channel.check()
                self._do(step, lane)

    def _do(self, step: Callable[[], None], lane: _Lane) -> None:
        began, before = self._clock(), self._spent()
        try:
            step()
        finally:
            took = min(self._spent() - before, _DEBT_SECONDS)
            lane.pace.spent(began, took)
            self._all.pace.spent(began, took)

    async def _rest(self, lane: _Lane) -> None:
        rest = lane.pace.rest(self._clock())
        if rest > 0.0 and self._flows():
            await trio.sleep(rest)

    def _flows(self) -> bool:
        return self._flow.goes_on(self._clock(), self.forwarded())

    def _lane(self, peer: str) -> _Lane:
        lane = self._lanes.get(peer)
        if lane is None:
            if len(self._lanes) >= self._most:
                now = self._clock()
                self._lanes = {key: each for key, each in self._lanes.items() if each.users or each.pace.rest(now)}
                self._most = max(_LANES, 2 * len(self._lanes))  # not at each one that comes then
            lane = self._lanes[peer] = _Lane(PEER_SHARE)
        return lane
