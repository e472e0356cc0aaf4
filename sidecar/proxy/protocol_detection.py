"""Protocol detection: wait as briefly as possible for the client's first bytes, then also for the server's.

Called by ``connection_handler``, and by ``explicit`` for tunnels. ``http.first_bytes`` judges the bytes; this module
waits for them.

A client that is silent for 50 ms may be waiting for the server's greeting (MySQL, SMTP): the upstream is dialed, and
detection continues. The side that speaks first decides. The proxy remembers that a destination has spoken first only to
dial it sooner; this never decides the protocol of a connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Protocol

import msgspec
import trio

from sidecar.errors import ProxyError, Reason
from sidecar.http.first_bytes import Detected, detect
from sidecar.net.connection import NEVER, Connection, ConnectionClosed, DeadlineExceeded
from sidecar.net.connection_pool import Lease
from sidecar.telemetry.telemetry import Telemetry
from sidecar.tls.client_hello import HANDSHAKE, NoHello, read_hello

SILENCE_SECONDS = 0.05
_FRAME_HEADER = 9  # bytes (RFC 9113 section 4.1)
_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"  # except the length, which comes first
HELLO_SECONDS = 10.0
_HANDSHAKE = bytes((HANDSHAKE,))


class ServerFirstCache(Protocol):
    """The history of a destination. ``server_first``: its server has spoken first."""

    server_first: bool


class Detection(msgspec.Struct, frozen=True):
    """The outcome of detection. ``data`` is all that was read, for the caller to serve; ``lease`` the connection that
    was dialed meanwhile. ``kind`` is TLS, HTTP1, HTTP2, PROXY or OPAQUE; MORE if the client ended before it sent
    anything. ``sent`` bytes of the data have gone to the upstream already. ``begins_handshake``: TLS, none of it read,
    and there is no lease."""

    kind: Detected
    data: bytes
    lease: Lease | None
    sni: bytes = b""
    server_first: bool = False
    sent: int = 0
    begins_handshake: bool = False

    @property
    def words(self) -> str:
        """The protocol and how it was detected, for people."""
        if self.server_first:
            return _SERVER_FIRST.get(self.kind, "opaque bytes: the server spoke first")
        return _HTTP if self.kind is Detected.HTTP1 else _WORDS[self.kind]


_HTTP = "HTTP/1, by its first bytes"
_SERVER_FIRST = {Detected.HTTP2: "HTTP/2, by the settings that the server sent first"}
_WORDS = {
    Detected.TLS: "TLS, by its ClientHello",
    Detected.HTTP2: "HTTP/2, by its preface",
    Detected.PROXY: "a PROXY protocol header",
    Detected.OPAQUE: "opaque bytes: they begin like nothing that is known",
    Detected.MORE: "nothing: the client left before it sent anything",
}


def note_detected(found: Detection, seconds: float, telemetry: Telemetry) -> None:
    """Count an outcome of a detection that took ``seconds``."""
    counters = telemetry.counters
    if found.server_first:
        counters.detect_server_first += 1
    elif found.kind is Detected.HTTP1:
        counters.detect_http += 1
    elif found.kind is Detected.TLS:
        counters.detect_tls += 1
    elif found.kind is Detected.HTTP2:
        counters.detect_http2 += 1
    elif found.kind is Detected.MORE:
        counters.detect_nothing += 1
    else:
        counters.detect_opaque += 1
    telemetry.note_detection(seconds)


async def detect_protocol(
    client: Connection,
    data: bytes,
    connect: Callable[[], Awaitable[Lease]],
    server_first_cache: ServerFirstCache,
    *,
    lease: Lease | None,
    head_timeout: float,
    idle: float,
    announced: bool = False,
    look: bool = False,
) -> Detection:
    """Read from ``client`` until its protocol is known. ``connect`` dials the upstream, at most once.

    ``announced``: the peer has announced opaque bytes, so the upstream is dialed without waiting for a silence.
    ``look``: if the first bytes begin a TLS handshake, leave them unread and return with ``begins_handshake``.

    Raises ProxyError (a beginning that is not continued within ``head_timeout``; what ``connect`` raises) and
    ConnectionClosed. If it raises or is cancelled, a lease that was made or passed in has been released.
    """
    try:
        until = NEVER
        sent = 0
        failure: ProxyError | None = None  # of dialing for a silent client, which may yet turn out to speak HTTP
        while True:
            kind = detect(data)
            if kind is Detected.TLS:
                return await _tls(client, data, lease, head_timeout)
            if kind is not Detected.MORE and kind is not Detected.LIKELY_OPAQUE:
                if sent and kind is Detected.HTTP1:
                    raise ProxyError(Reason.BAD_REQUEST, "an unknown method, and a pause in its line")
                return Detection(kind, data, lease, sent=sent)
            if data and until == NEVER:
                until = monotonic() + head_timeout
            elif kind is Detected.MORE and monotonic() > until:
                raise DeadlineExceeded(
                    Reason.HEAD_TIMEOUT, f"{client.peer}: the beginning of a request, and no end of its line"
                )
            more: bytes | None
            if lease is not None and kind is not Detected.LIKELY_OPAQUE:
                more = await first_of(client, lease.connection, data, until, idle, look=look)
                if more is None:
                    greeted = greets(lease.connection)
                    if speaks_http2(lease.connection):
                        return Detection(Detected.HTTP2, data, lease, server_first=True, sent=sent)
                    if not greeted and lease.connection.secured is not None and _waits(lease.connection):
                        continue  # a record of TLS itself, perhaps a ticket
                    server_first_cache.server_first = server_first_cache.server_first or greeted
                    return Detection(Detected.OPAQUE, data, lease, server_first=greeted, sent=sent)
            else:
                at_once = announced or (server_first_cache.server_first and not data)
                more = await _recv_within(client, 0.0 if at_once else SILENCE_SECONDS, look=look)
                if more is None and kind is Detected.LIKELY_OPAQUE:
                    # A word, then silence: most likely an opaque client that waits for an answer. It gets one, but
                    # detection continues: an HTTP request in slow pieces must not pass as opaque bytes.
                    lease = lease or await connect()
                    await _send(lease.connection, data[sent:])
                    sent = len(data)
                    more = await first_of(client, lease.connection, b"", until, idle)
                    if more is None:
                        kind = Detected.HTTP2 if speaks_http2(lease.connection) else Detected.OPAQUE
                        return Detection(kind, data, lease, server_first=kind is Detected.HTTP2, sent=sent)
                elif more is None and data:
                    client.limit(until - monotonic(), Reason.HEAD_TIMEOUT)
                    more = await client.recv()
                elif more is None and failure is None:
                    try:
                        lease = await connect()
                    except ProxyError as error:
                        failure = error
                    continue
                elif more is None:
                    more = await _recv_within(client, head_timeout, look=look)
                    if more is None and failure is not None:
                        raise failure
            if look and more is not None:
                look = False
                if begins_handshake(more):
                    if lease is not None:
                        lease.release(reusable=False)
                    return Detection(Detected.TLS, b"", None, begins_handshake=True)
                more = client.recv_nowait()
            if not more:  # FIN
                if kind is Detected.LIKELY_OPAQUE or server_first_cache.server_first:
                    return Detection(Detected.OPAQUE, data, lease, sent=sent)
                return Detection(Detected.MORE, data, lease)
            data += more
    except BaseException:
        if lease is not None:
            lease.release(reusable=False)
        raise
    finally:
        client.deadline = NEVER


def greets(server: Connection) -> bool:
    """Return whether a server has sent a greeting before anything was sent to it.

    A close is no greeting, and neither is a 408: many HTTP servers close a silent connection, some after a 408. The
    settings that an HTTP/2 server sends before the client's preface are no greeting either."""
    said = _peek(server)
    return bool(said) and said[:7] != b"HTTP/1." and not _is_settings(said)


def speaks_http2(server: Connection) -> bool:
    """Return whether a server has sent a SETTINGS frame before anything was sent to it (RFC 9113 sections 3.4, 6.5)."""
    return _is_settings(_peek(server))


def begins_handshake(first: bytes | None) -> bool:
    """Return whether a client's first bytes, if any have arrived, begin a TLS handshake."""
    return first is not None and first[:1] == _HANDSHAKE


def _peek(server: Connection) -> bytes:
    try:
        return server.peek_nowait(_FRAME_HEADER) or b""
    except ConnectionClosed:
        return b""


def _is_settings(said: bytes) -> bool:
    """Return whether these bytes are, or begin, the header of a SETTINGS frame of the connection."""
    return bool(said) and said[0] == 0 and said[3:] == _SETTINGS[3 : len(said)] and len(said) > 3


def _waits(server: Connection) -> bool:
    """Return whether a server has neither sent anything nor closed."""
    try:
        return server.peek_nowait(1) is None
    except ConnectionClosed:
        return False


async def _send(server: Connection, data: bytes) -> None:
    try:
        await server.send_all(data)
    except ConnectionClosed as gone:
        raise ProxyError(Reason.UPSTREAM_CLOSED, f"the upstream went away: {gone.detail}") from None


async def _recv_within(client: Connection, seconds: float, *, look: bool = False) -> bytes | None:
    """Return the next bytes, or None after a silence. ``look``: return only the first of them, and leave it unread."""
    data = client.peek_nowait(1) if look else client.recv_nowait()
    if data is not None or not seconds:
        return data
    client.limit(seconds, Reason.CLIENT_IDLE)
    try:
        return await client.peek(1) if look else await client.recv()
    except DeadlineExceeded as overdue:
        if overdue.reason is not Reason.CLIENT_IDLE:
            raise
        client.revive()
        return None
    finally:
        client.deadline = NEVER


async def first_of(
    client: Connection, server: Connection, data: bytes, until: float, idle: float, *, look: bool = False
) -> bytes | None:
    """Return the client's next bytes (b"": FIN), or None as soon as the server has sent something. ``look``: return
    only the first of the client's bytes, and leave it unread."""
    more: bytes | None = None
    failure: Exception | None = None
    client.limit(until - monotonic() if data else idle, Reason.HEAD_TIMEOUT if data else Reason.CONNECTION_IDLE)
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            try:
                await server.wait_readable()
            except (ConnectionClosed, ProxyError):
                pass  # it was cut; its next read or write raises
            finally:
                nursery.cancel_scope.cancel()

        nursery.start_soon(listen)
        try:
            more = await (client.peek(1) if look else client.recv())
        except (ConnectionClosed, ProxyError) as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return more


async def _tls(client: Connection, data: bytes, lease: Lease | None, seconds: float) -> Detection:
    """Read the whole ClientHello, for its server name."""
    client.limit(min(seconds, HELLO_SECONDS), Reason.HEAD_TIMEOUT)
    while True:
        try:
            hello = read_hello(data)
        except NoHello:
            return Detection(Detected.TLS, data, lease)
        if hello is not None:
            return Detection(Detected.TLS, data, lease, sni=hello.sni)
        more = await client.recv()
        if not more:
            raise ProxyError(Reason.CLIENT_CLOSED, "the client closed in the middle of its ClientHello")
        data += more
