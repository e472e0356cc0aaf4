"""Outbound: what the app sends to others, captured, or through an explicit HTTP proxy on loopback (absolute form and
CONNECT).

One ``Outbound`` serves all connections of port 15001. A CONNECT is a capture whose original destination is its
authority: what comes through it is looked at as if it had been redirected here. Each request, and each connection that
is relayed, reads the Snapshot once, and is routed and judged by that one.
"""

from __future__ import annotations

from time import monotonic, time

from sidecar.addresses import Address, OriginalDst, parse_host_port, parse_ip
from sidecar.errors import ProxyError, Reason
from sidecar.http.detect import Detected
from sidecar.http.h1.head import authority_parts, canonical_authority
from sidecar.http.h1.server import H1ServerConnection
from sidecar.http.message import EMPTY, Request, Response
from sidecar.http.streams import ServerStream
from sidecar.net.connection import Connection, ConnectionClosed
from sidecar.net.pool import Lease, Limits, PoolUse, pool_use
from sidecar.policy.authorize import Permit, authorize_caller, refuse_own_listener
from sidecar.proxy.connection_handler import http2_refused, serve_target
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.exchange import exchange
from sidecar.proxy.header_sanitizer import HeaderSanitizer
from sidecar.proxy.origin import ClusterOrigin
from sidecar.proxy.protocol_detection import Detection, ServerFirstCache, detect_protocol, greets, note_detected
from sidecar.proxy.routes import Route, Routes
from sidecar.proxy.serve import serve_http
from sidecar.proxy.tcp_proxy import switch, tunnel
from sidecar.resources.protocols import Protocol
from sidecar.resources.snapshot import Snapshot
from sidecar.telemetry.record import ConnectionInfo, Record
from sidecar.upstream.clusters import Clusters
from sidecar.upstream.plaintext import PlaintextConnector
from sidecar.upstream.pool_stats import PoolsShown

WAIT_SECONDS = 3.0  # for a connection to an endpoint (F13)
_DECLARED = {"http": Detected.HTTP1, "tcp": Detected.OPAQUE}  # such a port takes nothing else, and is not looked into
_ESTABLISHED = Response(200, [], {}, EMPTY)
_WORDS = {Detected.TLS: "TLS", Detected.HTTP1: "HTTP"}


class Outbound:
    """Serves the app's connections."""

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._forwarder = HeaderSanitizer(context, appends_caller=False)
        mesh = context.mesh
        snapshot = None if mesh is None else lambda: mesh.snapshot
        plaintext = PlaintextConnector(context.resolver, context.listeners, context.connections, snapshot)
        limits = Limits(context.max_pool, context.max_waiting, WAIT_SECONDS, context.pool_idle)
        self._clusters = Clusters(
            limits,
            context.connect_timeout,
            context.telemetry.counters,
            plaintext,
            None if mesh is None else mesh.connector,
        )
        self._routes = Routes(self._clusters, mesh, context.egress, context.resolver, context.listeners, context.rules)
        if mesh is not None:
            mesh.connector.identity.follow(lambda _: self._clusters.renew())

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long, and follow the Snapshot while no request comes."""
        self._routes.current()
        self._clusters.sweep(now)

    def close(self) -> None:
        """Close idle connections."""
        self._clusters.close()

    async def serve(self, connection: Connection, host: str) -> None:
        """Serve one connection to the explicit proxy from ``host`` until it ends, and close it."""
        origin = ConnectionInfo(time(), "HTTP, as the explicit proxy's port is for", 0.0)
        http_connection = H1ServerConnection(
            connection, b"", self._context.timeouts, host, trusted=False, origin=origin
        )
        http_connection.leaves_with(self._context.drain)
        address = parse_ip(host)
        try:
            if address is None or not address.is_loopback:
                try:
                    authorize_caller(loopback=False)
                except ProxyError as refused:
                    http_connection.fail_next(refused)
            await serve_http(http_connection, "outbound", self._handle, self._context)
        finally:
            connection.close()

    async def serve_captured(self, connection: Connection, host: str, original: OriginalDst) -> None:
        """Serve one connection that was redirected here on its way to ``original``.

        Raises ProxyError where it can't be served at all; otherwise it closes the connection.
        """
        snapshot = self._routes.current()
        route = self._routes.captured(snapshot, original)
        refuse_own_listener(route.own)
        captured = _Captured(self, snapshot, route, original, host)
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
        """The pools of all clusters, by a name for people."""
        outside = self._clusters.passthrough
        found = {f"outbound|{each.name}": each.shown(outside.terms.limits) for each in outside.endpoints}
        for cluster in self._clusters.called:
            found[f"outbound|http|{cluster.terms.shown}"] = cluster.shown()
            if cluster.apart:
                found[f"outbound|opaque|{cluster.terms.shown}"] = cluster.shown(opaque=True)
        return found

    def uses(self) -> dict[str, PoolUse]:
        """How the pools of all clusters are used together."""
        pools = [pool for cluster in self._clusters for pool in cluster.pools]
        return {"outbound": pool_use(pools, self._context.max_pool)}

    # -- HTTP --------------------------------------------------------------------------------------------------------

    async def forward(
        self, stream: ServerStream, request: Request, record: Record, route: Route, permit: Permit
    ) -> None:
        """Forward one request and its reply. Raises ProxyError."""
        record.cluster = route.label
        fields = self._forwarder.fields(stream, request, record)
        origin = route.origin
        if origin is None:
            origin = ClusterOrigin(route.cluster, route.at, route.shown, self._context.timeouts.stream_idle)
            route.origin = origin
        switched = await exchange(stream, request, fields, origin, permit, record)
        if switched is not None:
            await switch(stream, switched.upstream, switched.head, record, self._context)

    async def _handle(self, stream: ServerStream, request: Request, record: Record) -> None:
        if request.method == b"CONNECT":
            await self._connect(stream, request, record)
        elif request.absolute:
            snapshot = self._routes.current()
            route = self._route(snapshot, request.authority, default_port=80)
            await self.forward(stream, request, record, route, self._permit(route, stream, request))
        else:
            raise ProxyError(
                Reason.NO_ROUTE, "this port is an explicit proxy: send an absolute URL or CONNECT (curl -x, HTTP_PROXY)"
            )

    def _permit(self, route: Route, stream: ServerStream, request: Request) -> Permit:
        return route.permit or self._routes.permit(
            route,
            stream.peer,
            protocol="HTTP",
            method=request.method,
            path=request.target,
            authority=request.authority,
        )

    async def permit_captured(self, route: Route, stream: ServerStream, request: Request) -> Permit:
        """Return leave for a request of a captured connection. Raises ProxyError."""
        return route.permit or await self._routes.permit_as(
            route,
            stream.peer,
            authority_parts(request.authority)[0],
            protocol="HTTP",
            method=request.method,
            path=request.target,
            authority=request.authority,
        )

    # -- CONNECT -----------------------------------------------------------------------------------------------------

    async def _connect(self, stream: ServerStream, request: Request, record: Record) -> None:
        snapshot = self._routes.current()
        route = self._route(snapshot, request.authority, default_port=0)
        http = route.protocol == "http"
        permit = self._routes.permit(
            route, stream.peer, protocol="HTTP" if http else "TCP", authority=request.authority
        )
        record.attempts = 1
        record.upstream = route.shown
        record.cluster = route.label
        lease = await route.cluster.lease(permit, route.at, opaque=not http)
        record.upstream = lease.connection.peer
        record.upstream_principal = lease.principal
        record.status = 200
        try:
            connection, data = await stream.take_over(_ESTABLISHED)
        except BaseException:
            lease.release(reusable=False)
            raise
        began = monotonic()
        found = await self._look_inside(connection, data, route, permit, lease)
        if found.kind is Detected.HTTP1 and (http or not greets(lease.connection)):
            # Each tunnel dials: were all of these kept, the pool would fill with connections that nothing needs.
            one_pool = http or not route.cluster.apart
            lease.release(reusable=one_pool and lease.quiet() and not lease.pool.has_idle)
            words = "HTTP, as the service's port says" if http else found.words
            origin = ConnectionInfo(time(), f"{words}, within CONNECT", monotonic() - began)
            await self._http_within(connection, stream.peer_ip.decode(), found.data, request.authority, origin)
        else:
            snapshot = self._routes.current()
            if lease.stale and not found.sent:
                lease.release(reusable=False)  # the client was silent meanwhile: this may lead elsewhere by now
                route = self._route(snapshot, request.authority, default_port=0)
                permit = self._routes.permit(route, stream.peer, protocol="TCP", authority=request.authority)
                lease = await route.cluster.lease(permit, route.at, opaque=True)
            await self._relay(connection, found, lease, record)

    async def _look_inside(
        self, connection: Connection, data: bytes, route: Route, permit: Permit, lease: Lease
    ) -> Detection:
        """What the tunnel carries: as it is declared, else by its first bytes."""
        if route.protocol in _DECLARED:
            return Detection(_DECLARED[route.protocol], data, None)
        timeouts, began = self._context.timeouts, monotonic()

        async def again() -> Lease:
            return await route.cluster.lease(permit, route.at, opaque=True)

        try:
            found = await detect_protocol(
                connection,
                data,
                again,
                route.server_first_cache,
                lease=lease,
                head_timeout=timeouts.request_head,
                idle=timeouts.idle,
            )
        except ConnectionClosed as gone:
            raise ProxyError(Reason.CLIENT_CLOSED, f"the tunnel's client went away: {gone.detail}") from None
        note_detected(found, monotonic() - began, self._context.telemetry)
        if found.kind is Detected.HTTP2 and route.kind == "service" and route.protocol != "http2":
            if found.lease is not None:
                found.lease.release(reusable=False)
            raise ProxyError(Reason.BAD_VERSION, http2_refused(route.protocol))
        return found

    async def _http_within(
        self, connection: Connection, host: str, data: bytes, authority: bytes, origin: ConnectionInfo
    ) -> None:
        async def handle(inner: ServerStream, request: Request, record: Record) -> None:
            if request.method == b"CONNECT" or request.absolute:
                raise ProxyError(Reason.METHOD_REFUSED, "a proxy request inside a tunnel")
            route = self._route(self._routes.current(), authority, default_port=0)
            await self.forward(inner, request, record, route, self._permit(route, inner, request))

        http_connection = H1ServerConnection(
            connection, data, self._context.timeouts, host, trusted=False, origin=origin
        )
        http_connection.leaves_with(self._context.drain)
        await serve_http(http_connection, "outbound", handle, self._context)

    async def _relay(self, connection: Connection, found: Detection, lease: Lease, record: Record) -> None:
        record.sni = found.sni
        try:
            record.bytes_received += found.sent
            await tunnel(connection, lease.connection, record, self._context, to_upstream=found.data[found.sent :])
        finally:
            lease.release(reusable=False)

    def _route(self, snapshot: Snapshot, authority: bytes, *, default_port: int) -> Route:
        canonical = canonical_authority(authority).decode("ascii")
        bare = canonical.endswith("]") or ":" not in canonical
        if bare and authority.endswith(b":80"):
            default_port = 80
        try:
            if bare and not default_port:
                raise ValueError("CONNECT needs HOST:PORT")
            found: Address = parse_host_port(f"{canonical}:{default_port}" if bare else canonical)
        except ValueError:
            raise ProxyError(Reason.BAD_REQUEST, "the destination is not HOST:PORT") from None
        return self._routes.named(snapshot, found.host, found.port)


class _Captured:
    """A captured connection: a ``Target``. Its own route is that of its original destination, by the Snapshot with
    which it began; a request on it has the Snapshot of its own moment."""

    direction = "outbound"

    def __init__(self, outbound: Outbound, snapshot: Snapshot, route: Route, original: OriginalDst, host: str) -> None:
        self._outbound = outbound
        self._routes = outbound._routes
        self._snapshot = snapshot
        self._route = route
        self._original = original
        self._host = host
        self.original = str(original)

    @property
    def protocol(self) -> Protocol:
        return self._route.protocol

    @property
    def vouches(self) -> bool:
        """See ``Target``: the callee's sidecar would refuse it all the same."""
        return self._route.kind == "service"

    @property
    def cluster(self) -> str:
        return self._route.label

    @property
    def name(self) -> str:
        return self._route.shown

    @property
    def server_first_cache(self) -> ServerFirstCache:
        return self._route.server_first_cache

    def trusts(self, host: str) -> bool:
        return False

    def led_by(self, name: bytes) -> _Captured:
        self._follow()
        route = self._routes.by_server_name(self._snapshot, self._route, name)
        if route is self._route:
            return self
        return _Captured(self._outbound, self._snapshot, route, self._original, self._host)

    def _follow(self) -> None:
        """Take the Snapshot of this moment, by which the connection is judged next. Raises ProxyError(NO_ROUTE)."""
        snapshot = self._routes.current()
        if snapshot is not self._snapshot:
            self._route = self._routes.captured(snapshot, self._original)
            self._snapshot = snapshot

    async def permit(self, found: Detection, peer: str) -> Permit:
        self._follow()
        name = found.sni.decode("ascii", "replace")
        protocol = _WORDS.get(found.kind, "TCP")
        return await self._routes.permit_as(self._route, self._host, name, protocol=protocol, sni=found.sni)

    async def dial_early(self, peer: str) -> Lease:
        self._follow()
        route = self._route  # no name has been said yet: the address has to be enough
        permit = self._routes.permit(route, self._host, protocol="TCP")
        return await route.cluster.lease(permit, route.at, opaque=True, at_once=True)

    async def dial(self, permit: Permit) -> Lease:
        return await self._route.cluster.lease(permit, self._route.at, opaque=True)

    async def handle(self, stream: ServerStream, request: Request, record: Record) -> None:
        if request.method == b"CONNECT" or request.absolute:
            raise ProxyError(Reason.METHOD_REFUSED, "a proxy request inside a tunnel or a captured connection")
        routes = self._routes
        snapshot = routes.current()
        base = self._route if snapshot is self._snapshot else routes.captured(snapshot, self._original)
        route = routes.by_authority(snapshot, base, request.authority)
        permit = await self._outbound.permit_captured(route, stream, request)
        await self._outbound.forward(stream, request, record, route, permit)
