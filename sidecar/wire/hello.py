"""What a TLS ClientHello says in the clear: the server's name (SNI), the protocols offered (ALPN), the size of records.

Read for relaying and for the record; nothing is terminated here. Every length is checked against what is there, and
what does not parse is said to be no hello rather than guessed at. Pure.

Source: RFC 8446 section 4.1.2, RFC 6066 sections 3 and 4, RFC 7301 section 3.1.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from sidecar.wire.detect import HELLO_BYTES

RECORDS: Final = 64  # that a hello may come in; who sends one byte in each wants our time
LEAST_FRAGMENT: Final = 512  # bytes in a record that a client may ask for; each step doubles it (RFC 6066 section 4)
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_MAX_FRAGMENT_LENGTH: Final = 1
_ALPN: Final = 16
_NAME: Final = re.compile(rb"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253})")


class Hello(msgspec.Struct, frozen=True):
    """``sni`` is b"" where none, or none that is a host name, was sent; ``alpn`` is in the order of the offer;
    ``fragment`` is how many bytes a record may hold at most, 0 where nothing is asked for."""

    sni: bytes
    alpn: tuple[bytes, ...]
    fragment: int = 0


class NoHello(Exception):
    """These bytes can't become a ClientHello."""


def read_hello(data: bytes) -> Hello | None:
    """The hello that ``data`` begins with, None while it is incomplete. Raises NoHello."""
    body = bytearray()
    position = 0
    for _ in range(RECORDS):
        if len(data) < position + 5:
            _check_size(data)
            return None
        if data[position] != _HANDSHAKE or data[position + 1] != 3:
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
    """Takes length-prefixed pieces off the front; raises NoHello past the end."""

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
    """All of them: who the hello is for may be said by the last. The hello's own size is the bound; as it may have some
    thousand names, they are not taken off a reader one by one."""
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
