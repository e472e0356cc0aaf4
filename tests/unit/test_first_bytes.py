"""What the first bytes of a connection are taken for, in whatever pieces they come."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.http.first_bytes import DETECT_BYTES, PREFACE, Detected, detect

OPEN = {Detected.MORE, Detected.LIKELY_OPAQUE}  # more bytes may change these

METHODS = "GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH PROPFIND M-SEARCH VERSION-CONTROL PURGE QUERY"

ROWS = [
    ("nothing", b"", Detected.MORE),
    ("tls-one", b"\x16", Detected.MORE),
    ("tls-1.0", b"\x16\x03\x01", Detected.TLS),
    ("tls-1.2", b"\x16\x03\x03\x00\x05", Detected.TLS),
    ("tls-not", b"\x16\x02", Detected.OPAQUE),
    ("tls-alert", b"\x15\x03\x01\x00\x02", Detected.OPAQUE),
    ("tls-after-spaces", b"\r\n\x16\x03\x01", Detected.OPAQUE),
    ("preface", PREFACE, Detected.HTTP2),
    ("preface-and-frames", PREFACE + b"\0\0\0\4\0", Detected.HTTP2),
    ("preface-one", b"P", Detected.MORE),
    ("preface-three", b"PRI", Detected.MORE),
    ("preface-but-the-last", PREFACE[:-1], Detected.MORE),
    ("preface-broken", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Detected.HTTP1),
    ("pr-then-opaque", b"PR\0", Detected.OPAQUE),
    ("method-part", b"GE", Detected.MORE),
    ("method-only", b"GET", Detected.MORE),
    ("method-longer", b"GETTER", Detected.LIKELY_OPAQUE),
    ("empty-lines-first", b"\r\n\r\n \tGET / HTTP/1.1", Detected.HTTP1),
    ("empty-lines-part", b"\r\n \tG", Detected.MORE),
    ("empty-lines-only", b"\r\n", Detected.MORE),
    ("unusual", b"FROB /x HTTP/1.1\r\n", Detected.HTTP1),
    ("unusual-tabs", b"FROB\t/x\t HTTP/1.1\r\n", Detected.HTTP1),
    ("unusual-version", b"FROB /x HTTP/3", Detected.MORE),
    ("unusual-method", b"FROB", Detected.LIKELY_OPAQUE),
    ("unusual-target", b"FROB /x", Detected.MORE),
    ("unusual-url", b"FROB http://x", Detected.MORE),
    ("unusual-no-path", b"FROB x", Detected.LIKELY_OPAQUE),
    ("unusual-almost", b"FROB /x HTTP/", Detected.MORE),
    ("lower-case", b"get / HTTP/1.1\r\n", Detected.HTTP1),
    ("lower-case-part", b"get", Detected.LIKELY_OPAQUE),
    ("redis", b"*1\r\n$4\r\nPING\r\n", Detected.OPAQUE),
    ("redis-inline", b"PING\r\n", Detected.OPAQUE),
    ("smtp", b"EHLO example.com\r\n", Detected.OPAQUE),
    ("ssh", b"SSH-2.0-OpenSSH_9.2p1\r\n", Detected.OPAQUE),
    ("postgres", b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Detected.OPAQUE),
    ("mongo", b"\x3a\x00\x00\x00\xa7\x41", Detected.OPAQUE),
    ("zero", b"\0", Detected.OPAQUE),
    ("high", b"\xff\xfe", Detected.OPAQUE),
    ("blank-up-to-the-window", b" " * (DETECT_BYTES - 1), Detected.MORE),
    ("blank-beyond-the-window", b" " * DETECT_BYTES, Detected.HTTP1),
    ("blank-then-method", b" " * (DETECT_BYTES + 9) + b"GET / HTTP/1.1\r\n", Detected.HTTP1),
    ("unusual-longer", b"FROB /" + b"x" * DETECT_BYTES + b" HTTP/1.1\r\n", Detected.HTTP1),
    ("word-and-much", b"FROB " + b"x" * DETECT_BYTES, Detected.HTTP1),
    ("unusual-long", b"FROB /" + b"x" * (DETECT_BYTES - 16) + b" HTTP/1.1\r\n", Detected.HTTP1),
    ("version-far-behind", b"FROB " + b"x" * 20_000 + b" HTTP/1.1\r\n", Detected.HTTP1),
    ("method-as-long-as-it-may-be", b"A" * (DETECT_BYTES - 1), Detected.LIKELY_OPAQUE),
    ("method-too-long-to-wait-for", b"A" * DETECT_BYTES, Detected.HTTP1),
    ("method-of-16-kB", b"A" * 16_000 + b" / HTTP/1.1\r\n", Detected.HTTP1),
    ("line-complete-too-late", b"A" * DETECT_BYTES + b"\r\n", Detected.HTTP1),
    ("words-too-long-to-wait-for", b"set key " + b"x " * DETECT_BYTES, Detected.HTTP1),
    ("pythons-blanks", b"\x1cFROB\x1fx\xa0HTTP/1.1\x85\n", Detected.HTTP1),
    ("control-byte-in-a-target", b"GET x\x01 HTTP/1.1\r\n", Detected.HTTP1),
    ("control-byte-in-front-of-a-path", b"FROB \x01/x HTTP/1.1\r\n", Detected.HTTP1),
    ("blanks-and-a-part-of-a-method", b" " * 1022 + b"GE", Detected.HTTP1),
    ("blanks-and-a-part-of-a-method-and-more", b" " * 1022 + b"GET / HTTP/1.1\r\n" + b"x" * 5000, Detected.HTTP1),
    ("gzip", b"\x1f\x8b\x08\0", Detected.OPAQUE),
    ("amqp", b"AMQP\0\0\x09\x01", Detected.OPAQUE),
    ("binary-behind-a-long-word", b"A" * (DETECT_BYTES - 1) + b"\0", Detected.OPAQUE),
    ("target-with-spaces", b"FROB a b c HTTP/1.1\n", Detected.HTTP1),
    ("version-and-blanks", b"FROB x HTTP/1.0 \t \r\n", Detected.HTTP1),
    ("version-in-small-letters", b"FROB x http/1.1\r\n", Detected.HTTP1),
    ("vertical-tab-and-form-feed", b"\x0bFROB\x0cx\x0bHTTP/1.1\n", Detected.HTTP1),
    ("method-and-vertical-tab", b"GET\x0b/", Detected.HTTP1),
    ("version-alone", b"FROB HTTP/1.1\r\n", Detected.HTTP1),
    ("version-2", b"FROB x HTTP/2\r\n", Detected.HTTP1),
    ("version-amid", b"FROB HTTP/1.1 x\r\n", Detected.OPAQUE),
    ("bare-carriage-return", b"FROB x\ry HTTP/1.1\r\n", Detected.HTTP1),
    ("bare-line-feed", b"FROB x HTTP/1.1\n", Detected.HTTP1),
    ("http-0.9", b"GET /\r\n", Detected.HTTP1),
    ("http-0.9-asterisk", b"OPTIONS *\r\n", Detected.HTTP1),
    ("http-0.9-url", b"GET HTTPS://x\r\n", Detected.HTTP1),
    ("connect", b"CONNECT web:80 HTTP/1.1\r\n", Detected.HTTP1),
    ("method-and-word", b"GET counter", Detected.MORE),
    ("redis-get", b"GET counter\r\n", Detected.OPAQUE),
    ("stomp", b"CONNECT\naccept-version:1.2\n\n\0", Detected.OPAQUE),
    ("nats", b'CONNECT {"verbose":false}\r\nPING\r\n', Detected.OPAQUE),
    ("sip", b"OPTIONS sip:pbx.example SIP/2.0\r\n", Detected.OPAQUE),
    ("rtsp", b"DESCRIBE rtsp://cam/stream RTSP/1.0\r\n", Detected.OPAQUE),
    ("icap", b"OPTIONS icap://av/avscan ICAP/1.0\r\n", Detected.OPAQUE),
    ("git", b"0032git-upload-pack /project.git\0host=x\0", Detected.LIKELY_OPAQUE),
    ("no-token", b'{"jsonrpc": "2.0"}', Detected.OPAQUE),
    ("proxy-1", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", Detected.PROXY),
    ("proxy-1-part", b"PROX", Detected.LIKELY_OPAQUE),
    ("proxy-2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Detected.PROXY),
    ("proxy-2-part", b"\r\n\r\n\0\r\nQ", Detected.MORE),
    ("usual-long", b"GET /" + b"x" * DETECT_BYTES + b" HTTP/1.1\r\n", Detected.HTTP1),
]


@pytest.mark.parametrize(("data", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_first_bytes_say_what_it_is(data: bytes, expected: Detected) -> None:
    assert detect(data) is expected


@pytest.mark.parametrize("method", METHODS.split(" "))
def test_a_known_method_is_http_and_its_beginning_may_become_it(method: str) -> None:
    data = method.encode()
    assert detect(data + b" / HTTP/1.1\r\n") is Detected.HTTP1
    for end in range(len(data)):
        assert detect(data[:end]) in {Detected.MORE, Detected.HTTP1}  # PUT begins PUTTY as well


@pytest.mark.parametrize("data", [row[1] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_verdict_stands_whatever_comes_after(data: bytes) -> None:
    assert_stands(data)


BEGINNINGS = st.sampled_from(
    [b"", b"\r\n", b" ", b"PRI", b"GET ", b"FROB ", b"\x16", PREFACE, b"PO", b"/x HTTP/1", b"x" * 1000]
    + [
        b"PROXY",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"\0",
        b"\n",
        b"\r",
        b" HTTP/",
        b"http://",
        b" " * 1022,
        b"\x1c",
        b"\xa0",
        b"\x01",
    ]
)
BYTES = st.lists(st.one_of(BEGINNINGS, st.binary(max_size=6)), max_size=6).map(b"".join)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(BYTES)
def test_any_bytes_in_any_pieces_have_one_verdict(data: bytes) -> None:
    assert_stands(data)


def assert_stands(data: bytes) -> None:
    """The first prefix that is judged is judged as the whole is, and one of DETECT_BYTES is judged."""
    whole = detect(data)
    assert whole not in OPEN or len(data) < DETECT_BYTES
    for end in range(len(data) + 1):
        part = detect(data[:end])
        if part not in OPEN:
            assert whole is part
            break
    else:
        assert whole in OPEN
