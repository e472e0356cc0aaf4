"""The sweeper: one task that ends what is overdue, and notices clients that leave while nothing is read from them.

A cancel scope with a deadline per wait would cost more than the rest of an exchange; a look at all channels every
50 ms costs some 30 ns each. Deadlines are therefore late by up to ``TICK``, never early.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from time import monotonic

import trio

from sidecar.errors import Reason
from sidecar.net.channel import Channel

TICK = 0.05
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Sweeper:
    """Walks ``registry`` every TICK and then calls each of ``each_tick`` with (now, how late this tick was)."""

    def __init__(self, registry: set[Channel], each_tick: list[Callable[[float, float], None]]) -> None:
        self._registry = registry
        self._each_tick = each_tick

    async def run(self) -> None:
        """Runs until it is cancelled."""
        due = monotonic() + TICK
        while True:
            await trio.sleep(max(0.0, due - monotonic()))
            now = monotonic()
            self.sweep(now)
            for call in self._each_tick:
                call(now, now - due)
            due = now + TICK

    def sweep(self, now: float) -> None:
        """Expires what was due before ``now`` (monotonic), and aborts the work for clients that have gone."""
        watched = []
        for channel in [c for c in self._registry if c.deadline < now or c.watcher is not None]:
            if channel.deadline < now:
                channel.expire(channel.overdue_as)
            else:
                watched.append(channel)
        if watched:
            self._abort_abandoned(watched)

    def _abort_abandoned(self, watched: list[Channel]) -> None:
        # RDHUP tells of a FIN even behind unread (pipelined) bytes, which a peek would not get past.
        poll = select.poll()
        by_fd = {}
        for channel in watched:
            poll.register(channel.fd, select.POLLRDHUP)
            by_fd[channel.fd] = channel
        for fd, events in poll.poll(0):
            watcher = by_fd[fd].watcher
            if events & _GONE and watcher is not None:
                watcher.abort(Reason.CLIENT_CLOSED)
