"""Decryption of TLS 1.3 records: the app's bytes, and the other messages that a peer may send after the handshake.

Called by ``tls.tls_socket``, which reads from the kernel, and acts on what a ``RecordReader`` reports. No I/O and no
clock here.

Besides the app's bytes a peer may send session tickets (which are ignored: there is no resumption in a mesh), new keys,
and alerts (RFC 8446 sections 4.6 and 6). Anything else ends the connection, and so does a peer that sends record after
record without a byte for the app.
"""

from __future__ import annotations

import threading
from typing import Final

from sidecar.tls.records import (
    ALERT,
    APPLICATION,
    FULL_BYTES,
    HANDSHAKE,
    HEADER_BYTES,
    LEAST_BYTES,
    PLAIN_BYTES,
    SEALED_BYTES,
    TAG_BYTES,
    BadRecord,
    Keys,
)

BULK_BYTES: Final = 65_536  # of plain text that one read returns, and one write takes
SLACK_BYTES: Final = 1024  # read beyond that: for the overhead of records, and a full one that is padded
BLANK_RECORDS: Final = 32  # in a row without a byte for the app: as many as OpenSSL accepts
UPDATES: Final = 32  # of the peer's keys in one read; each costs what ten records do
LATE_BYTES: Final = 65_536  # of one message after the handshake: a ticket may hold a session with our whole chain

_NEW_SESSION_TICKET: Final = 4
_KEY_UPDATE: Final = 24
_CLOSE_NOTIFY: Final = 0
_USER_CANCELED: Final = 90
_UNEXPECTED: Final = 10
_BAD_MAC: Final = 20
_OVERFLOW: Final = 22
_ILLEGAL: Final = 47
_DECODE: Final = 50
_CHANGED: Final = "a TLS record that does not open: it was changed on the way, or is out of order"

# By number (RFC 8446 section 6), with names for people.
ALERTS: Final = {
    _UNEXPECTED: "unexpected message",
    _BAD_MAC: "bad record mac",
    _OVERFLOW: "record overflow",
    40: "handshake failure",
    42: "bad certificate",
    43: "unsupported certificate",
    44: "certificate revoked",
    45: "certificate expired",
    46: "certificate unknown",
    _ILLEGAL: "illegal parameter",
    48: "unknown ca",
    49: "access denied",
    _DECODE: "decode error",
    51: "decrypt error",
    70: "protocol version",
    71: "insufficient security",
    80: "internal error",
    109: "missing extension",
    116: "certificate required",
    120: "no application protocol",
}


class Scratch:
    """Buffers for long reads and writes between the kernel and the caller; nothing waits while they are in use."""

    def __init__(self) -> None:
        self.wire = memoryview(bytearray(BULK_BYTES + SLACK_BYTES))
        self.plain = memoryview(bytearray(BULK_BYTES + SLACK_BYTES))


_threads: Final = threading.local()


def scratch() -> Scratch:
    """Return this thread's buffers."""
    try:
        found: Scratch = _threads.scratch
    except AttributeError:
        found = _threads.scratch = Scratch()
    return found


class _Broken(Exception):
    """A violation by the peer that ends the connection; ``alert`` is sent to it."""

    def __init__(self, alert: int, words: str) -> None:
        super().__init__(words)
        self.alert = alert


class RecordReader:
    """The reader of one peer's records. ``tickets``: whether the peer may send session tickets, as servers do.

    ``held`` is the beginning of a record whose rest has not come. Read the others after ``open``, if ``news`` is set.
    ``end`` is None while reading continues, "" after a close_notify, otherwise the reason why reading ended. ``alert``
    is to be sent to the peer then (0: none). ``asked``: the peer requests that we take new keys, too.
    """

    __slots__ = ("_blank", "_keys", "_late", "_tickets", "_updates", "alert", "asked", "end", "held", "news")

    def __init__(self, keys: Keys, *, tickets: bool) -> None:
        self._keys = keys
        self._tickets = tickets
        self._late = b""  # the beginning of a message after the handshake
        self._blank = 0  # records in a row without a byte for the app
        self._updates = 0  # in this read
        self.held = b""
        self.news = False
        self.end: str | None = None
        self.alert = 0
        self.asked = False

    def open(self, data: bytes | memoryview) -> bytes:
        """Return the app's bytes in ``data``, which begins with ``held``."""
        if self.end is not None:
            return b""
        if type(data) is bytes and len(data) == HEADER_BYTES + int.from_bytes(data[3:5], "big") <= FULL_BYTES:
            return self._open_one(data)
        return self._open_many(memoryview(data))

    def _open_one(self, record: bytes) -> bytes:
        """Open one record. Mostly it carries the app's bytes and nothing else."""
        self.held = b""
        try:
            if record[0] != APPLICATION or len(record) < HEADER_BYTES + LEAST_BYTES:
                raise _misframed(record[0], len(record) - HEADER_BYTES)
            content = self._keys.open(record)
            if content[-1] == APPLICATION and 1 < len(content) <= PLAIN_BYTES + 1 and not self._late:
                self._blank = 0
                return content[:-1]
            content = content.rstrip(b"\0")
            self._updates = 0
            return content[: self._unusual(content)]
        except BadRecord:
            self._break(_BAD_MAC, _CHANGED)
        except _Broken as broken:
            self._break(broken.alert, f"TLS: {broken}")
        return b""

    def _open_many(self, data: memoryview) -> bytes:
        plain = scratch().plain
        at = out = self._updates = 0
        total = len(data)
        try:
            while total - at >= HEADER_BYTES and self.end is None:
                sealed = data[at + 3] << 8 | data[at + 4]
                if data[at] != APPLICATION or not LEAST_BYTES <= sealed <= SEALED_BYTES:
                    raise _misframed(data[at], sealed)
                begin = at + HEADER_BYTES
                if begin + sealed > total:
                    break
                inner = out + sealed - TAG_BYTES
                self._keys.open_into(data[at:begin], data[begin : begin + sealed], plain[out:inner])
                at = begin + sealed
                if plain[inner - 1] == APPLICATION and out < inner - 1 <= out + PLAIN_BYTES and not self._late:
                    out = inner - 1
                    self._blank = 0
                else:
                    out += self._unusual(bytes(plain[out:inner]).rstrip(b"\0"))
        except BadRecord:
            self._break(_BAD_MAC, _CHANGED)
        except _Broken as broken:
            self._break(broken.alert, f"TLS: {broken}")
        self.held = b"" if self.end is not None else bytes(data[at:])
        return bytes(plain[:out])

    def stop(self, why: str) -> None:
        """Read no more; ``why`` is as in ``end``."""
        self.held = self._late = b""
        self.end = why

    def _break(self, alert: int, words: str) -> None:
        self.alert = alert
        self.end = words
        self.news = True

    def _unusual(self, content: bytes) -> int:
        """Process a record, without its padding, that was padded, is empty, or is not the app's. Return how many of its
        bytes are the app's."""
        if not content:
            raise _Broken(_UNEXPECTED, "a record without a type")
        kind, length = content[-1], len(content) - 1
        if length > PLAIN_BYTES:
            raise _Broken(_OVERFLOW, f"a record of {length:,} bytes")
        if self._late and kind != HANDSHAKE:
            raise _Broken(_UNEXPECTED, "a record in the middle of a handshake message")
        if kind == APPLICATION and length:
            self._blank = 0
            return length
        self._count_blank()
        if kind == HANDSHAKE:
            self._hear(content[:-1])
        elif kind == ALERT:
            self._hear_alert(content[:-1])
        elif kind != APPLICATION:
            raise _Broken(_UNEXPECTED, f"a record of the unknown type {kind}")
        return 0

    def _count_blank(self) -> None:
        self._blank += 1
        if self._blank > BLANK_RECORDS:
            raise _Broken(_UNEXPECTED, f"more than {BLANK_RECORDS} records or messages in a row without content")

    def _hear(self, data: bytes) -> None:
        """Process handshake messages, which may be in pieces, or several in one record."""
        if not data:
            raise _Broken(_UNEXPECTED, "an empty handshake record")
        data = self._late + data
        while len(data) >= 4:
            kind, length = data[0], int.from_bytes(data[1:4], "big")
            if length > LATE_BYTES:
                raise _Broken(_DECODE, f"a handshake message of {length:,} bytes")
            if len(data) < 4 + length:
                break
            message, data = data[4 : 4 + length], data[4 + length :]
            if data:  # another message in the same record
                self._count_blank()
            if kind == _KEY_UPDATE:
                self._update(message, last=not data)
            elif kind != _NEW_SESSION_TICKET or not self._tickets:
                raise _Broken(_UNEXPECTED, f"a handshake message of type {kind} after the handshake")
        self._late = data

    def _update(self, message: bytes, *, last: bool) -> None:
        """Take the peer's next keys, from the next record on (RFC 8446 section 4.6.3)."""
        if message not in (b"\0", b"\1"):
            raise _Broken(_ILLEGAL, "a KeyUpdate with an invalid request value")
        if not last:
            raise _Broken(_UNEXPECTED, "a KeyUpdate in the middle of a record")
        self._updates += 1
        if self._updates > UPDATES:
            raise _Broken(_UNEXPECTED, "new keys again and again")
        self._keys.update()
        if message == b"\1":
            self.asked = self.news = True

    def _hear_alert(self, alert: bytes) -> None:
        if len(alert) != 2:
            raise _Broken(_DECODE, "an alert that is not two bytes long")
        if alert[1] != _USER_CANCELED:  # which only announces a close_notify
            self.end = "" if alert[1] == _CLOSE_NOTIFY else f"TLS alert {ALERTS.get(alert[1], alert[1])}"
            self.news = True


def _misframed(kind: int, sealed: int) -> _Broken:
    if sealed > SEALED_BYTES:
        return _Broken(_OVERFLOW, f"a record of {sealed:,} bytes")
    if kind != APPLICATION:
        return _Broken(_UNEXPECTED, f"a record of type {kind} that is not sealed")
    return _Broken(_DECODE, "a record too short for its seal")
