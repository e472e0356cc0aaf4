"""The order of all that happens to a request, and to the bytes of an opaque connection. One list for both directions.

    Snapshot, read once -> route -> authorize -> what goes on of the head -> attempts -> reply        (a request)
    Snapshot, read once -> route -> authorize -> a connection to the endpoint -> relay                (bytes)

``request_loop`` calls it with a request, ``connection_handler`` with bytes; CONNECT (``explicit``) dials before its
reply, and goes through the same stages itself. What a direction decides
(its routes, and what its rules are asked) is behind ``Routing``; this module imports no direction and no codec. A stage
that refuses raises ProxyError; what a request is for has not been dialed then, and no byte has gone on.
"""

from __future__ import annotations

from typing import Protocol

from sidecar.errors import ProxyError, Reason
from sidecar.http.message import Request
from sidecar.http.streams import ServerStream
from sidecar.net.connection import Connection
from sidecar.net.connection_pool import Lease
from sidecar.policy.authorize import Permit
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.exchange import exchange
from sidecar.proxy.header_sanitizer import HeaderSanitizer
from sidecar.proxy.protocol_detection import Detection
from sidecar.proxy.route import Route
from sidecar.proxy.tcp_proxy import tunnel, tunnel_upgraded
from sidecar.resources.snapshot import Snapshot
from sidecar.telemetry.record import Record


class Routing(Protocol):
    """What a direction decides about a request. ``peer`` is the SPIFFE id that the caller has shown, or empty."""

    @property
    def sanitizer(self) -> HeaderSanitizer:
        """What decides which fields go on."""
        ...

    def current(self) -> Snapshot:
        """Return the Snapshot of this moment; all stages of one stream see the same."""
        ...

    def route(self, snapshot: Snapshot, request: Request) -> Route:
        """Return where the request goes. Raises ProxyError for a request that is not served here."""
        ...

    async def authorize(
        self, snapshot: Snapshot, route: Route, stream: ServerStream, request: Request, peer: str
    ) -> Permit:
        """Return leave to forward the request along ``route``. Raises ProxyError."""
        ...


class BytesRouting(Protocol):
    """What a direction decides about opaque bytes. ``peer`` is the SPIFFE id that the caller has shown, or empty."""

    def current(self) -> Snapshot:
        """Return the Snapshot of this moment; all stages of one connection see the same."""
        ...

    def route_bytes(self, snapshot: Snapshot, found: Detection) -> Route:
        """Return where the bytes go. Raises ProxyError."""
        ...

    async def authorize_bytes(self, snapshot: Snapshot, route: Route, found: Detection, peer: str) -> Permit:
        """Return leave to relay them along ``route``. Raises ProxyError."""
        ...


async def serve_request(
    routing: Routing, context: ProxyContext, stream: ServerStream, request: Request, record: Record
) -> None:
    """Take a request from its head to the end of its reply. Raises ProxyError."""
    snapshot = routing.current()
    route = routing.route(snapshot, request)
    record.cluster = route.label
    permit = await routing.authorize(snapshot, route, stream, request, record.principal)
    fields = routing.sanitizer.fields(stream, request, record)
    upgraded = await exchange(stream, request, fields, route.client, permit, record, route.retry, route.limits)
    if upgraded is not None:
        await tunnel_upgraded(stream, upgraded.upstream, upgraded.head, record, context)


async def serve_bytes(
    routing: BytesRouting, context: ProxyContext, connection: Connection, found: Detection, record: Record
) -> None:
    """Relay a connection, of which ``found`` was read, until both sides have ended. Raises ProxyError.

    A lease in ``found`` was made for a client that was silent: it is released here, and given up if it may lead
    elsewhere by now.
    """
    lease: Lease | None = found.lease
    counted = False
    try:
        snapshot = routing.current()
        route = routing.route_bytes(snapshot, found)
        permit = await routing.authorize_bytes(snapshot, route, found, record.principal)
        if not context.overload.admits(context.telemetry.counters.connections_active - 1):
            raise ProxyError(Reason.MEMORY, "the proxy is near its memory limit")
        record.attempts = 1
        record.upstream = route.shown
        record.cluster = route.label
        if lease is not None and lease.stale and not found.sent:
            lease.release(reusable=False)
            lease = None
        if lease is None:
            lease = await route.cluster.lease(permit, route.at, opaque=True)
        record.upstream = lease.connection.peer
        record.upstream_principal = lease.principal
        context.telemetry.begin_opaque(record)
        counted = True
        await tunnel(connection, lease.connection, record, context, to_upstream=found.data[found.sent :])
    finally:
        if lease is not None:
            lease.release(reusable=False)
        if not counted:
            context.telemetry.begin_opaque(record)
