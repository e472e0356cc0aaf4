"""Keep-alive connections to one endpoint: bounded, last in first out, never handed out after the peer has sent
something unrequested.

Called by the endpoints of ``upstream``. A lease carries bytes; the pool does not depend on HTTP.

Theory of operation. ``open`` counts connections that exist or are being made. A caller takes an idle connection, or
makes one while fewer than ``limit`` are open, or waits its turn for at most ``wait_seconds`` in a queue of at most
``max_waiting``. A released connection goes straight to the first caller in the queue. A connection that has anything to
read while no request is on it (late bytes, FIN, reset) is closed instead of handed out: late bytes would be taken for
the next answer.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from time import monotonic, time
from typing import Final, Protocol

import trio

from sidecar.errors import ProxyError, Reason
from sidecar.net.connection import NEVER, Connection

MARGIN_SECONDS: Final = 1.0


class PoolCounters(Protocol):
    """The counters that a pool increments."""

    pool_hits: int
    pool_misses: int
    pool_waits: int


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a pool: ``most`` connections at a time, ``max_waiting`` requests that wait for one, each for at
    most ``wait_seconds``; a connection is kept for ``idle_seconds`` without a request."""

    most: int
    max_waiting: int
    wait_seconds: float
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class PoolUse:
    """The use of a pool, or of several together; ``limit`` is that of each, ``upstreams`` their number."""

    open: int
    idle: int
    waiting: int
    limit: int
    upstreams: int


class Lease:
    """A pooled connection in use; ``reused``: it has served before. It ends with one ``release``."""

    __slots__ = (
        "_poll",
        "connection",
        "generation",
        "idle_limit",
        "idle_until",
        "pool",
        "principal",
        "reused",
        "until",
    )

    def __init__(self, pool: Pool, connection: Connection) -> None:
        self.pool = pool
        self.connection = connection
        self.generation = pool.generation
        secured = connection.secured
        self.principal = str(secured.peer.spiffe_id) if secured is not None and secured.peer is not None else ""
        self.reused = False
        # The peer cuts a connection when one of its certificates expires: do not hand it out shortly before that.
        ends = 0.0 if secured is None else secured.ends
        self.until = monotonic() + ends - time() - MARGIN_SECONDS if ends else NEVER
        self.idle_limit = pool.idle_seconds
        self.idle_until = 0.0
        self._poll = select.poll()
        self._poll.register(connection.fd, select.POLLIN | select.POLLRDHUP)

    def quiet(self) -> bool:
        """Return whether there is nothing to read: no byte, FIN or error. A poll is cheaper than a failing read."""
        return not self._poll.poll(0) and not self.connection.holds_unread()

    @property
    def stale(self) -> bool:
        """Whether the pool was renewed or closed since the connection was made: nothing new may be sent on it."""
        return self.pool.closed or self.generation != self.pool.generation

    def release(self, *, reusable: bool) -> None:
        """Give the connection back, or close it. ``reusable``: both its directions are at the end of a message."""
        self.pool.release(self, reusable=reusable)


class Pool:
    """The connections to one endpoint. ``dial`` makes one, within the seconds that it is given; it raises
    ProxyError."""

    def __init__(self, dial: Callable[[float], Awaitable[Connection]], limits: Limits, counters: PoolCounters) -> None:
        self._dial = dial
        self.limit = limits.most
        self.max_waiting = limits.max_waiting
        self.wait_seconds = limits.wait_seconds
        self.idle_seconds = limits.idle_seconds
        self._counters = counters
        self._idle: deque[Lease] = deque()
        self._waiting: deque[_Waiter] = deque()
        self.open = 0
        self.generation = 0  # connections from before the last ``renew`` finish what they carry, and are not reused
        self.closed = False
        self.failures = 0  # of dialing, and of waiting in vain
        self.last_failure: tuple[float, ProxyError] | None = None  # when, on the monotonic clock, and what

    @property
    def unused(self) -> bool:
        """Whether no connection is in use, waited for or kept."""
        return not self.open and not self._waiting

    @property
    def idle(self) -> int:
        """The number of connections that are idle."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a connection."""
        return len(self._waiting)

    @property
    def at_rest(self) -> bool:
        """Whether no connection is in use or waited for: all that are open are idle."""
        return self.open == len(self._idle) and not self._waiting

    @property
    def active(self) -> int:
        """The number of connections that are in use or waited for: the load of the endpoint."""
        return self.open - len(self._idle) + len(self._waiting)

    @property
    def has_idle(self) -> bool:
        """Whether a connection is kept for the next request."""
        return bool(self._idle)

    @property
    def full(self) -> bool:
        """Whether a request for a new connection would have to wait."""
        return self.open >= self.limit

    def take_idle(self) -> Lease | None:
        """Return an idle, quiet connection at once; None if there is none."""
        idle = self._idle
        while idle:
            lease = idle.pop()
            if lease.quiet():
                self._counters.pool_hits += 1
                lease.reused = True
                return lease
            self._drop(lease)
        return None

    async def acquire(self, *, fresh: bool = False, seconds: float = NEVER) -> Lease:
        """Return a connection; ``fresh``: a new one. Dialing it may take ``seconds``.

        Raises ProxyError: POOL_FULL, POOL_TIMEOUT, CONNECT_FAILED if the pool was closed meanwhile, or what ``dial``
        raises.
        """
        if self.closed:
            raise ProxyError(Reason.CONNECT_FAILED, "the endpoint is gone")
        if not fresh:
            lease = self.take_idle()
            if lease is not None:
                return lease
        if self.open >= self.limit and fresh and self._idle:
            self._drop(self._idle.popleft())
        if self.open < self.limit:
            self.open += 1
        else:
            lease = (await self._wait()).lease
            if lease is not None:
                if not fresh and lease.quiet():
                    return lease
                lease.connection.close()  # and a new one takes its place
            if self.closed:
                self._freed()
                raise ProxyError(Reason.CONNECT_FAILED, "the endpoint is gone")
        return await self._connect(seconds)

    def release(self, lease: Lease, *, reusable: bool) -> None:
        """See :meth:`Lease.release`."""
        connection = lease.connection
        stale = self.closed or lease.generation != self.generation
        if not reusable or stale or connection.closed or connection.overdue is not None:
            self._drop(lease)
            return
        connection.deadline = NEVER
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.over:
                lease.reused = True
                turn.give(lease)
                return
        lease.idle_until = monotonic() + lease.idle_limit
        if lease.until < lease.idle_until:
            lease.idle_until = lease.until
        self._idle.append(lease)

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long (``now`` is monotonic)."""
        idle = self._idle
        if idle and any(lease.idle_until < now for lease in idle):
            self._idle = deque(lease for lease in idle if lease.idle_until >= now)
            for lease in idle:
                if lease.idle_until < now:
                    self._drop(lease)

    def renew(self) -> None:
        """Hand out only connections that are made from now on: the inputs of dialing have changed."""
        self.generation += 1
        while self._idle:
            self._drop(self._idle.pop())

    def close(self) -> None:
        """Close idle connections; leased ones close when they are released. Requests that wait fail."""
        self.closed = True
        while self._idle:
            self._drop(self._idle.pop())
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.over:
                self.open += 1  # each waiter gives it back
                turn.give(None)

    async def _connect(self, seconds: float) -> Lease:
        generation = self.generation
        try:
            connection = await self._dial(seconds)
        except BaseException as error:
            self._freed()
            if isinstance(error, ProxyError):
                self._note(error)
            raise
        self._counters.pool_misses += 1
        lease = Lease(self, connection)
        lease.generation = generation
        return lease

    async def _wait(self) -> _Waiter:
        if len(self._waiting) >= self.max_waiting:
            raise self._note(ProxyError(Reason.POOL_FULL, f"{self.max_waiting} requests wait for a connection already"))
        self._counters.pool_waits += 1
        turn = _Waiter()
        self._waiting.append(turn)
        try:
            with trio.move_on_after(self.wait_seconds):
                await turn.event.wait()
        except BaseException:
            self._abandon(turn)
            raise
        if not turn.event.is_set():
            self._abandon(turn)
            raise self._note(
                ProxyError(
                    Reason.POOL_TIMEOUT, f"none of {self.limit} connections became free within {self.wait_seconds:g} s"
                )
            )
        return turn

    def _note(self, error: ProxyError) -> ProxyError:
        self.failures += 1
        # A copy: an error that is raised collects a traceback, whose frames refer to this pool. That would be a cycle,
        # which only the garbage collector frees.
        self.last_failure = monotonic(), ProxyError(error.reason, error.detail)
        return error

    def _abandon(self, turn: _Waiter) -> None:
        turn.over = True
        if turn.event.is_set():  # its turn came at the very moment when it gave up
            if turn.lease is not None:
                self.release(turn.lease, reusable=True)
            else:
                self._freed()
        else:
            self._waiting.remove(turn)

    def _drop(self, lease: Lease) -> None:
        lease.connection.close()
        self._freed()

    def _freed(self) -> None:
        """Let the first caller in the queue make a connection in the place of one that has gone."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.over:
                turn.give(None)
                return
        self.open -= 1


def pool_use(pools: Iterable[Pool], limit: int) -> PoolUse:
    """Return the use of these pools together; each has ``limit``."""
    opened = idle = waiting = count = 0
    for pool in pools:
        opened += pool.open
        idle += pool.idle
        waiting += pool.waiting
        count += 1
    return PoolUse(opened, idle, waiting, limit, count)


class _Waiter:
    """A place in the queue. Its turn brings a connection, or (None) permission to make one."""

    __slots__ = ("event", "lease", "over")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.lease: Lease | None = None
        self.over = False

    def give(self, lease: Lease | None) -> None:
        self.lease = lease
        self.event.set()
