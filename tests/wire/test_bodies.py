"""Bodies: by length, in chunks, until close, in whatever pieces they come. Ids: CHK and the table of h11 (H11)."""

from __future__ import annotations

import pytest

from sidecar.errors import ProxyError, Reason
from sidecar.http.h1 import grammar
from sidecar.http.h1.body import (
    CHUNK_LINE_BYTES,
    CHUNKS_PER_FEED,
    EXTENSION_BYTES,
    ChunkReader,
    CloseReader,
    LengthReader,
    chunk,
    last_chunk,
    reader_for,
)
from sidecar.http.message import UNKNOWN
from sidecar.http.message import Body as Length
from tests.wire.feeding import SPLITS, Body, read_body

AFTER = b"GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n"
END = b"0\r\n\r\n"
FRAMING, BAD, LARGE = Reason.BAD_FRAMING, Reason.BAD_REQUEST, Reason.HEAD_TOO_LARGE

SIZES = [
    b"0x1", b"+1", b"-1", b"1_0", b" 1", b"", b"Z", b"1Z", b"1.0", b"-0", b"\xb2", b"1\xa0", b"\xd9\xa1", b"1,",
          b"1\x00",
    b"\x001", b"h", b"'1'", b"0X5", b"#5",
]  # fmt: skip
LONG = [b"1" * 17, b"0" * 16 + b"5", b"0" * 19 + b"5", b"f" * 20, b"0" * 1000 + b"5", b"f" * 16, b"8" + b"0" * 15]
EXTENSIONS = [
    b";a\rb", b";a\x00b", b";", b";\r", b"; ", b";=", b";=b", b";a\x01", b";a\x7f", b";;", b";a;", b';a="b\r"',
          b';a="\n"',
    b";a b", b";\x0ba", b';a="b', b";a=", b"\n", b"\r", b";a\n", b";a=b=c", b";a=\xff", b";a\xff",
]  # fmt: skip
SPILLS = [b"X", b"XX", b"\n", b"\rX", b"X\n", b"\n\r", b"\n\n", b"\r\r\n", b"X\r\n", b" \r\n", b"\x00\x00"]

BROKEN: dict[str, tuple[Reason, list[bytes]]] = {
    "CHK-1": (FRAMING, [size + b"\r\nhello\r\n" + END for size in SIZES]),
    "CHK-1-second": (FRAMING, [b"1\r\nx\r\n" + size + b"\r\nhello\r\n" + END for size in SIZES]),
    "CHK-2-H11-9": (FRAMING, [size + b"\r\nhello\r\n" + END for size in LONG]),
    "CHK-3-H11-10": (FRAMING, [b"5" + extension + b"\r\nhello\r\n" + END for extension in EXTENSIONS]),
    "CHK-3-last": (FRAMING, [b"5\r\nhello\r\n0" + extension + b"\r\n\r\n" for extension in EXTENSIONS]),
    "CHK-3-long": (FRAMING, [b"5;" + b"a" * 2000 + b"\r\nhello\r\n" + END, b"5;" + b"a" * 5000]),
    "CHK-3-many": (FRAMING, [(b"1;" + b"a" * 1000 + b"\r\nx\r\n") * 17 + END]),
    "H11-10": (FRAMING, [b"5 \r\nhello\r\n" + END, b"5\t\r\nhello\r\n" + END, b"5 ;a\r\nhello\r\n" + END,
          b"5\r\nhello\r\n0 \r\n\r\n"]),
    "CHK-4": (FRAMING, [b"5\r\nhello" + spill + END for spill in (b"", *SPILLS)]),
    "CHK-4-sizes": (FRAMING, [b"6\r\nhello\r\n" + END, b"4\r\nhello\r\n" + END, b"1\r\nx\r\n5\r\nhelloXX" + END]),
    "CHK-5": (FRAMING, [b"5\r\nhello\r\n0\n\n", b"5\r\nhello\r\n0\n\r\n", b"5\r\nhello\r\n0\r\r\n\r\n"]),
    "CHK-5-trailers": (BAD, [b"5\r\nhello\r\n0\r\nX" + AFTER, b"5\r\nhello\r\n0\r\n\n",
          b"5\r\nhello\r\n0\r\nXX\r\n\r\n"]),
    "CHK-6-H11-4": (BAD, [b"0\r\n" + lines + b"\r\n\r\n" for lines in (
        b"X: a\nY: b", b"X: a\n", b"X : a", b" X: a", b"X: a\r\n b", b"no-colon", b": a", b"X: a\x00", b"X: a\x01",
              b"X\xff: a", b"X: a\rb",
        b"X: \x7f", AFTER[:20])]),
    "CHK-6-large": (LARGE, [b"0\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", b"0\r\n" + b"X: a\r\n" * 101 + b"\r\n"]),
}  # fmt: skip
BROKEN_ROWS = [
    (f"{id_}-{n}", data, reason) for id_, (reason, bodies) in BROKEN.items() for n, data in enumerate(bodies, 1)
]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("data", "reason"), [row[1:] for row in BROKEN_ROWS], ids=[row[0] for row in BROKEN_ROWS])
def test_broken_chunks_are_refused_for_one_reason(data: bytes, reason: Reason, split: str) -> None:
    found = read_body(ChunkReader(), SPLITS[split](data + AFTER))
    assert found.end is reason
    assert AFTER not in found.data


GOOD: dict[str, tuple[bytes, bytes]] = {
    "empty": (END, b""),
    "one": (b"5\r\nhello\r\n" + END, b"hello"),
    "upper": (b"A\r\nhellohello\r\n" + END, b"hellohello"),
    "lower": (b"a\r\nhellohello\r\n" + END, b"hellohello"),
    "leading-zeros": (b"0005\r\nhello\r\n000\r\n\r\n", b"hello"),
    "16-digits": (b"0" * 15 + b"5\r\nhello\r\n" + b"0" * 16 + b"\r\n\r\n", b"hello"),
    "extension": (b'5;a=b;c;d="e;\\"\t\xff"\r\n'.replace(b"\xff", b"x") + b'hello\r\n0;f="g"\r\n\r\n', b"hello"),
    "extension-as-long-as-may-be": (b"5;" + b"a" * (CHUNK_LINE_BYTES - 4) + b"\r\nhello\r\n" + END, b"hello"),
    "crlf-inside": (b"4\r\n\r\n0\r\r\n" + END, b"\r\n0\r"),
    "chunks-inside": (b"5\r\n" + END + b"\r\n" + END, END),
    "two": (b"1\r\na\r\n1\r\nb\r\n" + END, b"ab"),
    "trailers": (b"1\r\na\r\n0\r\nX-Sum: 1\r\nY:\t2 \r\n\r\n", b"a"),
    "large": (chunk(bytes(range(256)) * 400) + END, bytes(range(256)) * 400),
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("data", "body"), GOOD.values(), ids=list(GOOD))
def test_good_chunks_are_one_body(data: bytes, body: bytes, split: str) -> None:
    found = read_body(ChunkReader(), SPLITS[split](data + AFTER))
    trailers = [(b"X-Sum", b"1"), (b"Y", b"2")] if b"X-Sum" in data else []
    assert found == Body(body, True, trailers, AFTER)


@pytest.mark.parametrize("data", [row[0] for row in GOOD.values()], ids=list(GOOD))
def test_a_body_that_is_cut_anywhere_is_not_complete(data: bytes) -> None:
    """CHK-5, CHK-7: a FIN before the last byte is an error at every place."""
    for end in {*range(min(len(data), 600)), *range(max(0, len(data) - 600), len(data))}:
        assert read_body(ChunkReader(), [data[:end]], fin=True).end is FRAMING


DROPPED = [
    b"Content-Length", b"Host", b"Transfer-Encoding", b"TE", b"Authorization", b"Connection",
          b"X-Forwarded-Client-Cert",
    b"x_forwarded_client_cert", b"X-Forwarded-For", b"X_Forwarded_For", b"Cookie", b"Set-Cookie", b"X-Envoy-Internal",
    b"L5d-Client-Id", b"Upgrade", b"Trailer", b"Expect", b"content_length", b"Transfer_Encoding", b"X-Source-Principal",
    b"Forwarded", b"Content-Type", b"Content-Encoding", b"Content_Encoding", b"Proxy-Authorization", b"Keep-Alive",
    b"Proxy-Connection", b"X-Request-Id", b"Via", b"Cache-Control",
]  # fmt: skip


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", [case for name in DROPPED for case in (name, name.upper())], ids=bytes.decode)
def test_a_trailer_that_means_something_is_dropped(name: bytes, split: str) -> None:
    """CHK-6, HDR-2, H11-11"""
    data = b"1\r\na\r\n0\r\nX-A: 1\r\n" + name + b": 5\r\nX-B: 2\r\n\r\n"
    found = read_body(ChunkReader(), SPLITS[split](data))
    assert found == Body(b"a", True, [(b"X-A", b"1"), (b"X-B", b"2")], b"")


def test_a_feed_decodes_a_bounded_number_of_chunks() -> None:
    many = b"1\r\nx\r\n" * (64 * 1024 // 6)
    reader, pieces = ChunkReader(), []
    data = many + END + AFTER
    while not reader.done:
        pieces.append(reader.feed(data))
        assert reader.more is not reader.done
        data = b""
    assert max(len(piece) for piece in pieces) == CHUNKS_PER_FEED == 512
    assert b"".join(pieces) == b"x" * (len(many) // 6)
    assert reader.rest == AFTER


def test_more_comes_before_what_is_fed_next() -> None:
    reader = ChunkReader()
    first = reader.feed(b"1\r\na\r\n" * CHUNKS_PER_FEED + b"1\r\nb\r")
    assert first == b"a" * CHUNKS_PER_FEED
    assert reader.more
    assert reader.feed(b"\n1\r\nc\r\n") == b"bc"
    assert not reader.more
    assert reader.feed(END) == b""
    assert reader.done and not reader.more


def test_a_feed_that_ends_where_its_chunks_do_has_nothing_left_over() -> None:
    reader = ChunkReader()
    assert len(reader.feed(b"1\r\na\r\n" * CHUNKS_PER_FEED)) == CHUNKS_PER_FEED
    assert reader.feed(b"") == b""
    assert not reader.more and not reader.done


def test_extensions_of_all_chunks_have_one_limit() -> None:
    line = b"1;" + b"a" * 511 + b"\r\nx\r\n"
    just = EXTENSION_BYTES // 512
    assert read_body(ChunkReader(), [line * just + END]).end is True
    assert read_body(ChunkReader(), [line * (just + 1) + END]).end is FRAMING


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("rest", [b"", AFTER], ids=["alone", "more-behind"])
@pytest.mark.parametrize("length", [0, 1, 5, 1000])
def test_a_length_is_kept_to(length: int, rest: bytes, split: str) -> None:
    body = b"\r\n0;x"[:length].ljust(length, b"y")
    assert read_body(LengthReader(length), SPLITS[split](body + rest)) == Body(body, True, [], rest)


@pytest.mark.parametrize("sent", [0, 1, 4])
def test_a_short_body_is_not_complete(sent: int) -> None:
    """CHK-7"""
    assert read_body(LengthReader(5), [b"x" * sent] if sent else []).end is False
    assert read_body(LengthReader(5), [b"x" * sent] if sent else [], fin=True) == Body(b"x" * sent, FRAMING, [], b"")


@pytest.mark.parametrize("split", SPLITS)
def test_until_close_ends_with_the_connection_only(split: str) -> None:
    assert read_body(CloseReader(), SPLITS[split](END + AFTER)) == Body(END + AFTER, False, [], b"")
    assert read_body(CloseReader(), SPLITS[split](END + AFTER), fin=True) == Body(END + AFTER, True, [], b"")


def test_each_length_has_its_reader() -> None:
    assert isinstance(reader_for(UNKNOWN), ChunkReader)
    assert isinstance(reader_for(UNKNOWN, until_close=True), CloseReader)
    reader = reader_for(Length(7))
    assert isinstance(reader, LengthReader) and reader.left == 7


@pytest.mark.parametrize("pieces", [[], [b"a"], [b"hello", b"\r\n" * 9, b"x" * 70_000]], ids=["none", "one", "three"])
@pytest.mark.parametrize("trailers", [[], [(b"X-Sum", b"1"), (b"y", b"")]], ids=["without", "trailers"])
def test_what_is_written_in_chunks_is_read_back(pieces: list[bytes], trailers: list[tuple[bytes, bytes]]) -> None:
    data = b"".join([chunk(piece) for piece in pieces]) + last_chunk(trailers)
    assert read_body(ChunkReader(), [data]) == Body(b"".join(pieces), True, trailers, b"")


def test_trailers_a_byte_at_a_time_are_judged_by_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judging all lines again for every byte would be work that a sender chooses."""
    judged: list[bytes] = []
    monkeypatch.setattr(grammar, "explain_trailers", judged.append)
    reader = ChunkReader()
    for byte in b"0\r\n" + b"X: abcdefghij\r\n" * 5:
        reader.feed(bytes((byte,)))
    assert len(judged) <= 8


def test_an_error_says_what_is_wrong_and_nothing_that_was_sent() -> None:
    with pytest.raises(ProxyError) as refused:
        ChunkReader().feed(b"secret\r\n")
    assert "secret" not in refused.value.detail and "hexadecimal" in refused.value.detail
