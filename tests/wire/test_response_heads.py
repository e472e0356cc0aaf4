"""Heads of answers: what each means, by the request's method too, or why it is refused.

The reasons are the ones of a client's fault; whoever reads an upstream's bytes turns them round.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.errors import Reason
from sidecar.http.h1.head import ResponseHead, parse_response
from sidecar.http.message import UNKNOWN
from tests.wire.feeding import SPLITS, read_response

BAD, FRAMING, CODING, LARGE = (
    Reason.BAD_REQUEST,
    Reason.BAD_FRAMING,
    Reason.UNKNOWN_CODING,
    Reason.HEAD_TOO_LARGE,
)
TE, CL = b"Transfer-Encoding: chunked", b"Content-Length: 5"


def ok(*lines: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"".join([each + b"\r\n" for each in (line, *lines)]) + b"\r\n"


REFUSED: dict[str, tuple[Reason, list[bytes]]] = {
    "UPS-1-H11-2": (FRAMING, [ok(CL, TE), ok(TE, CL), ok(b"content-length: 0", TE),
          ok(CL, TE, line=b"HTTP/1.1 204 No")]),
    "UPS-1-two": (FRAMING, [ok(CL, b"Content-Length: 6"), ok(CL, CL), ok(TE, TE)]),
    "UPS-1-te-on-1.0": (FRAMING, [ok(TE, line=b"HTTP/1.0 200 OK")]),
    "UPS-1-length": (FRAMING, [ok(b"Content-Length:" + v) for v in (b"", b" 5, 5", b" +5", b" 005", b" 5_0",
          b" " + b"9" * 20)]),
    "UPS-1-coding": (CODING, [ok(b"Transfer-Encoding:" + v) for v in (b"", b" gzip", b" gzip, chunked", b" ,chunked",
          b" identity",
                                                                      b" \xa0chunked", b" xchunked")]),
    "H11-4": (BAD, [b"HTTP/1.1 200 OK\n\n", b"HTTP/1.1 200 OK\r\nX: y\n\r\n", b"HTTP/1.1 200 OK\r\n\n"]),
    "H11-5": (BAD, [ok(b"X: a\r\n b"), ok(b"Transfer-Encoding:\r\n chunked"), ok(b" X: a")]),
    "H11-6": (BAD, [ok(b"X: a%cb" % byte) for byte in (*range(9), *range(11, 13), *range(14, 32), 127)]),
    "status-line": (BAD, [ok(line=line) for line in (
        b"HTTP/2.0 200 OK", b"HTTP/1.2 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1 20 OK",
              b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 099 OK", b"HTTP/1.1 000 OK", b"HTTP/1.1 +20 OK", b"HTTP/1.1 200OK", b"HTTP/1.1\t200 OK",
              b"http/1.1 200 OK", b"200 OK",
        b"HTTP/1.1 ", b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 200 O\rK", b"ICY 200 OK", b" HTTP/1.1 200 OK", b"",
              b"HTTP/1.1 2x0 OK",
        b"SSH-2.0-OpenSSH", b"\x15\x03\x01\x00\x02\x02\x46")]),
    "fields": (BAD, [ok(b"no colon"), ok(b": x"), ok(b"X : y"), ok(b"X\xff: y"), ok(b"X Y: z"), ok(b"X: a\rb")]),
    "LIM": (LARGE, [ok(b"X: " + b"a" * 33 * 1024), ok(*[b"X: y"] * 101), b"HTTP/1.1 200 " + b"x" * 33 * 1024]),
}  # fmt: skip
BAD_ROWS = [(f"{id_}-{n}", data, reason) for id_, (reason, heads) in REFUSED.items() for n, data in enumerate(heads, 1)]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("data", "reason"), [row[1:] for row in BAD_ROWS], ids=[row[0] for row in BAD_ROWS])
def test_a_bad_answer_is_refused_for_one_reason(data: bytes, reason: Reason, split: str) -> None:
    assert read_response(SPLITS[split](data)) is reason


Check = Callable[[ResponseHead], bool]

TAKEN: dict[str, tuple[bytes, bytes, Check]] = {
    "plain": (b"GET", ok(CL), lambda h: (h.status, h.phrase, h.body, h.minor, h.keep_alive) == (200, b"OK", 5, 1,
          True)),
    "no-phrase": (b"GET", ok(CL, line=b"HTTP/1.1 200"), lambda h: h.phrase == b"" and h.keep_alive),
    "empty-phrase": (b"GET", ok(CL, line=b"HTTP/1.1 200 "), lambda h: h.phrase == b"" and h.keep_alive),
    "long-phrase": (b"GET", ok(CL, line=b"HTTP/1.1 599 a b\t\xff"),
          lambda h: (h.status, h.phrase) == (599, b"a b\t\xff")),
    "length-0": (b"GET", ok(b"Content-Length: 0"), lambda h: h.body == 0 and h.keep_alive),
    "chunked": (b"GET", ok(TE), lambda h: h.body == UNKNOWN and h.keep_alive and not h.fields),
    "until-close": (b"GET", ok(), lambda h: h.until_close and not h.keep_alive),
    "until-close-in-spite": (b"GET", ok(b"Connection: keep-alive"),
          lambda h: h.until_close and not h.keep_alive),
    "close": (b"GET", ok(CL, b"Connection: Close"), lambda h: h.body == 5 and not h.keep_alive),
    "http-1.0": (b"GET", ok(CL, line=b"HTTP/1.0 200 OK"), lambda h: h.minor == 0 and not h.keep_alive),
    "http-1.0-keep-alive": (b"GET", ok(CL, b"Connection: keep-alive", line=b"HTTP/1.0 200 OK"), lambda h: h.keep_alive),
    "hop-by-hop": (b"GET", ok(CL, b"Keep-Alive: timeout=5", b"Connection: X-A", b"X-a: 1", b"Trailer: x", b"Y: z"),
                   lambda h: h.fields == [(b"Content-Length", b"5"), (b"Y", b"z")]),
    "known": (b"GET", ok(CL, b"Keep-Alive: timeout=5"), lambda h: h.known[b"keep-alive"] == b"timeout=5"),
    "two-cookies": (b"GET", ok(CL, b"Set-Cookie: a", b"set-cookie: b"),
          lambda h: h.fields[1:] == [(b"Set-Cookie", b"a"), (b"set-cookie", b"b")]),
    "UPS-4-head": (b"HEAD", ok(CL), lambda h: h.body == 0 and h.keep_alive and h.fields == [(b"Content-Length",
          b"5")]),
    "UPS-4-head-chunked": (b"HEAD", ok(TE), lambda h: h.body == 0 and h.keep_alive),
    "UPS-4-head-nothing": (b"HEAD", ok(), lambda h: h.body == 0 and h.keep_alive),
    "UPS-4-304": (b"GET", ok(CL, line=b"HTTP/1.1 304 Not Modified"),
          lambda h: h.body == 0 and h.keep_alive and len(h.fields) == 1),
    "UPS-4-204": (b"GET", ok(line=b"HTTP/1.1 204 No Content"), lambda h: h.body == 0 and h.keep_alive),
    "UPS-4-204-length-0": (b"GET", ok(b"Content-Length: 0", line=b"HTTP/1.1 204 No"),
          lambda h: h.keep_alive and not h.fields),
    "UPS-4-204-length": (b"GET", ok(CL, line=b"HTTP/1.1 204 No"),
          lambda h: h.body == 0 and not h.keep_alive and not h.fields),
    "UPS-4-204-chunked": (b"GET", ok(TE, line=b"HTTP/1.1 204 No"),
          lambda h: h.body == 0 and not h.keep_alive and not h.fields),
    "interim": (b"GET", ok(b"Link: x", line=b"HTTP/1.1 103 Early Hints"),
          lambda h: h.body == 0 and h.fields == [(b"Link", b"x")]),
    "interim-length": (b"GET", ok(CL, line=b"HTTP/1.1 100 Continue"), lambda h: h.body == 0 and not h.fields),
    "switch": (b"GET", ok(b"Connection: upgrade", b"Upgrade: websocket", line=b"HTTP/1.1 101 S"),
               lambda h: h.body == 0 and h.known[b"upgrade"] == b"websocket" and not h.fields),
    "connect": (b"CONNECT", ok(CL), lambda h: h.body == 0 and not h.fields),
    "connect-refused": (b"CONNECT", ok(CL, line=b"HTTP/1.1 403 No"), lambda h: h.body == 5),
    "100-fields": (b"GET", ok(CL, *[b"X: y"] * 99), lambda h: len(h.fields) == 100),
}  # fmt: skip


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("method", "data", "check"), TAKEN.values(), ids=list(TAKEN))
def test_a_good_answer_means_one_thing(method: bytes, data: bytes, check: Check, split: str) -> None:
    parsed = read_response(SPLITS[split](data + b"hello"), method)
    assert isinstance(parsed, tuple)
    assert check(parsed[0]), parsed[0]
    assert parsed == (parse_response(data, method) or ())
    assert parsed[1] == len(data)


@pytest.mark.parametrize("data", [ok(CL), ok(TE), ok(*[b"X: y"] * 50)], ids=["length", "chunked", "fields"])
def test_every_beginning_of_a_good_answer_waits_for_the_rest(data: bytes) -> None:
    assert all(parse_response(data[:end], b"GET") is None for end in range(len(data)))
