"""TLS handshakes: a plain connection goes in, a secured one comes out (over ``tls.tls_socket``).

Called by ``tls.acceptor``, ``upstream.mtls`` and ``feed.control_client``. The caller's ``judge`` decides about
certificates. This module refuses what the library accepts and must not (pyOpenSSL's documentation, and measurements).

Theory of operation. OpenSSL shakes hands between two buffers in memory; the plain connection carries the bytes, with
its deadlines. OpenSSL gets one record at a time, read from the kernel by its length, so no byte of the app's has been
taken when the handshake ends. Then its secrets for both directions are taken over, and its connection is freed with all
that it would keep. A server's OpenSSL writes two session tickets at the end, which no peer would use: they are not
sent, and so do not count among the records under the new keys.

If a handshake fails, the caller still owns the plain connection, and has to close it. If it succeeds, the plain
connection is closed, and the caller owns the secured one.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec
import trio
from cryptography import x509
from OpenSSL import SSL

from certs.errors import IdentityError, Refusal
from certs.verify import Peer
from sidecar.errors import ProxyError, Reason
from sidecar.net.byte_stream import Secured
from sidecar.net.connection import NEVER, Connection, ConnectionClosed, DeadlineExceeded
from sidecar.tls.client_hello import HELLO_BYTES, LEAST_FRAGMENT, NoHello, read_hello
from sidecar.tls.contexts import AlpnMismatch, HandshakeState
from sidecar.tls.records import HEADER_BYTES, PLAIN_BYTES, SEALED_BYTES, SUITES, Keys
from sidecar.tls.tls_socket import TlsSocket

HANDSHAKE_SECONDS: Final = 10.0
FLIGHT_BYTES: Final = 65_536  # the most that is taken from OpenSSL's outgoing buffer at once
MOST_RECORDS: Final = 256  # of one side in a handshake: a hundred kilobytes of certificates in the smallest records
LOOK_AFTER: Final = 8  # after so many records, let other tasks run and check the deadline
# The key agreement must have been one of these (the mesh's contract); the library's names, in lower case.
GROUPS: Final = frozenset({"x25519mlkem768", "x25519", "prime256v1", "secp256r1", "p-256"})

_BAD_CERTIFICATE: Final = 42
_ALERTS: Final = {  # for what OpenSSL accepts and we refuse (RFC 8446 section 6.2)
    "group": 40,
    Refusal.REVOKED.word: 44,
    Refusal.EXPIRED.word: 45,
    Refusal.UNKNOWN_AUTHORITY.word: 48,
    Refusal.UNKNOWN_TRUST_DOMAIN.word: 48,
    Refusal.WRONG_IDENTITY.word: 49,
    Refusal.NO_CERTIFICATE.word: 116,
}
_ASKS_FRAGMENT: Final = b"\0\1\0\1"  # in a ClientHello: the extension max_fragment_length, and the length of its value

Judge = Callable[[Sequence[x509.Certificate]], Peer]
Step = Callable[[Callable[[], None]], Awaitable[None]]  # runs a step of a handshake when its turn comes


class Ours(msgspec.Struct, frozen=True):
    """The caller's part of ``Secured``: when its own certificate expires (0: not known), and its own count."""

    ends: float = 0.0
    generation: int = 0


_NOT_TOLD: Final = Ours()


class HandshakeFailed(ProxyError):
    """The error of a failed handshake. ``rule`` is its word in metrics and records: a ``certs`` Refusal's, or ours."""

    def __init__(self, reason: Reason, detail: str, rule: str) -> None:
        super().__init__(reason, detail)
        self.rule = rule


class _TooLong(Exception):
    """The error of a handshake that takes more records or bytes than any honest one."""


async def at_once(step: Callable[[], None]) -> None:
    """Run a step without waiting for a turn."""
    step()


async def secure_server(
    connection: Connection,
    context: SSL.Context,
    judge: Judge | None,
    seconds: float,
    *,
    turn: Step = at_once,
    ours: Ours = _NOT_TOLD,
) -> Connection:
    """Answer the handshake of a peer whose ClientHello is still unread, within ``seconds``; return the secured
    connection.

    ``judge`` makes a Peer of the verified chain or raises IdentityError; pass None if no certificate was asked for. A
    context that allows a missing certificate gives a Secured without a peer. ``turn`` runs each step, and raises what
    the step raises, or what ``Connection.wait_readable`` does.

    Raises HandshakeFailed, ConnectionClosed (the client left), DeadlineExceeded (another task expired the connection).
    Then, or when it is cancelled, ``connection`` is only good for closing.
    """
    openssl = SSL.Connection(context)
    openssl.set_accept_state()
    return await _secure(connection, openssl, judge, seconds, _CLIENT, turn, ours)


async def secure_client(
    connection: Connection,
    context: SSL.Context,
    judge: Judge,
    *,
    sni: bytes,
    alpn: Sequence[bytes],
    seconds: float,
    ours: Ours = _NOT_TOLD,
) -> Connection:
    """Begin a handshake on a connected connection, and judge the server before a byte of the app's goes out; return the
    secured connection.

    Raises HandshakeFailed, ConnectionClosed, DeadlineExceeded. Then, or when it is cancelled, ``connection`` is only
    good for closing. Under TLS 1.3 this returns before the server has judged our own certificate: an alert before its
    first byte means that it refused it.
    """
    openssl = SSL.Connection(context)
    openssl.set_connect_state()
    if sni:
        openssl.set_tlsext_host_name(sni)
    openssl.set_alpn_protos(list(alpn))
    return await _secure(connection, openssl, judge, seconds, _SERVER, at_once, ours)


class _Side(msgspec.Struct, frozen=True):
    """The reasons for failures of a handshake with this kind of peer."""

    failed: Reason
    refused: Reason
    slow: Reason


_CLIENT: Final = _Side(Reason.HANDSHAKE_FAILED, Reason.PEER_REFUSED, Reason.HANDSHAKE_TIMEOUT)
_SERVER: Final = _Side(Reason.UPSTREAM_HANDSHAKE, Reason.UPSTREAM_IDENTITY, Reason.UPSTREAM_HANDSHAKE)


async def _secure(
    connection: Connection,
    openssl: SSL.Connection,
    judge: Judge | None,
    seconds: float,
    side: _Side,
    turn: Step,
    ours: Ours,
) -> Connection:
    shaking = HandshakeState()
    openssl.set_app_data(shaking)
    raw = connection.plain
    connection.limit(seconds, side.slow)
    try:
        hello = await _shake(connection, raw, openssl, side, turn)
    except AlpnMismatch:
        detail = f"{connection.peer}: no protocol (ALPN) that it offers is known here"
        raise HandshakeFailed(side.failed, detail, "no_application_protocol") from None
    except _TooLong:
        most = f"{MOST_RECORDS} records, or a hello of more than {HELLO_BYTES:,} bytes"
        detail = f"{connection.peer}: a handshake in more than {most}"
        raise HandshakeFailed(side.failed, detail, "too_long") from None
    except SSL.Error as error:
        refused = shaking.refused
        if refused is not None:
            detail = f"{connection.peer}: its certificate is refused: {refused.word.replace('_', ' ')}"
            raise HandshakeFailed(side.refused, detail, refused.word) from None
        words = words_of(error)
        if "did not return a certificate" in words:
            raise HandshakeFailed(
                side.refused, f"{connection.peer}: it shows no certificate", Refusal.NO_CERTIFICATE.word
            ) from None
        raise HandshakeFailed(side.failed, f"{connection.peer}: TLS: {words}", _word(words)) from None
    except DeadlineExceeded as overdue:
        if overdue.reason is not side.slow:
            raise
        raise HandshakeFailed(side.slow, f"{connection.peer}: no handshake within {seconds:g} s", "timeout") from None
    connection.deadline = NEVER
    try:
        seal = _sealing(openssl, shaking, side, hello)
    except (KeyError, ValueError):
        detail = f"{connection.peer}: OpenSSL did not give the secrets of the handshake"
        raise HandshakeFailed(side.failed, detail, "no_secrets") from None
    try:
        secured = _judged(connection, openssl, judge, side, ours)
    except HandshakeFailed as failed:
        # The peer's side of the handshake succeeded: only an alert under the new keys reports the refusal.
        seal(raw).refuse(_ALERTS.get(failed.rule, _BAD_CERTIFICATE))
        raise
    return connection.hand_over(seal, secured)


async def _shake(connection: Connection, raw: socket.socket, openssl: SSL.Connection, side: _Side, turn: Step) -> bytes:
    """Shake hands until both sides are done; return what the peer sent before it was answered."""
    first, answered = b"", side is _SERVER
    for number in range(MOST_RECORDS):
        if number % LOOK_AFTER == LOOK_AFTER - 1:
            await trio.lowlevel.checkpoint()
            connection.check()
        try:
            await turn(openssl.do_handshake)
        except SSL.WantReadError:
            said = _said(openssl)
            if said:
                answered = answered or bool(first)
                await connection.send_all(said)
            record = await _record(connection, raw)
            openssl.bio_write(record)
            if not answered:
                first += record
                if len(first) > HELLO_BYTES:
                    raise _TooLong from None
        except (SSL.Error, AlpnMismatch):
            with suppress(ConnectionClosed):
                connection.send_nowait(_said(openssl))  # the alert with the reason
            raise
        else:
            last = _said(openssl)
            if side is _SERVER:  # a server's are session tickets: see the module's docstring
                await connection.send_all(last)
            return first
    raise _TooLong


def _said(openssl: SSL.Connection) -> bytes:
    """Return what OpenSSL wants to send."""
    said = b""
    with suppress(SSL.WantReadError):
        while True:
            said += openssl.bio_read(FLIGHT_BYTES)
    return said


async def _record(connection: Connection, raw: socket.socket) -> bytes:
    """Return the next record of a handshake, and not a byte more. Bytes that are no record are returned as they are,
    for OpenSSL to refuse."""
    data = await _take(connection, raw, HEADER_BYTES)
    length = data[3] << 8 | data[4]
    if length > SEALED_BYTES or data[0] >> 2 != 5:  # 20 to 23, the types that there are
        return data
    return data + await _take(connection, raw, length)


async def _take(connection: Connection, raw: socket.socket, size: int) -> bytes:
    """Return exactly ``size`` bytes. Raises ConnectionClosed, DeadlineExceeded."""
    data = b""
    while len(data) < size:
        try:
            more = raw.recv(size - len(data))
        except BlockingIOError:
            await connection.wait_readable()
            continue
        except OSError as error:
            raise ConnectionClosed(errno.errorcode.get(error.errno or 0, "closed")) from None
        if not more:
            raise ConnectionClosed("the connection was cut without a TLS close_notify")
        data += more
    return data


def _sealing(
    openssl: SSL.Connection, shaking: HandshakeState, side: _Side, hello: bytes
) -> Callable[[socket.socket], TlsSocket]:
    """Return what puts the agreed keys on a socket, once. Raises KeyError, ValueError if OpenSSL gave no secrets."""
    suite = SUITES[openssl.get_cipher_name() or ""]
    by_client, by_server = Keys(suite, shaking.by_client), Keys(suite, shaking.by_server)
    if side is _SERVER:
        return lambda raw: TlsSocket(raw, by_server, by_client, serves=False)
    most = _most(hello)
    return lambda raw: TlsSocket(raw, by_client, by_server, serves=True, most=most)


def _most(hello: bytes) -> int:
    """Return the most bytes that the client wants in one record: OpenSSL has agreed to it (RFC 6066 section 4)."""
    lone = len(hello) == HEADER_BYTES + int.from_bytes(hello[3:HEADER_BYTES], "big")
    if lone and _ASKS_FRAGMENT not in hello:
        return PLAIN_BYTES
    try:
        read = read_hello(hello)
    except NoHello:
        read = None
    if read is None:  # only OpenSSL could read it: the least that a client can ask for is always allowed
        return LEAST_FRAGMENT
    return read.fragment or PLAIN_BYTES


def _judged(connection: Connection, openssl: SSL.Connection, judge: Judge | None, side: _Side, ours: Ours) -> Secured:
    """Return what was agreed on. Raises HandshakeFailed if it, or the peer, is refused."""
    group = openssl.get_group_name() or ""
    if group.lower() not in GROUPS:
        raise HandshakeFailed(side.failed, f"{connection.peer}: key agreement by {group or 'nothing'}", "group")
    peer = None
    if judge is not None:
        try:
            chain = openssl.get_verified_chain(as_cryptography=True)
        except (ValueError, TypeError, x509.InvalidVersion):  # OpenSSL also reads what is not DER
            detail = f"{connection.peer}: its certificate can't be read as X.509"
            raise HandshakeFailed(side.refused, detail, Refusal.UNREADABLE.word) from None
        # A resumed session has no chain either. Contexts allow none; if one came, it would end here.
        if not chain and openssl.get_context().get_verify_mode() & SSL.VERIFY_FAIL_IF_NO_PEER_CERT:
            raise HandshakeFailed(side.refused, f"{connection.peer}: it shows no certificate", "no_certificate")
        if chain:
            try:
                peer = judge(chain)
            except IdentityError as refused:
                detail = f"{connection.peer}: its certificate is refused: {refused.detail}"
                raise HandshakeFailed(side.refused, detail, refused.reason.word) from None
    return Secured(
        peer=peer,
        alpn=openssl.get_alpn_proto_negotiated(),
        sni=openssl.get_servername() or b"",
        group=sys.intern(group),  # the few that there are, once and not for each connection
        version=sys.intern(openssl.get_protocol_version_name()),
        ends=min(ours.ends, peer.not_after) if peer is not None and ours.ends else ours.ends,
        generation=ours.generation,
    )


def words_of(error: SSL.Error) -> str:
    """Return OpenSSL's own words for an error: the first entry of its stack that has any."""
    stack = error.args[0] if error.args else ()
    for entry in stack:
        if len(entry) == 3 and entry[2]:
            return str(entry[2])
    return "failed"


def _word(words: str) -> str:
    """Return a label for metrics: alerts, and the few errors that are worth a name of their own."""
    for known in _WORDS:
        if known in words:
            return known.replace(" ", "_")
    return "other"


_WORDS: Final = (
    "alert certificate required",
    "alert bad certificate",
    "alert unknown ca",
    "alert certificate expired",
    "alert certificate revoked",
    "alert certificate unknown",
    "alert no application protocol",
    "alert handshake failure",
    "alert protocol version",
    "unsupported protocol",
    "no application protocol",
    "no shared cipher",
    "wrong version number",
    "http request",
    "unexpected eof",
)
