"""Message bodies: by length, in chunks, until close. Each reader takes bytes and returns those that are body.

One reader belongs to one message. ``feed`` returns decoded body bytes. After it, ``done`` is true if the body has
ended, ``rest`` holds what came after it, and ``more`` is true if a further ``feed(b"")`` has work to do (a call decodes
a bounded number of chunks, so that no read full of tiny ones holds the loop). Pure.

The chunk reader is our own, compared with h11's by a property test, rather than h11 behind a guard. A guard that
refuses what h11 accepts (white space after the size, bare CR in an extension, 20-digit sizes, bare LF in trailers) has
to read all of the framing anyway, and two readers in a row could only disagree.

Source: RFC 9112 section 7.1, RFC 9110 section 6.5.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from sidecar.errors import ProxyError, Reason
from sidecar.http import headers
from sidecar.http.h1 import grammar
from sidecar.http.h1.grammar import HEAD_BYTES, HEAD_FIELDS
from sidecar.http.headers import Field
from sidecar.http.message import UNKNOWN, Body

CHUNK_LINE_BYTES: Final = 1024
EXTENSION_BYTES: Final = 16 * 1024  # of all chunks of one body together (Go's limit, CVE-2023-39326)
CHUNKS_PER_FEED: Final = 512

_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e]|\\[\t\x20-\x7e])*+"'
_EXTENSION: Final = rb"(?:;" + grammar.TOKEN + rb"++(?:=(?:" + grammar.TOKEN + rb"++|" + _QUOTED + rb"))?)*+"
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(" + _EXTENSION + rb")\r\n")
_CHUNK_LINE_START: Final = re.compile(rb"[0-9A-Fa-f]{1,16}(?:\r|;[^\x00-\x08\x0a-\x0c\x0e-\x1f\x7f]*+)?\Z")


class BodyReader(Protocol):
    """The interface of all three readers; ``trailers`` are those that may be forwarded."""

    done: bool
    more: bool
    rest: bytes
    trailers: list[Field]

    def feed(self, data: bytes) -> bytes:
        """Return the body bytes in ``data``. Raises ProxyError if the framing is broken."""
        ...

    def end(self) -> None:
        """End the body at the peer's FIN. Raises ProxyError if the body is not complete."""
        ...


def reader_for(body: Body, limit: int = 0, *, until_close: bool = False) -> BodyReader:
    """Return the reader for a message's ``body``. A chunked body may announce ``limit`` bytes at most, unless that is
    0. ``until_close``: an UNKNOWN body is not chunked, but ends with the connection."""
    if body != UNKNOWN:
        return LengthReader(body)
    return CloseReader() if until_close else ChunkReader(limit)


class LengthReader:
    """A body of ``length`` bytes."""

    __slots__ = ("done", "left", "more", "rest", "trailers")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0
        self.more = False
        self.rest = b""
        self.trailers: list[Field] = []

    def feed(self, data: bytes) -> bytes:
        left = self.left - len(data)
        if left > 0:
            self.left = left
            return data
        body = data[: self.left]
        self.rest = data[self.left :]
        self.left = 0
        self.done = True
        return body

    def end(self) -> None:
        if not self.done:
            raise ProxyError(Reason.BAD_FRAMING, f"the body ended {self.left} bytes early")


class CloseReader:
    """A body that ends with the connection: answers only (RFC 9112 section 6.3, rule 8)."""

    __slots__ = ("done", "more", "rest", "trailers")

    def __init__(self) -> None:
        self.done = self.more = False
        self.rest = b""
        self.trailers: list[Field] = []

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> None:
        self.done = True


class ChunkReader:
    """A chunked body. Extensions are dropped; trailers are kept as far as ``headers`` allows."""

    __slots__ = (
        "_announced",
        "_extensions",
        "_left",
        "_limit",
        "_pending",
        "_step",
        "done",
        "more",
        "rest",
        "trailers",
    )

    def __init__(self, limit: int = 0) -> None:
        self._limit = limit
        self._announced = 0  # bytes of all chunks so far, including those still to come of this one
        self._pending = b""  # the beginning of a chunk line, of a chunk's end or of the trailers
        self._left = 0  # bytes of the current chunk
        self._extensions = 0
        self._step = _LINE
        self.done = self.more = False
        self.rest = b""
        self.trailers: list[Field] = []

    def feed(self, data: bytes) -> bytes:
        if self._pending:
            if self._step is _TRAILERS and b"\n" not in data and len(self._pending) + len(data) < HEAD_BYTES:
                self._pending += data  # no further line: nothing new to judge
                return b""
            data = self._pending + data
            self._pending = b""
        body: list[bytes] = []
        position = 0
        self.more = False
        for _ in range(CHUNKS_PER_FEED):
            if self._step is _LINE:
                match = _CHUNK_LINE.match(data, position)
                if match is None:
                    self._wait_for_line(data, position)
                    return b"".join(body)
                position = match.end()
                self._begin(match)
            if self._step is _DATA:
                piece = data[position : position + self._left]
                body.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if self._left:
                    return b"".join(body)
                self._step = _END
            if self._step is _END:
                ending = data[position : position + 2]
                if ending != b"\r\n":
                    self._wait_for_end(ending)
                    return b"".join(body)
                position += 2
                self._step = _LINE
            if self._step is _TRAILERS:
                self._read_trailers(data[position:])
                return b"".join(body)
        self._pending = data[position:]
        self.more = True
        return b"".join(body)

    def end(self) -> None:
        if not self.done:
            raise ProxyError(Reason.BAD_FRAMING, "the body ended before its last chunk")

    def _begin(self, match: re.Match[bytes]) -> None:
        self._extensions += len(match[2])
        if len(match[0]) > CHUNK_LINE_BYTES or self._extensions > EXTENSION_BYTES:
            raise ProxyError(Reason.BAD_FRAMING, "chunk extensions are too long")
        self._left = int(match[1], 16)
        if self._left >= 1 << 63:
            raise ProxyError(Reason.BAD_FRAMING, "a chunk is longer than any body")
        self._announced += self._left
        if self._limit and self._announced > self._limit:
            raise ProxyError(Reason.BODY_TOO_LARGE, f"the body is longer than {self._limit} bytes")
        self._step = _DATA if self._left else _TRAILERS

    def _wait_for_line(self, data: bytes, position: int) -> None:
        line = data[position : position + CHUNK_LINE_BYTES + 1]
        if b"\n" in line or len(line) > CHUNK_LINE_BYTES or (line and not _CHUNK_LINE_START.match(line)):
            raise ProxyError(Reason.BAD_FRAMING, "a chunk does not begin with its size in hexadecimal digits")
        self._pending = line

    def _wait_for_end(self, ending: bytes) -> None:
        if not b"\r\n".startswith(ending):
            raise ProxyError(Reason.BAD_FRAMING, "a chunk is not followed by CRLF")
        self._pending = ending

    def _read_trailers(self, data: bytes) -> None:
        match = grammar.TRAILER_BLOCK.match(data)
        if match is None or match.end() > HEAD_BYTES:
            grammar.explain_trailers(data)
            self._pending = data
            return
        fields = grammar.split_fields(match[1])
        if len(fields) > HEAD_FIELDS:
            grammar.explain_trailers(data)
        self.trailers = headers.trailers_allowed(fields)
        self.rest = data[match.end() :]
        self.done = True


_LINE: Final = "line"
_DATA: Final = "data"
_END: Final = "end"
_TRAILERS: Final = "trailers"

LAST_CHUNK: Final = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return one chunk around ``data``, which is not empty (an empty one would end the body)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: list[Field]) -> bytes:
    """Return the end of a chunked body."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n%b\r\n" % grammar.field_lines(trailers)
