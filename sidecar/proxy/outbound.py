"""Outbound: connections from the app, captured or through the explicit proxy (``explicit``).

One ``Outbound`` serves all connections of port 15001. Each request, and each connection that is relayed, reads the
Snapshot once, and is routed and judged by that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sidecar.addresses import OriginalDst
from sidecar.errors import ProxyError, Reason
from sidecar.http.authority import authority_parts
from sidecar.http.first_bytes import Detected
from sidecar.http.message import Request
from sidecar.net.connection import Connection
from sidecar.net.connection_pool import Lease, Limits, PoolUse, pool_use
from sidecar.policy.authorize import Asked, Permit, refuse_own_listener
from sidecar.proxy.connection_handler import serve_target
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.explicit import ExplicitProxy, asked_outbound
from sidecar.proxy.header_sanitizer import HeaderSanitizer
from sidecar.proxy.pipeline import RunningBytes, RunningRequest
from sidecar.proxy.protocol_detection import Detection, ServerFirstCache
from sidecar.proxy.route import Route
from sidecar.proxy.route_table import RouteTable
from sidecar.resources.protocols import Protocol
from sidecar.resources.snapshot import Snapshot
from sidecar.telemetry.record import ConnectionInfo
from sidecar.upstream.clusters import Clusters
from sidecar.upstream.plaintext import PlaintextConnector
from sidecar.upstream.pool_stats import PoolsShown

if TYPE_CHECKING:
    from sidecar.telemetry.record import Record
    from sidecar.telemetry.route_counts import RouteCounts

WAIT_SECONDS = 3.0  # for a connection to an endpoint (F13)
_WORDS = {Detected.TLS: "TLS", Detected.HTTP1: "HTTP"}


class Outbound:
    """The server of the app's connections. ``serve`` takes those that were made to the port itself."""

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._sanitizer = HeaderSanitizer(context, appends_caller=False)
        mesh = context.mesh
        source = context.documents if mesh is None else mesh
        snapshot = None if source is None else lambda: source.snapshot
        plaintext = PlaintextConnector(context.resolver, context.listeners, context.connections, snapshot)
        limits = Limits(context.max_pool, context.max_waiting, WAIT_SECONDS, context.pool_idle)
        self._clusters = Clusters(
            limits,
            context.connect_timeout,
            context.telemetry.counters,
            plaintext,
            None if mesh is None else mesh.connector,
        )
        self._routes = RouteTable(
            self._clusters,
            source,
            context.egress,
            context.resolver,
            context.listeners,
            context.rules,
            context.timeouts.stream_idle,
            context.deadlines,
        )
        self.serve = ExplicitProxy(self._routes, self._sanitizer, context).serve
        if mesh is not None:
            mesh.connector.identity.follow(lambda _: self._clusters.renew())

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long. Follow the Snapshot even while no request comes."""
        self._routes.sweep()
        self._clusters.sweep(now)

    def close(self) -> None:
        """Close idle connections."""
        self._clusters.close()

    async def serve_captured(self, connection: Connection, host: str, original: OriginalDst) -> None:
        """Serve one connection that was redirected here on its way to ``original``.

        Close the connection when it ends. Raises ProxyError if the connection can't be served at all; the caller resets
        it then.
        """
        snapshot = self._routes.current()
        route = self._routes.captured(snapshot, original)
        refuse_own_listener(route.own)
        captured = _Captured(self._routes, self._sanitizer, snapshot, route, original, host)
        endpoint = None if route.at is None else route.cluster.at(route.at)
        if endpoint is not None:
            endpoint.users += 1
        try:
            await serve_target(connection, host, captured, self._context)
        finally:
            if endpoint is not None:
                endpoint.users -= 1
            connection.close()

    def pools(self) -> dict[str, PoolsShown]:
        """Return the pools of all clusters, by a name for people."""
        outside = self._clusters.passthrough
        found = {f"outbound|{each.name}": each.shown(outside.terms.limits) for each in outside.endpoints}
        for cluster in self._clusters.called:
            found[f"outbound|http|{cluster.terms.shown}"] = cluster.shown()
            if cluster.apart:
                found[f"outbound|opaque|{cluster.terms.shown}"] = cluster.shown(opaque=True)
        return found

    def shown_routes(self, counts: RouteCounts) -> list[dict[str, object]]:
        """Return the rules of VirtualServices in force, as JSON values."""
        if not self._routes.current().virtual_services:
            return []
        from sidecar.proxy.explain_route import shown_routes

        return shown_routes(self._routes, counts)

    def explain_record(self, record: Record) -> dict[str, object]:
        """Return how a request that has been served was routed, as JSON values; empty if no VirtualService had a
        part."""
        if not self._routes.current().virtual_services:
            return {}
        from sidecar.proxy.explain_route import of_record

        return of_record(self._routes, record)

    def explain(self, method: str, target: str, authority: str, fields: Sequence[tuple[str, str]]) -> dict[str, object]:
        """Return what would become of a request of the app, as JSON values. Raises ValueError if it is none."""
        from sidecar.proxy.explain_route import explain_route

        return explain_route(self._routes, method, target, authority, fields)

    def uses(self) -> dict[str, PoolUse]:
        """Return how the pools of all clusters are used together."""
        pools = [pool for cluster in self._clusters for pool in cluster.pools]
        return {"outbound": pool_use(pools, self._context.max_pool)}


class _Captured:
    """A ``Target`` for a captured connection. Its own route is that of its original destination, by the Snapshot that
    was read last; each request on it reads the current Snapshot."""

    direction = "outbound"
    rejudged = False

    def __init__(
        self,
        routes: RouteTable,
        sanitizer: HeaderSanitizer,
        snapshot: Snapshot,
        route: Route,
        original: OriginalDst,
        host: str,
    ) -> None:
        self._routes = routes
        self.sanitizer = sanitizer
        self._version = snapshot.version  # not the Snapshot: the connection may be idle for long
        self._route = route
        self._original = original
        self._host = host
        self._early: Route | None = None  # the one by which a connection was dialed for a silent client
        self.original = str(original)
        self.current = routes.current

    @property
    def protocol(self) -> Protocol:
        return self._route.protocol

    @property
    def vouches(self) -> bool:
        """Whether the destination is a service, whose sidecar would refuse such HTTP as well. See ``Target``."""
        return self._route.kind == "service"

    @property
    def by_server_name(self) -> bool:
        return self._routes.by_tls(self._route)

    @property
    def name(self) -> str:
        return self._route.shown

    @property
    def server_first_cache(self) -> ServerFirstCache:
        return self._route.server_first_cache

    def trusts(self, host: str) -> bool:
        return False

    def _own(self, snapshot: Snapshot) -> Route:
        """Return the route of the original destination. Raises ProxyError(NO_ROUTE)."""
        if snapshot.version is not self._version:
            self._route = self._routes.captured(snapshot, self._original)
            self._version = snapshot.version
        return self._route

    def route(self, snapshot: Snapshot, request: Request) -> Route:
        if request.method == b"CONNECT" or request.absolute:
            raise ProxyError(Reason.METHOD_REFUSED, "a proxy request inside a tunnel or a captured connection")
        routes = self._routes
        return routes.routed(routes.by_authority(snapshot, self._own(snapshot), request.authority), request)

    async def authorize(self, snapshot: Snapshot, route: Route, wanted: RunningRequest) -> Permit:
        request = wanted.request
        return route.permit or await self._routes.permit_as(
            route,
            wanted.info.client,
            authority_parts(request.authority)[0],
            protocol="HTTP",
            method=request.method,
            path=request.target,
            authority=request.authority,
        )

    def route_bytes(self, snapshot: Snapshot, found: Detection) -> Route:
        route = self._own(snapshot)
        if found.lease is not None:  # the client was silent, and its connection was dialed by the address alone
            if self._early is not None and (found.sent or not found.lease.stale):
                return self._early  # a rule with weights may draw another one
            return self._routes.routed_bytes(route, address=self._original.host)
        if found.sni:
            route = self._routes.by_server_name(snapshot, route, found.sni)
        return self._routes.routed_bytes(route, found.sni, self._original.host)

    def asked(self, wanted: RunningRequest) -> Asked:
        """See ``Routing``. Limits alone judge by it: the callee's proxy applies other policies."""
        return asked_outbound(wanted.info.client, wanted.request, wanted.fields)

    async def authorize_bytes(self, snapshot: Snapshot, route: Route, wanted: RunningBytes) -> Permit:
        found = wanted.found
        name = found.sni.decode("ascii", "replace")
        protocol = _WORDS.get(found.kind, "TCP")
        return await self._routes.permit_as(route, self._host, name, protocol=protocol, sni=found.sni)

    def asked_of_bytes(self, wanted: RunningBytes) -> Asked:
        """See ``BytesRouting``."""
        return Asked("outbound", "", wanted.info.client, "", "TCP", sni=wanted.found.sni)

    def reached(self, connection: Connection) -> tuple[str, int]:
        return self._original.host, self._original.port

    async def dial_early(self, info: ConnectionInfo) -> Lease:
        # The client has sent no name: the address must do.
        route = self._routes.routed_bytes(self._own(self.current()), address=self._original.host)
        permit = self._routes.permit(route, self._host, protocol="TCP")
        self._early = route
        return await route.cluster.lease(permit, route.at, opaque=True, at_once=True)
