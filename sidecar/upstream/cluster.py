"""A cluster: a destination with its endpoints, of which one is picked for each request and each opaque connection.

Called by ``proxy`` with a Permit for it. Inbound has a cluster for each port of the app, with one endpoint; outbound
one for each port of a service or service entry, and one for all other destinations (PassthroughCluster). In clusters
whose endpoints are not known beforehand, a request names its own (``at``): the address that the app chose.

Theory of operation. ``places`` are the candidates of a Snapshot; an ``Endpoint`` is made for a place when it is first
picked. When places change, endpoints that are gone finish what they carry and are not picked again. An endpoint
that can't be reached is picked last for ten seconds: the first caller pays for the failure, later callers avoid it. For
an opaque connection the cluster itself tries the next endpoint, within the time that one connection may take. For a
request it dials only the endpoint that was picked: the request's retry policy and the cluster's budget decide what
comes next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Sequence
from random import random
from time import monotonic
from typing import Final, Generic, TypeVar

import msgspec

from sidecar.errors import ProxyError, Reason
from sidecar.net.connection import NEVER, Connection
from sidecar.net.connection_pool import Lease, Limits, Pool, PoolCounters
from sidecar.policy.authorize import Permit
from sidecar.policy.balance import LEAST_REQUEST, Balancer, Balancing, balancer, least_request
from sidecar.policy.retry_budget import ClusterLoad, ConcurrencyBudget, RetryBudget
from sidecar.upstream.bounded_table import MOST, make_room
from sidecar.upstream.endpoint import Dial, Endpoint
from sidecar.upstream.pool_stats import EndpointShown, PoolsShown, shown

ATTEMPT_SECONDS: Final = 1.0  # to reach one endpoint, while there are others to try
MOST_TRIED: Final = 8  # endpoints for one connection: a service that is down must not cost a dial of each
_LAST: Final = float("inf")  # the load of an endpoint that is picked when no other is left

P = TypeVar("P", bound=Hashable)
Connect = Callable[[P, float], Awaitable[Connection]]


class Terms(msgspec.Struct, frozen=True):
    """The fixed properties of a cluster.

    ``name`` is the name in permits, in Envoy's form (``outbound|80||web.shop.svc.cluster.local``); ``shown`` the name
    in a record before an endpoint is picked. ``patience`` is how many seconds a connection may take, with all its
    attempts; ``next_on`` the failures after which the next endpoint is tried: nothing of the request has been sent
    then.
    """

    name: str
    shown: str
    limits: Limits
    patience: float
    next_on: frozenset[Reason] = frozenset()
    identities: tuple[str, ...] = ()  # that may be at the other end, for people; empty: any


class Cluster(Generic[P]):
    """A cluster; see the module. ``connect`` dials a place within the given seconds; ``connect_opaque`` dials it for
    connections that are relayed, which then have pools of their own. Both raise ProxyError."""

    def __init__(
        self,
        terms: Terms,
        connect: Connect[P],
        counters: PoolCounters,
        *,
        connect_opaque: Connect[P] | None = None,
        places: Sequence[P] = (),
    ) -> None:
        self.terms = terms
        self.name = terms.name
        self.server_first = False  # an endpoint has spoken first before; see ``Endpoint``
        self.load = ClusterLoad(ConcurrencyBudget())
        self._balancing: Balancing = LEAST_REQUEST
        self._weights: Sequence[int] = ()
        self._balancer: Balancer | None = None  # None: LEAST_REQUEST among endpoints of equal weight
        self._connect = connect
        self._connect_opaque = connect_opaque
        self._counters = counters
        self._places: Sequence[P] = places
        self._picked: list[Endpoint | None] = [None] * len(places)  # the endpoint of each place, once it is made
        self._endpoints: dict[P, Endpoint] = {}
        self._leaving: list[Endpoint] = []  # not picked any more, and not empty yet
        self._look_at = MOST  # endpoints at which some make room, in a cluster without places
        self._cool_until = 0.0  # until then some endpoint may be cooling down
        self._closed = False
        self._only: Endpoint | None = None  # the endpoint that is always picked, if there is one
        if len(places) == 1:
            self._found(0)

    # -- its endpoints -----------------------------------------------------------------------------------------------

    def set_budget(self, budget: RetryBudget | None) -> None:
        """Judge retries by this budget from now on; None: without one. An equal budget goes on with what it has
        counted."""
        if budget != self.load.budget:
            self.load.set_budget(budget)

    def set_balancing(self, balancing: Balancing) -> None:
        """Choose the next endpoint in this way from now on."""
        if balancing != self._balancing:
            self._balancing = balancing
            self._balance()

    def _balance(self) -> None:
        weights = self._weights if len(set(self._weights)) > 1 else ()
        plain = not weights and self._balancing == LEAST_REQUEST
        self._balancer = None if plain else balancer(self._balancing, weights, len(self._places), random())

    def take(self, places: Sequence[P], weights: Sequence[int] = ()) -> None:
        """Pick from these places from now on; ``weights`` are theirs, in the same order. Without any, all weigh the
        same."""
        if places == self._places and weights == self._weights:
            return
        self._weights = weights
        if places == self._places:
            self._balance()
            return
        self._places = places
        self._balance()
        self._only = None
        if not self._endpoints:
            self._picked = [None] * len(places)
            return
        self._picked = [self._endpoints.get(place) for place in places]
        if len(places) == 1 and not self._closed:
            self._only = self._picked[0]
        for place in self._endpoints.keys() - set(places):
            endpoint = self._endpoints.pop(place)
            endpoint.close()
            if not endpoint.unused:
                self._leaving.append(endpoint)

    def at(self, place: P) -> Endpoint:
        """Return the endpoint at a place that a request or connection names explicitly."""
        found = self._endpoints.get(place)
        if found is None:
            if not self._places and len(self._endpoints) >= self._look_at:
                self._look_at = make_room(self._endpoints)
            found = self._endpoints[place] = self._made(place)
        return found

    def _made(self, place: P) -> Endpoint:
        opaque = None if self._connect_opaque is None else _bound(self._connect_opaque, place)
        return Endpoint(str(place), _bound(self._connect, place), opaque, self.terms.limits, self._counters)

    def pick(self, permit: Permit, tried: Sequence[Endpoint] = (), *, at: P | None = None) -> Endpoint:
        """Return the endpoint for a request or connection: the one ``at`` a place, or one that is chosen; another one
        than those ``tried`` while there is one. Raises ProxyError(NO_ENDPOINT); TypeError if ``permit`` is not for this
        cluster and place."""
        if permit.__class__ is not Permit or permit.cluster != self.name or permit.at != at:
            raise TypeError("forwarding takes a Permit for this very destination")
        if at is not None and not self._closed:
            return self.at(at)
        return self._only or self._pick(tried) or self._pick(()) or self._none()

    def has_others(self, tried: int) -> bool:
        """Return whether there are more endpoints than the number ``tried``."""
        return len(self._places) > tried

    def _none(self) -> Endpoint:
        raise ProxyError(Reason.NO_ENDPOINT, f"{self.terms.shown} has no endpoint")

    def _pick(self, tried: Sequence[Endpoint]) -> Endpoint | None:
        """Return the next endpoint. Those that cool down come last, those ``tried`` not at all. None: none is left.
        Raises ProxyError(NO_ENDPOINT) if the cluster is closed."""
        if self._closed:
            raise ProxyError(Reason.NO_ENDPOINT, f"{self.terms.shown} is gone, or served by others now")
        picked = self._picked
        count = len(picked)
        if count == 1 and not tried:
            return picked[0] or self._found(0)
        if not count:
            return None
        now = monotonic() if self._cool_until else NEVER
        if self._cool_until < now < NEVER:
            self._cool_until = 0.0

        def load(number: int) -> float:
            endpoint = picked[number]
            if endpoint is None:
                return 0
            if endpoint.cool_until > now or endpoint in tried:
                return _LAST
            return endpoint.pool.active + endpoint.opaque.active

        balancer = self._balancer
        if balancer is None:
            number = least_request(range(count), load, random(), random())
        else:
            number = balancer.choose(load, random(), random())
        if (tried or self._cool_until) and load(number) == _LAST:  # so are both choices: only now look at all of them
            left = [each for each in range(count) if picked[each] is None or picked[each] not in tried]
            if not left:
                return None
            left = [each for each in left if load(each) < _LAST] or left
            if balancer is None:
                number = least_request(left, load, random(), random())
            else:
                number = balancer.choose_among(left, load, random(), random())
        return picked[number] or self._found(number)

    def _found(self, number: int) -> Endpoint:
        endpoint = self._picked[number] = self.at(self._places[number])
        self._only = endpoint if len(self._picked) == 1 else None
        return endpoint

    # -- connections -------------------------------------------------------------------------------------------------

    async def lease(
        self, permit: Permit, at: P | None = None, *, fresh: bool = False, opaque: bool = False, at_once: bool = False
    ) -> Lease:
        """Return a connection to an endpoint: the one ``at`` a place, or one that is picked.

        ``fresh``: a new connection. ``opaque``: for bytes that are relayed; a new connection, too. ``at_once``: for a
        client that has sent nothing. It must not wait for a connection, since its first bytes may be HTTP.

        Raises ProxyError: NO_ENDPOINT, POOL_FULL, POOL_TIMEOUT, or what connecting raises; TypeError if ``permit`` is
        not for this cluster and place.
        """
        endpoint = self.pick(permit, at=at)
        if at_once and endpoint.opaque.full:
            raise ProxyError(Reason.POOL_FULL, "all its connections for silent and opaque clients are in use")
        return await self.connect(endpoint, pinned=at is not None, fresh=fresh or opaque, opaque=opaque)

    async def reach(self, endpoint: Endpoint, *, fresh: bool, seconds: float, hasty: bool) -> Lease:
        """Return a connection to this very endpoint, for a request. Making it may take ``seconds``, at most
        ATTEMPT_SECONDS if it is ``hasty``. The rest is as of ``lease``."""
        try:
            return await endpoint.pool.acquire(fresh=fresh, seconds=min(ATTEMPT_SECONDS, seconds) if hasty else seconds)
        except ProxyError as error:
            if error.reason in self.terms.next_on:
                self._cool_down(endpoint)
            raise

    def _cool_down(self, endpoint: Endpoint) -> None:
        endpoint.cool_down(monotonic())
        self._cool_until = max(self._cool_until, endpoint.cool_until)

    async def connect(self, endpoint: Endpoint, *, pinned: bool, fresh: bool, opaque: bool = False) -> Lease:
        """Return a connection to this endpoint, which was picked, or to the next one if this can't be reached, unless
        it is ``pinned``. The rest is as of ``lease``."""
        tried: list[Endpoint] = []
        patience, until = self.terms.patience, monotonic() + self.terms.patience
        while True:
            tried.append(endpoint)
            last = pinned or len(tried) >= min(len(self._places), MOST_TRIED)
            seconds = patience if last else min(ATTEMPT_SECONDS, patience)
            pool = endpoint.opaque if opaque else endpoint.pool
            try:
                return await pool.acquire(fresh=fresh, seconds=seconds)
            except ProxyError as error:
                if error.reason not in self.terms.next_on:
                    raise
                self._cool_down(endpoint)
                if pinned or monotonic() > until or len(tried) >= MOST_TRIED:
                    raise
                try:
                    another = self._pick(tried)
                except ProxyError:
                    raise error from None
                if another is None:
                    raise
                endpoint = another

    # -- all of them -------------------------------------------------------------------------------------------------

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        """The endpoints that have been picked, and those that are gone and still carry something."""
        return (*self._endpoints.values(), *self._leaving)

    @property
    def pools(self) -> list[Pool]:
        """The pools of all endpoints, for requests."""
        return [each.pool for each in self.endpoints]

    @property
    def opaque_pools(self) -> list[Pool]:
        """The pools of all endpoints, for connections that are relayed, if these are separate."""
        return [each.opaque for each in self.endpoints if self.apart]

    @property
    def apart(self) -> bool:
        """Whether connections that are relayed have pools of their own."""
        return self._connect_opaque is not None

    @property
    def at_rest(self) -> bool:
        """Whether none of its endpoints is used."""
        return all(each.at_rest for each in self.endpoints)

    def shown(self, *, opaque: bool = False) -> PoolsShown:
        """Return the totals of its pools, those for requests or those for ``opaque`` connections."""
        now = monotonic()
        pools = self.opaque_pools if opaque else self.pools
        endpoints = [
            EndpointShown(each.name, pool.open, pool.idle, pool.waiting, each.cool_until > now)
            for each, pool in zip(self.endpoints, pools, strict=True)
        ]
        several = tuple(endpoints) if len(self._places) > 1 else ()
        return shown(pools, self.terms.limits, self.terms.identities, several)

    def explained(self, now: float, most: int = 50) -> list[dict[str, object]]:
        """Return the endpoints that the next request may go to, and why it rather goes to others, as JSON values."""
        rows: list[dict[str, object]] = []
        for number, place in enumerate(self._places[:most]):
            endpoint = self._picked[number]
            row: dict[str, object] = {"endpoint": str(place)}
            if self._weights:
                row["weight"] = self._weights[number]
            if endpoint is not None:
                row["in_progress"] = endpoint.pool.active + endpoint.opaque.active
                if endpoint.cool_until > now:
                    row["picked_last_for_seconds"] = round(endpoint.cool_until - now, 1)
            rows.append(row)
        return rows

    def renew(self) -> None:
        """Let no existing connection be used again."""
        for endpoint in self._endpoints.values():
            endpoint.renew()

    def renew_at(self, places: Collection[P]) -> None:
        """Renew the connections at these places only."""
        for place in self._endpoints.keys() & set(places):
            self._endpoints[place].renew()

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long."""
        for endpoint in self._endpoints.values():
            endpoint.sweep(now)
        if self._leaving:
            self._leaving = [each for each in self._leaving if not each.unused]

    def close(self) -> None:
        """Close idle connections, for good; leased ones close when they are released."""
        self._closed = True
        self._only = None
        for endpoint in self._endpoints.values():
            endpoint.close()


def _bound(connect: Connect[P], place: P) -> Dial:
    """Return a function that dials ``place``. It is no bound method of an endpoint or a cluster, so an endpoint that
    makes room is freed at once, without the garbage collector."""
    return lambda seconds: connect(place, seconds)
