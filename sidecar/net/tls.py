"""TLS on a channel: the handshake, and a stand-in for the socket that carries plain bytes over it afterwards.

Who calls it: ``proxy.mtls``, for both directions. What a certificate may say is judged by whoever calls (``judge``);
here is what the library lets through and must not (pyOpenSSL's documentation, and what we measured).

Theory of operation. pyOpenSSL sits on the non-blocking socket itself; a memory BIO in between costs a quarter more.
Once the handshake is over, the channel's ``sock`` is replaced by a :class:`TlsSocket`, which raises what a socket
raises: so all of the channel's waiting, deadlines and speculation stay as they are, and nobody above knows the
difference. OpenSSL does not read ahead, so what has not been taken is still in the kernel, where polls see it; each
``recv`` takes whole records, so nothing decrypted is left behind where no poll would find it. A peek is the exception,
and keeps what it saw in ``TlsSocket.unread``, to be taken before anybody waits.

The end. close_notify is FIN. A FIN without one is a cut that anybody on the way could have made: it is an error, never
the end of a body (RFC 8446 section 6.1).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Final, cast

import msgspec
from cryptography import x509
from OpenSSL import SSL
from OpenSSL._util import ffi as _foreign
from OpenSSL._util import lib as _library

from certs.errors import IdentityError, Refusal
from certs.verify import Peer
from sidecar.errors import ProxyError, Reason
from sidecar.net.channel import NEVER, Channel, ChannelClosed, Overdue
from sidecar.net.contexts import NoProtocol

HANDSHAKE_SECONDS: Final = 10.0
RECORD_BYTES: Final = 16_384  # of plain bytes in one record (RFC 8446 section 5.1)
# After the handshake it must be one of these (the mesh's contract); the library's names, in lower case.
GROUPS: Final = frozenset({"x25519mlkem768", "x25519", "prime256v1", "secp256r1", "p-256"})

# ``Connection.recv`` allocates 16 KiB for each record, and both it and ``send`` look for errors where there are none:
# a third of what a record costs. So records pass here by the library's own functions; errors go its way.
_read: Final = _library.SSL_read
_write: Final = _library.SSL_write
_pointer: Final = _foreign.from_buffer
_unpack: Final = _foreign.unpack
_forget_errors: Final = _library.ERR_clear_error
_PLAIN: Final = _foreign.new("char[]", RECORD_BYTES)  # one loop, one thread, and nothing waits between read and unpack

Judge = Callable[[Sequence[x509.Certificate]], Peer]


class Secured(msgspec.Struct, frozen=True):
    """What a handshake agreed on. ``alpn`` and ``sni`` are b"" where there is none; ``peer`` is None only where a
    missing certificate was allowed. ``ends`` is when the first of both sides' certificates ends, in seconds since the
    epoch (0: not told); ``generation`` is the caller's own count."""

    peer: Peer | None
    alpn: bytes
    sni: bytes
    group: str
    version: str
    ends: float = 0.0
    generation: int = 0


class HandshakeFailed(ProxyError):
    """No secured connection. ``rule`` is the word for metrics and records: a ``certs`` Refusal's, or one of ours."""

    def __init__(self, reason: Reason, detail: str, rule: str) -> None:
        super().__init__(reason, detail)
        self.rule = rule


class TlsFailure(ConnectionAbortedError):
    """The TLS layer failed in the middle of a connection; ``strerror`` says how."""

    def __init__(self, words: str) -> None:
        super().__init__(errno.ECONNABORTED, words)


class TlsSocket:
    """A socket's ways with TLS inside: what ``Channel``, pool and relay use of ``socket.socket``."""

    __slots__ = ("_connection", "_cut", "_raw", "_silent", "_ssl", "unread")

    def __init__(self, connection: SSL.Connection, raw: socket.socket) -> None:
        self._connection = connection
        self._ssl = connection._ssl
        self._raw = raw
        self._silent = False  # no close_notify is owed any more
        self._cut = False  # by us: not an end that the peer has said
        self.unread = b""  # decrypted by a peek, and taken by nobody

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Whole records, at least one and at most ``size`` bytes of plain text (rounded up to a record); b"" at the
        peer's close_notify. Raises BlockingIOError, or an OSError when the connection is gone or was cut."""
        if self.unread or flags:
            return self._beside(size, flags)
        data = self._record()
        if size <= RECORD_BYTES or not data:
            return data
        pieces = [data]
        size -= len(data)
        while size >= RECORD_BYTES:
            try:
                data = self._record()
            except OSError:  # also: no more now. Whatever it is, the next call meets it again
                break
            if not data:
                break
            pieces.append(data)
            size -= len(data)
        return b"".join(pieces)

    def _record(self) -> bytes:
        count: int = _read(self._ssl, _PLAIN, RECORD_BYTES)
        if count > 0:
            data: bytes = _unpack(_PLAIN, count)
            return data
        try:
            self._connection._raise_ssl_error(self._ssl, count)
            return b""
        except (SSL.WantReadError, SSL.WantWriteError):
            raise BlockingIOError from None
        except SSL.ZeroReturnError:
            if self._cut:
                raise TlsFailure("the connection was cut on our side") from None
            return b""
        except SSL.SysCallError as error:
            self._silent = True
            raise _from_system(error) from None
        except SSL.Error as error:
            self._silent = True
            raise TlsFailure(words_of(error)) from None

    def _beside(self, size: int, flags: int) -> bytes:
        if flags & socket.MSG_PEEK:
            if not self.unread:
                self.unread = self._record()
            return self.unread[:size]
        return self.take_unread()

    def take_unread(self) -> bytes:
        """What a peek has left, for whoever reads on without ``recv``."""
        data = self.unread
        self.unread = b""
        return data

    def send(self, data: bytes | memoryview) -> int:
        """As ``socket.send``. What was refused must be offered again as it was, with more behind it or not."""
        sent, size = 0, len(data)
        while sent < size:
            try:
                rest = data[sent:] if sent else data
                taken: int = _write(self._ssl, rest if type(rest) is bytes else _pointer(rest), size - sent)
                if taken <= 0:
                    self._connection._raise_ssl_error(self._ssl, taken)
                sent += taken
            except (SSL.WantReadError, SSL.WantWriteError):
                if not sent:
                    raise BlockingIOError from None
                break
            except SSL.SysCallError as error:
                self._silent = True
                raise _from_system(error) from None
            except SSL.Error as error:
                self._silent = True
                raise TlsFailure(words_of(error)) from None
        return sent

    def shutdown(self, how: int) -> None:
        """close_notify, then FIN. Raises BlockingIOError where there is no room for the notice yet, or an OSError.

        SHUT_RDWR is a cut: no word is said, and nothing that has come already is taken."""
        if how == socket.SHUT_RDWR:
            self._silent = self._cut = True
            self.unread = b""
            self._connection.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
        if not self._silent:
            try:
                self._connection.shutdown()
            except (SSL.WantReadError, SSL.WantWriteError):
                raise BlockingIOError from None
            except SSL.SysCallError as error:
                self._silent = True
                raise _from_system(error) from None
            except SSL.Error as error:
                self._silent = True
                raise TlsFailure(words_of(error)) from None
            self._silent = True
        self._raw.shutdown(how)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """As ``socket.setsockopt``; lingering with no time is a reset to come, which nothing must soften."""
        if level == socket.SOL_SOCKET and option == socket.SO_LINGER:
            self._silent = True
        self._raw.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int) -> int:
        """As ``socket.getsockopt``."""
        return self._raw.getsockopt(level, option)

    def getsockname(self) -> tuple[str, int]:
        """As ``socket.getsockname``."""
        name: tuple[str, int] = self._raw.getsockname()
        return name

    def fileno(self) -> int:
        """The socket's number, for polls."""
        return self._raw.fileno()

    def close(self) -> None:
        """Says close_notify where there is room for it, and closes."""
        if not self._silent:
            self._silent = True
            try:
                self._connection.shutdown()
            except SSL.Error:
                pass  # the peer is gone or takes nothing: it learns of the end by FIN
            _forget_errors()
        # OpenSSL knows the descriptor's number, which may be another's from here on: it must not read or write there.
        self._cut = True
        self.unread = b""
        self._connection.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
        self._raw.close()


async def secure_server(channel: Channel, context: SSL.Context, judge: Judge | None, seconds: float) -> Secured:
    """Answers the handshake of a peer whose ClientHello is still unread, within ``seconds``.

    ``judge`` makes a Peer of the verified chain or raises IdentityError; None where no certificate was asked for, and
    a context that allows a missing one gives a Secured without a peer. Raises HandshakeFailed, ChannelClosed (the
    client left), Overdue (somebody expired the channel). The channel is only good for closing then.
    """
    connection = SSL.Connection(context, _raw(channel))
    connection.set_accept_state()
    return await _secure(channel, connection, judge, seconds, _CLIENT)


async def secure_client(
    channel: Channel, context: SSL.Context, judge: Judge, *, sni: bytes, alpn: Sequence[bytes], seconds: float
) -> Secured:
    """Begins the handshake on a connected channel and judges the server before a byte of ours goes out.

    Raises HandshakeFailed, ChannelClosed, Overdue; the channel is only good for closing then. That the server takes our
    own certificate is not known yet when this returns (TLS 1.3): an alert before its first byte says that it did not.
    """
    connection = SSL.Connection(context, _raw(channel))
    connection.set_connect_state()
    if sni:
        connection.set_tlsext_host_name(sni)
    connection.set_alpn_protos(list(alpn))
    return await _secure(channel, connection, judge, seconds, _SERVER)


class _Side(msgspec.Struct, frozen=True):
    """How failures of a handshake with this kind of peer are called."""

    failed: Reason
    refused: Reason
    slow: Reason


_CLIENT: Final = _Side(Reason.HANDSHAKE_FAILED, Reason.PEER_REFUSED, Reason.HANDSHAKE_TIMEOUT)
_SERVER: Final = _Side(Reason.UPSTREAM_HANDSHAKE, Reason.UPSTREAM_IDENTITY, Reason.UPSTREAM_HANDSHAKE)


async def _secure(
    channel: Channel, connection: SSL.Connection, judge: Judge | None, seconds: float, side: _Side
) -> Secured:
    seen: list[Refusal] = []
    connection.set_app_data(seen)
    raw = _raw(channel)
    channel.limit(seconds, side.slow)
    try:
        await _shake(channel, connection)
    except NoProtocol:
        detail = f"{channel.peer}: it offers only protocols (ALPN) that are not known here"
        raise HandshakeFailed(side.failed, detail, "no_application_protocol") from None
    except SSL.SysCallError as error:
        raise ChannelClosed(_from_system(error).strerror or "closed") from None
    except SSL.Error as error:
        if seen:
            detail = f"{channel.peer}: its certificate is refused: {seen[0].word.replace('_', ' ')}"
            raise HandshakeFailed(side.refused, detail, seen[0].word) from None
        words = words_of(error)
        if "did not return a certificate" in words:
            raise HandshakeFailed(
                side.refused, f"{channel.peer}: it shows no certificate", Refusal.NO_CERTIFICATE.word
            ) from None
        raise HandshakeFailed(side.failed, f"{channel.peer}: TLS: {words}", _word(words)) from None
    except Overdue as overdue:
        if overdue.reason is not side.slow:
            raise
        raise HandshakeFailed(side.slow, f"{channel.peer}: no handshake within {seconds:g} s", "timeout") from None
    channel.deadline = NEVER
    secured = _judged(channel, connection, judge, side)
    channel.sock = cast(socket.socket, TlsSocket(connection, raw))
    channel.secured = secured
    return secured


async def _shake(channel: Channel, connection: SSL.Connection) -> None:
    while True:
        try:
            connection.do_handshake()
            return
        except SSL.WantReadError:
            await channel.wait_readable()
        except SSL.WantWriteError:
            await channel.wait_writable()


def _judged(channel: Channel, connection: SSL.Connection, judge: Judge | None, side: _Side) -> Secured:
    group = connection.get_group_name() or ""
    if group.lower() not in GROUPS:
        raise HandshakeFailed(side.failed, f"{channel.peer}: key agreement by {group or 'nothing'}", "group")
    peer = None
    if judge is not None:
        try:
            chain = connection.get_verified_chain(as_cryptography=True)
        except (ValueError, TypeError, x509.InvalidVersion):  # OpenSSL reads what is no DER, too
            detail = f"{channel.peer}: its certificate can't be read as X.509"
            raise HandshakeFailed(side.refused, detail, Refusal.UNREADABLE.word) from None
        # A resumed session has no chain either; there are none, and if there were, this is where they end.
        if not chain and connection.get_context().get_verify_mode() & SSL.VERIFY_FAIL_IF_NO_PEER_CERT:
            raise HandshakeFailed(side.refused, f"{channel.peer}: it shows no certificate", "no_certificate")
        if chain:
            try:
                peer = judge(chain)
            except IdentityError as refused:
                detail = f"{channel.peer}: its certificate is refused: {refused.detail}"
                raise HandshakeFailed(side.refused, detail, refused.reason.word) from None
    return Secured(
        peer=peer,
        alpn=connection.get_alpn_proto_negotiated(),
        sni=connection.get_servername() or b"",
        group=group,
        version=connection.get_protocol_version_name(),
    )


def _raw(channel: Channel) -> socket.socket:
    if not isinstance(channel.sock, socket.socket):
        raise TypeError("the channel is secured already")
    return channel.sock


def _from_system(error: SSL.SysCallError) -> OSError:
    """pyOpenSSL's (-1, "Unexpected EOF") or (errno, text). It leaves OpenSSL's own note of it in the thread's queue,
    where the next connection that would only have to wait would find it, and take it for its own."""
    _forget_errors()
    code, words = error.args if len(error.args) == 2 else (errno.ECONNRESET, "closed")
    if code == -1:
        return TlsFailure("the connection was cut without a TLS close_notify")
    return OSError(code, words)


def words_of(error: SSL.Error) -> str:
    """OpenSSL's own words for it, the first of a stack."""
    stack = error.args[0] if error.args else ()
    for entry in stack:
        if len(entry) == 3 and entry[2]:
            return str(entry[2])
    return "failed"


def _word(words: str) -> str:
    """A label for metrics: alerts and the few errors that are worth a name of their own."""
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
