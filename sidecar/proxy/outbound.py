"""Outbound: what the app sends to others, captured, or through an explicit HTTP proxy on loopback (absolute form and
CONNECT).

One ``Outbound`` serves all connections of port 15001. A CONNECT is a capture whose original destination is its
authority: what comes through it is looked at as if it had been redirected here.
"""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING

from sidecar.addresses import Address, OriginalDst, parse_host_port, parse_ip
from sidecar.errors import ProxyError, Reason
from sidecar.net.channel import Channel, ChannelClosed
from sidecar.net.pool import Lease, Pool, PoolUse, pool_use
from sidecar.policy.authorize import authorize_caller
from sidecar.proxy.callee import Callee
from sidecar.proxy.connection import ServerConnection
from sidecar.proxy.destination import Destinations
from sidecar.proxy.forwarding import Forwarder
from sidecar.proxy.intake import http2_refused, serve_target
from sidecar.proxy.leave import Leave
from sidecar.proxy.opaque import tunnel
from sidecar.proxy.serve import serve_http
from sidecar.proxy.shared import Shared
from sidecar.proxy.sniff import Sniffed, greets, note_detected, sniff
from sidecar.proxy.streams import ServerStream
from sidecar.telemetry.record import Origin, Record
from sidecar.wire.detect import Detected
from sidecar.wire.head import canonical_authority
from sidecar.wire.message import EMPTY, Request, Response

if TYPE_CHECKING:
    from sidecar.proxy.services import Services

_DECLARED = {"http": Detected.HTTP1, "tcp": Detected.OPAQUE}  # such a port takes nothing else, and is not looked into
_ESTABLISHED = Response(200, [], {}, EMPTY)


class Outbound:
    """Serves the app's connections."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        forwarder = Forwarder(shared, appends_caller=False)
        leave = Leave(shared.egress, None if shared.mesh is None else shared.mesh.snapshot)
        self._callees: Destinations[OriginalDst, Callee] = Destinations(
            lambda address: Callee(address, forwarder, shared, leave)
        )
        self._services: Services | None = None
        if shared.mesh is not None:
            from sidecar.proxy.services import Services  # and with it OpenSSL: 10 MB that many a proxy does not need

            self._services = Services(shared.mesh, forwarder, shared, leave)

    def sweep(self, now: float) -> None:
        """Closes connections that have been idle for too long."""
        self._callees.sweep(now)
        if self._services is not None:
            self._services.sweep(now)

    def close(self) -> None:
        """Closes idle connections."""
        self._callees.close()
        if self._services is not None:
            self._services.close()

    async def serve(self, channel: Channel, host: str) -> None:
        """Serves one connection to the explicit proxy from ``host`` until it ends, and closes it."""
        origin = Origin(time(), "HTTP, as the explicit proxy's port is for", 0.0)
        connection = ServerConnection(channel, b"", self._shared.timeouts, host, trusted=False, origin=origin)
        connection.leaves_with(self._shared.drain)
        address = parse_ip(host)
        try:
            if address is None or not address.is_loopback:
                try:
                    authorize_caller(loopback=False)
                except ProxyError as refused:
                    connection.fail_next(refused)
            await serve_http(connection, "outbound", self._handle, self._shared)
        finally:
            channel.close()

    async def serve_captured(self, channel: Channel, host: str, original: OriginalDst) -> None:
        """Serves one connection that was redirected here on its way to ``original``. Raises ProxyError where it
        can't be served at all; else it closes the channel."""
        callee = (self._services and self._services.at(original)) or self._callees.find(original)
        if self._services is not None:
            callee.guide = self._services
        callee.permit_address()
        callee.destination.users += 1
        try:
            await serve_target(channel, host, callee, self._shared)
        finally:
            callee.destination.users -= 1
            channel.close()

    def pools(self) -> dict[str, Pool]:
        """The pools of all destinations, by a name for people."""
        pools = {f"outbound|{address}": callee.destination.pool for address, callee in self._callees.items()}
        for service in self._services.values() if self._services is not None else ():
            destination = service.destination
            pools[f"outbound|http|{destination.name}"] = destination.pool
            if destination.opaque is not destination.pool:
                pools[f"outbound|opaque|{destination.name}"] = destination.opaque
        return pools

    def uses(self) -> dict[str, PoolUse]:
        """How the pools of all destinations are used together."""
        pools = [callee.destination.pool for callee in self._callees.values()]
        if self._services is not None:
            pools += [service.destination.pool for service in self._services.values()]
        return {"outbound": pool_use(pools, self._shared.max_pool)}

    async def _handle(self, stream: ServerStream, request: Request, record: Record) -> None:
        if request.method == b"CONNECT":
            await self._connect(stream, request, record)
        elif request.absolute:
            callee = self._callee(request.authority, default_port=80)
            await callee.forward(stream, request, record, callee.permit_named())
        else:
            raise ProxyError(
                Reason.NO_ROUTE, "this port is an explicit proxy: send an absolute URL or CONNECT (curl -x, HTTP_PROXY)"
            )

    # -- CONNECT -----------------------------------------------------------------------------------------------------

    async def _connect(self, stream: ServerStream, request: Request, record: Record) -> None:
        callee = self._callee(request.authority, default_port=0)
        callee.permit_named()
        destination = callee.destination
        record.attempts = 1
        record.upstream = destination.name
        record.cluster = callee.cluster
        lease = await (destination.pool.acquire() if callee.protocol == "http" else destination.fresh())
        record.upstream = lease.channel.peer
        record.upstream_principal = lease.principal
        record.status = 200
        try:
            channel, data = await stream.take_over(_ESTABLISHED)
        except BaseException:
            lease.release(reusable=False)
            raise
        began = monotonic()
        found = await self._look_inside(channel, data, callee, lease)
        if found.kind is Detected.HTTP1 and (callee.protocol == "http" or not greets(lease.channel)):
            # Each tunnel dials: were all of these kept, the pool would fill with connections that nobody needs.
            one_pool = lease.pool is destination.pool
            lease.release(reusable=one_pool and lease.quiet() and not destination.pool.has_idle)
            words = "HTTP, as the service's port says" if callee.protocol == "http" else found.words
            origin = Origin(time(), f"{words}, within CONNECT", monotonic() - began)
            await self._http_within(channel, stream.peer_ip.decode(), found.data, callee, origin)
        else:
            await self._relay(channel, found, lease, record)

    async def _look_inside(self, channel: Channel, data: bytes, callee: Callee, lease: Lease) -> Sniffed:
        """What the tunnel carries: as it is declared, else by its first bytes."""
        if callee.protocol in _DECLARED:
            return Sniffed(_DECLARED[callee.protocol], data, None)
        timeouts, began = self._shared.timeouts, monotonic()
        try:
            found = await sniff(
                channel,
                data,
                callee.destination.fresh,
                callee.destination.habits,
                lease=lease,
                head_timeout=timeouts.request_head,
                idle=timeouts.idle,
            )
        except ChannelClosed as gone:
            raise ProxyError(Reason.CLIENT_CLOSED, f"the tunnel's client went away: {gone.detail}") from None
        note_detected(found, monotonic() - began, self._shared.telemetry)
        if found.kind is Detected.HTTP2 and callee.vouches and callee.protocol != "http2":
            if found.lease is not None:
                found.lease.release(reusable=False)
            raise ProxyError(Reason.BAD_VERSION, http2_refused(callee.protocol))
        return found

    async def _http_within(self, channel: Channel, host: str, data: bytes, callee: Callee, origin: Origin) -> None:
        async def handle(inner: ServerStream, request: Request, record: Record) -> None:
            if request.method == b"CONNECT" or request.absolute:
                raise ProxyError(Reason.METHOD_REFUSED, "a proxy request inside a tunnel")
            await callee.forward(inner, request, record, callee.permit_named())

        connection = ServerConnection(channel, data, self._shared.timeouts, host, trusted=False, origin=origin)
        connection.leaves_with(self._shared.drain)
        await serve_http(connection, "outbound", handle, self._shared)

    async def _relay(self, channel: Channel, found: Sniffed, lease: Lease, record: Record) -> None:
        record.sni = found.sni
        try:
            record.bytes_received += found.sent
            await tunnel(channel, lease.channel, record, self._shared, to_upstream=found.data[found.sent :])
        finally:
            lease.release(reusable=False)

    def _callee(self, authority: bytes, *, default_port: int) -> Callee:
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
        named = self._services and self._services.named(found.host, found.port)
        return named or self._callees.find(OriginalDst(found.host, found.port))
