"""The fast path for small messages: one epoll of our own, and one task that carries for all relays.

Called by ``net.relay``. It handles lines (one direction of a relay each), and does not interpret their bytes. The board
is the set of lines that sleep in the epoll.

Theory of operation. A task that waits for each message costs twice what the message itself costs: trio arms the
descriptor again (EPOLLONESHOT), wakes the task, and runs its coroutine. Here a quiet direction's task sleeps, and its
descriptor stays armed in an epoll of this module, which is itself one descriptor that one system task waits for under
trio. That task calls each ready line's ``carry()``, a plain function that receives and sends without waiting. While
messages go through completely, no other task wakes up: measured on one core, 18 us per round trip, compared with 26
for two tasks and 19 for Envoy's TCP proxy. As soon as a line can't continue without waiting or deciding (a full sink, a
long read, FIN, an error), ``carry()`` returns False or raises, the line is removed from the board, and its task
continues by itself.

So nothing here waits for a slow peer, and after at most ROUNDS times BATCH short reads and writes, or SLICE seconds,
the task yields to all others. Lines that have not been carried by then come first afterwards: the epoll would report
all of them again in its own order, and the last would never have their turn.

Deadlines: ``Connection.expire`` can't wake a sleeping task, since its descriptor is not trio's. A second task, which
exists while there are relays, looks at each of them every TICK seconds (``Watched.look``).
"""

from __future__ import annotations

import select
from contextlib import suppress
from time import monotonic
from typing import Protocol

import trio
from trio.lowlevel import (
    Abort,
    RunVar,
    Task,
    current_task,
    reschedule,
    spawn_system_task,
    wait_readable,
    wait_task_rescheduled,
)

BATCH = 32  # lines carried for one look at the epoll
ROUNDS = 3  # looks between two yields: messages that come meanwhile need not go through trio; mostly under 1 ms in all
SLICE = 0.001  # seconds; a message over TLS may have hundreds of records, each of which costs time
TICK = 0.1


class ReactorEntry:
    """One direction of a relay while it is on the board. Subclasses implement ``carry``."""

    __slots__ = ("failure", "task")

    def __init__(self) -> None:
        self.task: Task | None = None
        self.failure: Exception | None = None

    def carry(self) -> bool:
        """Move what is ready at the descriptor, without waiting. Return False if the task has to continue by itself."""
        raise NotImplementedError


class Watched(Protocol):
    """An object that the reactor checks every TICK seconds."""

    def look(self, now: float) -> None:
        """Check for an end that is due, without waiting. ``now`` is the time of ``time.monotonic``."""


class RelayReactor:
    """The reactor of one trio run: ``RelayReactor.current()``."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._lines: dict[int, ReactorEntry] = {}
        self._watched: set[Watched] = set()
        self._ticking = False
        self._left: list[tuple[int, int]] = []  # ready, and not carried yet
        self.looks = 0  # at the epoll, that found something ready

    def __len__(self) -> int:
        """Return how many lines are on the board."""
        return len(self._lines)

    @staticmethod
    def current() -> RelayReactor:
        """Return the reactor of this trio run, made at the first call."""
        try:
            return _current.get()
        except LookupError:
            board = RelayReactor()
            _current.set(board)
            spawn_system_task(board._run)
            return board

    async def carry(self, fd: int, line: ReactorEntry, events: int = select.EPOLLIN) -> None:
        """Sleep while ``line.carry()`` handles what arrives at ``fd``. Return when ``line.carry()`` returns False, and
        raise what it raises.

        Errors and hang-ups of the descriptor are always among the events. Cancelling it removes the line from the board
        and loses nothing. ``fd`` has to stay open meanwhile.
        """

        def abort(_: object) -> Abort:
            self._take_off(fd, line)
            return Abort.SUCCEEDED

        line.task = current_task()
        self._epoll.register(fd, events)
        self._lines[fd] = line
        await wait_task_rescheduled(abort)
        if line.failure is not None:
            raise line.failure

    def watch(self, watched: Watched) -> None:
        """Call ``watched.look`` every TICK seconds from now on, until ``forget``."""
        self._watched.add(watched)
        if not self._ticking:
            self._ticking = True
            spawn_system_task(self._tick)

    def forget(self, watched: Watched) -> None:
        """End ``watch``."""
        self._watched.discard(watched)

    def _take_off(self, fd: int, line: ReactorEntry) -> None:
        if self._lines.get(fd) is line:
            del self._lines[fd]
            with suppress(OSError):  # closed by its owner: the kernel has forgotten it
                self._epoll.unregister(fd)

    async def _run(self) -> None:
        poll, fd = self._epoll.poll, self._epoll.fileno()
        try:
            while True:
                await wait_readable(fd)
                until = monotonic() + SLICE
                for _ in range(ROUNDS):
                    ready = self._left or poll(0, BATCH)
                    if not ready:
                        break
                    self.looks += 1
                    self._left = self._carry_all(ready, until)
                    if self._left:
                        break
        finally:
            self._epoll.close()

    def _carry_all(self, ready: list[tuple[int, int]], until: float) -> list[tuple[int, int]]:
        """Carry these lines until that time, the first in any case. Return those that are left."""
        lines = self._lines
        for place, (fd, _) in enumerate(ready):
            if place and monotonic() > until:
                return ready[place:]
            line = lines.get(fd)
            if line is None:
                continue
            try:
                if line.carry():
                    continue
            except Exception as error:  # a bug ends this relay, not all of them
                line.failure = error
            self._take_off(fd, line)
            if line.task is not None:
                reschedule(line.task)
        return []

    async def _tick(self) -> None:
        while self._watched:
            await trio.sleep(TICK)
            now = monotonic()
            for watched in list(self._watched):
                watched.look(now)
        self._ticking = False


_current: RunVar[RelayReactor] = RunVar("relay reactor")
