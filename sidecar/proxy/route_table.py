"""The routes of what the app calls: a name or an address -> a route, and a Permit for it.

Called by ``outbound`` and ``explicit``, once for each request and each opaque connection, with the one Snapshot that
these are judged by. A name or an address of a service never leads to a service entry, and one of a service entry never
leads elsewhere. The rest goes where the app sent it, if the outbound policy allows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sidecar.addresses import Address, OriginalDst, parse_ip
from sidecar.errors import ProxyError, Reason
from sidecar.http import headers
from sidecar.http.authority import authority_parts
from sidecar.http.message import Request
from sidecar.net.listener import Listener, is_own
from sidecar.net.resolve import Resolver
from sidecar.policy.authorize import Asked, Permit, Rules, allow_all, authorize_outbound, authorize_service
from sidecar.policy.egress import Egress, effective
from sidecar.policy.retry import DEFAULT
from sidecar.proxy.cluster_client import ClusterClient
from sidecar.proxy.context import Snapshots
from sidecar.proxy.deadlines import Deadlines, Limits
from sidecar.proxy.route import Route
from sidecar.resources.snapshot import NOTHING, Endpoint, EntryPort, ServicePort, Snapshot
from sidecar.resources.virtual_addresses import is_virtual
from sidecar.upstream.cluster import Cluster
from sidecar.upstream.clusters import Clusters

if TYPE_CHECKING:  # a proxy without such documents does not load these
    from sidecar.policy.http_routes import HttpRule, VirtualHost
    from sidecar.policy.routing import Routing
    from sidecar.proxy.virtual_routes import VirtualRoutes
    from sidecar.resources.virtual_service import HTTPMatchRequest

_DIGITS: Final = 10  # of milliseconds: more than a hundred days is no time limit
_A_SWEEP: Final = 256  # routes that are let go at once, which takes less than a millisecond
_MOST: Final = 4096  # routes that are remembered, by what was called; a service has a handful of names


class RouteTable:
    """The routes of one process. ``told`` is the outbound policy of the command line; ``source`` is None if no
    documents are obeyed. ``stream_idle`` seconds of silence end an attempt."""

    def __init__(
        self,
        clusters: Clusters,
        source: Snapshots | None,
        told: Egress,
        resolver: Resolver,
        listeners: Sequence[Listener],
        rules: Rules,
        stream_idle: float,
        deadlines: Deadlines | None = None,
    ) -> None:
        self._clusters = clusters
        self._source = source
        self._told = told
        self._egress = told
        self._configured = True
        self._resolver = resolver
        self._listeners = listeners
        self._rules = rules
        self._stream_idle = stream_idle
        self._deadlines = Deadlines() if deadlines is None else deadlines
        self._virtual: VirtualRoutes | None = None
        self._leaving: list[Route] = []  # of rules that do not count any more
        self._seen: Snapshot = NOTHING
        self._by_name: dict[tuple[str, int], Route] = {}
        self._by_text: dict[bytes, Route] = {}  # the same, by authorities as they are sent
        self._by_address: dict[OriginalDst, Route] = {}
        if source is not None:
            self._follow(source.snapshot)

    def current(self) -> Snapshot:
        """Return the current Snapshot, which routes and judges one stream: read it once for each stream."""
        source = self._source
        if source is None:
            return NOTHING
        snapshot = source.snapshot
        if snapshot is not self._seen:
            self._follow(snapshot)
        return snapshot

    def sweep(self) -> None:
        """Follow the Snapshot even while no request comes; let go of old routes, a few each 50 ms."""
        self.current()
        if self._leaving:
            del self._leaving[-_A_SWEEP:]

    def _follow(self, snapshot: Snapshot) -> None:
        self._seen = snapshot
        self._egress = effective(self._told, snapshot.outbound_policy)
        self._configured = snapshot.source != "none"
        self._by_name.clear()
        self._by_text.clear()
        self._by_address.clear()
        routing = _compiled(snapshot) if snapshot.has_traffic_rules else None
        self._clusters.follow(snapshot, None if routing is None else routing.backends)
        if self._virtual is not None:
            self._leaving += self._virtual.made
        self._virtual = None
        if routing is not None and snapshot.virtual_services:
            from sidecar.proxy.virtual_routes import VirtualRoutes

            self._virtual = VirtualRoutes(self, routing, snapshot, self._deadlines)

    # -- look-ups ----------------------------------------------------------------------------------------------------

    def named(self, snapshot: Snapshot, host: str, port: int) -> Route:
        """Return the route for a host and port that a request names explicitly.

        Raises ProxyError(NO_ROUTE) for a service that has no such port: its name is never routed in any other way.
        """
        known = self._by_name.get((host, port))
        if known is not None:
            return known
        called = OriginalDst(host, port)
        found = self._service(snapshot, host, port)
        if found is None:
            entry = snapshot.entry_by_authority(host, port)
            found = self._outside(called) if entry is None else self.of_entry(entry, called)
        if self._virtual is not None and found.kind != "service":
            found.host = _canonical(host)
            look_up = self._virtual.find if found.kind == "entry" else self._virtual.find_unknown
            found.virtual = look_up(found.host, port)
        if len(self._by_name) < _MOST:
            self._by_name[host, port] = found
        return found

    def captured(self, snapshot: Snapshot, original: OriginalDst) -> Route:
        """Return the route for a connection that was captured on its way to ``original``.

        Raises ProxyError(NO_ROUTE) for an address in the range of services that belongs to none of them.
        """
        known = self._by_address.get(original)
        if known is not None:
            return known
        port = snapshot.by_address(original.host, original.port)
        if port is not None:
            found = self._of_service(snapshot, port, original)
            if found.endpoint is not None and self._passes_through(port):
                found = self._own_endpoint(found)
        elif (entry := snapshot.entry_by_address(original.host, original.port)) is not None:
            found = self.of_entry(entry, original)
            if self._virtual is not None:
                found.host = entry.host
                found.virtual = self._virtual.find(entry.host, original.port)
        elif self._source is not None and self._configured and is_virtual(original.host):
            raise ProxyError(
                Reason.NO_ROUTE, f"{original} stands for no port of a service; a look-up may be out of date"
            )
        else:
            found = self._outside(original)
        if len(self._by_address) < _MOST:
            self._by_address[original] = found
        return found

    def by_authority(self, snapshot: Snapshot, base: Route, authority: bytes) -> Route:
        """Return the route of a request on a captured connection whose own route is ``base``: by its authority, if that
        names a service or a service entry. Raises ProxyError(NO_ROUTE)."""
        if self._source is None:
            return base
        known = self._by_text.get(authority)
        if known is None:
            host, number = authority_parts(authority)
            known = self.named(snapshot, host, number or 80)
            if len(self._by_text) < _MOST:
                self._by_text[authority] = known
        if known.kind == "service":
            passes_through = base.at is not None and base.cluster is known.cluster
            return base if passes_through else known
        if known.kind == "outside":
            return self._unknown(base, known.called.host)
        entry = snapshot.entry_by_authority(known.called.host, known.called.port)
        if entry is None or entry.resolution != "NONE":
            return known
        led = self._led(base, entry, known.called)
        if led is base:
            return self._own_endpoint(base)
        led.host, led.virtual = known.host, known.virtual
        return led

    def _unknown(self, base: Route, host: str) -> Route:
        """Return the route of a request on a captured connection whose host is none of the Snapshot's: by a
        VirtualService for such hosts at the original port, otherwise as the connection itself goes."""
        host = _canonical(host)
        virtual = None if self._virtual is None else self._virtual.find_unknown(host, base.called.port)
        if virtual is None:
            return self._own_endpoint(base)
        return msgspec.structs.replace(base, host=host, virtual=virtual)

    def routed(self, base: Route, request: Request) -> Route:
        """Return the route of a request whose destination is ``base``, by its VirtualService if it has one. Raises
        ProxyError(NO_ROUTE, NO_CLUSTER)."""
        route, virtual = base, base.virtual
        if virtual is not None and self._virtual is not None:
            route = self._virtual.of_request(base, virtual, request)
        if headers.FROM_MESH in request.known:
            route = self._shortened(route, request)
        return route

    def _shortened(self, route: Route, request: Request) -> Route:
        """Return the route with the time that the app itself has left for this request, if that is less."""
        for name, value in request.fields:
            if name.lower() == headers.EXPECTED_TIMEOUT and value.isdigit() and len(value) < _DIGITS:
                left, limits = int(value) / 1000, route.limits
                if left and (limits is None or left < limits.total):
                    per_try = left if limits is None else min(left, limits.per_try)
                    return msgspec.structs.replace(route, limits=Limits(self._deadlines, left, per_try))
        return route

    def to_target(
        self, base: Route, virtual: VirtualHost, rule: HttpRule, match: HTTPMatchRequest | None, number: int
    ) -> Route:
        """Return the route to one target of a rule, for explanations. Raises ProxyError(NO_CLUSTER)."""
        assert self._virtual is not None
        return self._virtual.to_target(base, virtual, rule, match, number)

    def not_used(self, host: str) -> list[str]:
        """Return the VirtualServices for a host that do not count, since another one comes first."""
        return [] if self._virtual is None else self._virtual.not_used(host)

    def routed_bytes(self, base: Route, sni: bytes = b"", address: str = "") -> Route:
        """Return the route of opaque bytes, likewise; ``address`` is the one that they were going to, if they were
        captured. Raises ProxyError(NO_CLUSTER)."""
        if base.endpoint is not None and not base.shared_endpoints:
            return self._own_endpoint(base)
        if not base.host or self._virtual is None:
            return base
        return self._virtual.of_bytes(base, address or base.called.host, sni)

    def by_tls(self, base: Route) -> bool:
        """Return whether a VirtualService has TLS routes to the destination of ``base``."""
        return bool(base.host) and self._virtual is not None and self._virtual.has_tls(base.host, base.called.port)

    def by_server_name(self, snapshot: Snapshot, base: Route, name: bytes) -> Route:
        """Return the route of TLS on a captured connection, by its SNI. An SNI leads to service entries only. A
        connection with a service's name that was going elsewhere continues there."""
        host, port = name.decode("ascii", "replace"), base.called.port
        if base.kind == "service" or self._source is None or snapshot.by_name(host) is not None:
            return base
        led = self._led(base, snapshot.entry_by_authority(host, port), OriginalDst(host, port))
        if led is not base:
            led.host = _canonical(host)
        return led

    def _led(self, base: Route, entry: EntryPort | None, called: Address) -> Route:
        if entry is None:
            return base
        if entry.resolution != "NONE":
            return self.of_entry(entry, called)
        if base.kind == "service":
            return base  # its original destination is a service, whatever name it sends
        return self.of_entry(entry, base.called, chosen=True)

    def _service(self, snapshot: Snapshot, host: str, port: int) -> Route | None:
        found = snapshot.by_authority(host, port)
        if found is not None:
            return self._own_endpoint(self._of_service(snapshot, found, OriginalDst(host, port)))
        if snapshot.by_name(host) is not None:
            raise ProxyError(Reason.NO_ROUTE, f"the service is known, and has no port {port}")
        return None

    def _of_service(self, snapshot: Snapshot, port: ServicePort, called: Address) -> Route:
        """Return the route to a port of a service, by its VirtualService unless the app has chosen the endpoint."""
        route = self.of_service(port, called)
        route.endpoint = _endpoint_at(snapshot, port, called)
        route.shared_endpoints = not snapshot.services[port.namespace, port.service].addresses
        if self._virtual is not None and route.endpoint is None:
            route.host = port.host
            route.virtual = self._virtual.find(port.host, port.port)
        return route

    def _passes_through(self, port: ServicePort) -> bool:
        """Return whether documents say that calls go to the very endpoint that was dialed."""
        backend = self._clusters.backend_of(port)
        return backend is not None and backend.passthrough

    def _own_endpoint(self, base: Route) -> Route:
        """Return the route of bytes on a captured connection, or of a request whose authority names nothing: to the
        very endpoint that the app dialed, if it dialed one of a service."""
        if base.endpoint is None or base.at is not None:
            return base
        client = self._client(base.cluster, base.endpoint, base.shown)
        return msgspec.structs.replace(base, at=base.endpoint, client=client, virtual=None, permit=None)

    def of_service(self, port: ServicePort, called: Address, subset: str = "") -> Route:
        """Return the route to a port of a service, or to a subset of it. Raises ProxyError(NO_CLUSTER) if there is no
        such subset."""
        cluster = self._clusters.of_service(port, subset)
        client = self._client(cluster, None, str(port))
        return Route("service", cluster, client, None, called, str(port), port.protocol, retry=DEFAULT)

    def of_entry(self, port: EntryPort, called: Address, subset: str = "", *, chosen: bool = False) -> Route:
        """Return the route to a port of a service entry, or to a subset of it, likewise. ``chosen``: as of
        ``Route``."""
        own = self._is_own(called)
        allowed = not chosen or self._egress.allows(called.host, called.port)
        cluster, at = self._clusters.of_entry(port, subset), _named_place(port, called)
        client = self._client(cluster, at, str(port))
        return Route(
            "entry", cluster, client, at, called, str(port), port.protocol, allowed, own, chosen, retry=DEFAULT
        )

    def non_idempotent(self, port: ServicePort | EntryPort, subset: str) -> frozenset[str]:
        """Return the names of rules whose requests may be sent there again, whatever their method."""
        backend = self._clusters.backend_of(port, subset)
        return frozenset() if backend is None else backend.non_idempotent

    def _outside(self, called: Address) -> Route:
        allowed = self._egress.allows(called.host, called.port)
        cluster = self._clusters.passthrough
        client = self._client(cluster, called, str(called))
        return Route("outside", cluster, client, called, called, str(called), "auto", allowed, self._is_own(called))

    def _client(self, cluster: Cluster[Any], at: Any, shown: str) -> ClusterClient:
        return ClusterClient(cluster, at, shown, self._stream_idle)

    def _is_own(self, called: Address) -> bool:
        return is_own(self._listeners, called.host, called.port)

    # -- permits -----------------------------------------------------------------------------------------------------

    def permit(self, route: Route, client: str, **asked: Any) -> Permit:
        """Return the permit for ``route``, for a request or connection that sends no name beside the one that it was
        routed by. ``asked`` holds the other fields of ``Asked``. Raises ProxyError."""
        return route.permit or self._judge(route, client, route.allowed, asked)

    async def permit_as(self, route: Route, client: str, name: str, **asked: Any) -> Permit:
        """Return the permit for ``route``, for a captured connection that sends ``name``. Under REGISTRY_ONLY, and for
        an entry that has no address, the name has to resolve to the original destination. Raises ProxyError."""
        if route.permit is not None:
            return route.permit
        return self._judge(route, client, route.allowed or await self._leads(route, name), asked)

    async def _leads(self, route: Route, name: str) -> bool:
        called = route.called
        if route.kind == "entry":
            return called.host in await self._resolver.resolve(name)
        egress = self._egress
        if not egress.allows(name, called.port):
            return False
        return egress.allows_as(name, await self._resolver.resolve(name), called.host, called.port)

    def _judge(self, route: Route, client: str, allowed: bool, asked: dict[str, Any]) -> Permit:
        rules = self._rules
        question = Asked("outbound", "", client, route.cluster.name, **asked)
        if route.kind == "service":
            permit = authorize_service(rules, question, route.at)
        else:
            permit = authorize_outbound(
                rules, question, route.at, destination_is_own=route.own, allowed=allowed, configured=self._configured
            )
        if rules is allow_all and route.allowed:
            route.permit = permit
        return permit


def _canonical(host: str) -> str:
    return host.lower().removesuffix(".")


def _compiled(snapshot: Snapshot) -> Routing:
    """Return the routes of a Snapshot; compile them now if the feed has not."""
    from sidecar.policy.routing import Routing, compile_routing

    if isinstance(snapshot.routing, Routing):
        return snapshot.routing
    work = compile_routing(snapshot)
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: Routing = done.value
            return found


def _endpoint_at(snapshot: Snapshot, port: ServicePort, called: Address) -> Endpoint | None:
    """Return the place of a service's endpoint at this address; None for an address that stands for all of them."""
    service, address = snapshot.services.get((port.namespace, port.service)), parse_ip(called.host)
    if service is None or address is None or str(address) in service.addresses:
        return None
    host = str(address)
    found = (each for each in port.endpoints if each.port == called.port and host in each.addresses)
    return next((each.place for each in found), None)


def _named_place(port: EntryPort, called: Address) -> Address | None:
    """Return the place to dial for an entry without endpoints; None if it has some, or has nothing to look up."""
    if port.places:
        return None
    if port.resolution == "NONE":
        return None if called.host.startswith("*.") else called
    if port.resolution == "DNS":
        name = called.host if parse_ip(called.host) is None else port.host
        if not name.startswith("*."):
            return Address(name, port.target)
    return None
