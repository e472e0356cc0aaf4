"""What an app may be sent: a reader of requests that accepts the canonical form only, and names what is not.

It stands behind every proxy that the tests start. It is written from RFC 9112 and shares no line with the proxy, so
that one mistake can't hide in both. ``feed`` it bytes in any pieces; it returns the requests that they completed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) ([\x21-\x7e]+) HTTP/1\.1\Z")
_FIELD = re.compile(
    rb"(" + _TOKEN + rb"):(?: ((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?))?\Z"
)
_LENIENT_LINE = re.compile(rb"([^ \r\n]+) ([^\r\n]+) HTTP/1\.[01]\Z")
_LENIENT_FIELD = re.compile(rb"([^:\r\n]+):[ \t]*([^\n]*)\Z")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.~!$&'()*+;=%-]+)(?::[0-9]{1,5})?\Z")
_LENGTH = re.compile(rb"(?:0|[1-9][0-9]{0,18})\Z")
_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,16}\Z")
_HEAD_LIMIT = 80 * 1024

# What only a member of the mesh may say, and no unauthenticated client may make an app believe (HDR-1).
_MESH_ONLY = re.compile(rb"x-forwarded-client-cert\Z|x-source-|x-envoy-|l5d-")
# But what a proxy of the mesh says of a caller that has shown who it is, once and in this form; and what such a caller
# may say itself (HDR-2).
_XFCC = b"x-forwarded-client-cert"
_VOUCHED = re.compile(
    rb'By=spiffe://[!-:<-~]+;Hash=[0-9a-f]{64};Subject="[^"]*";URI=spiffe://[a-z0-9._-]+/[A-Za-z0-9._/-]+\Z'
)
_FROM_PEERS = frozenset(
    (b"x-envoy-upstream-rq-timeout-ms", b"x-envoy-expected-rq-timeout-ms", b"x-envoy-attempt-count")
)
# Hop-by-hop (RFC 9110 section 7.6.1); `upgrade`, `connection` and `te` have rules of their own below.
_HOP_BY_HOP = frozenset((b"keep-alive", b"proxy-connection", b"trailer", b"proxy-authenticate", b"http2-settings"))
_NOT_IN_TRAILERS = frozenset(
    (
        b"content-length",
        b"transfer-encoding",
        b"host",
        b"authorization",
        b"connection",
        b"te",
        b"upgrade",
        b"cookie",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"trailer",
        b"expect",
        b"keep-alive",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-port",
    )
)


class Violation(Exception):
    """The bytes are not canonical; the text says where."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the app saw it; names of fields as they came, in their order."""

    method: bytes
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    trailers: tuple[tuple[bytes, bytes], ...]
    chunked: bool
    connection: int

    def get(self, name: bytes) -> list[bytes]:
        """Every value of a field, by its lower-case name."""
        return [value for key, value in self.fields if key.lower() == name]

    @property
    def host(self) -> bytes:
        return self.get(b"host")[0]


class StrictReader:
    """One connection's bytes -> requests. After a :class:`Violation` it must not be fed again. ``strict`` False: only
    the framing is judged, not what the fields and the target are. ``mesh``: what a mesh vouches for may be there."""

    def __init__(self, connection: int = 0, *, strict: bool = True, mesh: bool = False) -> None:
        self._connection = connection
        self._strict = strict
        self._mesh = mesh
        self._buffer = bytearray()
        self._head: tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...]] | None = None
        self._body = bytearray()
        self._left = 0
        self._state = "head"
        self._chunked = False

    @property
    def target(self) -> bytes | None:
        """The target of the request whose body is still being read."""
        return None if self._head is None else self._head[1]

    @property
    def mid_request(self) -> bool:
        """Some bytes of a request have come, and not its end."""
        return bool(self._buffer) or self._head is not None

    def feed(self, data: bytes) -> list[Request]:
        """Take the next bytes; raises :class:`Violation`."""
        self._buffer += data
        done: list[Request] = []
        while True:
            before = (self._state, len(self._buffer), self._left)
            request = self._step()
            if request is not None:
                done.append(request)
            elif before == (self._state, len(self._buffer), self._left):
                return done

    def _step(self) -> Request | None:
        if self._state == "head":
            return self._read_head()
        if self._state == "body":
            taken = self._buffer[: self._left]
            self._body += taken
            self._left -= len(taken)
            del self._buffer[: len(taken)]
            if self._left:
                return None
            if self._chunked:
                self._state = "chunk-end"
                return None
            return self._finish(())
        if self._state == "size":
            line = self._line(limit=18)
            if line is None:
                return None
            if not _CHUNK.match(line):
                raise Violation(f"chunk size {line!r}")
            self._left = int(line, 16)
            self._state = "body" if self._left else "trailers"
            return None
        if self._state == "chunk-end":
            if len(self._buffer) >= 2:
                if self._buffer[:2] != b"\r\n":
                    raise Violation(f"after a chunk: {bytes(self._buffer[:2])!r}")
                del self._buffer[:2]
                self._state = "size"
            return None
        return self._read_trailers()

    def _line(self, limit: int) -> bytes | None:
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > limit:
                raise Violation(f"line too long: {bytes(self._buffer[:64])!r}")
            return None
        line = bytes(self._buffer[: end + 1])
        if not line.endswith(b"\r\n"):
            raise Violation(f"bare LF after {line[-40:]!r}")
        del self._buffer[: end + 1]
        return line[:-2]

    def _read_head(self) -> Request | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            self._check_early()
            return None
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        match = (_REQUEST_LINE if self._strict else _LENIENT_LINE).match(lines[0])
        if not match:
            raise Violation(f"request line {lines[0]!r}")
        method, target = match[1], match[2]
        known = target.startswith(b"/") or (target == b"*" and method == b"OPTIONS")
        if self._strict and (not known or b"#" in target):
            raise Violation(f"target {target!r}")
        fields = tuple(_field(line, self._strict) for line in lines[1:])
        self._frame(fields)
        self._head = (method, target, fields)
        if self._state == "body" and not self._left:
            return self._finish(())
        return None

    def _check_early(self) -> None:
        """Judge what has come of a head, so that a stray byte is named though no head ever ends."""
        if len(self._buffer) > _HEAD_LIMIT:
            raise Violation("head too large")
        if not self._strict:
            return
        if self._buffer and not re.match(rb"[A-Za-z!#$%&'*+.^_`|~0-9-]", self._buffer):
            raise Violation(f"not a request: {bytes(self._buffer[:40])!r}")
        if b"\r\n" in self._buffer and not _REQUEST_LINE.match(self._buffer.split(b"\r\n", 1)[0]):
            raise Violation(f"request line in {bytes(self._buffer[:80])!r}")

    def _frame(self, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        names = [name.lower() for name, _ in fields]
        values = {name.lower(): value for name, value in fields}
        if self._strict:
            _judge(names if not self._mesh else _not_vouched(names, values), values)
        lengths, codings = names.count(b"content-length"), names.count(b"transfer-encoding")
        if lengths + codings > 1:
            raise Violation("more than one field says how long the body is")
        self._body = bytearray()
        self._chunked = codings == 1
        if codings:
            if values[b"transfer-encoding"].lower() != b"chunked":
                raise Violation(f"transfer-encoding: {values[b'transfer-encoding']!r}")
            self._state = "size"
            return
        length = values.get(b"content-length", b"0")
        if not _LENGTH.match(length):
            raise Violation(f"content-length: {length!r}")
        self._left = int(length)
        self._state = "body"

    def _read_trailers(self) -> Request | None:
        if self._buffer[:2] == b"\r\n":
            del self._buffer[:2]
            return self._finish(())
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _HEAD_LIMIT or b"\n" in self._buffer.replace(b"\r\n", b""):
                raise Violation("trailers that do not end")
            return None
        trailers = tuple(_field(line, self._strict) for line in bytes(self._buffer[:end]).split(b"\r\n"))
        del self._buffer[: end + 4]
        names = [name.lower() for name, _ in trailers]
        if self._strict:
            _check_names(names)
        for name in names if self._strict else ():
            if name.replace(b"_", b"-") in _NOT_IN_TRAILERS:
                raise Violation(f"trailer {name!r}")
        return self._finish(trailers)

    def _finish(self, trailers: tuple[tuple[bytes, bytes], ...]) -> Request:
        assert self._head is not None
        method, target, fields = self._head
        self._head = None
        self._state = "head"
        return Request(method, target, fields, bytes(self._body), trailers, self._chunked, self._connection)


def _judge(names: list[bytes], values: dict[bytes, bytes]) -> None:
    if names.count(b"host") != 1 or not _HOST.match(values[b"host"]):
        raise Violation(f"{names.count(b'host')} host fields, {values.get(b'host')!r}")
    _check_names(names)
    if b"upgrade" in names and b"upgrade" not in values.get(b"connection", b"").lower():
        raise Violation("upgrade without connection: upgrade")
    if values.get(b"te", b"trailers") != b"trailers":
        raise Violation(f"te: {values[b'te']!r}")


def _not_vouched(names: list[bytes], values: dict[bytes, bytes]) -> list[bytes]:
    """The names without those that may come from a mesh."""
    if names.count(_XFCC) != 1 or not _VOUCHED.match(values[_XFCC]):
        return names
    return [name for name in names if name != _XFCC and name not in _FROM_PEERS]


def _field(line: bytes, strict: bool) -> tuple[bytes, bytes]:
    match = (_FIELD if strict else _LENIENT_FIELD).match(line)
    if not match:
        raise Violation(f"field line {line!r}")
    return match[1], match[2] or b""


def _check_names(names: list[bytes]) -> None:
    for name in names:
        twin = name.replace(b"_", b"-")
        if _MESH_ONLY.match(twin):
            raise Violation(f"a field that only the mesh may set: {name!r}")
        if twin in _HOP_BY_HOP:
            raise Violation(f"a hop-by-hop field: {name!r}")
        if twin in (b"content-length", b"transfer-encoding", b"host") and twin != name:
            raise Violation(f"an underscore twin of a framing field: {name!r}")
