"""The stages of a request, and of the bytes of an opaque connection, in order. One list for both directions.

    Snapshot, read once -> route -> sanitize the head -> authorize -> limit -> attempts -> reply      (a request)
    Snapshot, read once -> route -> authorize -> a connection to the endpoint -> relay                (bytes)

``request_loop`` calls it with a request, ``connection_handler`` with bytes. CONNECT (``explicit``) dials before its
reply, and runs the same stages itself. The decisions of a direction (its routes, and what its rules judge) are behind
``Routing``; this module imports no direction and no codec. A stage that refuses raises ProxyError. The request's
destination has not been dialed then, and no byte has been forwarded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Set
from typing import Final, Protocol

import msgspec

from sidecar.errors import ProxyError, Reason
from sidecar.http.headers import FIRST_ATTEMPT, Field
from sidecar.http.message import Request
from sidecar.http.streams import ServerStream
from sidecar.net.connection import Connection
from sidecar.net.connection_pool import Lease
from sidecar.policy.authorize import Asked, Permit
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.exchange import Upgraded, exchange
from sidecar.proxy.header_sanitizer import HeaderSanitizer
from sidecar.proxy.protocol_detection import Detection
from sidecar.proxy.route import ChosenRule, Route
from sidecar.proxy.tcp_proxy import tunnel, tunnel_upgraded
from sidecar.resources.snapshot import Snapshot
from sidecar.telemetry.record import UNKNOWN_CONNECTION, ConnectionInfo, Record

JUDGED_BYTES: Final = 256  # of a value that policies read
JUDGED_FIELDS: Final = 8


class Routing(Protocol):
    """The decisions of a direction about a request. ``rejudged``: policies that come later may end the request."""

    rejudged: bool

    @property
    def sanitizer(self) -> HeaderSanitizer:
        """The sanitizer that decides which fields are forwarded."""
        ...

    def current(self) -> Snapshot:
        """Return the current Snapshot; all stages of one stream use the same."""
        ...

    def route(self, snapshot: Snapshot, request: Request) -> Route:
        """Return where the request goes. Raises ProxyError for a request that is not served here."""
        ...

    async def authorize(self, snapshot: Snapshot, route: Route, wanted: RunningRequest) -> Permit:
        """Return the permit to forward the request along ``route``. Raises ProxyError."""
        ...

    def asked(self, wanted: RunningRequest) -> Asked:
        """Return what policies judge a request by."""
        ...


class BytesRouting(Protocol):
    """The decisions of a direction about opaque bytes. ``rejudged``: as of ``Routing``."""

    rejudged: bool

    def current(self) -> Snapshot:
        """Return the current Snapshot; all stages of one connection use the same."""
        ...

    def route_bytes(self, snapshot: Snapshot, found: Detection) -> Route:
        """Return where the bytes go. Raises ProxyError."""
        ...

    async def authorize_bytes(self, snapshot: Snapshot, route: Route, wanted: RunningBytes) -> Permit:
        """Return the permit to relay them along ``route``. Raises ProxyError."""
        ...

    def asked_of_bytes(self, wanted: RunningBytes) -> Asked:
        """Return what policies judge a connection by."""
        ...


class RunningRequest(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A request in progress, with what it was allowed by. ``fields`` are those that are forwarded."""

    routing: Routing
    stream: ServerStream
    request: Request
    fields: list[Field]
    info: ConnectionInfo

    def asked(self) -> Asked:
        """See ``context.Running``."""
        return self.routing.asked(self)

    def cut(self, denied: ProxyError) -> None:
        """See ``context.Running``."""
        self.stream.cut(Reason.POLICY_CHANGED, denied.detail)


class RunningBytes(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A connection that is relayed, with what it was allowed by."""

    routing: BytesRouting
    connection: Connection
    found: Detection
    info: ConnectionInfo

    def asked(self) -> Asked:
        """See ``context.Running``."""
        return self.routing.asked_of_bytes(self)

    def cut(self, denied: ProxyError) -> None:
        """See ``context.Running``."""
        self.connection.cut(Reason.POLICY_CHANGED, denied.detail)


async def serve_request(
    routing: Routing, context: ProxyContext, stream: ServerStream, request: Request, record: Record
) -> None:
    """Take a request from its head to the end of its reply. Raises ProxyError."""
    snapshot = routing.current()
    route = routing.route(snapshot, request)
    record.cluster = route.label
    fields = routing.sanitizer.fields(stream, request, record)
    if context.judged_names:
        record.judged = _judged(fields, context.judged_names)
    wanted = RunningRequest(routing, stream, request, fields, record.origin or UNKNOWN_CONNECTION)
    permit = await routing.authorize(snapshot, route, wanted)
    record.permit = permit.rule
    if permit.note:
        record.note = permit.note
    if context.limits is not None and context.limits.of_requests:
        asked = routing.asked(wanted)
        if route.rule is not None:
            asked = msgspec.structs.replace(asked, route=route.rule.title)
        context.limits.charge(asked, record)
    running, key = context.in_progress, id(record)
    if routing.rejudged:
        running[key] = wanted
    try:
        if route.rule is None:
            upgraded = await exchange(stream, request, fields, route.client, permit, record, route.retry, route.limits)
        else:
            upgraded = await _by_rule(context, snapshot, wanted, route, route.rule, permit, record)
        if upgraded is not None:
            await tunnel_upgraded(stream, upgraded.upstream, upgraded.head, record, context)
    finally:
        running.pop(key, None)


def _by_rule(
    context: ProxyContext,
    snapshot: Snapshot,
    wanted: RunningRequest,
    route: Route,
    rule: ChosenRule,
    permit: Permit,
    record: Record,
) -> Awaitable[Upgraded | None]:
    """Return what remains to be done by the rule of a VirtualService that led here."""
    record.route, record.subset = rule.title, route.subset
    stream, request, fields = wanted.stream, wanted.request, wanted.fields
    if rule.fields:
        record.judged = _judged(fields, rule.fields)
    if rule.serve is None:
        fields.append(FIRST_ATTEMPT)
        return exchange(stream, request, fields, route.client, permit, record, route.retry, route.limits)
    return rule.serve(
        context,
        stream,
        request,
        fields,
        route,
        permit,
        record,
        lambda other: wanted.routing.authorize(snapshot, other, wanted),
    )


def _judged(fields: list[Field], names: Set[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the fields with these names, for the record, which keeps no long values."""
    found = [(name, value[:JUDGED_BYTES]) for name, value in fields if name.lower() in names]
    return tuple(found[:JUDGED_FIELDS])


async def serve_bytes(
    routing: BytesRouting, context: ProxyContext, connection: Connection, found: Detection, record: Record
) -> None:
    """Relay a connection until both sides have ended; ``found`` holds what was read of it. Raises ProxyError.

    A lease in ``found`` was made for a client that was silent. It is released here, and not used if its destination may
    have changed.
    """
    lease: Lease | None = found.lease
    counted = False
    running, key = context.in_progress, id(record)
    try:
        snapshot = routing.current()
        route = routing.route_bytes(snapshot, found)
        wanted = RunningBytes(routing, connection, found, record.origin or UNKNOWN_CONNECTION)
        permit = await routing.authorize_bytes(snapshot, route, wanted)
        record.permit = permit.rule
        if permit.note:
            record.note = permit.note
        if routing.rejudged:
            running[key] = wanted
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
        connection.check()  # it may have been cut while a connection was waited for
        record.upstream = lease.connection.peer
        record.upstream_principal = lease.principal
        context.telemetry.begin_opaque(record)
        counted = True
        await tunnel(connection, lease.connection, record, context, to_upstream=found.data[found.sent :])
    finally:
        running.pop(key, None)
        if lease is not None:
            lease.release(reusable=False)
        if not counted:
            context.telemetry.begin_opaque(record)
