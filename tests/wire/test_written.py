"""What we write, h11 reads as what we meant: heads are made anew from what was read, with a framing of our own."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import cast

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.http.h1.client import H1ClientStream
from sidecar.http.h1.head import RequestHead, ResponseHead
from sidecar.http.h1.server_stream import H1ServerStream
from sidecar.http.headers import Field
from sidecar.http.message import UNKNOWN
from sidecar.http.timeouts import Timeouts
from sidecar.net.connection import NEVER, Connection
from sidecar.net.connection_pool import Lease
from tests.wire import near_valid
from tests.wire.feeding import read_request, read_response
from tests.wire.oracle import client_reads, server_reads
from tests.wire.test_against_h11 import reproducible

TIMEOUTS = Timeouts(1.0, 1.0, 1.0, 1, 1.0, 0)
PIECES = st.lists(st.binary(min_size=1, max_size=20), max_size=3)
CHUNKED = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: app\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
SUMS = st.lists(st.tuples(st.sampled_from([b"X-Sum", b"y"]), st.sampled_from([b"", b"1", b"a b"])), max_size=2)


class Paper:
    """A connection whose kernel takes everything."""

    peer = "192.0.2.1:80"
    deadline = NEVER

    def __init__(self) -> None:
        self.written = b""
        self.connection = self  # it is its own lease, too
        self.reused = False
        self.principal = ""
        self.secured = None

    def send_nowait(self, data: bytes) -> int:
        self.written += data
        return len(data)


def run(step: Coroutine[object, object, None]) -> None:
    """Run what never has to wait."""
    with pytest.raises(StopIteration):
        step.send(None)


def request_written(head: RequestHead, pieces: list[bytes], trailers: list[Field]) -> bytes:
    """The bytes that an upstream is sent."""
    paper = Paper()
    stream = H1ClientStream(cast(Lease, paper), 1.0)
    first = pieces[0] if pieces else b""
    whole = len(pieces) < 2 and not trailers
    assert stream.begin(head, head.fields, first, done=whole)
    for piece in pieces[1:]:
        assert stream.push(piece)
    run(stream.finish_request(trailers))
    return paper.written


def answer_written(
    request: RequestHead, head: ResponseHead, pieces: list[bytes], trailers: list[Field]
) -> tuple[bytes, bool]:
    """The bytes that a client is sent, and whether the connection ends then."""
    paper = Paper()
    stream = H1ServerStream(cast(Connection, paper), b"", TIMEOUTS, b"127.0.0.1", trusted=False)
    stream.request = request
    stream.closing = not request.keep_alive
    if head.status < 200:
        run(stream.send_interim(head))
        return paper.written, False
    whole = len(pieces) < 2 and not trailers
    run(stream.send_head(head, pieces[0] if pieces else b"", done=whole))
    for piece in pieces[1:]:
        run(stream.send_body(piece))
    if not whole:
        run(stream.finish_reply(trailers))
    return paper.written, stream.closing


def fitted(pieces: list[bytes], length: int) -> list[bytes]:
    """The pieces of a body of that length."""
    if length < 0:
        return pieces
    return [b"b" * min(length, 100)] if length else []


def test_a_request_is_written_as_it_was_judged() -> None:
    written = []

    @reproducible
    @given(near_valid.REQUESTS, PIECES, SUMS)
    @example(UPGRADE, [], [])
    @example(CHUNKED, [b"x"], [])  # not every version of hypothesis makes one by itself
    def holds(data: bytes, pieces: list[bytes], trailers: list[Field]) -> None:
        found = read_request([data])
        if not isinstance(found, tuple) or found[0].method == b"CONNECT":
            return
        head = found[0]
        pieces = fitted(pieces, head.body)
        trailers = trailers if head.body == UNKNOWN else []
        read = server_reads(request_written(head, pieces, trailers))
        request = read.head
        assert isinstance(request, h11.Request), read.error
        assert (request.method, request.target, request.http_version) == (head.method, head.target, b"1.1")
        own = {b"host": head.authority or b"192.0.2.1:80"}
        if head.body == UNKNOWN:
            own[b"transfer-encoding"] = b"chunked"
        if head.protocol:
            own |= {b"connection": b"upgrade", b"upgrade": head.protocol}
        elif head.takes_trailers:
            own |= {b"connection": b"te", b"te": b"trailers"}
        fields = request.headers.raw_items()
        assert [field for field in fields if field[0] not in own] == head.fields
        assert dict([field for field in fields if field[0] in own]) == own
        assert (read.body, read.trailers, read.rest, read.error) == (b"".join(pieces), trailers, b"", "")
        assert read.ended is (head.body <= 100)
        written.append(head)

    holds()
    assert len(written) >= 100
    assert any(head.protocol for head in written)
    assert any(head.body == UNKNOWN for head in written)


def test_an_answer_is_written_as_it_was_judged() -> None:
    written = []
    asked = st.tuples(
        st.sampled_from([b"GET", b"GET", b"HEAD", b"POST"]),
        st.sampled_from(
            [b"HTTP/1.1\r\nHost: app\r\n", b"HTTP/1.1\r\nHost: app\r\nConnection: close\r\n", b"HTTP/1.0\r\n"]
        ),
        st.sampled_from([b"TE: trailers\r\n", b"", b"Connection: keep-alive\r\n"]),
    )

    @reproducible
    @given(asked, near_valid.ANSWERS, PIECES, SUMS)
    def holds(parts: tuple[bytes, bytes, bytes], data: bytes, pieces: list[bytes], trailers: list[Field]) -> None:
        method, version, te = parts
        asking = read_request([method + b" / " + version + te + b"\r\n"])
        found = read_response([data], method)
        assert isinstance(asking, tuple)
        if not isinstance(found, tuple) or found[0].status == 101:
            return
        request, head = asking[0], found[0]
        pieces = fitted(pieces, head.body)
        trailers = trailers if head.body == UNKNOWN and not head.until_close else []
        sent, closing = answer_written(request, head, pieces, trailers)
        if head.status < 200 and not request.minor:
            assert sent == b""
            return
        read = client_reads(sent, method, fin=closing and head.body <= 100)
        answer = read.head
        assert isinstance(answer, h11.Response | h11.InformationalResponse), read.error
        assert (answer.status_code, answer.reason, answer.http_version) == (head.status, head.phrase, b"1.1")
        own = {b"transfer-encoding", b"connection"}
        assert [field for field in answer.headers.raw_items() if field[0] not in own] == head.fields
        if head.status >= 200:
            assert read.body == b"".join(pieces)
            assert read.ended is (head.body <= 100)
            assert read.closes is closing or not read.ended
            chunked = (b"transfer-encoding", b"chunked") in answer.headers.raw_items()
            assert chunked is (head.body < 0 and request.minor == 1 and method != b"HEAD")
            assert read.trailers == (trailers if chunked and request.takes_trailers else [])
        assert (read.rest, read.error) == (b"", "")
        written.append((request, head))

    holds()
    assert len(written) >= 100
    assert any(request.minor == 0 and head.body < 0 for request, head in written)
    assert any(request.minor and head.body < 0 for request, head in written)
