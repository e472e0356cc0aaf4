"""Heads of requests: what each means or why it is refused, in whatever pieces it comes.

The ids are those of the list of hostile inputs (REQ, LIM) and of the table of what h11 lets through (H11).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.errors import Reason
from sidecar.http.authority import canonical_authority
from sidecar.http.h1.head import RequestHead, parse_request
from sidecar.http.message import UNKNOWN
from tests.wire.feeding import SPLITS, read_request

BAD, FRAMING, CODING = Reason.BAD_REQUEST, Reason.BAD_FRAMING, Reason.UNKNOWN_CODING
VERSION, LARGE = Reason.BAD_VERSION, Reason.HEAD_TOO_LARGE
CONTROLS = [byte for byte in (*range(0x20), 0x7F) if byte not in b"\t\r\n"]
AROUND = [b"\x0b", b"\x0c", b"\x00", b"\x01", b"\x1f", b"\x7f"]
AROUND_HIGH = [b"\x85", b"\xa0", b"\xad", b"\xff"]

Row = tuple[str, bytes, Reason]


def head(*lines: bytes) -> bytes:
    return b"".join([line + b"\r\n" for line in lines]) + b"\r\n"


def get(*lines: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: app") -> bytes:
    return head(line, host, *lines)


def rows(id_: str, reason: Reason, *heads: bytes) -> list[Row]:
    """One row for each head, numbered from a."""
    return [(f"{id_}-{number}", data, reason) for number, data in enumerate(heads, 1)]


def lengths(*values: bytes) -> list[bytes]:
    return [get(b"Content-Length:" + value) for value in values]


def codings(*values: bytes) -> list[bytes]:
    return [get(b"Transfer-Encoding:" + value) for value in values]


def hosts(*values: bytes) -> list[bytes]:
    return [head(b"GET / HTTP/1.1", b"Host:" + value) for value in values]


def targets(*values: bytes, method: bytes = b"GET") -> list[bytes]:
    return [get(line=method + b" " + value + b" HTTP/1.1") for value in values]


TE, CL = b"Transfer-Encoding: chunked", b"Content-Length: 5"

REFUSED: list[Row] = [
    *rows("REQ-1-H11-1", FRAMING, get(CL, TE), get(TE, CL), get(b"content-length: 0", TE), get(b"Content-Length: x",
          TE),
          get(CL, b"Transfer-Encoding: x")),
    *rows("REQ-2", FRAMING, get(CL, b"Content-Length: 6"), get(CL, b"X: y", b"content-length: 4"), get(CL, CL,
          b"CONTENT-LENGTH: 6")),
    *rows("REQ-3", FRAMING, *lengths(b" +5", b" -1", b" -0", b" 5_0", b" 0x5", b" 1 0", b" 1Z", b"", b" ", b" 5.0",
          b" 5\t0",
                                     b" \xd9\xa5", b" 5\xa0", b" 5;", b" '5'", b" ,5", b" 5,")),
    *rows("REQ-4", FRAMING, *lengths(b"1" + b"0" * 18, b"9" * 20, b"1" + b"0" * 30, b"9" * 5000)),
    *rows("H11-8", FRAMING, *lengths(b" 5, 5", b" 5,5", b" 005", b" 00", b" 5, 6"), get(CL, CL)),
    *rows("REQ-5", CODING, *codings(b" xchunked", b" chunk", b' "chunked"', b" cow", b" identity",
          b" chunked, identity", b"", b" ",
                                    b" chunkedx", b" chunked;x=1", b" chu nked", b" gzip", b" chunked, chunked")),
    *rows("REQ-5-twice", FRAMING, get(TE, TE), get(TE, b"transfer-encoding: identity")),
    *rows("REQ-6", CODING, *codings(b" ,chunked", b" chunked,", b" gzip, chunked", b" chunked ,", b" ,,chunked")),
    *rows("REQ-7-name", BAD, *(get(name) for char in AROUND + AROUND_HIGH for name in (
        char + TE, b"Transfer" + char + b"-Encoding: chunked", b"Transfer-Encoding" + char + b": chunked"))),
    *rows("REQ-7-value", BAD, *(value for char in AROUND for value in codings(b" " + char + b"chunked",
          char + b"chunked",
                                                                              b" chunked" + char,
                                                                                    b" chu" + char + b"nked"))),
    *rows("REQ-7-value-high", CODING, *(value for char in AROUND_HIGH for value in codings(
        b" " + char + b"chunked", char + b"chunked", b" chunked" + char, b" chu" + char + b"nked",
              b" chunked " + char))),
    *rows("REQ-8", BAD, get(b"Transfer-Encoding : chunked"), get(b"Transfer-Encoding\t: chunked"),
          get(host=b"Host : app"),
          get(host=b" Host: app"), get(host=b"\tHost: app"), get(host=b" "), get(b"Transfer Encoding: chunked")),
    *rows("REQ-9-H11-5", BAD, get(b"Transfer-Encoding:\r\n chunked"), get(b"Transfer-Encoding: chu\r\n\tnked"),
          get(b"X: a\r\n b"),
          get(b"X: a\r\n "), get(host=b"Host:\r\n app"), get(b"Content-Length: 5\r\n 0"), get(TE + b"\r\n x")),
    *rows("REQ-10-H11-4", BAD, b"GET / HTTP/1.1\nHost: app\r\n\r\n", b"GET / HTTP/1.1\r\nHost: app\nX: y\r\n\r\n",
          b"GET / HTTP/1.1\r\nHost: app\r\n\n", b"GET / HTTP/1.1\nHost: app\n\n",
                b"GET / HTTP/1.1\r\nX: y\nHost: app\r\n\r\n"),
    *rows("REQ-10-bare-CR", BAD, get(b"X: a\rb"), get(host=b"Host: app\r"), get(b"X: a\rTransfer-Encoding: chunked"),
          b"GET / HTTP/1.1\rHost: app\r\n\r\n"),
    *rows("REQ-11-H11-6", BAD, *(get(line) for byte in CONTROLS for line in (b"X: a%cb" % byte, b"X:%cb" % byte,
          b"X: b%c" % byte))),
    *rows("REQ-12", BAD, get(b"X"), get(b": value"), get(b":"), get(b"\xffX: a"), get("Höst: x".encode()),
          *(get(b"X%cY: z" % byte) for byte in b'()<>@,;\\"/[]?={} \t\x00\x7f\x80')),
    *rows("REQ-13-H11-3", FRAMING, head(b"POST / HTTP/1.0", b"Host: app", TE), head(b"GET / HTTP/1.0", TE),
          head(b"POST / HTTP/1.0", b"Host: app", b"Connection: keep-alive", TE)),
    *rows("REQ-14", BAD, b"GET /\r\n\r\n", b"GET /\r\nHost: app\r\n\r\n", b"GET / \r\n\r\n"),
    *rows("REQ-15-H11-7", VERSION, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", *(get(line=b"GET / " + v) for v in (
        b"HTTP/9.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/0.9"))),
    *rows("REQ-15-no-version", BAD, *(get(line=b"GET / " + v) for v in (
        b"HTTP/2", b"HTTP/1", b"HTTP/1.10", b"HTTP/01.1", b"HTTP/1.1x", b"http/1.1", b"HTTP/ 1.1", b"FTP/1.1",
              b"HTTP1.1"))),
    *rows("REQ-16", BAD, *(get(line=line) for line in (
        b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET\t/ HTTP/1.1", b"GET /\tHTTP/1.1", b"GET HTTP/1.1",
              b"GET  HTTP/1.1",
        b"GET / HTTP/1.1 ", b"GET /a b HTTP/1.1", b"GET / HTTP/1.1 HTTP/1.1", b"GET /\x00 HTTP/1.1",
              b"GET /\x01 HTTP/1.1",
        b"GET /\x7f HTTP/1.1", b"GET /\xff HTTP/1.1", b"GET /\xc3\xa4 HTTP/1.1", b"G(T / HTTP/1.1", b" GET / HTTP/1.1",
        b"\tGET / HTTP/1.1", b"\r\nGET / HTTP/1.1", b"\nGET / HTTP/1.1", b"\rGET / HTTP/1.1", b"\x00GET / HTTP/1.1"))),
    *rows("REQ-17-missing", BAD, head(b"GET / HTTP/1.1"), head(b"GET / HTTP/1.1", b"X: y")),
    *rows("REQ-17-two", FRAMING, get(b"Host: evil"), get(b"Host: app"), get(b"X: y", b"hOST: evil")),
    *rows("REQ-17-H11-12", BAD, *hosts(
        b"", b" ", b" a b/@c?#", b" a b", b" a\tb", b" u@app", b" app/", b" a,b", b" app, evil", b" app:port",
              b" app:99999", b" app:0",
        b" app:", b" app:080", b" app:-1", b" app:+80", b" app:80:80", b" [::1", b" ::1", b" [gg::1]", b" [::1]x",
              b" [::1]:x", b" []",
        b" app?x", b" app#x", b" app\\x", b" http://app", b" app\x80", b' "app"', b" :80", b" @", b" app:80@evil",
              b" [::1%25eth0]",
        b" app:123456", b" [1.2.3.4]", b" .app", b" -app", b" app%2f", b" " + b"x" * 300)),
    *rows("REQ-18", BAD, *targets(b"http://evil/", b"http://app:81/", b"http:///x", b"http://u@app/",
          b"http://app:x/", b"http://",
                                  b"https://app/", b"ftp://app/", b"http:/app", b"http://app\\evil/",
                                        b"http://app,evil/"),
          head(b"GET http://app/ HTTP/1.1")),
    *rows("REQ-18-two", FRAMING, get(b"Host: evil", line=b"GET http://app/ HTTP/1.1")),
    *rows("REQ-19", BAD, *targets(b"/", b"http://app/", b"app", b"app:", b":443", b"app:99999", b"*", b"u@app:443",
          b"app:443/x",
                                  b"[::1]", b"evil:443,app:443", method=b"CONNECT"),
          head(b"CONNECT app:443 HTTP/1.0", b"Host: app:443"), head(b"CONNECT app:443 HTTP/1.1", b"Host: evil:443"),
          head(b"CONNECT app:443 HTTP/1.1", b"Host: app:443", TE)),
    *rows("H11-13", BAD, *targets(b"foo", b"/a#b", b"#", b"*", b"?x", b"\\", b"app:80"),
          head(b"CONNECT app:443 HTTP/1.1", b"Host: app:443", CL)),
    *rows("POL-2-POL-3", BAD, *targets(b"/%00", b"/a%0d%0ab", b"/%c0%ae", b"/app/..;x/admin", b"/%",
          b"http://app/%00")),
    *rows("LIM-1-H11-14", LARGE, get(b"X: " + b"a" * 33 * 1024), get(*[b"X: " + b"a" * 4000] * 15),
          get(b"X: " + b"a" * (32 * 1024 - 31))),
    *rows("LIM-1-line", Reason.REQUEST_LINE_TOO_LONG, b"GET /" + b"a" * 33 * 1024, b"G" * 33 * 1024),
    *rows("LIM-2-H11-14", LARGE, get(*[b"X: y"] * 100), get(*[b"a:"] * 10_000), get(*[b"X: y"] * 100, b"no colon")),
    *rows("LIM-2-a-bad-line-before", BAD, get(b"no colon", *[b"X: y"] * 200), get(b"no colon", b"X: " + b"a" * 40_000)),
]  # fmt: skip


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("data", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_bad_head_is_refused_for_one_reason(data: bytes, reason: Reason, split: str) -> None:
    assert read_request(SPLITS[split](data)) is reason


Check = Callable[[RequestHead], bool]

TAKEN: dict[str, tuple[bytes, Check]] = {
    "plain": (get(), lambda h: (h.method, h.target, h.authority, h.body, h.minor) == (b"GET", b"/", b"app", 0, 1)),
    "keep-alive": (get(), lambda h: h.keep_alive and not h.absolute and not h.protocol),
    "close": (get(b"Connection: x, CLOSE"), lambda h: not h.keep_alive),
    "http-1.0": (head(b"GET / HTTP/1.0"), lambda h: h.minor == 0 and h.authority == b"" and not h.keep_alive),
    "http-1.0-keep-alive": (head(b"GET / HTTP/1.0", b"Connection: Keep-Alive"), lambda h: h.keep_alive),
    "length": (get(b"content-LENGTH: \t42\t "), lambda h: h.body == 42 and (b"content-LENGTH", b"42") in h.fields),
    "length-0": (get(b"Content-Length: 0"), lambda h: h.body == 0),
    "length-18-digits": (get(b"Content-Length: " + b"9" * 18), lambda h: h.body == 10**18 - 1),
    "chunked": (get(TE), lambda h: h.body == UNKNOWN and not h.fields),
    "chunked-case": (get(b"tRANSFER-eNCODING:CHUNKED"), lambda h: h.body == UNKNOWN and not h.fields),
    "REQ-11-tab": (get(b"X: a\tb"), lambda h: h.fields == [(b"X", b"a\tb")]),
    "REQ-11-obs-text": (get(b"X:\xff\x80"), lambda h: h.fields == [(b"X", b"\xff\x80")]),
    "white-space-around": (get(b"X:\t  a b \t"), lambda h: h.fields == [(b"X", b"a b")]),
    "empty-values": (get(b"X:", b"Y: \t "), lambda h: h.fields == [(b"X", b""), (b"Y", b"")]),
    "case-and-order": (get(b"b-B: 1", b"A: 2", b"B-b: 3"), lambda h: h.fields == [(b"b-B", b"1"), (b"A", b"2"),
          (b"B-b", b"3")]),
    "odd-names": (get(b"!#$%&'*+-.^_`|~9: x"), lambda h: h.fields == [(b"!#$%&'*+-.^_`|~9", b"x")]),
    "odd-method": (get(line=b"m!# / HTTP/1.1"), lambda h: h.method == b"m!#"),
    "colons": (get(b"X: a:b:c"), lambda h: h.fields == [(b"X", b"a:b:c")]),
    "host-port": (get(host=b"Host: App.:8080"), lambda h: h.authority == b"App.:8080"),
    "host-v6": (get(host=b"Host: [::1]:8080"), lambda h: h.authority == b"[::1]:8080"),
    "host-v4": (get(host=b"Host:127.0.0.1"), lambda h: h.authority == b"127.0.0.1"),
    "POL-1": (get(line=b"GET /a/../b?c=/../d HTTP/1.1"), lambda h: h.target == b"/b?c=/../d"),
    "REQ-18-same": (get(line=b"GET HTTP://APP:80/x?y HTTP/1.1"), lambda h: h.absolute and (h.target,
          h.authority) == (b"/x?y", b"APP:80")),
    "REQ-18-no-path": (get(line=b"GET http://app HTTP/1.1"), lambda h: h.target == b"/"),
    "REQ-18-query": (get(line=b"GET http://app?x HTTP/1.1"), lambda h: h.target == b"/?x"),
    "REQ-18-options": (get(line=b"OPTIONS http://app HTTP/1.1"), lambda h: h.target == b"*" and h.absolute),
    "REQ-18-dots": (get(line=b"GET http://app/a/../b HTTP/1.1"), lambda h: h.target == b"/b"),
    "asterisk": (get(line=b"OPTIONS * HTTP/1.1"), lambda h: h.target == b"*" and h.authority == b"app"),
    "REQ-19-connect": (head(b"CONNECT [::1]:443 HTTP/1.1", b"Host: [::1]:443"),
          lambda h: h.authority == b"[::1]:443" and not h.body),
    "REQ-24-h2c": (get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: x"),
          lambda h: not h.protocol and not h.fields),
    "upgrade": (get(b"Connection: keep-alive, Upgrade", b"Upgrade: h2c, websocket"),
          lambda h: h.protocol == b"websocket"),
    "upgrade-not-asked": (get(b"Upgrade: websocket"), lambda h: not h.protocol and not h.fields),
    "HDR-4": (get(b"Keep-Alive: 5", b"Proxy-Connection: x", b"TE: gzip", b"Trailer: x", b"X: y"),
          lambda h: h.fields == [(b"X", b"y")]),
    "HDR-3": (get(b"Connection: X-A, x-request-id, Host, content-length", b"x-a: 1", b"X-Request-Id: 2",
          b"Content-Length: 0"),
              lambda h: h.fields == [(b"X-Request-Id", b"2"), (b"Content-Length", b"0")]),
    "HDR-2-twins": (get(b"Content_Length: 9", b"transfer_encoding: chunked", b"Host_: x"),
          lambda h: h.body == 0 and h.fields == [(b"Host_", b"x")]),
    "te-trailers": (get(b"TE: gzip, Trailers"), lambda h: h.takes_trailers),
    "te-none": (get(b"TE: gzip"), lambda h: not h.takes_trailers),
    "expect": (get(b"Expect: 100-Continue"), lambda h: h.expects_continue),
    "expect-1.0": (head(b"GET / HTTP/1.0", b"Expect: 100-continue"), lambda h: not h.expects_continue),
    "LIM-2-100-fields": (get(*[b"X: y"] * 99), lambda h: len(h.fields) == 99),
    "LIM-1-32-KiB": (get(b"X: " + b"a" * (32 * 1024 - 34)), lambda h: len(h.fields[0][1]) == 32 * 1024 - 34),
}  # fmt: skip


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("data", "check"), TAKEN.values(), ids=list(TAKEN))
def test_a_good_head_means_one_thing(data: bytes, check: Check, split: str) -> None:
    parsed = read_request(SPLITS[split](data + b"GET /next HTTP/1.1\r\n"))
    assert isinstance(parsed, tuple)
    assert check(parsed[0]), parsed[0]
    assert parsed == (parse_request(data) or ())
    assert parsed[1] == len(data)


def test_the_largest_head_is_32_kib() -> None:
    assert len(TAKEN["LIM-1-32-KiB"][0]) == 32 * 1024


@pytest.mark.parametrize("data", [get(), get(TE), get(*[b"X: y"] * 50)], ids=["plain", "chunked", "fields"])
def test_every_beginning_of_a_good_head_waits_for_the_rest(data: bytes) -> None:
    assert all(parse_request(data[:end]) is None for end in range(len(data)))


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [(b"App", b"app"), (b"app.", b"app"), (b"app:80", b"app"), (b"APP.:80", b"app"), (b"app:8080", b"app:8080"),
          (b"app.:81", b"app:81"),
     (b"[::1]:80", b"[::1]"), (b"[::A]", b"[::a]"), (b"[::1]:8080", b"[::1]:8080"), (b"[::80]", b"[::80]")],
    ids=lambda value: value.decode(),
)  # fmt: skip
def test_an_authority_has_one_spelling(sent: bytes, canonical: bytes) -> None:
    """POL-4"""
    assert canonical_authority(sent) == canonical
