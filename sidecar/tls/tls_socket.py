"""A ``ByteStream`` of plain bytes over TLS 1.3, once OpenSSL has shaken hands.

``tls.handshake`` makes it, with the keys of both directions, and puts a connection over it. It raises what a socket
raises, so the connection waits, times out and speculates in the same way as over a plain socket.

Why not OpenSSL to the end: its connection keeps 39 kB for as long as it lives (two record layers, the peer's chain, the
spent key agreement), and takes two system calls for each record that it reads. Little is left to do after a handshake:
records (``tls.records``), five kinds of messages (``tls.record_reader``), and an end.

Theory of operation. A read takes from the kernel what is there, up to what was asked for, and returns all of its whole
records at once. So at most a part of a record is held, and a poll reports the rest of it. If such a read ends with the
end of the connection, ``_wake`` makes the next poll report that, too. A peek is the exception: what it saw is kept in
``unread``, and must be taken before a wait.

A write seals up to RECORDS_AT_ONCE and hands them to the kernel in one call. What the kernel does not take stays sealed
and counts as refused: it must be offered again as it was, and is not sealed twice, because a nonce is used once.

The end. close_notify is FIN. A FIN without one may be an attacker's cut: it is an error, never the end of a body
(RFC 8446 section 6.1). After a fatal alert of either side, no byte goes out any more.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import Final

from sidecar.tls.record_reader import BULK_BYTES, SLACK_BYTES, RecordReader, scratch
from sidecar.tls.records import ALERT, APPLICATION, HANDSHAKE, PLAIN_BYTES, RECORDS_PER_KEY, Keys

_KEY_UPDATE: Final = b"\x18\0\0\1\0"  # that requests none in return
_CLOSE_NOTIFY: Final = b"\1\0"
_FATAL: Final = 2
WITNESS_BYTES: Final = 64  # compared to recognize bytes that are offered again
RECORDS_AT_ONCE: Final = 4  # sealed for one write: 64 KiB, the most that the kernel mostly takes


class TlsFailure(ConnectionAbortedError):
    """The error of a TLS layer that failed in the middle of a connection; ``strerror`` describes it."""

    def __init__(self, words: str) -> None:
        super().__init__(errno.ECONNABORTED, words)


class TlsSocket:
    """A ``Sealed`` byte stream over ``raw``, which it owns.

    ``serves`` is true for the end that answered the handshake; ``most`` is the most bytes of the app's that the peer
    accepts in one record.
    """

    __slots__ = (
        "_cut",
        "_most",
        "_owed",
        "_raw",
        "_reading",
        "_refused",
        "_replying",
        "_rest",
        "_silent",
        "_writing",
        "unread",
    )

    def __init__(
        self, raw: socket.socket, reading: Keys, writing: Keys, *, serves: bool, most: int = PLAIN_BYTES
    ) -> None:
        self._raw = raw
        self._most = most
        self._reading = RecordReader(reading, tickets=not serves)
        self._writing = writing
        self._rest = b""  # sealed, and not taken by the kernel yet
        self._owed = 0  # bytes of the app's that were sealed, and not yet reported as sent
        self._refused = b""  # the first of them
        self._replying = False  # ``_rest`` holds an answer to a KeyUpdate
        self._silent = False  # nothing more is sent, not even a close_notify
        self._cut = False  # on our side; the peer has sent no end
        self.unread = b""  # opened by a peek, and not read yet

    # -- reading -----------------------------------------------------------------------------------------------------

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return whole records, at least one, of about ``size`` bytes; b"" at the peer's close_notify. Raises
        BlockingIOError, or an OSError when the connection is gone or was cut."""
        if self.unread or flags:
            return self._beside(size, flags)
        reading = self._reading
        while reading.end is None:
            data = self._receive(size)
            if not data:
                self._silent = True
                reading.stop("the connection was cut without a TLS close_notify")
                break
            opened = reading.open(data)
            if reading.news:
                self._act()
            if opened:
                return opened
        if self._cut:
            raise TlsFailure("the connection was cut on our side")
        if reading.end:
            raise TlsFailure(reading.end)
        return b""

    def _receive(self, size: int) -> bytes | memoryview:
        """Return what is held and what has come, for long reads in the scratch; empty at FIN."""
        held = self._reading.held
        try:
            if size <= PLAIN_BYTES:
                data = self._raw.recv(PLAIN_BYTES + SLACK_BYTES - len(held))
                return held + data if held and data else data
            wire = scratch().wire[: min(size, BULK_BYTES) + SLACK_BYTES]
            came = self._raw.recv_into(wire[len(held) :])
        except BlockingIOError:
            raise
        except OSError:
            self._silent = True
            raise
        if not came:
            return b""
        wire[: len(held)] = held
        return wire[: len(held) + came]

    def _act(self) -> None:
        """Act on what the peer has sent besides the app's bytes."""
        reading = self._reading
        reading.news = False
        if reading.asked:
            reading.asked = False
            if not self._replying and not self._silent:  # one answer does for many (RFC 8446 section 4.6.3)
                self._update()
        if reading.end is not None:
            if reading.alert:
                self.refuse(reading.alert)
            elif reading.end:
                self._rest = b""
                self._silent = True
            self._wake()

    def _wake(self) -> None:
        """Make polls report something to read: the end, which came with the last bytes."""
        with suppress(OSError):
            self._raw.shutdown(socket.SHUT_RD)

    def _beside(self, size: int, flags: int) -> bytes:
        if flags & socket.MSG_PEEK:
            if not self.unread:
                self.unread = self.recv(size)
            return self.unread[:size]
        return self.take_unread()

    def take_unread(self) -> bytes:
        """Return, and forget, what a peek has left, for a caller that reads on without ``recv``."""
        data = self.unread
        self.unread = b""
        return data

    def holds_unread(self) -> bool:
        """Return whether something unread has come that no poll reports: maybe a part of a record."""
        return bool(self.unread or self._reading.held)

    # -- writing -----------------------------------------------------------------------------------------------------

    def send(self, data: bytes | memoryview) -> int:
        """Send as ``socket.send`` does. Refused bytes must be offered again as they were; more bytes may follow."""
        if self._silent:
            raise BrokenPipeError(errno.EPIPE, "the TLS connection has ended")
        size = len(data)
        if self._rest or self._owed or self._writing.sequence >= RECORDS_PER_KEY:
            return self._send_on(data)
        if size > self._most:
            return self._send_long(memoryview(data), 0)
        if size and not self._push(self._writing.seal(APPLICATION, data)):
            self._refuse(data)
            raise BlockingIOError
        return size

    def _refuse(self, data: bytes | memoryview) -> None:
        self._owed, self._refused = len(data), bytes(data[:WITNESS_BYTES])

    def _send_on(self, data: bytes | memoryview) -> int:
        """Send after a refusal, or under new keys."""
        if self._writing.sequence >= RECORDS_PER_KEY:
            self._update()
        if self._rest:
            self._flush()
        sent, self._owed = self._owed, 0
        if len(data) < sent or data[: min(sent, WITNESS_BYTES)] != self._refused:
            self._silent = True
            raise TlsFailure("what was refused was not offered again")
        self._refused = b""
        return self._send_long(memoryview(data), sent)

    def _send_long(self, data: memoryview, sent: int) -> int:
        """Send ``data`` from ``sent`` on, in as many records as it takes."""
        most, sealed = self._most, scratch().plain
        while sent < len(data):
            part = data[sent : sent + RECORDS_AT_ONCE * most]
            end = 0
            for at in range(0, len(part), most):
                end += self._writing.seal_into(part[at : at + most], sealed[end:])
            try:
                took_all = self._push(sealed[:end])
            except OSError:
                if not sent:
                    raise
                break  # as a socket does: report what was taken; the next call raises the failure
            if not took_all:
                self._refuse(part)
                if not sent:
                    raise BlockingIOError
                break
            sent += len(part)
        return sent

    def _push(self, sealed: bytes | memoryview) -> bool:
        """Hand records to the kernel, and keep the rest. Return whether the kernel took all."""
        try:
            taken = self._raw.send(sealed)
        except BlockingIOError:
            taken = 0
        except OSError:
            self._silent = True
            raise
        if taken == len(sealed):
            return True
        self._rest = bytes(sealed[taken:])
        return False

    def _flush(self) -> None:
        """Hand the rest to the kernel. Raises BlockingIOError while some is left, or another OSError."""
        rest, self._rest = self._rest, b""
        if not self._push(rest):
            raise BlockingIOError
        self._replying = False

    def _say(self, kind: int, content: bytes) -> None:
        """Append a record of our own to the rest, and send what the kernel takes now. The next write sends what is
        left, or fails if the peer is gone."""
        self._rest += self._writing.seal(kind, content)
        with suppress(OSError):
            self._flush()

    def _update(self) -> None:
        """Announce, and take, the next keys of our direction."""
        self._replying = True
        self._rest += self._writing.seal(HANDSHAKE, _KEY_UPDATE)
        self._writing.update()
        with suppress(OSError):
            self._flush()

    def refuse(self, alert: int) -> None:
        """Send this fatal alert, and nothing after it."""
        if not self._silent:
            self._say(ALERT, bytes((_FATAL, alert)))
            self._silent = True

    # -- the end -----------------------------------------------------------------------------------------------------

    def shutdown(self, how: int) -> None:
        """Send close_notify, then FIN. Raises BlockingIOError while the notice has no room, or another OSError.

        SHUT_RDWR cuts: no notice is sent, and nothing that has come already is read."""
        if how == socket.SHUT_RDWR:
            self._abandon()
        elif not self._silent:
            self._silent = True
            self._rest += self._writing.seal(ALERT, _CLOSE_NOTIFY)
        if self._rest:
            self._flush()
        self._raw.shutdown(how)

    def _abandon(self) -> None:
        self._silent = self._cut = True
        self._rest = self.unread = b""
        self._reading.stop("")

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Set an option as ``socket.setsockopt`` does. SO_LINGER prepares a reset: no close_notify is sent then, which
        would make it look like an end."""
        if level == socket.SOL_SOCKET and option == socket.SO_LINGER:
            self._silent = True
        self._raw.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int) -> int:
        """Return an option as ``socket.getsockopt`` does."""
        return self._raw.getsockopt(level, option)

    def getsockname(self) -> tuple[str, int]:
        """Return the address as ``socket.getsockname`` does."""
        name: tuple[str, int] = self._raw.getsockname()
        return name

    def fileno(self) -> int:
        """Return the socket's number, for polls."""
        return self._raw.fileno()

    def close(self) -> None:
        """Send close_notify if there is room for it, and close."""
        if not self._silent and not self._rest:
            with suppress(OSError):  # the peer is gone or takes nothing: it gets a FIN alone
                self._raw.send(self._writing.seal(ALERT, _CLOSE_NOTIFY))
        self._abandon()
        self._raw.close()
