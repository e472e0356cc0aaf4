"""A client that says exactly the bytes it is told, in the pieces it is told, and reads replies as strictly as they were
meant to be written.

Nothing here is forgiving: a reply that breaks RFC 9112 raises :class:`BadReply`, since what the proxy says to a client
is as much its own work as what it says to the app.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)\Z")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)\Z")

SPLITS = ("whole", "halves", "bytes")
_PACE = 0.00005  # lets the other end read between two pieces
_PACED = 2048  # above this many bytes the pieces follow each other at once
DEADLINE = 30.0  # seconds after which a test gives up; no measure of anything


class BadReply(AssertionError):
    """What the proxy said is not a reply."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One final reply, with the interim ones that came before it. ``complete``: its body ended as it said it would."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    complete: bool
    interim: tuple[int, ...] = ()
    trailers: tuple[tuple[bytes, bytes], ...] = ()

    def get(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]

    @property
    def closes(self) -> bool:
        return any(b"close" in value.lower() for value in self.get(b"connection"))


@dataclass
class Heard:
    """What a connection brought: its bytes, how it ended (eof, reset, open), and from which port we had called."""

    raw: bytearray = field(default_factory=bytearray)
    end: str = "open"
    port: int = 0


def pieces(data: bytes, split: str) -> Iterator[bytes]:
    """The bytes whole, in two halves, or one by one."""
    if split == "whole":
        yield data
    elif split == "halves":
        yield data[: len(data) // 2]
        yield data[len(data) // 2 :]
    else:
        for index in range(len(data)):
            yield data[index : index + 1]


class Client:
    """One connection; a context manager. Reading and writing share one deadline, in seconds from the start."""

    def __init__(
        self, port: int, *, host: str = "127.0.0.1", deadline: float = DEADLINE, receive_buffer: int = 0
    ) -> None:
        self._until = time.monotonic() + deadline
        self._reset = False  # the kernel tells of a reset once: to a write, or to a read
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(deadline)
        try:
            try:
                self.sock.connect((host, port))
            except ConnectionResetError:  # it was there, and refused before connect() had returned
                self._reset = True
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.heard = Heard(port=self.sock.getsockname()[1])
        except OSError:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    @property
    def left(self) -> float:
        return self._until - time.monotonic()

    def give_up_in(self, seconds: float) -> None:
        """What has not come by then is not waited for."""
        self._until = time.monotonic() + seconds

    def send(self, data: bytes, split: str = "whole") -> bool:
        """Write; stops early when the other end spoke its last word. False when the connection was gone."""
        try:
            for piece in pieces(data, split):
                self.sock.settimeout(max(self.left, 0.01))
                self.sock.sendall(piece)
                if split == "halves" or (split == "bytes" and len(data) < _PACED):
                    select.select([self.sock], [], [], _PACE)
        except ConnectionResetError:
            self._reset = True
            return False
        except (ConnectionError, TimeoutError):
            return False
        return True

    def finish(self) -> None:
        """FIN."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def read(self) -> bool:
        """Read once; False at the end or when the deadline has passed."""
        if self.left <= 0:
            return False
        self.sock.settimeout(self.left)
        try:
            data = self.sock.recv(65536)
        except ConnectionError:
            self.heard.end = "reset"
            return False
        except TimeoutError:
            return False
        if not data:
            self.heard.end = "reset" if self._reset else "eof"
            return False
        self.heard.raw += data
        return True

    def read_until(self, enough: Callable[[bytearray], bool]) -> None:
        while not enough(self.heard.raw) and self.read():
            pass

    def read_to_end(self) -> Heard:
        while self.read():
            pass
        return self.heard

    def replies(self, methods: Sequence[bytes], count: int) -> list[Reply]:
        """Read until that many final replies are complete, or the connection ends."""
        self.read_until(lambda raw: len(parse_replies(raw, methods)) >= count)
        return parse_replies(self.heard.raw, methods, ended=self.heard.end != "open")


def ask(port: int, data: bytes, methods: Sequence[bytes] = (b"GET",), *, deadline: float = DEADLINE) -> list[Reply]:
    """One connection, these bytes, and every reply until the proxy closes."""
    with Client(port, deadline=deadline) as client:
        client.send(data)
        client.read_to_end()
        return parse_replies(client.heard.raw, methods, ended=client.heard.end != "open")


def parse_replies(raw: bytes | bytearray, methods: Sequence[bytes], *, ended: bool = False) -> list[Reply]:
    """The final replies in these bytes; ``methods`` are those of the requests, for HEAD. With ``ended`` the last one
    may be incomplete and is given as such."""
    data = bytes(raw)
    found: list[Reply] = []
    interim: list[int] = []
    at = 0
    while at < len(data):
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            if not b"HTTP/1.1 ".startswith(data[at : at + 9]):
                raise BadReply(f"not a reply: {data[at : at + 80]!r}")
            if ended:
                raise BadReply(f"a head that was cut: {data[at : at + 80]!r}")
            return found
        status, fields = _head(data[at:end])
        at = end + 4
        if 100 <= status < 200 and status != 101:
            interim.append(status)
            continue
        method = methods[len(found)] if len(found) < len(methods) else b"GET"
        body, trailers, at, complete = _body(data, at, status, fields, method, ended=ended)
        if not complete and not ended:
            return found
        found.append(Reply(status, fields, body, complete, tuple(interim), trailers))
        interim = []
        if status == 101 or (method == b"CONNECT" and status < 300):
            return found
    return found


def _head(data: bytes) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
    lines = data.split(b"\r\n")
    first = _STATUS_LINE.match(lines[0])
    if not first:
        raise BadReply(f"status line {lines[0][:80]!r}")
    fields = []
    for line in lines[1:]:
        match = _FIELD.match(line)
        if not match:
            raise BadReply(f"field line {line[:80]!r}")
        fields.append((match[1], match[2]))
    return int(first[1]), tuple(fields)


def _body(
    data: bytes, at: int, status: int, fields: tuple[tuple[bytes, bytes], ...], method: bytes, *, ended: bool
) -> tuple[bytes, tuple[tuple[bytes, bytes], ...], int, bool]:
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise BadReply(f"framing fields: {lengths!r} {codings!r}")
    if method == b"HEAD" or status in (204, 304) or status == 101 or (method == b"CONNECT" and status < 300):
        return b"", (), at, True
    if lengths:
        if not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
            raise BadReply(f"content-length {lengths[0]!r}")
        end = at + int(lengths[0])
        return data[at:end], (), min(end, len(data)), len(data) >= end
    if codings:
        return _chunks(data, at)
    return data[at:], (), len(data), ended


def _chunks(data: bytes, at: int) -> tuple[bytes, tuple[tuple[bytes, bytes], ...], int, bool]:
    body = bytearray()
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return bytes(body), (), len(data), False
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", data[at:end]):
            raise BadReply(f"chunk size {data[at:end][:40]!r}")
        size = int(data[at:end], 16)
        at = end + 2
        if size:
            body += data[at : at + size]
            if len(data) < at + size + 2:
                return bytes(body), (), len(data), False
            if data[at + size : at + size + 2] != b"\r\n":
                raise BadReply(f"after a chunk: {data[at + size : at + size + 2]!r}")
            at += size + 2
            continue
        if data[at : at + 2] == b"\r\n":
            return bytes(body), (), at + 2, True
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            return bytes(body), (), len(data), False
        _, trailers = _head(b"HTTP/1.1 200 \r\n" + data[at:end])
        return bytes(body), trailers, end + 4, True
