"""A connection whose destination is known before its first byte: detect its protocol, then serve HTTP or relay it.

Called by ``inbound``, whose destination is the app, and by ``outbound`` for captured connections. Each passes a
``Target``: the destination, which callers may reach it, and what to do with a request.
"""

from __future__ import annotations

import typing
from functools import partial
from time import monotonic, time

import msgspec

from sidecar.errors import CUTS, ProxyError, Reason
from sidecar.http.first_bytes import Detected
from sidecar.http.h1.server import H1ServerConnection
from sidecar.net.connection import NEVER, Connection, ConnectionClosed, DeadlineExceeded
from sidecar.net.connection_pool import Lease
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.pipeline import BytesRouting, Routing, RunningBytes, serve_bytes, serve_request
from sidecar.proxy.protocol_detection import (
    Detection,
    ServerFirstCache,
    begins_handshake,
    detect_protocol,
    first_of,
    greets,
    note_detected,
)
from sidecar.proxy.request_loop import serve_http
from sidecar.resources.protocols import Protocol
from sidecar.telemetry.record import ConnectionInfo, Record
from sidecar.tls.connection_security import AS_IT_CAME, ConnectionSecurity

_PROTOCOL = {Detected.TLS: "TLS", Detected.HTTP2: "HTTP/2", Detected.OPAQUE: "TCP"}
_UNKNOWN_BYTES = Detection(Detected.OPAQUE, b"", None)


class Target(Routing, BytesRouting, typing.Protocol):
    """The destination of a connection, and what applies to all connections to it."""

    @property
    def direction(self) -> str:
        """ "inbound" or "outbound"."""
        ...

    @property
    def protocol(self) -> Protocol:
        """The protocol that is declared for the destination; see ``resources.protocols``."""
        ...

    @property
    def vouches(self) -> bool:
        """Whether the app there may trust what HTTP fields report about its caller. If so, HTTP that can't be served as
        HTTP is refused, because its fields are the client's own."""
        ...

    @property
    def by_server_name(self) -> bool:
        """Whether routes to the destination look at the server name of TLS. If so, a port that is declared TCP waits
        for the client's first bytes as well."""
        ...

    @property
    def original(self) -> str:
        """The original destination of captured connections; empty if nothing is captured."""
        ...

    @property
    def name(self) -> str:
        """The upstream's name in a record before there is a connection to it."""
        ...

    @property
    def server_first_cache(self) -> ServerFirstCache:
        """The cache that remembers whether the server there speaks first."""
        ...

    def trusts(self, host: str) -> bool:
        """Return whether this client is trusted to report the callers before it."""
        ...

    def reached(self, connection: Connection) -> tuple[str, int]:
        """Return the address and port at which this connection reaches the app, as policies name them."""
        ...

    async def dial_early(self, info: ConnectionInfo) -> Lease:
        """Authorize a client that is silent, and return a connection for it.

        Raises ProxyError, also if nothing may be dialed for a client that has sent nothing.
        """
        ...


async def serve_target(
    connection: Connection,
    host: str,
    target: Target,
    context: ProxyContext,
    security: ConnectionSecurity = AS_IT_CAME,
    protocol: Protocol | None = None,
) -> bool:
    """Serve a connection from ``host`` until it ends. Cancelling resets it; the caller closes it.

    ``protocol`` defaults to the target's own. The protocol that the peer's ALPN names narrows what is accepted there,
    and never widens it.

    Return True at once, with nothing read, if the acceptor has let a silent client through and the client begins a TLS
    handshake: the acceptor has to look at the connection again. Otherwise return False.
    """
    protocol = protocol or target.protocol
    sni = b"" if connection.secured is None else connection.secured.sni
    who = ConnectionInfo(0.0, "", 0.0, target.original, security.principal, host, target.reached(connection), sni)
    if protocol == "tcp" and not target.by_server_name:
        origin = _info("opaque bytes, as the port is declared", 0.0, who, security)
        found = Detection(Detected.OPAQUE, b"", None)
        if security.silent:
            found = await _after_silence(connection, target, context, who)
            if found.begins_handshake:
                return True
        await _relay(connection, found, origin, target, context)
    elif protocol == "http" and security.inside == "tcp":
        origin = _info("opaque bytes, as its ALPN announces", 0.0, who, security)
        error = ProxyError(Reason.PROTOCOL_REFUSED, "opaque bytes (ALPN sidecar-tcp), and this port is declared HTTP")
        _refuse(connection, Detected.OPAQUE, error, origin, target, context)
    elif protocol == "http" or security.inside == "http":
        if security.silent and await _handshake_for_http(connection, context):
            return True
        said = "the port is declared" if protocol == "http" else "its ALPN announces"
        origin = _info(f"HTTP, as {said}", 0.0, who, security)
        await _http(connection, host, b"", origin, target, context, security)
    else:
        return await _detect(connection, who, target, context, security, protocol)
    return False


async def _dial_early(connection: Connection, target: Target, context: ProxyContext, who: ConnectionInfo) -> Lease:
    """Dial for a silent client. From now on, until it is known what it speaks, a policy that denies bytes cuts it."""
    lease = await target.dial_early(who)
    if target.rejudged:
        context.in_progress[id(who)] = RunningBytes(target, connection, _UNKNOWN_BYTES, who)
    return lease


async def _after_silence(
    connection: Connection, target: Target, context: ProxyContext, who: ConnectionInfo
) -> Detection:
    """Dial for a silent client, and wait until it or the app sends something. Raises ProxyError, ConnectionClosed."""
    lease = await _dial_early(connection, target, context, who)
    try:
        first = await first_of(connection, lease.connection, b"", NEVER, context.timeouts.idle, look=True)
    except BaseException:
        lease.release(reusable=False)
        raise
    finally:
        connection.deadline = NEVER
        context.in_progress.pop(id(who), None)
    if begins_handshake(first):
        lease.release(reusable=False)
        return Detection(Detected.TLS, b"", None, begins_handshake=True)
    return Detection(Detected.OPAQUE, b"", lease)


async def _handshake_for_http(connection: Connection, context: ProxyContext) -> bool:
    """Wait for the first byte of a silent client, and return whether it begins a handshake. If the wait ends in any
    other way, the first read of a request ends in the same way."""
    connection.limit(context.timeouts.request_head, Reason.CONNECTION_IDLE)
    try:
        return begins_handshake(await connection.peek(1))
    except (ConnectionClosed, DeadlineExceeded):
        return False


def _info(words: str, after: float, who: ConnectionInfo, security: ConnectionSecurity) -> ConnectionInfo:
    if security.words:
        words = f"{words}; within {security.words}"
    return ConnectionInfo(time() - after, words, after, who.original, who.principal, who.client, who.place, who.sni)


async def _detect(
    connection: Connection,
    who: ConnectionInfo,
    target: Target,
    context: ProxyContext,
    security: ConnectionSecurity,
    protocol: Protocol,
) -> bool:
    began = monotonic()
    counters = context.telemetry.counters
    try:
        found = await detect_protocol(
            connection,
            b"",
            partial(_dial_early, connection, target, context, who),
            target.server_first_cache,
            lease=None,
            head_timeout=context.timeouts.request_head,
            idle=context.timeouts.idle,
            announced=security.inside == "tcp",
            look=security.silent,
        )
    except ConnectionClosed:
        counters.detect_nothing += 1
        return False
    except DeadlineExceeded as overdue:
        if overdue.reason in CUTS:
            cut = ProxyError(overdue.reason, connection.cut_for)
            origin = _info("undecided: it was cut", monotonic() - began, who, security)
            _refuse(connection, Detected.OPAQUE, cut, origin, target, context)
        elif overdue.reason is not Reason.HEAD_TIMEOUT:
            counters.detect_nothing += 1
        else:
            counters.detect_undecided += 1
            words = "undecided: the beginning of a method, and no more"
            origin = _info(words, monotonic() - began, who, security)
            await _http_error(connection, who.client, overdue, origin, target, context)
        return False
    except ProxyError as error:
        counters.detect_undecided += 1
        origin = _info("undecided: the client was silent", monotonic() - began, who, security)
        _refuse(connection, Detected.OPAQUE, error, origin, target, context)
        return False
    finally:
        context.in_progress.pop(id(who), None)
    if found.begins_handshake:
        return True
    lease = found.lease
    origin = _info(found.words, monotonic() - began, who, security)
    is_http = found.kind is Detected.HTTP1 and (lease is None or not greets(lease.connection))
    if protocol == "tcp" and found.kind is not Detected.MORE:  # what else it may be does not count there
        kind = found.kind if found.kind is Detected.TLS else Detected.OPAQUE
        await _relay(connection, msgspec.structs.replace(found, kind=kind), origin, target, context)
        return False
    refused = _refusal(found, is_http, protocol, security) if target.vouches else None
    if refused is not None:
        note_detected(found, origin.after, context.telemetry)
        if lease is not None:
            lease.release(reusable=False)
        if found.kind is Detected.PROXY or found.server_first:
            _refuse(connection, found.kind, refused, origin, target, context)
        else:
            await _http_error(connection, who.client, refused, origin, target, context)
    elif is_http:
        note_detected(found, origin.after, context.telemetry)
        if lease is not None:
            lease.release(reusable=False)
        await _http(connection, who.client, found.data, origin, target, context, security)
    elif found.kind is Detected.MORE:
        counters.detect_nothing += 1
        if lease is not None:
            lease.release(reusable=False)
    else:
        note_detected(found, origin.after, context.telemetry)
        await _relay(connection, found, origin, target, context)
    return False


def _refusal(found: Detection, is_http: bool, protocol: Protocol, security: ConnectionSecurity) -> ProxyError | None:
    """Return why what was found may not go on to an app that trusts its fields; None if it may."""
    if found.kind is Detected.HTTP2 and protocol != "http2":
        return ProxyError(Reason.BAD_VERSION, http2_refused(protocol))
    if found.kind is Detected.PROXY:
        return ProxyError(
            Reason.PROTOCOL_REFUSED, "a PROXY protocol header, which only ports take that are declared tcp"
        )
    if is_http and security.inside == "tcp":
        return ProxyError(Reason.PROTOCOL_REFUSED, "HTTP, and the peer has announced opaque bytes (ALPN sidecar-tcp)")
    return None


def http2_refused(protocol: Protocol) -> str:
    """Return why HTTP/2 is refused on a port that takes ``protocol``, and what to change."""
    return (
        f"HTTP/2 is not served yet, and this port ({protocol}) is not declared for it: with appProtocol http2 or grpc, "
        "or a port name such as grpc-api, in its Service document, or with --protocol http2, its bytes are relayed"
    )


def _refuse(
    connection: Connection,
    kind: Detected,
    error: ProxyError,
    origin: ConnectionInfo,
    target: Target,
    context: ProxyContext,
) -> None:
    """Reset a connection that is not relayed, and record the reason."""
    record = _record(connection, kind, target)
    record.origin = origin
    record.upstream = target.name
    _blame(record, error, context)
    context.telemetry.begin_opaque(record)
    context.telemetry.finish(record)
    connection.reset()


async def _http(
    connection: Connection,
    host: str,
    data: bytes,
    origin: ConnectionInfo,
    target: Target,
    context: ProxyContext,
    security: ConnectionSecurity,
) -> None:
    trusted = security.peer is not None or target.trusts(host)
    timeouts = context.timeouts
    http_connection = H1ServerConnection(
        connection, data, timeouts, host, trusted=trusted, origin=origin, xfcc=security.xfcc
    )
    http_connection.leaves_with(security.leaving or context.drain)
    await serve_http(http_connection, target.direction, partial(serve_request, target, context), context)


async def _http_error(
    connection: Connection, host: str, error: ProxyError, origin: ConnectionInfo, target: Target, context: ProxyContext
) -> None:
    """Answer in HTTP a connection that can't be served as a request: its first bytes stopped early, or are refused."""
    http_connection = H1ServerConnection(connection, b"", context.timeouts, host, trusted=False, origin=origin)
    http_connection.leaves_with(context.drain)
    http_connection.fail_next(error)
    await serve_http(http_connection, target.direction, partial(serve_request, target, context), context)


async def _relay(
    connection: Connection, found: Detection, origin: ConnectionInfo, target: Target, context: ProxyContext
) -> None:
    record = _record(connection, found.kind, target)
    record.sni = found.sni
    record.origin = origin
    record.bytes_received = found.sent
    try:
        await serve_bytes(target, context, connection, found, record)
    except ProxyError as error:
        _blame(record, error, context)
        connection.reset()
    finally:
        context.telemetry.finish(record)


def _record(connection: Connection, kind: Detected, target: Target) -> Record:
    return Record(target.direction, _PROTOCOL.get(kind, "TCP"), connection.peer, time(), monotonic())


def _blame(record: Record, error: ProxyError, context: ProxyContext) -> None:
    """Record why a connection could not be relayed, with an id for ``/explain``."""
    record.request_id = context.ids.new()
    record.blame(error)
