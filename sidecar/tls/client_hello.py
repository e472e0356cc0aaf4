"""Parser of a TLS ClientHello: the server name (SNI), the offered protocols (ALPN), the largest record requested.

Called by ``handshake``, which needs the record size, and by ``tls.acceptor`` and ``proxy.protocol_detection``, which
decide by SNI and ALPN where a connection goes. No TLS is terminated here. Every length is checked against the bytes
that are there; anything that does not parse raises NoHello. Pure.

Source: RFC 8446 section 4.1.2, RFC 6066 sections 3 and 4, RFC 7301 section 3.1.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

HANDSHAKE: Final = 0x16  # the first byte of a record that carries a handshake message (RFC 8446 section 5.1)
HELLO_BYTES: Final = 16 * 1024 + 5 * 16  # the longest hello that is read: 16 KiB, in up to 16 records
RECORDS: Final = 64  # the most records that one hello may be split into; one-byte records would waste our time
LEAST_FRAGMENT: Final = 512  # bytes in a record that a client may ask for; each step doubles it (RFC 6066 section 4)
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_MAX_FRAGMENT_LENGTH: Final = 1
_ALPN: Final = 16
_NAME: Final = re.compile(rb"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253})")


class Hello(msgspec.Struct, frozen=True):
    """The parsed part of a ClientHello. ``sni`` is b"" unless a host name was sent; ``alpn`` is in the order of the
    offer; ``fragment`` is the most bytes that the client accepts in one record, 0 if it requests no limit."""

    sni: bytes
    alpn: tuple[bytes, ...]
    fragment: int = 0


class NoHello(Exception):
    """The error for bytes that do not begin a ClientHello."""


def read_hello(data: bytes) -> Hello | None:
    """Return the hello at the start of ``data``, or None while it is incomplete. Raises NoHello."""
    body = bytearray()
    position = 0
    for _ in range(RECORDS):
        if len(data) < position + 5:
            _check_size(data)
            return None
        if data[position] != HANDSHAKE or data[position + 1] != 3:
            raise NoHello
        length = int.from_bytes(data[position + 3 : position + 5], "big")
        if not 0 < length <= 16_384 + 256:
            raise NoHello
        body += data[position + 5 : position + 5 + length]
        if len(body) >= 1 and body[0] != _CLIENT_HELLO:
            raise NoHello
        if len(body) >= 4 and len(body) >= 4 + int.from_bytes(body[1:4], "big"):
            return _parse(bytes(body[4 : 4 + int.from_bytes(body[1:4], "big")]))
        position += 5 + length
        if position > len(data):
            _check_size(data)
            return None
    raise NoHello


def _check_size(data: bytes) -> None:
    if len(data) >= HELLO_BYTES:
        raise NoHello


class _Reader:
    """A reader of length-prefixed pieces from the front. Raises NoHello past the end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.position : self.position + count]
        if len(piece) != count:
            raise NoHello
        self.position += count
        return piece

    def vector(self, prefix: int) -> bytes:
        return self.take(int.from_bytes(self.take(prefix), "big"))

    @property
    def empty(self) -> bool:
        return self.position >= len(self.data)


def _parse(body: bytes) -> Hello:
    reader = _Reader(body)
    reader.take(2 + 32)  # legacy version, random
    reader.vector(1)  # session id
    reader.vector(2)  # cipher suites
    reader.vector(1)  # compression methods
    sni = b""
    alpn: tuple[bytes, ...] = ()
    fragment = 0
    if reader.empty:
        return Hello(sni, alpn)
    extensions = _Reader(reader.vector(2))
    while not extensions.empty:
        kind = int.from_bytes(extensions.take(2), "big")
        content = extensions.vector(2)
        if kind == _SERVER_NAME:
            sni = _server_name(content)
        elif kind == _ALPN:
            alpn = _protocols(content)
        elif kind == _MAX_FRAGMENT_LENGTH and len(content) == 1 and 1 <= content[0] <= 4:
            fragment = LEAST_FRAGMENT << (content[0] - 1)
    return Hello(sni, alpn, fragment)


def _server_name(content: bytes) -> bytes:
    names = _Reader(_Reader(content).vector(2))
    while not names.empty:
        kind = names.take(1)
        name = names.vector(2)
        if kind == b"\0":
            return name.lower() if _NAME.fullmatch(name) else b""
    return b""


def _protocols(content: bytes) -> tuple[bytes, ...]:
    """Return all names of an ALPN extension: the last one may decide where the connection goes. The hello's size is the
    bound. It may hold thousands of names, so this loop reads them without ``_Reader``."""
    offered = _Reader(content).vector(2)
    found: list[bytes] = []
    at, end = 0, len(offered)
    while at < end:
        after = at + 1 + offered[at]
        found.append(offered[at + 1 : after])
        at = after
    if at > end:
        raise NoHello
    return tuple(found)
