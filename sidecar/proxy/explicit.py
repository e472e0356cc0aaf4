"""The explicit HTTP proxy on port 15001: requests in absolute form, and CONNECT. From loopback only.

Called by ``outbound``. A CONNECT is handled like a captured connection whose original destination is its authority: the
protocol inside is detected as if the connection had been redirected here. Each request, and each connection that is
relayed, reads the Snapshot once, and is routed and judged by that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from time import monotonic, time

import msgspec

from sidecar.addresses import Address, parse_host_port, parse_ip
from sidecar.errors import ProxyError, Reason
from sidecar.http.authority import canonical_authority
from sidecar.http.first_bytes import Detected
from sidecar.http.h1.server import H1ServerConnection
from sidecar.http.headers import Field
from sidecar.http.message import EMPTY, Request, Response
from sidecar.http.streams import ServerStream
from sidecar.net.connection import Connection, ConnectionClosed
from sidecar.net.connection_pool import Lease
from sidecar.policy.authorize import Asked, Permit, authorize_caller
from sidecar.proxy.connection_handler import http2_refused
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.header_sanitizer import HeaderSanitizer
from sidecar.proxy.pipeline import RunningRequest, serve_request
from sidecar.proxy.protocol_detection import Detection, detect_protocol, greets, note_detected
from sidecar.proxy.request_loop import serve_http
from sidecar.proxy.route import Route
from sidecar.proxy.route_table import RouteTable
from sidecar.proxy.tcp_proxy import tunnel
from sidecar.resources.snapshot import Snapshot
from sidecar.telemetry.record import ConnectionInfo, Record

_DECLARED = {"http": Detected.HTTP1, "tcp": Detected.OPAQUE}  # such a port takes nothing else: no detection
_MOST = 1024  # authorities whose routes are remembered, of 256 bytes at most
_ESTABLISHED = Response(200, [], {}, EMPTY)


class ExplicitProxy:
    """The server of connections that were made to the outbound port itself."""

    def __init__(self, routes: RouteTable, sanitizer: HeaderSanitizer, context: ProxyContext) -> None:
        self._routes = routes
        self._sanitizer = sanitizer
        self._context = context
        self._absolute = _Absolute(routes, sanitizer)

    async def serve(self, connection: Connection, host: str) -> None:
        """Serve one connection from ``host`` until it ends, and close it."""
        info = ConnectionInfo(time(), "HTTP, as the explicit proxy's port is for", 0.0, client=host)
        http_connection = H1ServerConnection(connection, b"", self._context.timeouts, host, trusted=False, origin=info)
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

    async def _handle(self, stream: ServerStream, request: Request, record: Record) -> None:
        if request.method == b"CONNECT":
            await self._connect(stream, request, record)
        else:
            await serve_request(self._absolute, self._context, stream, request, record)

    async def _connect(self, stream: ServerStream, request: Request, record: Record) -> None:
        """Dial before the reply, which reports whether there is a connection. Then detect what the tunnel carries."""
        snapshot = self._routes.current()
        # Dialed before the client has sent anything, so of VirtualServices only TCP routes count here. HTTP that comes
        # in the tunnel is routed by itself.
        route = self._routes.routed_bytes(named_route(self._routes, snapshot, request.authority, default_port=0))
        http = route.protocol == "http"
        permit = self._routes.permit(
            route, stream.peer, protocol="HTTP" if http else "TCP", authority=request.authority
        )
        if self._context.limits is not None and self._context.limits.of_requests:
            self._context.limits.charge(asked_outbound(stream.peer_ip.decode(), request, request.fields), record)
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
            # Each tunnel dials: if all of these connections were kept, the pool would fill with unneeded ones.
            one_pool = http or not route.cluster.apart
            lease.release(reusable=one_pool and lease.quiet() and not lease.pool.has_idle)
            words = "HTTP, as the service's port is declared" if http else found.words
            host = stream.peer_ip.decode()
            info = ConnectionInfo(time(), f"{words}, within CONNECT", monotonic() - began, client=host)
            await self._http_within(connection, host, found.data, request.authority, info)
        else:
            snapshot = self._routes.current()
            if lease.stale and not found.sent:
                lease.release(reusable=False)  # the client was silent: the route may have changed since
                route = self._routes.routed_bytes(
                    named_route(self._routes, snapshot, request.authority, default_port=0)
                )
                permit = self._routes.permit(route, stream.peer, protocol="TCP", authority=request.authority)
                lease = await route.cluster.lease(permit, route.at, opaque=True)
            record.sni = found.sni
            try:
                record.bytes_received += found.sent
                to_upstream = found.data[found.sent :]
                await tunnel(connection, lease.connection, record, self._context, to_upstream=to_upstream)
            finally:
                lease.release(reusable=False)

    async def _look_inside(
        self, connection: Connection, data: bytes, route: Route, permit: Permit, lease: Lease
    ) -> Detection:
        """Return what the tunnel carries: as declared, otherwise by its first bytes."""
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
        self, connection: Connection, host: str, data: bytes, authority: bytes, info: ConnectionInfo
    ) -> None:
        context = self._context
        http_connection = H1ServerConnection(connection, data, context.timeouts, host, trusted=False, origin=info)
        http_connection.leaves_with(context.drain)
        within = _WithinTunnel(self._routes, self._sanitizer, authority)
        await serve_http(http_connection, "outbound", partial(serve_request, within, context), context)


class _Absolute:
    """A ``pipeline.Routing`` of requests that name their destination explicitly."""

    rejudged = False

    def __init__(self, routes: RouteTable, sanitizer: HeaderSanitizer) -> None:
        self._routes = routes
        self.sanitizer = sanitizer
        self.current = routes.current
        self._seen: Snapshot | None = None
        self._known: dict[bytes, Route] = {}  # by authorities as they are sent

    def route(self, snapshot: Snapshot, request: Request) -> Route:
        if not request.absolute:
            raise ProxyError(
                Reason.NO_ROUTE, "this port is an explicit proxy: send an absolute URL or CONNECT (curl -x, HTTP_PROXY)"
            )
        if snapshot is not self._seen:
            self._seen = snapshot
            self._known.clear()
        base = self._known.get(request.authority)
        if base is None:
            base = named_route(self._routes, snapshot, request.authority, default_port=80)
            if len(self._known) < _MOST:
                self._known[request.authority] = base
        return self._routes.routed(base, request)

    def asked(self, wanted: RunningRequest) -> Asked:
        """See ``pipeline.Routing``. Limits alone judge by it."""
        return asked_outbound(wanted.info.client, wanted.request, wanted.fields)

    async def authorize(self, snapshot: Snapshot, route: Route, wanted: RunningRequest) -> Permit:
        request = wanted.request
        return route.permit or self._routes.permit(
            route,
            wanted.info.client,
            protocol="HTTP",
            method=request.method,
            path=request.target,
            authority=request.authority,
        )


class _WithinTunnel(_Absolute):
    """A ``pipeline.Routing`` of requests within a CONNECT to ``authority``: all of them go there."""

    def __init__(self, routes: RouteTable, sanitizer: HeaderSanitizer, authority: bytes) -> None:
        super().__init__(routes, sanitizer)
        self._authority = authority

    def asked(self, wanted: RunningRequest) -> Asked:
        """See ``pipeline.Routing``. The tunnel's authority counts, whatever Host a request in it names."""
        return msgspec.structs.replace(super().asked(wanted), authority=self._authority)

    def route(self, snapshot: Snapshot, request: Request) -> Route:
        if request.method == b"CONNECT" or request.absolute:
            raise ProxyError(Reason.METHOD_REFUSED, "a proxy request inside a tunnel")
        return self._routes.routed(named_route(self._routes, snapshot, self._authority, default_port=0), request)


def asked_outbound(client: str, request: Request, fields: Sequence[Field]) -> Asked:
    """Return what limits judge a request of the app at ``client`` by."""
    path = request.sent if request.sent.startswith(b"/") else request.target
    return Asked(
        "outbound", "", client, "", "HTTP", request.method, path, request.authority, remote=client, fields=fields
    )


def named_route(routes: RouteTable, snapshot: Snapshot, authority: bytes, *, default_port: int) -> Route:
    """Return the route for an authority. With ``default_port`` 0, the authority has to name its port. Raises
    ProxyError(BAD_REQUEST, NO_ROUTE)."""
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
    return routes.named(snapshot, found.host, found.port)
