"""REQ-1 to 9, 13: how the head of a request says how long its body is; all that two parsers could read in two ways."""

from __future__ import annotations

from tests.hostile.case import AFTER, Case, each, get, head, post, refused

_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"

_NOT = refused(400)

_ITS_LENGTH = b"Content-Length: %d" % len(AFTER)

_NO_CODING = refused(400, 501)

_TWO_LENGTHS = [
    ("both", post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER)),
    ("both-te-first", post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=_CHUNKS + AFTER)),
    ("both-cl-0", post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER)),
    ("both-cl-bad", post(b"Content-Length: x", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER)),
    ("both-te-bad", post(b"Content-Length: 5", b"Transfer-Encoding: x", body=b"hello" + AFTER)),
    ("both-te-identity", post(b"Content-Length: 5", b"Transfer-Encoding: identity", body=b"hello" + AFTER)),
    ("both-case", post(b"CONTENT-LENGTH: 5", b"tRANSFER-eNCODING: CHUNKED", body=_CHUNKS + AFTER)),
]

_DIFFERENT = [
    ("5-6", post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello" + AFTER)),
    ("0-44", post(b"Content-Length: 0", _ITS_LENGTH, body=AFTER)),
    ("apart", post(b"Content-Length: 5", b"X: y", b"content-length: 4", body=b"hello" + AFTER)),
    ("list", post(b"Content-Length: 5, 6", body=b"hello" + AFTER)),
    ("list-tight", post(b"Content-Length: 6,5", body=b"hello" + AFTER)),
    ("three", post(b"Content-Length: 5", b"Content-Length: 5", b"Content-Length: 6", body=b"hello" + AFTER)),
    ("get", get(b"Content-Length: 5", b"Content-Length: 0", body=b"hello" + AFTER)),
]

_BAD_LENGTHS = [
    b"+5",
    b"-1",
    b"-0",
    b"5_0",
    b"0x5",
    b"1 0",
    b"1Z",
    b"",
    b" ",
    b"5.0",
    b"5e0",
    b"'5'",
    b'"5"',
    b"5;",
    b"5,",
    b",5",
    b"\xb25",
    b"\xd9\xa5",
    b"5\xa0",
    b"NaN",
    b"five",
    b"0b11",
    b"0o5",
    b"--5",
    b"5-",
    b"(5)",
    b"5 5",
    b"5\t0",
]

_HUGE = [b"1" + b"0" * 19, b"9" * 20, b"1" + b"0" * 30, b"9" * 400, b"1" + b"0" * 5000, b"18446744073709551621"]

_CODINGS = [
    b"xchunked",
    b"chunk",
    b'"chunked"',
    b"cow",
    b"identity",
    b"chunked, identity",
    b"",
    b"chunkedx",
    b"chunked;x=1",
    b"chunked; ",
    b"'chunked'",
    b"chu nked",
    b"gzip",
    b"deflate",
    b"chunked, chunked",
    b"chunked,gzip",
    b"c",
    b"trailers",
    b"identity, chunked, identity",
    b"chunked\tx",
    b"[chunked]",
    b"chunked=1",
    b"xchunked, chunked",
]

_LISTS = [
    b",chunked",
    b"chunked,",
    b"gzip, chunked",
    b", chunked",
    b"chunked ,",
    b",,chunked",
    b"gzip,chunked",
    b"identity, chunked",
    b"chunked,,",
    b" ,chunked",
    b"deflate, gzip, chunked",
]

_AROUND = [b"\x0b", b"\x0c", b"\x00", b"\x85", b"\xa0", b"\xad", b"\xff", b"\x01", b"\x1f", b"\x7f", b"\xc2\xa0", b"\\"]


def _coding(line: bytes) -> bytes:
    return post(line, body=_CHUNKS + AFTER)


_AROUND_CASES = [
    (f"{place}-{char.hex()}", _coding(line))
    for char in _AROUND
    for place, line in (
        ("before-name", char + b"Transfer-Encoding: chunked"),
        ("in-name", b"Transfer" + char + b"-Encoding: chunked"),
        ("after-name", b"Transfer-Encoding" + char + b": chunked"),
        ("before-value", b"Transfer-Encoding: " + char + b"chunked"),
        ("after-colon", b"Transfer-Encoding:" + char + b"chunked"),
        ("in-value", b"Transfer-Encoding: chu" + char + b"nked"),
        ("after-value", b"Transfer-Encoding: chunked" + char),
        ("after-space", b"Transfer-Encoding: chunked " + char),
    )
]

_SPACED = [
    ("space-colon", _coding(b"Transfer-Encoding : chunked")),
    ("tab-colon", _coding(b"Transfer-Encoding\t: chunked")),
    ("space-colon-cl", post(b"Content-Length : 5", body=b"hello" + AFTER)),
    ("tab-colon-cl", post(b"Content-Length\t: 5", body=b"hello" + AFTER)),
    ("space-colon-host", head(b"GET / HTTP/1.1", b"Host : app")),
    ("two-spaces-colon", _coding(b"Transfer-Encoding  : chunked")),
    ("leading-space-first", head(b"POST / HTTP/1.1", b" Host: app", b"Transfer-Encoding: chunked", body=_CHUNKS)),
    ("leading-tab-first", head(b"POST / HTTP/1.1", b"\tHost: app", b"Transfer-Encoding: chunked", body=_CHUNKS)),
    ("leading-space-te", head(b"POST / HTTP/1.1", b" Transfer-Encoding: chunked", b"Host: app", body=_CHUNKS + AFTER)),
    ("leading-space-empty", head(b"GET / HTTP/1.1", b" ", b"Host: app")),
    ("in-name", _coding(b"Transfer Encoding: chunked")),
]

_FOLDED = [
    ("te", _coding(b"Transfer-Encoding:\r\n chunked")),
    ("te-tab", _coding(b"Transfer-Encoding:\r\n\tchunked")),
    ("te-split", _coding(b"Transfer-Encoding: chu\r\n nked")),
    ("te-after", _coding(b"Transfer-Encoding: chunked\r\n x")),
    ("te-empty-fold", _coding(b"Transfer-Encoding: chunked\r\n ")),
    ("cl", post(b"Content-Length:\r\n 5", body=b"hello" + AFTER)),
    ("cl-grows", post(b"Content-Length: 5\r\n 0", body=b"hello" + AFTER)),
    ("host", head(b"GET / HTTP/1.1", b"Host:\r\n app")),
    ("any", get(b"X-Any: one\r\n two")),
    ("last", get(b"X-Any: one\r\n ")),
    ("hides-te", _coding(b"X-Any: one\r\n Transfer-Encoding: chunked")),
]

CASES: list[Case] = [
    *each("REQ-1", "", _TWO_LENGTHS, _NOT),
    *each("REQ-2", "", _DIFFERENT, _NOT),
    *each(
        "REQ-3",
        "cl-",
        [(v.hex() or "empty", post(b"Content-Length: " + v, body=b"hello" + AFTER)) for v in _BAD_LENGTHS],
        _NOT,
    ),
    *each(
        "REQ-4",
        "digits-",
        [
            (f"{len(v)}-{v[:2].decode()}-{v[-1:].decode()}", post(b"Content-Length: " + v, body=b"hello" + AFTER))
            for v in _HUGE
        ],
        refused(400, 413),
    ),
    *each("REQ-5", "te-", [(v.hex() or "empty", _coding(b"Transfer-Encoding: " + v)) for v in _CODINGS], _NO_CODING),
    *each(
        "REQ-5",
        "",
        [
            ("two-lines", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=_CHUNKS + AFTER)),
            ("two-chunked", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER)),
            ("get-identity", get(b"Transfer-Encoding: identity", body=AFTER)),
        ],
        _NO_CODING,
    ),
    *each("REQ-6", "te-", [(v.hex(), _coding(b"Transfer-Encoding: " + v)) for v in _LISTS], _NO_CODING),
    *each("REQ-7", "", _AROUND_CASES, _NO_CODING),
    *each("REQ-8", "", _SPACED, _NOT),
    *each("REQ-9", "", _FOLDED, _NO_CODING),
    *each(
        "REQ-13",
        "",
        [
            ("te", head(b"POST / HTTP/1.0", b"Host: app", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER)),
            (
                "te-keep-alive",
                head(
                    b"POST / HTTP/1.0",
                    b"Host: app",
                    b"Connection: keep-alive",
                    b"Transfer-Encoding: chunked",
                    body=_CHUNKS + AFTER,
                ),
            ),
            ("te-get", head(b"GET / HTTP/1.0", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER)),
            (
                "te-cl",
                head(
                    b"POST / HTTP/1.0", b"Host: app", b"Content-Length: 5", b"Transfer-Encoding: chunked", body=_CHUNKS
                ),
            ),
        ],
        _NOT,
    ),
    Case(
        "REQ-2",
        "after-a-good-one",
        get() + post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello" + AFTER),
        (refused(400, after=1),),
    ),
    Case(
        "REQ-1",
        "after-a-good-one",
        post(b"Content-Length: 5", body=b"hello")
        + post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER),
        (refused(400, after=1),),
    ),
]
