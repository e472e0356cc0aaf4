"""A connection whose destination is known before its first byte: what does it speak? Then HTTP, or a relay.

Called by ``inbound``, whose destination is the app, and by ``outbound`` for what was captured. Each hands in a
``Target``: where it leads, who may go there, and what to do with a request.
"""

from __future__ import annotations

import typing
from functools import partial
from time import monotonic, time

from sidecar.errors import ProxyError, Reason
from sidecar.net.channel import NEVER, Channel, ChannelClosed, Overdue
from sidecar.net.pool import Lease
from sidecar.policy.authorize import Permit
from sidecar.proxy.admitted import AS_IT_CAME, Admitted
from sidecar.proxy.connection import ServerConnection
from sidecar.proxy.opaque import tunnel
from sidecar.proxy.serve import serve_http
from sidecar.proxy.shared import Shared
from sidecar.proxy.sniff import Habits, Sniffed, begins_handshake, first_of, greets, note_detected, sniff
from sidecar.proxy.streams import ServerStream
from sidecar.resources.protocols import Protocol
from sidecar.telemetry.record import Origin, Record
from sidecar.wire.detect import Detected
from sidecar.wire.message import Request

_PROTOCOL = {Detected.TLS: "TLS", Detected.HTTP2: "HTTP/2", Detected.OPAQUE: "TCP"}


class Target(typing.Protocol):
    """Where a connection leads, and what goes for all that come there."""

    @property
    def direction(self) -> str:
        """ "inbound" or "outbound"."""
        ...

    @property
    def protocol(self) -> Protocol:
        """What the destination takes, by declaration; see ``resources.protocols``."""
        ...

    @property
    def vouches(self) -> bool:
        """Whether the app there may believe what HTTP's fields say of its caller. HTTP that can't be served as HTTP,
        whose fields are the client's own, is refused then."""
        ...

    @property
    def original(self) -> str:
        """Where captured connections wanted to go; empty where nothing is captured."""
        ...

    @property
    def cluster(self) -> str:
        """What a service of the mesh is called in records; empty for all others."""
        ...

    @property
    def name(self) -> str:
        """What a record says of the upstream before there is a connection to it."""
        ...

    @property
    def habits(self) -> Habits: ...

    def trusts(self, host: str) -> bool:
        """Whether what this client says of callers before it is believed."""
        ...

    async def permit(self, found: Sniffed, peer: str) -> Permit:
        """Return leave to relay what was found, from the peer with this SPIFFE id (empty: none). Raises ProxyError."""
        ...

    async def dial(self, permit: Permit) -> Lease:
        """Return a connection for bytes that are relayed. Raises ProxyError."""
        ...

    async def dial_early(self, peer: str) -> Lease:
        """Authorize a client that is silent, and return a connection for it.

        Raises ProxyError, also where nothing may be dialed for a client that has said nothing.
        """
        ...

    def led_by(self, name: bytes) -> Target:
        """Where opaque bytes go that begin with a handshake for this server name; itself, unless the name leads
        elsewhere."""
        ...

    async def handle(self, stream: ServerStream, request: Request, record: Record) -> None:
        """One HTTP request. Raises ProxyError."""
        ...


async def serve_target(
    channel: Channel,
    host: str,
    target: Target,
    shared: Shared,
    admitted: Admitted = AS_IT_CAME,
    protocol: Protocol | None = None,
) -> bool:
    """Serve a connection from ``host`` until it ends. Cancelling resets it; the caller closes it.

    ``protocol`` is the target's own unless it is given. What the peer's ALPN says of the protocol inside narrows what
    is taken there, and never widens it.

    Return True at once, with nothing read, if the gate has let a silent client through and that begins a TLS handshake:
    the gate has to look at it again. Otherwise return False.
    """
    protocol = protocol or target.protocol
    if protocol == "tcp":
        origin = _origin("opaque bytes, as the port is declared", 0.0, target, admitted)
        found = Sniffed(Detected.OPAQUE, b"", None)
        if admitted.silent:
            found = await _after_silence(channel, target, shared, admitted)
            if found.begins_handshake:
                return True
        await _relay(channel, found, origin, target, shared)
    elif protocol == "http" and admitted.inside == "tcp":
        origin = _origin("opaque bytes, as its ALPN says", 0.0, target, admitted)
        error = ProxyError(Reason.PROTOCOL_REFUSED, "opaque bytes (ALPN sidecar-tcp), and this port is declared HTTP")
        _refuse(channel, Detected.OPAQUE, error, origin, target, shared)
    elif protocol == "http" or admitted.inside == "http":
        if admitted.silent and await _handshake_for_http(channel, shared):
            return True
        said = "the port is declared" if protocol == "http" else "its ALPN says"
        origin = _origin(f"HTTP, as {said}", 0.0, target, admitted)
        await _http(channel, host, b"", origin, target, shared, admitted)
    else:
        return await _detect(channel, host, target, shared, admitted, protocol)
    return False


async def _after_silence(channel: Channel, target: Target, shared: Shared, admitted: Admitted) -> Sniffed:
    """Dial for a silent client, and wait until it or the app sends something. Raises ProxyError, ChannelClosed."""
    lease = await target.dial_early(admitted.principal)
    try:
        first = await first_of(channel, lease.channel, b"", NEVER, shared.timeouts.idle, look=True)
    except BaseException:
        lease.release(reusable=False)
        raise
    finally:
        channel.deadline = NEVER
    if begins_handshake(first):
        lease.release(reusable=False)
        return Sniffed(Detected.TLS, b"", None, begins_handshake=True)
    return Sniffed(Detected.OPAQUE, b"", lease)


async def _handshake_for_http(channel: Channel, shared: Shared) -> bool:
    """Wait for the first byte of a silent client; return whether a handshake begins. What ends the wait otherwise ends
    the first read of a request, too."""
    channel.limit(shared.timeouts.request_head, Reason.CONNECTION_IDLE)
    try:
        return begins_handshake(await channel.peek(1))
    except (ChannelClosed, Overdue):
        return False


def _origin(words: str, after: float, target: Target, admitted: Admitted) -> Origin:
    if admitted.words:
        words = f"{words}; within {admitted.words}"
    return Origin(time() - after, words, after, target.original, admitted.principal)


async def _detect(
    channel: Channel, host: str, target: Target, shared: Shared, admitted: Admitted, protocol: Protocol
) -> bool:
    began = monotonic()
    counters = shared.telemetry.counters
    try:
        found = await sniff(
            channel,
            b"",
            partial(target.dial_early, admitted.principal),
            target.habits,
            lease=None,
            head_timeout=shared.timeouts.request_head,
            idle=shared.timeouts.idle,
            announced=admitted.inside == "tcp",
            look=admitted.silent,
        )
    except ChannelClosed:
        counters.detect_nothing += 1
        return False
    except Overdue as overdue:
        if overdue.reason is not Reason.HEAD_TIMEOUT:
            counters.detect_nothing += 1
        else:
            counters.detect_undecided += 1
            words = "undecided: the beginning of a method, and no more"
            origin = _origin(words, monotonic() - began, target, admitted)
            await _http_error(channel, host, overdue, origin, target, shared)
        return False
    except ProxyError as error:
        counters.detect_undecided += 1
        origin = _origin("undecided: the client was silent", monotonic() - began, target, admitted)
        _refuse(channel, Detected.OPAQUE, error, origin, target, shared)
        return False
    if found.begins_handshake:
        return True
    lease = found.lease
    origin = _origin(found.words, monotonic() - began, target, admitted)
    is_http = found.kind is Detected.HTTP1 and (lease is None or not greets(lease.channel))
    refused = _refusal(found, is_http, protocol, admitted) if target.vouches else None
    if refused is not None:
        note_detected(found, origin.after, shared.telemetry)
        if lease is not None:
            lease.release(reusable=False)
        if found.kind is Detected.PROXY or found.server_first:
            _refuse(channel, found.kind, refused, origin, target, shared)
        else:
            await _http_error(channel, host, refused, origin, target, shared)
    elif is_http:
        note_detected(found, origin.after, shared.telemetry)
        if lease is not None:
            lease.release(reusable=False)
        await _http(channel, host, found.data, origin, target, shared, admitted)
    elif found.kind is Detected.MORE:
        counters.detect_nothing += 1
        if lease is not None:
            lease.release(reusable=False)
    else:
        note_detected(found, origin.after, shared.telemetry)
        if found.sni and lease is None:
            target = target.led_by(found.sni)
        await _relay(channel, found, origin, target, shared)
    return False


def _refusal(found: Sniffed, is_http: bool, protocol: Protocol, admitted: Admitted) -> ProxyError | None:
    """Why what was found may not go on to an app that believes its fields; None where it may."""
    if found.kind is Detected.HTTP2 and protocol != "http2":
        return ProxyError(Reason.BAD_VERSION, http2_refused(protocol))
    if found.kind is Detected.PROXY:
        return ProxyError(
            Reason.PROTOCOL_REFUSED, "a PROXY protocol header, which only ports take that are declared tcp"
        )
    if is_http and admitted.inside == "tcp":
        return ProxyError(Reason.PROTOCOL_REFUSED, "HTTP, and the peer has announced opaque bytes (ALPN sidecar-tcp)")
    return None


def http2_refused(protocol: Protocol) -> str:
    """Return why HTTP/2 is refused on a port that takes ``protocol``, and what to change."""
    return (
        f"HTTP/2 is not served yet, and this port ({protocol}) is not declared for it: with appProtocol http2 or grpc, "
        "or a port name such as grpc-api, in its Service document, or with --protocol http2, its bytes are relayed"
    )


def _refuse(
    channel: Channel, kind: Detected, error: ProxyError, origin: Origin, target: Target, shared: Shared
) -> None:
    """Reset a connection that is not relayed, and leave a record of why."""
    record = _record(channel, kind, target)
    record.origin = origin
    record.upstream = target.name
    _blame(record, error, shared)
    shared.telemetry.begin_opaque(record)
    shared.telemetry.finish(record)
    channel.reset()


async def _http(
    channel: Channel, host: str, data: bytes, origin: Origin, target: Target, shared: Shared, admitted: Admitted
) -> None:
    trusted = admitted.peer is not None or target.trusts(host)
    timeouts = shared.timeouts
    connection = ServerConnection(channel, data, timeouts, host, trusted=trusted, origin=origin, xfcc=admitted.xfcc)
    connection.leaves_with(admitted.leaving or shared.drain)
    await serve_http(connection, target.direction, target.handle, shared)


async def _http_error(
    channel: Channel, host: str, error: ProxyError, origin: Origin, target: Target, shared: Shared
) -> None:
    """A head that began and did not go on: answered as HTTP, since nothing else can be said of it."""
    connection = ServerConnection(channel, b"", shared.timeouts, host, trusted=False, origin=origin)
    connection.leaves_with(shared.drain)
    connection.fail_next(error)
    await serve_http(connection, target.direction, target.handle, shared)


async def _relay(channel: Channel, found: Sniffed, origin: Origin, target: Target, shared: Shared) -> None:
    lease = found.lease
    record = _record(channel, found.kind, target)
    record.sni = found.sni
    record.origin = origin
    record.bytes_received = found.sent
    counted = False
    try:
        permit = await target.permit(found, origin.principal)
        if not shared.overload.admits(shared.telemetry.counters.connections_active - 1):
            raise ProxyError(Reason.MEMORY, "the proxy is near its memory limit")
        record.attempts = 1
        record.upstream = target.name
        record.cluster = target.cluster
        if lease is not None and lease.stale and not found.sent:
            lease.release(reusable=False)  # it was made for a silent client, and may lead elsewhere by now
            lease = None
        if lease is None:
            lease = await target.dial(permit)
        record.upstream = lease.channel.peer
        record.upstream_principal = lease.principal
        shared.telemetry.begin_opaque(record)
        counted = True
        await tunnel(channel, lease.channel, record, shared, to_upstream=found.data[found.sent :])
    except ProxyError as error:
        _blame(record, error, shared)
        channel.reset()
    finally:
        if lease is not None:
            lease.release(reusable=False)
        if not counted:  # nobody was reached
            shared.telemetry.begin_opaque(record)
        shared.telemetry.finish(record)


def _record(channel: Channel, kind: Detected, target: Target) -> Record:
    return Record(target.direction, _PROTOCOL.get(kind, "TCP"), channel.peer, time(), monotonic())


def _blame(record: Record, error: ProxyError, shared: Shared) -> None:
    """A connection that could not be relayed leaves a record with an id to be explained by."""
    record.request_id = shared.ids.new()
    record.blame(error)
