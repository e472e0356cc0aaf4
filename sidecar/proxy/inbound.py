"""Inbound: what others send to the app beside this proxy.

One ``Inbound`` serves all connections of port 15006. A connection's life is in ``docs/life-of-a-connection.md``.
"""

from __future__ import annotations

from time import monotonic, time

from sidecar.addresses import Address
from sidecar.errors import ProxyError, Reason
from sidecar.net.channel import Channel, ChannelClosed, Overdue
from sidecar.net.dial import dial
from sidecar.net.listener import is_own
from sidecar.net.pool import Lease, Pool, PoolUse, pool_use
from sidecar.policy.authorize import Permit, authorize_inbound
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
from sidecar.wire.head import RequestHead

WAIT_SECONDS = 1.0  # for a connection to the app (F13)
_PROTOCOL = {Detected.TLS: "TLS", Detected.HTTP2: "HTTP/2", Detected.OPAQUE: "TCP"}


class Inbound:
    """Serves connections for the app at ``upstream``; ``protocol`` is auto, http or tcp."""

    def __init__(self, upstream: Address, protocol: str, shared: Shared) -> None:
        self._upstream = upstream
        self._protocol = protocol
        self._shared = shared
        self._habits = Habits()
        self._is_own = False  # as of the last look-up of the upstream's name; each dial looks again
        self._forwarder = Forwarder(shared, appends_caller=True)
        self.pool = self._pool()
        # Silent and opaque connections hold one to the app for as long as they like: they must not use up HTTP's.
        self._opaque = self._pool()
        self._origin = PoolOrigin(self.pool, str(upstream), shared.timeouts.stream_idle)

    async def serve(self, channel: Channel, host: str) -> None:
        """Serves one connection from ``host`` until it ends, and closes it."""
        try:
            if self._protocol == "tcp":
                origin = Origin(time(), "opaque bytes, as --protocol tcp says", 0.0)
                await self._relay(channel, Sniffed(Detected.OPAQUE, b"", None), origin)
            elif self._protocol == "http":
                await self._http(channel, host, b"", Origin(time(), "HTTP, as --protocol http says", 0.0))
            else:
                await self._detect(channel, host)
        finally:
            channel.close()

    def pools(self) -> dict[str, Pool]:
        """Its pools, by a name for people."""
        return {f"inbound|http|{self._upstream}": self.pool, f"inbound|opaque|{self._upstream}": self._opaque}

    def uses(self) -> dict[str, PoolUse]:
        """How its pools are used, by name."""
        limit = self._shared.max_pool
        return {"inbound": pool_use([self.pool], limit), "inbound_opaque": pool_use([self._opaque], limit)}

    async def _detect(self, channel: Channel, host: str) -> None:
        shared = self._shared
        opened, began = time(), monotonic()
        try:
            found = await sniff(
                channel,
                b"",
                self._silent_lease,
                self._habits,
                lease=None,
                head_timeout=shared.timeouts.request_head,
                idle=shared.timeouts.idle,
            )
        except ChannelClosed:
            shared.telemetry.counters.detect_nothing += 1
            return
        except Overdue as overdue:
            if overdue.reason is not Reason.HEAD_TIMEOUT:
                shared.telemetry.counters.detect_nothing += 1
            else:
                shared.telemetry.counters.detect_undecided += 1
                origin = Origin(opened, "undecided: the beginning of a method, and no more", monotonic() - began)
                await self._http_error(channel, host, overdue, origin)
            return
        except ProxyError as error:
            shared.telemetry.counters.detect_undecided += 1
            record = self._record(channel, Detected.OPAQUE)
            record.upstream = str(self._upstream)
            record.reason, record.detail = error.reason, error.detail
            shared.telemetry.begin_opaque("inbound")
            shared.telemetry.finish(record)
            channel.reset()
            return
        lease = found.lease
        origin = Origin(opened, found.words, monotonic() - began)
        if found.kind is Detected.HTTP1 and (lease is None or not greets(lease.channel)):
            note_detected(found, origin.after, shared.telemetry)
            if lease is not None:
                lease.release(reusable=False)
            await self._http(channel, host, found.data, origin)
        elif found.kind is Detected.MORE:
            shared.telemetry.counters.detect_nothing += 1
            if lease is not None:
                lease.release(reusable=False)
        else:
            note_detected(found, origin.after, shared.telemetry)
            await self._relay(channel, found, origin)

    # -- HTTP --------------------------------------------------------------------------------------------------------

    async def _http(self, channel: Channel, host: str, data: bytes, origin: Origin) -> None:
        shared = self._shared
        client = ClientStream(channel, data, shared.timeouts, host, trusted=shared.trusts(host))
        client.origin = origin
        await serve_http(client, "inbound", self._handle, shared)

    async def _http_error(self, channel: Channel, host: str, error: ProxyError, origin: Origin) -> None:
        """A head that began and did not go on: answered as HTTP, since nothing else can be said of it."""
        client = ClientStream(channel, b"", self._shared.timeouts, host, trusted=False)
        client.origin = origin
        client.fail_next(error)
        await serve_http(client, "inbound", self._handle, self._shared)

    async def _handle(self, client: ClientStream, request: RequestHead, record: Record) -> None:
        if request.method == b"CONNECT":
            raise ProxyError(Reason.METHOD_REFUSED, "CONNECT is for the outbound proxy; nothing is tunnelled inbound")
        fields = self._forwarder.fields(client, request, record)
        switched = await exchange(client, request, fields, self._origin, self._permit(), record)
        if switched is not None:
            await switch(client, switched.upstream, switched.head, record, self._shared)

    # -- opaque ------------------------------------------------------------------------------------------------------

    async def _relay(self, channel: Channel, found: Sniffed, origin: Origin) -> None:
        shared = self._shared
        lease = found.lease
        record = self._record(channel, found.kind)
        record.sni = found.sni
        record.origin = origin
        record.bytes_received = found.sent
        shared.telemetry.begin_opaque("inbound")
        try:
            self._permit()
            if not shared.overload.admits(shared.telemetry.counters.connections_active - 1):
                raise ProxyError(Reason.MEMORY, "the proxy is near its memory limit")
            record.attempts = 1
            record.upstream = str(self._upstream)
            if lease is None:
                lease = await self._opaque_lease()
            record.upstream = lease.channel.peer
            await tunnel(channel, lease.channel, record, shared, to_upstream=found.data[found.sent :])
        except ProxyError as error:
            record.reason, record.detail = error.reason, error.detail
            channel.reset()
        finally:
            if lease is not None:
                lease.release(reusable=False)
            shared.telemetry.finish(record)

    def _record(self, channel: Channel, kind: Detected) -> Record:
        return Record("inbound", _PROTOCOL.get(kind, "TCP"), channel.peer, time(), monotonic())

    # -- the app -----------------------------------------------------------------------------------------------------

    def _permit(self) -> Permit:
        return authorize_inbound(upstream_is_own=self._is_own)

    def _pool(self) -> Pool:
        shared = self._shared
        return Pool(
            self._dial,
            limit=shared.max_pool,
            max_waiting=shared.max_waiting,
            wait_seconds=WAIT_SECONDS,
            idle_seconds=shared.pool_idle,
            counters=shared.telemetry.counters,
        )

    async def _opaque_lease(self) -> Lease:
        return await self._opaque.acquire(fresh=True)

    async def _silent_lease(self) -> Lease:
        """For a client that has said nothing: it must not wait its turn, since what it says next may be HTTP."""
        if self._opaque.full:
            raise ProxyError(Reason.POOL_FULL, "all connections to the app for silent and opaque clients are in use")
        return await self._opaque_lease()

    async def _dial(self) -> Channel:
        shared, upstream = self._shared, self._upstream
        addresses = await shared.resolver.resolve(upstream.host)
        self._is_own = any(is_own(shared.listeners, address, upstream.port) for address in addresses)
        self._permit()
        return await dial(addresses, upstream.port, timeout=shared.connect_timeout, registry=shared.channels)
