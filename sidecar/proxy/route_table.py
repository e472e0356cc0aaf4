"""The routes of what the app calls: a name or an address -> a route, and a Permit for it.

Called by ``outbound`` and ``explicit``, once for each request and each opaque connection, with the one Snapshot that
these are judged by. A name or an address of a service never leads to a service entry, and one of a service entry never
leads elsewhere. The rest goes where the app sent it, if the outbound policy allows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from sidecar.addresses import Address, OriginalDst, parse_ip
from sidecar.errors import ProxyError, Reason
from sidecar.http.authority import authority_parts
from sidecar.net.listener import Listener, is_own
from sidecar.net.resolve import Resolver
from sidecar.policy.authorize import Asked, Permit, Rules, allow_all, authorize_outbound, authorize_service
from sidecar.policy.egress import Egress, effective
from sidecar.proxy.cluster_client import ClusterClient
from sidecar.proxy.route import Route
from sidecar.resources.snapshot import NOTHING, EntryPort, ServicePort, Snapshot
from sidecar.resources.virtual_addresses import is_virtual
from sidecar.upstream.cluster import Cluster
from sidecar.upstream.clusters import Clusters

_MOST: Final = 4096  # routes that are remembered, by what was called; a service has a handful of names


class Snapshots(Protocol):
    """The source of the current Snapshot."""

    @property
    def snapshot(self) -> Snapshot: ...


class RouteTable:
    """The routes of one process. ``told`` is the outbound policy of the command line; ``mesh`` is None outside of a
    mesh. ``stream_idle`` seconds of silence end an attempt."""

    def __init__(
        self,
        clusters: Clusters,
        mesh: Snapshots | None,
        told: Egress,
        resolver: Resolver,
        listeners: Sequence[Listener],
        rules: Rules,
        stream_idle: float,
    ) -> None:
        self._clusters = clusters
        self._mesh = mesh
        self._told = told
        self._egress = told
        self._configured = True
        self._resolver = resolver
        self._listeners = listeners
        self._rules = rules
        self._stream_idle = stream_idle
        self._seen: Snapshot = NOTHING
        self._by_name: dict[tuple[str, int], Route] = {}
        self._by_address: dict[OriginalDst, Route] = {}
        if mesh is not None:
            self._follow(mesh.snapshot)

    def current(self) -> Snapshot:
        """Return the current Snapshot, which routes and judges one stream: read it once for each stream."""
        mesh = self._mesh
        if mesh is None:
            return NOTHING
        snapshot = mesh.snapshot
        if snapshot is not self._seen:
            self._follow(snapshot)
        return snapshot

    def _follow(self, snapshot: Snapshot) -> None:
        self._seen = snapshot
        self._egress = effective(self._told, snapshot.outbound_policy)
        self._configured = snapshot.source != "none"
        self._by_name.clear()
        self._by_address.clear()
        self._clusters.follow(snapshot)

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
            found = self._outside(called) if entry is None else self._entry(entry, called)
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
            found = self._of_service(port, original)
        elif (entry := snapshot.entry_by_address(original.host, original.port)) is not None:
            found = self._entry(entry, original)
        elif self._mesh is not None and self._configured and is_virtual(original.host):
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
        if self._mesh is None:
            return base
        host, number = authority_parts(authority)
        port = number or 80
        known = self._by_name.get((host, port)) or self.named(snapshot, host, port)
        if known.kind == "service":
            return known
        if known.kind == "outside":
            return base
        return self._led(base, snapshot.entry_by_authority(host, port), OriginalDst(host, port))

    def by_server_name(self, snapshot: Snapshot, base: Route, name: bytes) -> Route:
        """Return the route of TLS on a captured connection, by its SNI. An SNI leads to service entries only. A
        connection with a service's name that was going elsewhere continues there."""
        host, port = name.decode("ascii", "replace"), base.called.port
        if base.kind == "service" or self._mesh is None or snapshot.by_name(host) is not None:
            return base
        return self._led(base, snapshot.entry_by_authority(host, port), OriginalDst(host, port))

    def _led(self, base: Route, entry: EntryPort | None, called: OriginalDst) -> Route:
        if entry is None:
            return base
        if entry.resolution != "NONE":
            return self._entry(entry, called)
        if base.kind == "service":
            return base  # its original destination is a service, whatever name it sends
        return self._entry(entry, base.called, chosen=True)

    def _service(self, snapshot: Snapshot, host: str, port: int) -> Route | None:
        found = snapshot.by_authority(host, port)
        if found is not None:
            return self._of_service(found, OriginalDst(host, port))
        if snapshot.by_name(host) is not None:
            raise ProxyError(Reason.NO_ROUTE, f"the service is known, and has no port {port}")
        return None

    def _of_service(self, port: ServicePort, called: Address) -> Route:
        cluster = self._clusters.of_service(port)
        return Route("service", cluster, self._client(cluster, None, str(port)), None, called, str(port), port.protocol)

    def _entry(self, port: EntryPort, called: Address, *, chosen: bool = False) -> Route:
        own = self._is_own(called)
        allowed = not chosen or self._egress.allows(called.host, called.port)
        cluster, at = self._clusters.of_entry(port), _named_place(port, called)
        client = self._client(cluster, at, str(port))
        return Route("entry", cluster, client, at, called, str(port), port.protocol, allowed, own, chosen)

    def _outside(self, called: Address) -> Route:
        allowed = self._egress.allows(called.host, called.port)
        cluster = self._clusters.passthrough
        client = self._client(cluster, called, str(called))
        return Route("outside", cluster, client, called, called, str(called), "auto", allowed, self._is_own(called))

    def _client(self, cluster: Cluster[Any], at: Address | None, shown: str) -> ClusterClient:
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
            permit = authorize_service(rules, question)
        else:
            permit = authorize_outbound(
                rules, question, route.at, destination_is_own=route.own, allowed=allowed, configured=self._configured
            )
        if rules is allow_all and route.allowed:
            route.permit = permit
        return permit


def _named_place(port: EntryPort, called: Address) -> Address | None:
    """Return the place to dial for an entry without endpoints; None if it has some, or has nothing to look up."""
    if port.places:
        return None
    if port.resolution == "NONE":
        return called
    if port.resolution == "DNS":
        name = called.host if parse_ip(called.host) is None else port.host
        if not name.startswith("*."):
            return Address(name, port.target)
    return None
