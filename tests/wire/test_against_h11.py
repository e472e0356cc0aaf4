"""The strict readers against h11: what ours take, h11 takes with the same meaning, and no split of bytes changes that.

Two strict readers that disagree are how requests are smuggled. Each property counts what it saw taken, since one that
refuses everything would hold as well.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import h11
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.errors import Reason
from sidecar.http.h1.body import ChunkReader
from sidecar.http.h1.head import RequestHead, ResponseHead
from sidecar.http.headers import Field
from sidecar.http.message import UNKNOWN
from sidecar.http.paths import forwarded
from tests.wire import near_valid
from tests.wire.feeding import SPLITS, cut_at, read_body, read_request, read_response
from tests.wire.oracle import Read, client_reads, server_reads

reproducible = settings(
    max_examples=500, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
OF_THIS_HOP = {
    b"host", b"transfer-encoding", b"connection", b"keep-alive", b"upgrade", b"te", b"trailer", b"proxy-connection",
    b"proxy-authorization", b"http2-settings",
}  # fmt: skip
TWINS = {name.replace(b"-", b"_") for name in (*OF_THIS_HOP, b"content-length")} - OF_THIS_HOP
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"


def framed(data: bytes, length: int, *, until_close: bool = False) -> tuple[bytes, bytes]:
    """A head with the body that we say it has: (all bytes, body)."""
    if length == UNKNOWN and not until_close:
        return data + CHUNKS, b"abc"
    body = b"b" * (length if 0 <= length <= 100 else 3)
    return data + body, body


def assert_same_fields(ours: list[Field], theirs: list[Field]) -> None:
    """What goes on is what was sent, in order and spelling, without what belongs to this hop."""
    nominated = {
        member.strip().lower()
        for name, value in theirs
        if name.lower() == b"connection"
        for member in value.split(b",")
    }
    left = list(ours)
    for name, value in theirs:
        lower = name.lower()
        if left and left[0] == (name, value):
            del left[0]
        else:
            assert lower in OF_THIS_HOP | TWINS | nominated | {b"content-length"}, (name, value)
            assert lower != b"content-length" or value == b"0" or not ours or (name, value) not in ours
    assert not left
    assert not {name.lower() for name, _ in ours} & OF_THIS_HOP


def assert_same_framing(length: int, body: bytes, read: Read) -> None:
    assert not read.error, read.error
    assert read.body == body
    assert read.ended is (length <= 100)
    assert read.rest == b""


def assert_same_request(data: bytes, head: RequestHead) -> None:
    everything, body = framed(data, head.body)
    read = server_reads(everything)
    request = read.head
    assert isinstance(request, h11.Request), read.error
    assert request.method == head.method
    sent = request.target
    if head.absolute:
        url = urlsplit(sent)
        target = (url.path or b"/") + (b"?" + url.query if b"?" in sent else b"")
        assert head.authority == url.netloc
        assert head.target in (forwarded(target), b"*" if head.method == b"OPTIONS" else None)
    elif sent.startswith(b"/"):
        assert head.target == forwarded(sent)
    else:
        assert head.target == sent
    fields = request.headers.raw_items()
    named = [value for name, value in fields if name.lower() == b"host"]
    assert head.absolute or head.method == b"CONNECT" or named == ([head.authority] if head.authority else [])
    assert request.http_version == b"1.%d" % head.minor
    assert_same_fields(head.fields, fields)
    assert_same_framing(head.body, body, read)
    assert not (read.closes and head.minor and head.keep_alive)


def assert_same_answer(data: bytes, head: ResponseHead, method: bytes) -> None:
    everything, body = framed(data, head.body, until_close=head.until_close)
    read = client_reads(everything, method, fin=head.until_close)
    answer = read.head
    assert isinstance(answer, h11.Response | h11.InformationalResponse), read.error
    assert (answer.status_code, answer.reason) == (head.status, head.phrase)
    assert answer.http_version == b"1.%d" % head.minor
    assert_same_fields(head.fields, answer.headers.raw_items())
    if head.status >= 200:
        assert_same_framing(head.body, body, read)
        assert not (read.closes and head.minor and head.keep_alive)


def test_a_request_that_we_take_is_the_one_that_h11_takes() -> None:
    taken, refused = [], []

    @reproducible
    @given(near_valid.changed(near_valid.REQUESTS))
    def holds(data: bytes) -> None:
        found = read_request([data])
        if isinstance(found, tuple):
            taken.append(data)
            assert_same_request(data[: found[1]], found[0])
        elif found is None:
            assert server_reads(data).head is None
        else:
            refused.append(found)

    holds()
    assert len(taken) >= 100
    assert {Reason.BAD_REQUEST, Reason.BAD_FRAMING} <= set(refused)


def test_an_answer_that_we_take_is_the_one_that_h11_takes() -> None:
    taken, refused = [], []

    @reproducible
    @given(near_valid.changed(near_valid.ANSWERS), st.sampled_from([b"GET", b"GET", b"HEAD", b"POST"]))
    def holds(data: bytes, method: bytes) -> None:
        found = read_response([data], method)
        if isinstance(found, tuple):
            taken.append(data)
            assert_same_answer(data[: found[1]], found[0], method)
        elif found is None:
            assert client_reads(data, method).head is None
        else:
            refused.append(found)

    holds()
    assert len(taken) >= 100
    assert {Reason.BAD_REQUEST, Reason.BAD_FRAMING} <= set(refused)


def test_chunks_that_we_take_are_the_body_that_h11_takes() -> None:
    taken, refused = [], []
    head = b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n"

    @reproducible
    @given(near_valid.changed(near_valid.CHUNKED))
    def holds(data: bytes) -> None:
        found = read_body(ChunkReader(), [data])
        if isinstance(found.end, Reason):
            refused.append(found.end)
            return
        read = server_reads(head + data)
        assert not read.error, read.error
        assert (read.body, read.ended) == (found.data, found.end)
        if found.end:
            taken.append(data)
            assert read.rest == found.rest
            theirs = iter(read.trailers)
            assert all(field in theirs for field in found.trailers)

    holds()
    assert len(taken) >= 100
    assert {Reason.BAD_FRAMING, Reason.BAD_REQUEST} <= set(refused)


@reproducible
@given(
    st.binary(max_size=80),
    st.sampled_from([b"", b"GET / HTTP/1.1\r\nHost: app\r\n", b"GET /", b"HTTP/1.1 200 OK\r\n", b"HTTP"]),
)
def test_bytes_of_any_kind_are_never_more_to_us_than_to_h11(data: bytes, begin: bytes) -> None:
    for end in (b"", b"\r\n\r\n"):
        request = read_request([begin + data + end])
        if isinstance(request, tuple):
            assert_same_request((begin + data + end)[: request[1]], request[0])
        answer = read_response([begin + data + end])
        if isinstance(answer, tuple):
            assert_same_answer((begin + data + end)[: answer[1]], answer[0], b"GET")


@reproducible
@given(near_valid.changed(near_valid.REQUESTS), near_valid.PLACES)
def test_a_request_is_the_same_in_any_pieces(data: bytes, places: list[int]) -> None:
    whole = read_request([data])
    for pieces in (cut_at(data, places), *(split(data) for split in SPLITS.values())):
        assert read_request(pieces) == whole


@reproducible
@given(near_valid.changed(near_valid.ANSWERS), near_valid.PLACES)
def test_an_answer_is_the_same_in_any_pieces(data: bytes, places: list[int]) -> None:
    whole = read_response([data])
    for pieces in (cut_at(data, places), *(split(data) for split in SPLITS.values())):
        assert read_response(pieces) == whole


@reproducible
@given(near_valid.changed(near_valid.CHUNKED) | st.binary(max_size=60), near_valid.PLACES)
def test_a_body_is_the_same_in_any_pieces(data: bytes, places: list[int]) -> None:
    whole = read_body(ChunkReader(), [data])
    for pieces in (cut_at(data, places), *(split(data) for split in SPLITS.values())):
        found = read_body(ChunkReader(), pieces)
        if isinstance(whole.end, Reason):  # the pieces before the bad one had been decoded
            assert found.end is whole.end
            assert found.data.startswith(whole.data)
        else:
            assert found == whole


@reproducible
@given(st.binary(max_size=60), near_valid.PLACES)
def test_bytes_of_any_kind_have_one_verdict_in_any_pieces(data: bytes, places: list[int]) -> None:
    for pieces in (cut_at(data, places), *(split(data) for split in SPLITS.values())):
        assert read_request(pieces) == read_request([data])
        assert read_response(pieces) == read_response([data])
