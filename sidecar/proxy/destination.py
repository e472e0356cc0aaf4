"""A host and port that is dialed: its pools, what is remembered of it, and a table of many, bounded in number.

Called by ``inbound`` (ports of the app) and ``callee`` (whom the app calls), which say how it is dialed and who may go
there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Hashable, ItemsView, ValuesView
from typing import Generic, Protocol, TypeVar

from sidecar.errors import ProxyError, Reason
from sidecar.net.channel import Channel
from sidecar.net.pool import Lease, Pool
from sidecar.proxy.origin import PoolOrigin
from sidecar.proxy.shared import Shared
from sidecar.proxy.sniff import Habits

MAX_DESTINATIONS = 1024  # kept in a table while nobody uses them
ROOM = 64  # made at a time, since looking for it walks all of them


class Destination:
    """Where requests and bytes go: ``pool`` for requests, ``opaque`` for connections that are relayed.

    ``name`` is for people; ``wait_seconds`` how long a request may wait for a connection. ``apart``: silent and opaque
    connections, which hold theirs for as long as they like, have a pool of their own, lest they use up HTTP's;
    ``dial_opaque`` makes them where they are made in another way.
    """

    __slots__ = ("habits", "name", "opaque", "origin", "pool", "users")

    def __init__(
        self,
        name: str,
        dial: Callable[[], Awaitable[Channel]],
        shared: Shared,
        *,
        wait_seconds: float,
        apart: bool,
        dial_opaque: Callable[[], Awaitable[Channel]] | None = None,
    ) -> None:
        def pool(dial: Callable[[], Awaitable[Channel]]) -> Pool:
            return Pool(
                dial,
                limit=shared.max_pool,
                max_waiting=shared.max_waiting,
                wait_seconds=wait_seconds,
                idle_seconds=shared.pool_idle,
                counters=shared.telemetry.counters,
            )

        self.name = name
        self.habits = Habits()
        self.pool = pool(dial)
        self.opaque = pool(dial_opaque or dial) if apart else self.pool
        self.origin = PoolOrigin(self.pool, name, shared.timeouts.stream_idle)
        self.users = 0  # captured connections that are here to stay, whether or not they have a request under way

    @property
    def at_rest(self) -> bool:
        """Whether nobody would miss it."""
        return not self.users and self.pool.at_rest and self.opaque.at_rest

    async def fresh(self) -> Lease:
        """A new connection to it, for bytes. Raises ProxyError."""
        return await self.opaque.acquire(fresh=True)

    async def fresh_at_once(self) -> Lease:
        """As ``fresh``, for a client that has said nothing: it must not wait its turn, since what it says next may be
        HTTP."""
        if self.opaque.full:
            raise ProxyError(Reason.POOL_FULL, "all its connections for silent and opaque clients are in use")
        return await self.fresh()

    def renew(self) -> None:
        """What connections are made with has changed: those that are there are not given to anybody else."""
        self.pool.renew()
        self.opaque.renew()

    def leave(self, gone: Collection[str], there: Collection[str]) -> None:
        """Of its peers (ADDRESS:PORT) some are gone, and these are there: connections to the former are not given to
        anybody else."""
        self.pool.leave(gone, there)
        if self.opaque is not self.pool:
            self.opaque.leave(gone, there)

    def sweep(self, now: float) -> None:
        """Closes connections that have been idle for too long."""
        self.pool.sweep(now)

    def close(self) -> None:
        """Closes idle connections; what is leased closes when it is released."""
        self.pool.close()
        self.opaque.close()


class Led(Protocol):
    """Whatever leads to a destination."""

    @property
    def destination(self) -> Destination: ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Led)


class Destinations(Generic[K, V]):
    """Made as they are asked for. Beyond MAX_DESTINATIONS those that nobody uses make room.

    Those in use are never refused: there are no more of them than connections, which are bounded elsewhere. Were they
    counted here, whoever tries all ports of a pod, and stays, would keep everybody else out.
    """

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make
        self._known: dict[K, V] = {}
        self._look_at = MAX_DESTINATIONS  # of them, for some to make room

    def get(self, key: K) -> V | None:
        """The one that is there already."""
        return self._known.get(key)

    def find(self, key: K) -> V:
        """The one there is, or a new one."""
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= self._look_at:
                self._make_room()
            found = self._known[key] = self._make(key)
        return found

    def drop(self, key: K) -> None:
        """Without this one, whose idle connections close."""
        self._known.pop(key).destination.close()

    def items(self) -> ItemsView[K, V]:
        """All of them, by key."""
        return self._known.items()

    def values(self) -> ValuesView[V]:
        """All of them."""
        return self._known.values()

    def sweep(self, now: float) -> None:
        """Closes connections that have been idle for too long."""
        for each in self._known.values():
            each.destination.sweep(now)

    def close(self) -> None:
        """Closes idle connections."""
        for each in self._known.values():
            each.destination.close()

    def _make_room(self) -> None:
        """The oldest of those that nobody uses go, with their idle connections."""
        wanted = len(self._known) - MAX_DESTINATIONS + ROOM
        at_rest = [key for key, each in self._known.items() if each.destination.at_rest]
        for key in at_rest[:wanted]:
            self._known.pop(key).destination.close()
        self._look_at = max(MAX_DESTINATIONS, len(self._known) + ROOM)
