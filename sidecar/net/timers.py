"""The sweeper: one task that ends what is overdue, and notices clients that leave while nothing is read from them.

A cancel scope with a deadline per wait would cost more than the rest of an exchange; a look at all connections every
50 ms costs some 30 ns each. Deadlines are therefore late by up to ``TICK``, never early.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from time import monotonic

import trio

from sidecar.errors import Reason
from sidecar.net.connection import Connection

TICK = 0.05
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Sweeper:
    """The sweeper of ``registry``, which it walks every TICK. Then it calls each of ``each_tick`` with (now, how late
    this tick was)."""

    def __init__(self, registry: set[Connection], each_tick: list[Callable[[float, float], None]]) -> None:
        self._registry = registry
        self._each_tick = each_tick

    async def run(self) -> None:
        """Run until it is cancelled."""
        due = monotonic() + TICK
        while True:
            await trio.sleep(max(0.0, due - monotonic()))
            now = monotonic()
            self.sweep(now)
            for call in self._each_tick:
                call(now, now - due)
            due = now + TICK

    def sweep(self, now: float) -> None:
        """Expire what was due before ``now`` (monotonic), and abort the work for clients that have gone."""
        watched = []
        for connection in [c for c in self._registry if c.deadline < now or c.watcher is not None]:
            if connection.deadline < now:
                connection.expire(connection.overdue_as)
            else:
                watched.append(connection)
        if watched:
            self._abort_abandoned(watched)

    def _abort_abandoned(self, watched: list[Connection]) -> None:
        # RDHUP reports a FIN even behind unread (pipelined) bytes, which a peek would not get past.
        poll = select.poll()
        by_fd = {}
        for connection in watched:
            poll.register(connection.fd, select.POLLRDHUP)
            by_fd[connection.fd] = connection
        for fd, events in poll.poll(0):
            watcher = by_fd[fd].watcher
            if events & _GONE and watcher is not None:
                watcher.abort(Reason.CLIENT_CLOSED)
