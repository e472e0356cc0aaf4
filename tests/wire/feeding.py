"""The same bytes in different pieces, fed as the proxy feeds them, and the one verdict on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from sidecar.errors import ProxyError, Reason
from sidecar.http.h1.body import BodyReader
from sidecar.http.h1.grammar import HEAD_BYTES, VERSION_BYTES
from sidecar.http.h1.head import RequestHead, ResponseHead, parse_request, parse_response
from sidecar.http.headers import Field

Head = TypeVar("Head")


def whole(data: bytes) -> list[bytes]:
    return [data]


def halves(data: bytes) -> list[bytes]:
    return [data[: len(data) // 2], data[len(data) // 2 :]]


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def cut_at(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Split at the given places, as far as they lie inside."""
    edges = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


SPLITS: dict[str, Callable[[bytes], list[bytes]]] = {"whole": whole, "halves": halves, "bytewise": bytewise}


def read_request(pieces: list[bytes]) -> tuple[RequestHead, int] | Reason | None:
    """The head and its size, why there is none, or None where it is not complete."""
    return _read(pieces, parse_request, lines_only=True)


def read_response(pieces: list[bytes], method: bytes = b"GET") -> tuple[ResponseHead, int] | Reason | None:
    """As above, for an answer."""
    return _read(pieces, lambda data: parse_response(data, method), lines_only=True)


def _read(
    pieces: list[bytes], parse: Callable[[bytes], tuple[Head, int] | None], *, lines_only: bool
) -> tuple[Head, int] | Reason | None:
    """``lines_only``: past the first piece, bytes are judged when they end a line or are too many."""
    data = b""
    try:
        for piece in pieces:
            first, data = not data, data + piece
            if first or not lines_only or len(data) <= VERSION_BYTES or b"\n" in piece or len(data) >= HEAD_BYTES:
                parsed = parse(data)
                if parsed is not None:
                    return parsed
    except ProxyError as refused:
        return refused.reason
    return None


@dataclass(slots=True)
class Body:
    """What came of a body: ``end`` is True where it is complete, False where more is wanted, or the reason against it;
    then ``data`` is what had been decoded."""

    data: bytes
    end: bool | Reason
    trailers: list[Field]
    rest: bytes


def read_body(reader: BodyReader, pieces: list[bytes], *, fin: bool = False) -> Body:
    """Feed a body as the proxy does, to its end; ``fin``: then the peer closes."""
    data, waiting, ended = b"", iter(pieces), False
    try:
        while not reader.done and not ended:
            if reader.more:
                data += reader.feed(b"")
                continue
            piece = next(waiting, None)
            if piece is not None:
                data += reader.feed(piece)
            else:
                ended = True
                if fin:
                    reader.end()
    except ProxyError as refused:
        return Body(data, refused.reason, [], b"")
    return Body(data, reader.done, reader.trailers, reader.rest + b"".join(waiting))


def each_split(data: bytes) -> Iterator[list[bytes]]:
    """The three ways of SPLITS."""
    for split in SPLITS.values():
        yield split(data)
