"""Bytes that are nearly HTTP/1, for hypothesis: mostly good pieces, with the odd one among them.

What is always good finds no disagreement between two parsers, and what is random is refused by both at once.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from sidecar.http.h1.body import chunk


def mostly(good: list[bytes], odd: list[bytes], often: int = 30) -> SearchStrategy[bytes]:
    """One of the good ones, and one of the odd ones once in ``often`` times."""
    return st.integers(0, often - 1).flatmap(lambda roll: st.sampled_from(odd if roll == often // 2 else good))


CRLF = mostly([b"\r\n"], [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b" \r\n", b"\r\n\t", b"\r\n\r\n"], often=90)
COLON = mostly(
    [b": ", b":", b":\t", b":  "], [b" :", b"\t: ", b"", b"::", b" ", b":\r\n ", b": \x0b", b":\xa0"], often=25
)
METHODS = mostly(
    [b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT"], [b"CONNECT", b"m!#", b"get", b"G T", b"", b"G(", b"\r\nGET"]
)
TARGETS = mostly(
    [b"/", b"/a", b"/a/../b?c=d", b"/%41%2f", b"*", b"/a;b", b"//x", b"http://app/x", b"/?", b"http://app", b"/a//b"],
    [b"", b"foo", b"/a#b", b"/ x", b"/\x00", b"/\xff", b"app:443", b"http://evil/", b"/%00", b"/a/..;/b", b"/\x7f",
          b"/\x85"],
)  # fmt: skip
VERSIONS = mostly(
    [b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"], [b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1", b""]
)
STATUSES = mostly(
    [b"200", b"204", b"304", b"404", b"500", b"100", b"103", b"101", b"206"],
    [b"20", b"000", b"099", b"2000", b"+20", b"999"],
)
PHRASES = mostly([b" OK", b" ", b"", b" Not Found", b" \xff"], [b"  x", b" \x00", b" \x01", b"\t"])
SPACE = mostly([b" "], [b"  ", b"\t", b"", b"\x0b", b" \t"], often=90)
LENGTHS = mostly(
    [b"5", b"0", b"42"],
    [b"", b"+5", b"5, 5", b"5,6", b"005", b"0x5", b"5_0", b"-1", b"5 ", b"9" * 20, b"\xb25", b"5;"],
    often=5,
)
CODINGS = mostly([b"chunked", b"Chunked", b"CHUNKED"],
      [b"", b"gzip", b"gzip, chunked", b",chunked", b"chunked,", b"identity", b"xchunked",
                                                        b"chunked, chunked", b"chunked\x0b", b"\xa0chunked"],
                                                              often=6)  # fmt: skip
HOSTS = mostly(
    [b"app", b"app:80", b"[::1]:8080", b"APP."], [b"", b"a b", b"u@app", b"app/", b"a,b", b"app:x", b"\xff"], often=20
)
CONNECTIONS = st.sampled_from(
    [b"close", b"keep-alive", b"Upgrade", b"x-a, close", b"X-A", b"te", b"close close", b",", b"", b"host"]
)
VALUES = st.one_of(
    mostly([b"", b"x", b"a b", b"a\tb", b"a, b", b"\xff", b" padded \t", b'"q"', b"a:b"],
          [b"\x00", b"\x01", b"a\rb", b"\x7f", b"\x0b", b"\x1f"], 25),
    st.binary(max_size=6),
)  # fmt: skip
NAMES = mostly([b"X-A", b"x-b", b"Accept", b"!#$%&'*+-.^_`|~", b"Cookie", b"X_C", b"Content_Length", b"Set-Cookie",
      b"Keep-Alive"],
               [b"", b"X Y", b"X\xff", b"X(", b" X", b"\tX", b"X\x00", b"\xc3\xa9"], often=30)  # fmt: skip


def line(name: SearchStrategy[bytes], value: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    return st.tuples(name, COLON, value, CRLF).map(b"".join)


def spelled(name: bytes) -> SearchStrategy[bytes]:
    return st.sampled_from([name, name.lower(), name.upper()])


PLAIN = line(NAMES, VALUES)
FRAMING = st.one_of(line(spelled(b"Content-Length"), LENGTHS), line(spelled(b"Transfer-Encoding"), CODINGS))
OTHER = st.one_of(
    PLAIN,
    PLAIN,
    line(spelled(b"Connection"), CONNECTIONS),
    line(st.sampled_from([b"Upgrade", b"TE", b"Expect", b"Trailer"]),
          st.sampled_from([b"websocket", b"trailers", b"h2c", b"100-continue"])),
)  # fmt: skip


def fields(host: bool) -> SearchStrategy[bytes]:
    """Some lines: at most one Host and one that frames, mostly."""
    hosts = line(spelled(b"Host"), HOSTS) if host else st.just(b"")
    few = st.lists(FRAMING, max_size=1) | st.lists(FRAMING, max_size=1) | st.lists(FRAMING, max_size=2)
    parts = st.tuples(st.lists(OTHER, max_size=3), hosts.map(lambda it: [it]), few, st.lists(OTHER, max_size=2))
    return parts.map(lambda lists: b"".join(b"".join(each) for each in lists))


REQUESTS = st.tuples(METHODS, SPACE, TARGETS, SPACE, VERSIONS, CRLF, fields(host=True), CRLF).map(b"".join)
ANSWERS = st.tuples(VERSIONS, SPACE, STATUSES, PHRASES, CRLF, fields(host=False), CRLF).map(b"".join)

SIZES = mostly(
    [b"%x", b"%X", b"0%x", b"%016x"],
    [b"0x%x", b"+%x", b"%x ", b" %x", b"%x_", b"%017x", b"%020x", b"%x\t", b"-%x"],
    often=25,
)
EXTENSIONS = mostly([b"", b"", b"", b";a", b";a=b", b';a="b;c"', b";a;b"],
                    [b";", b"; a", b";a\rb", b";a\x00", b" ;a", b';a="', b";\n", b";=", b";a\xff"],
                          often=40)  # fmt: skip
DATA = st.one_of(st.binary(min_size=1, max_size=20), st.sampled_from([b"\r\n", b"0\r\n\r\n", b"5\r\nhello"]))
ENDS = mostly([b"\r\n"], [b"", b"\n", b"\r", b"X", b"XX", b"\r\r\n", b"\n\n"], often=90)
TRAILERS = st.lists(line(st.one_of(NAMES, st.sampled_from([b"Host", b"Cookie", b"X-Sum", b"TE"])), VALUES), max_size=3)


def one_chunk(parts: tuple[bytes, bytes, bytes, bytes]) -> bytes:
    size, extension, data, end = parts
    return size % len(data) + extension + b"\r\n" + data + end


CHUNKS = st.one_of(st.tuples(SIZES, EXTENSIONS, DATA, ENDS).map(one_chunk), DATA.map(chunk))
LAST = mostly([b"0", b"000", b"0;a"], [b"", b"0 ", b"0x0", b"-0", b"00000000000000000"], often=40)
AFTER = st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"0\r\n\r\n", b"\r\n"])
CHUNKED = st.tuples(
    st.lists(CHUNKS, max_size=4).map(b"".join), LAST, ENDS, TRAILERS.map(b"".join), CRLF, AFTER
).map(b"".join)  # fmt: skip


@st.composite
def changed(draw: st.DrawFn, whole: SearchStrategy[bytes]) -> bytes:
    """``whole``, often as it is, else with a byte put in, taken out or replaced."""
    data = draw(whole)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        place = draw(st.integers(0, len(data)))
        byte = draw(
            st.sampled_from([b"", b"\r", b"\n", b" ", b"\t", b"\x00", b":", b"0", b"\xff", b"\r\n", b";", b"a"])
        )
        data = data[:place] + byte + data[place + draw(st.integers(0, 1)) :]
    return data


PLACES = st.lists(st.integers(0, 300), max_size=6)
