"""Outbound: what the app sends to others, through an explicit HTTP proxy on loopback (absolute form and CONNECT).

One ``Outbound`` serves all connections of port 15001. A CONNECT is a capture whose original destination is its
authority: what comes through it is looked at as if it had been redirected here.
"""

from __future__ import annotations

from time import monotonic, time

from sidecar.addresses import Address, OriginalDst, parse_host_port, parse_ip
from sidecar.errors import ProxyError, Reason
from sidecar.net.channel import Channel, ChannelClosed
from sidecar.net.dial import dial
from sidecar.net.listener import is_own
from sidecar.net.pool import Lease, Pool, PoolUse, pool_use
from sidecar.policy.authorize import Permit, authorize_caller, authorize_outbound
from sidecar.proxy.client import ClientStream
from sidecar.proxy.exchange import exchange
from sidecar.proxy.forwarding import Forwarder
from sidecar.proxy.opaque import switch, tunnel
from sidecar.proxy.origin import PoolOrigin
from sidecar.proxy.serve import serve_http
from sidecar.proxy.shared import Shared
from sidecar.proxy.sniff import Habits, Sniffed, greets, note_detected, sniff
from sidecar.telemetry.record import Origin, Record
from sidecar.wire.detect import Detected
from sidecar.wire.head import RequestHead, ResponseHead, canonical_authority

WAIT_SECONDS = 3.0  # for a connection to a destination (F13)
MAX_DESTINATIONS = 1024  # pools kept; those that nobody uses make room
ROOM = 64  # made at a time, since looking for it walks all of them
_ESTABLISHED = ResponseHead(200, b"Connection established", [], {}, 0, 1, True)


class Destination:
    """One host and port that the app calls: its pool, and what is remembered of it."""

    __slots__ = ("address", "habits", "origin", "pool", "shared")

    def __init__(self, address: OriginalDst, shared: Shared) -> None:
        self.address = address
        self.shared = shared
        self.habits = Habits()
        self.pool = Pool(
            self._dial,
            limit=shared.max_pool,
            max_waiting=shared.max_waiting,
            wait_seconds=WAIT_SECONDS,
            idle_seconds=shared.pool_idle,
            counters=shared.telemetry.counters,
        )
        self.origin = PoolOrigin(self.pool, str(address), shared.timeouts.stream_idle)

    async def fresh(self) -> Lease:
        """A new connection to it."""
        return await self.pool.acquire(fresh=True)

    async def _dial(self) -> Channel:
        shared, address = self.shared, self.address
        found = await shared.resolver.resolve(address.host)
        # Judged for each connection: a name may lead somewhere else than it did for the last one.
        authorize_outbound(
            loopback=True, destination_is_own=any(is_own(shared.listeners, host, address.port) for host in found)
        )
        return await dial(found, address.port, timeout=shared.connect_timeout, registry=shared.channels)


class Outbound:
    """Serves the app's connections."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._destinations: dict[OriginalDst, Destination] = {}
        self._forwarder = Forwarder(shared, appends_caller=False)

    async def serve(self, channel: Channel, host: str) -> None:
        """Serves one connection from ``host`` until it ends, and closes it."""
        client = ClientStream(channel, b"", self._shared.timeouts, host, trusted=False)
        client.origin = Origin(time(), "HTTP, as the explicit proxy's port is for", 0.0)
        address = parse_ip(host)
        try:
            if address is None or not address.is_loopback:
                try:
                    authorize_caller(loopback=False)
                except ProxyError as refused:
                    client.fail_next(refused)
            await serve_http(client, "outbound", self._handle, self._shared)
        finally:
            channel.close()

    def sweep(self, now: float) -> None:
        """Closes connections that have been idle for too long."""
        for destination in self._destinations.values():
            destination.pool.sweep(now)

    def close(self) -> None:
        """Closes idle connections."""
        for destination in self._destinations.values():
            destination.pool.close()

    def pools(self) -> dict[str, Pool]:
        """The pools of all destinations, by a name for people."""
        return {f"outbound|{address}": destination.pool for address, destination in self._destinations.items()}

    def uses(self) -> dict[str, PoolUse]:
        """How the pools of all destinations are used together."""
        pools = [destination.pool for destination in self._destinations.values()]
        return {"outbound": pool_use(pools, self._shared.max_pool)}

    async def _handle(self, client: ClientStream, request: RequestHead, record: Record) -> None:
        if request.method == b"CONNECT":
            await self._connect(client, request, record)
        elif request.absolute:
            destination = self._destination(request.authority, default_port=80)
            await self._forward(client, request, record, destination)
        else:
            raise ProxyError(
                Reason.NO_ROUTE, "this port is an explicit proxy: send an absolute URL or CONNECT (curl -x, HTTP_PROXY)"
            )

    async def _forward(
        self, client: ClientStream, request: RequestHead, record: Record, destination: Destination
    ) -> None:
        fields = self._forwarder.fields(client, request, record)
        permit = self._permit(destination)
        switched = await exchange(client, request, fields, destination.origin, permit, record)
        if switched is not None:
            await switch(client, switched.upstream, switched.head, record, self._shared)

    # -- CONNECT -----------------------------------------------------------------------------------------------------

    async def _connect(self, client: ClientStream, request: RequestHead, record: Record) -> None:
        destination = self._destination(request.authority, default_port=0)
        self._permit(destination)
        record.attempts = 1
        record.upstream = str(destination.address)
        lease = await destination.fresh()
        record.upstream = lease.channel.peer
        record.status = 200
        try:
            await client.send_switch(_ESTABLISHED)
        except BaseException:
            lease.release(reusable=False)
            raise
        shared = self._shared
        began = monotonic()
        try:
            found = await sniff(
                client.channel,
                client.take_buffer(),
                destination.fresh,
                destination.habits,
                lease=lease,
                head_timeout=shared.timeouts.request_head,
                idle=shared.timeouts.idle,
            )
        except ChannelClosed as gone:
            raise ProxyError(Reason.CLIENT_CLOSED, f"the tunnel's client went away: {gone.detail}") from None
        if found.kind is Detected.HTTP1 and not greets(lease.channel):
            note_detected(found, monotonic() - began, shared.telemetry)
            # Each tunnel dials: were all of these kept, the pool would fill with connections that nobody needs.
            lease.release(reusable=lease.quiet() and not destination.pool.has_idle)
            origin = Origin(time(), f"{found.words}, within CONNECT", monotonic() - began)
            await self._http_within(client, found.data, destination, origin)
        else:
            note_detected(found, monotonic() - began, shared.telemetry)
            await self._relay(client, found, lease, record)

    async def _http_within(self, client: ClientStream, data: bytes, destination: Destination, origin: Origin) -> None:
        async def handle(inner: ClientStream, request: RequestHead, record: Record) -> None:
            if request.method == b"CONNECT" or request.absolute:
                raise ProxyError(Reason.METHOD_REFUSED, "a proxy request inside a tunnel")
            await self._forward(inner, request, record, destination)

        inner = ClientStream(client.channel, data, self._shared.timeouts, client.peer_ip.decode(), trusted=False)
        inner.origin = origin
        await serve_http(inner, "outbound", handle, self._shared)

    async def _relay(self, client: ClientStream, found: Sniffed, lease: Lease, record: Record) -> None:
        record.sni = found.sni
        try:
            record.bytes_received += found.sent
            await tunnel(client.channel, lease.channel, record, self._shared, to_upstream=found.data[found.sent :])
        finally:
            lease.release(reusable=False)

    # -- destinations ------------------------------------------------------------------------------------------------

    def _permit(self, destination: Destination) -> Permit:
        address = destination.address
        return authorize_outbound(
            loopback=True, destination_is_own=is_own(self._shared.listeners, address.host, address.port)
        )

    def _destination(self, authority: bytes, *, default_port: int) -> Destination:
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
        key = OriginalDst(found.host, found.port)
        destination = self._destinations.get(key)
        if destination is None:
            if len(self._destinations) >= MAX_DESTINATIONS:
                self._make_room()
            destination = self._destinations[key] = Destination(key, self._shared)
        return destination

    def _make_room(self) -> None:
        """The oldest of those that nobody uses go, with their idle connections."""
        at_rest = [key for key, destination in self._destinations.items() if destination.pool.at_rest]
        for key in at_rest[:ROOM]:
            self._destinations.pop(key).pool.close()
        if len(self._destinations) >= MAX_DESTINATIONS:
            raise ProxyError(Reason.POOL_FULL, f"{MAX_DESTINATIONS} destinations are in use already")
