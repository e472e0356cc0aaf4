"""An endpoint of a cluster: the pools of its connections, and whether it could be reached a moment ago.

Made and kept by ``upstream.cluster``, when the endpoint is first picked: ten thousand endpoints that are never called
have no object here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from sidecar.net.connection import Connection
from sidecar.net.connection_pool import Limits, Pool, PoolCounters
from sidecar.upstream.pool_stats import PoolsShown, shown

COOL_DOWN_SECONDS: Final = 10.0  # an endpoint that could not be reached is picked last for so long

Dial = Callable[[float], Awaitable[Connection]]


class Endpoint:
    """An endpoint; see the module. ``name`` is ADDRESS:PORT, for people. ``opaque`` is the pool of connections that are
    relayed, if they must not use up those for requests; otherwise it is ``pool``.

    ``users`` are captured connections that lead here and are open, whether or not they have a request in progress.
    """

    __slots__ = ("cool_until", "name", "opaque", "pool", "server_first", "users")

    def __init__(self, name: str, dial: Dial, dial_opaque: Dial | None, limits: Limits, counters: PoolCounters) -> None:
        self.name = name
        self.pool = Pool(dial, limits, counters)
        self.opaque = self.pool if dial_opaque is None else Pool(dial_opaque, limits, counters)
        self.cool_until = 0.0
        self.server_first = False  # it has spoken first before: it is dialed sooner for a silent client
        self.users = 0

    @property
    def at_rest(self) -> bool:
        """Whether the endpoint is unused: no connection is in use, waited for or captured here."""
        return not self.users and self.pool.at_rest and self.opaque.at_rest

    @property
    def unused(self) -> bool:
        """Whether it has no connection left, not even an idle one."""
        return self.pool.unused and self.opaque.unused

    def shown(self, limits: Limits) -> PoolsShown:
        """Return the totals of its pool for requests."""
        return shown([self.pool], limits)

    def cool_down(self, now: float) -> None:
        """Note that it could not be reached."""
        self.cool_until = now + COOL_DOWN_SECONDS

    def renew(self) -> None:
        """Let no existing connection be used again: the inputs of dialing have changed."""
        self.pool.renew()
        self.opaque.renew()

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long."""
        self.pool.sweep(now)
        if self.opaque is not self.pool:
            self.opaque.sweep(now)

    def close(self) -> None:
        """Close idle connections; leased ones close when they are released. Requests that wait for one fail."""
        self.pool.close()
        self.opaque.close()
