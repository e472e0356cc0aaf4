"""What the first bytes of a connection are taken for, in whatever pieces they come."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.wire.detect import DETECT_BYTES, PREFACE, Detected, detect

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
    ("method-only", b"GET", Detected.HTTP1),
    ("method-longer", b"GETTER", Detected.HTTP1),
    ("empty-lines-first", b"\r\n\r\n \tGET / HTTP/1.1", Detected.HTTP1),
    ("empty-lines-part", b"\r\n \tG", Detected.MORE),
    ("empty-lines-only", b"\r\n", Detected.MORE),
    ("unusual", b"FROB /x HTTP/1.1\r\n", Detected.HTTP1),
    ("unusual-tabs", b"FROB\t/x\t HTTP/1.1\r\n", Detected.HTTP1),
    ("unusual-version", b"FROB /x HTTP/3", Detected.HTTP1),
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
    ("word-and-much", b"FROB " + b"x" * DETECT_BYTES, Detected.OPAQUE),
    ("unusual-long", b"FROB /" + b"x" * (DETECT_BYTES - 16) + b" HTTP/1.1\r\n", Detected.HTTP1),
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
)
BYTES = st.lists(st.one_of(BEGINNINGS, st.binary(max_size=6)), max_size=6).map(b"".join)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(BYTES)
def test_any_bytes_in_any_pieces_have_one_verdict(data: bytes) -> None:
    assert_stands(data)


def assert_stands(data: bytes) -> None:
    """The first prefix that is judged is judged as the whole is."""
    whole = detect(data)
    for end in range(len(data) + 1):
        part = detect(data[:end])
        if part not in OPEN:
            assert whole is part
            break
    else:
        assert whole in OPEN
