"""REQ: how the head of a request says what it is and how long; everything that two parsers could read in two ways."""

from __future__ import annotations

from tests.hostile.case import AFTER, Case, Opaque, Told, each, forwarded, get, head, post, refused

_HELLO = Told(b"POST", body=b"hello")
_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
_NOT = refused(400)
_ITS_LENGTH = b"Content-Length: %d" % len(AFTER)
_HUNDRED = b"Content-Length: %d" % (100 * len(AFTER))
_NO_CODING = refused(400, 501)
_CONTROLS = [byte for byte in (*range(0x20), 0x7F) if byte not in (0x09, 0x0A, 0x0D)]
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_TWO_LENGTHS = [
    ("both", post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER)),
    ("both-te-first", post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=_CHUNKS + AFTER)),
    ("both-cl-0", post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER)),
    ("both-cl-bad", post(b"Content-Length: x", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER)),
    ("both-te-bad", post(b"Content-Length: 5", b"Transfer-Encoding: x", body=b"hello" + AFTER)),
    ("both-te-identity", post(b"Content-Length: 5", b"Transfer-Encoding: identity", body=b"hello" + AFTER)),
    ("both-case", post(b"CONTENT-LENGTH: 5", b"tRANSFER-eNCODING: CHUNKED", body=_CHUNKS + AFTER)),
]  # fmt: skip

_DIFFERENT = [
    ("5-6", post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello" + AFTER)),
    ("0-44", post(b"Content-Length: 0", _ITS_LENGTH, body=AFTER)),
    ("apart", post(b"Content-Length: 5", b"X: y", b"content-length: 4", body=b"hello" + AFTER)),
    ("list", post(b"Content-Length: 5, 6", body=b"hello" + AFTER)),
    ("list-tight", post(b"Content-Length: 6,5", body=b"hello" + AFTER)),
    ("three", post(b"Content-Length: 5", b"Content-Length: 5", b"Content-Length: 6", body=b"hello" + AFTER)),
    ("get", get(b"Content-Length: 5", b"Content-Length: 0", body=b"hello" + AFTER)),
]  # fmt: skip

_BAD_LENGTHS = [
    b"+5", b"-1", b"-0", b"5_0", b"0x5", b"1 0", b"1Z", b"", b" ", b"5.0", b"5e0", b"'5'", b'"5"', b"5;", b"5,", b",5",
    b"\xb25", b"\xd9\xa5", b"5\xa0", b"NaN", b"five", b"0b11", b"0o5", b"--5", b"5-", b"(5)", b"5 5", b"5\t0",
]  # fmt: skip
_HUGE = [b"1" + b"0" * 19, b"9" * 20, b"1" + b"0" * 30, b"9" * 400, b"1" + b"0" * 5000, b"18446744073709551621"]

_CODINGS = [
    b"xchunked", b"chunk", b'"chunked"', b"cow", b"identity", b"chunked, identity", b"", b"chunkedx", b"chunked;x=1",
    b"chunked; ", b"'chunked'", b"chu nked", b"gzip", b"deflate", b"chunked, chunked", b"chunked,gzip", b"c", b"trailers",
    b"identity, chunked, identity", b"chunked\tx", b"[chunked]", b"chunked=1", b"xchunked, chunked",
]  # fmt: skip
_LISTS = [b",chunked", b"chunked,", b"gzip, chunked", b", chunked", b"chunked ,", b",,chunked", b"gzip,chunked",
          b"identity, chunked", b"chunked,,", b" ,chunked", b"deflate, gzip, chunked"]  # fmt: skip
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
]  # fmt: skip

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
]  # fmt: skip

_BARE_LF = [
    ("request-line", b"GET / HTTP/1.1\nHost: app\r\n\r\n"),
    ("field", b"GET / HTTP/1.1\r\nHost: app\nX: y\r\n\r\n"),
    ("first-field", b"GET / HTTP/1.1\r\nX: y\nHost: app\r\n\r\n"),
    ("empty-line", b"GET / HTTP/1.1\r\nHost: app\r\n\n"),
    ("all", b"GET / HTTP/1.1\nHost: app\n\n"),
    ("smuggles-te", b"POST / HTTP/1.1\r\nHost: app\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n" + _CHUNKS + AFTER),
    ("smuggles-cl", b"POST / HTTP/1.1\r\nHost: app\r\nX: y\nContent-Length: 5\r\n\r\nhello" + AFTER),
    ("cr-cr-lf", b"GET / HTTP/1.1\r\nHost: app\r\r\n\r\n"),
    ("bare-cr-value", b"GET / HTTP/1.1\r\nHost: app\r\nX: a\rb\r\n\r\n"),
    ("bare-cr-hides", b"POST / HTTP/1.1\r\nHost: app\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n" + _CHUNKS + AFTER),
    ("bare-cr-line", b"GET / HTTP/1.1\r\nHost: app\rX: y\r\n\r\n"),
    ("lf-cr", b"GET / HTTP/1.1\r\nHost: app\n\r\r\n\r\n"),
]  # fmt: skip

_NO_NAMES = [
    ("no-colon", get(b"X")), ("no-colon-last", head(b"GET / HTTP/1.1", b"Host: app", b"Foo bar")),
    ("empty-name", get(b": value")), ("only-colon", get(b":")),
    *((f"name-{char.hex()}", get(b"X" + char + b"Y: z")) for char in
      [b"(", b")", b"<", b">", b"@", b",", b";", b"\\", b'"', b"/", b"[", b"]", b"?", b"=", b"{", b"}", b" ",
       b"\t", b"\x00", b"\x01", b"\x7f", b"\x80", b"\xa0", b"\xc3\xa9", b"\xff"]),
    ("te-no-colon", post(b"Transfer-Encoding chunked", body=_CHUNKS + AFTER)),
    ("utf8-name", get("Höst: x".encode())),
]  # fmt: skip

_LINES = [
    ("double-space", head(b"GET  / HTTP/1.1", b"Host: app")), ("double-space-2", head(b"GET /  HTTP/1.1", b"Host: app")),
    ("tab", head(b"GET\t/ HTTP/1.1", b"Host: app")), ("tab-2", head(b"GET /\tHTTP/1.1", b"Host: app")),
    ("no-target", head(b"GET HTTP/1.1", b"Host: app")), ("no-target-2", head(b"GET  HTTP/1.1", b"Host: app")),
    ("trailing-space", head(b"GET / HTTP/1.1 ", b"Host: app")), ("space-in", head(b"GET /a b HTTP/1.1", b"Host: app")),
    ("vt", head(b"GET\x0b/ HTTP/1.1", b"Host: app")), ("ff", head(b"GET /\x0cHTTP/1.1", b"Host: app")),
    ("cr", head(b"GET /\rHTTP/1.1", b"Host: app")), ("nul", head(b"GET /\x00 HTTP/1.1", b"Host: app")),
    ("ctl", head(b"GET /\x01 HTTP/1.1", b"Host: app")), ("del", head(b"GET /\x7f HTTP/1.1", b"Host: app")),
    ("high", head(b"GET /\xff HTTP/1.1", b"Host: app")), ("utf8", head("GET /ä HTTP/1.1".encode(), b"Host: app")),
    ("lower-version", head(b"GET / http/1.1", b"Host: app")), ("no-slash", head(b"GET / HTTP1.1", b"Host: app")),
    ("version-space", head(b"GET / HTTP/ 1.1", b"Host: app")), ("version-word", head(b"GET / FTP/1.1", b"Host: app")),
    ("injected", head(b"GET / HTTP/1.1 HTTP/1.1", b"Host: app")),
]  # fmt: skip

_VERSIONS = [
    (version.decode(), head(b"GET / " + version, b"Host: app"))
    for version in (b"HTTP/9.9", b"HTTP/2.0", b"HTTP/2", b"HTTP/1.2", b"HTTP/0.9", b"HTTP/3", b"HTTP/1", b"HTTP/1.10",
                    b"HTTP/01.1", b"HTTP/1.01", b"HTTP/11.1", b"HTTP/1.1x", b"HTTP/1,1", b"HTTP/-1.1")
]  # fmt: skip

_HOSTS = [
    ("missing", head(b"GET / HTTP/1.1")), ("missing-2", head(b"GET / HTTP/1.1", b"X: y")),
    ("two", head(b"GET / HTTP/1.1", b"Host: app", b"Host: evil")),
    ("two-same", head(b"GET / HTTP/1.1", b"Host: app", b"Host: app")),
    ("two-case", head(b"GET / HTTP/1.1", b"Host: app", b"X: y", b"hOST: evil")),
    *((f"value-{value.hex()[:24]}", head(b"GET / HTTP/1.1", b"Host:" + value)) for value in (
        b"", b" ", b" a b", b" a\tb", b" u@app", b" app/", b" app/x", b" a,b", b" app, evil", b" app:port", b" app:99999",
        b" app:-1", b" app:+80", b" app:80:80", b" app:0x50", b" [::1", b" ::1", b" [gg::1]", b" [::1]x", b" [::1]:x",
        b" []", b" app?x", b" app#x", b" app\\x", b" http://app", b" app\x80", b" \xc3\xa4pp", b' "app"', b" <app>",
        b" app;x y", b" {app}", b" a|b", b" a^b", b" app:8 0", b" :80", b" @", b" app:80@evil", b" [::1%25eth0 ]",
        b" app:123456", b" `id`",
    )),
    ("two-absolute", head(b"GET http://app/ HTTP/1.1", b"Host: app", b"Host: evil")),
    ("post-body", head(b"POST / HTTP/1.1", _ITS_LENGTH, body=AFTER)),
]  # fmt: skip


def _absolute(target: bytes, host: bytes, seen: bytes, path: bytes = b"/") -> Case:
    name = target.decode("latin-1").replace("/", "_") + "~" + host.decode("latin-1").replace("/", "_")
    return Case("REQ-18", name, head(b"GET " + target + b" HTTP/1.1", b"Host: " + host),
                (forwarded(Told(target=path, host=seen)), refused(400)))  # fmt: skip


CASES: list[Case] = [
    *each("REQ-1", "", _TWO_LENGTHS, _NOT),
    *each("REQ-2", "", _DIFFERENT, _NOT),
    *each("REQ-3", "cl-", [(v.hex() or "empty", post(b"Content-Length: " + v, body=b"hello" + AFTER)) for v in _BAD_LENGTHS], _NOT),
    *each("REQ-4", "digits-", [(f"{len(v)}-{v[:2].decode()}-{v[-1:].decode()}", post(b"Content-Length: " + v, body=b"hello" + AFTER)) for v in _HUGE], refused(400, 413)),
    *each("REQ-5", "te-", [(v.hex() or "empty", _coding(b"Transfer-Encoding: " + v)) for v in _CODINGS], _NO_CODING),
    *each("REQ-5", "", [
        ("two-lines", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=_CHUNKS + AFTER)),
        ("two-chunked", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER)),
        ("get-identity", get(b"Transfer-Encoding: identity", body=AFTER)),
    ], _NO_CODING),
    *each("REQ-6", "te-", [(v.hex(), _coding(b"Transfer-Encoding: " + v)) for v in _LISTS], _NO_CODING),
    *each("REQ-7", "", _AROUND_CASES, _NO_CODING),
    *each("REQ-8", "", _SPACED, _NOT),
    *each("REQ-9", "", _FOLDED, _NO_CODING),
    *each("REQ-10", "", _BARE_LF, _NOT),
    *each("REQ-11", "value-", [(f"{b:02x}", get(b"X-Any: a" + bytes([b]) + b"b")) for b in _CONTROLS], _NOT),
    *each("REQ-11", "value-start-", [(f"{b:02x}", get(b"X-Any:" + bytes([b]) + b"b")) for b in _CONTROLS], _NOT),
    *each("REQ-11", "value-end-", [(f"{b:02x}", get(b"X-Any: b" + bytes([b]))) for b in _CONTROLS], _NOT),
    *each("REQ-11", "host-", [(f"{b:02x}", head(b"GET / HTTP/1.1", b"Host: a" + bytes([b]))) for b in _CONTROLS], _NOT),
    Case("REQ-11", "tab-is-legal", get(b"X-Any: a\tb"), (forwarded(Told(fields=((b"x-any", b"a\tb"),))),)),
    Case("REQ-11", "obs-text-is-legal", get(b"X-Any: a\xffb"), (forwarded(Told(fields=((b"x-any", b"a\xffb"),))), _NOT)),
    *each("REQ-12", "", _NO_NAMES, _NOT),
    *each("REQ-13", "", [
        ("te", head(b"POST / HTTP/1.0", b"Host: app", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER)),
        ("te-keep-alive", head(b"POST / HTTP/1.0", b"Host: app", b"Connection: keep-alive", b"Transfer-Encoding: chunked",
                               body=_CHUNKS + AFTER)),
        ("te-get", head(b"GET / HTTP/1.0", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER)),
        ("te-cl", head(b"POST / HTTP/1.0", b"Host: app", b"Content-Length: 5", b"Transfer-Encoding: chunked", body=_CHUNKS)),
    ], _NOT),
    *each("REQ-14", "", [
        ("no-version", b"GET /\r\n\r\n"), ("no-version-host", b"GET /\r\nHost: app\r\n\r\n"),
        ("post", b"POST /\r\n\r\n"), ("no-version-space", b"GET / \r\n\r\n"),
    ], _NOT),
    Case("REQ-14", "no-version-fin", b"GET /\r\n", (refused(400, silent=True),), finish=True),
    Case("REQ-14", "no-line-end-fin", b"GET /", (refused(400, silent=True),), finish=True),
    Case("REQ-15", "preface", _PREFACE, (refused(400, 505, silent=True),), (Opaque(),), finish=True),
    Case("REQ-15", "preface-settings", _PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
         (refused(400, 505, silent=True),), (Opaque(),), finish=True),
    Case("REQ-15", "preface-line-only", b"PRI * HTTP/2.0\r\n\r\n", (refused(400, 505, silent=True),),
         (Opaque(), refused(400, 505, silent=True)), finish=True),
    Case("REQ-15", "preface-with-host", head(b"PRI * HTTP/2.0", b"Host: app", body=b"SM\r\n\r\n"),
         (refused(400, 505, silent=True),), (Opaque(), refused(400, 505, silent=True)), finish=True),
    Case("REQ-15", "preface-second", get() + _PREFACE, (refused(400, 505, after=1),)),
    *each("REQ-15", "version-", _VERSIONS, refused(400, 505)),
    *each("REQ-16", "", _LINES, refused(400, 505)),
    Case("REQ-16", "leading-space", b" GET / HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT,)),
    Case("REQ-16", "leading-tab", b"\tGET / HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT,)),
    Case("REQ-16", "leading-crlf", b"\r\nGET / HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT, forwarded())),
    Case("REQ-16", "leading-lf", b"\nGET / HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT,)),
    Case("REQ-16", "leading-cr", b"\rGET / HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT,)),
    Case("REQ-16", "leading-crlf-space", b"\r\n GET / HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT,)),
    Case("REQ-16", "second-leading-space", get() + b" GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n", (refused(400, after=1),)),
    Case("REQ-16", "method-not-token", b"G(T / HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT,), (Opaque(), _NOT), finish=True),
    Case("REQ-16", "no-method", b"/ HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT,), (Opaque(), _NOT), finish=True),
    Case("REQ-16", "lower-method", b"get / HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT, refused(405, 501), forwarded(Told(b"get"))),
         (_NOT, refused(405, 501), forwarded(Told(b"get")), Opaque()), finish=False),
    Case("REQ-16", "binary", bytes(range(256)), (refused(400, silent=True),), (Opaque(),), finish=True),
    Case("REQ-16", "ssh", b"SSH-2.0-OpenSSH_9.2\r\n", (refused(400, silent=True),), (Opaque(),), finish=True),
    Case("REQ-16", "reply-as-request", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (refused(400, 505),),
         (Opaque(), refused(400, 505)), finish=True),
    *each("REQ-17", "", _HOSTS, _NOT),
    Case("REQ-17", "empty-port", head(b"GET / HTTP/1.1", b"Host: app:"), (_NOT, forwarded())),
    Case("REQ-17", "ipv6", head(b"GET / HTTP/1.1", b"Host: [::1]:8080"), (forwarded(Told(host=b"[::1]:8080")),)),
    Case("REQ-17", "http-1.0-none", b"GET / HTTP/1.0\r\n\r\n", (forwarded(Told()), _NOT)),
    _absolute(b"http://other/", b"app", b"other"),
    _absolute(b"http://other:81/x?y", b"app", b"other:81", b"/x?y"),
    _absolute(b"HTTP://other/", b"app", b"other"),
    _absolute(b"http://other", b"app", b"other"),
    _absolute(b"http://app/", b"app", b"app"),
    _absolute(b"https://other/", b"app", b"other"),
    *each("REQ-18", "bad-", [(t.hex(), head(b"GET " + t + b" HTTP/1.1", b"Host: app")) for t in (
        b"http://u@other/", b"http://u:p@other/", b"http:///x", b"http://", b"http:/x", b"http://a b/", b"ftp://other/",
        b"http://other:99999/", b"http://[::1/", b"http://other#f", b"http://other/#f", b"foo", b"/a#b", b"?x", b"app:80",
        b"//", b"*", b"http:other", b"://other/", b"http://a,b/", b"http://other\\@app/", b"http://%61%20b/",
    ) if t != b"//"], _NOT),
    Case("REQ-18", "bad-host-beside", head(b"GET http://app/ HTTP/1.1", b"Host: a b"), (_NOT,)),
    Case("REQ-18", "outbound", head(b"GET http://@UPSTREAM@/x HTTP/1.1", b"Host: evil"),
         (forwarded(Told(target=b"/x", host=b"@UPSTREAM@")), _NOT), port="outbound"),
    *each("REQ-19", "", [
        ("plain", head(b"CONNECT app:80 HTTP/1.1", b"Host: app:80")),
        ("slash", head(b"CONNECT / HTTP/1.1", b"Host: app")),
        ("uri", head(b"CONNECT http://app/ HTTP/1.1", b"Host: app")),
        ("1.0", head(b"CONNECT app:80 HTTP/1.0", b"Host: app:80")),
        ("1.0-no-host", head(b"CONNECT app:80 HTTP/1.0")),
        ("length", head(b"CONNECT app:80 HTTP/1.1", b"Host: app:80", _ITS_LENGTH, body=AFTER)),
        ("chunked", head(b"CONNECT app:80 HTTP/1.1", b"Host: app:80", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER)),
        ("smuggle", head(b"CONNECT app:80 HTTP/1.1", b"Host: app:80", body=AFTER)),
        ("upstream", head(b"CONNECT @UPSTREAM@ HTTP/1.1", b"Host: @UPSTREAM@", body=AFTER)),
    ], refused(400, 405)),
    *[Case("REQ-19", f"outbound-{t.hex()}", head(b"CONNECT " + t + b" HTTP/1.1", b"Host: app:80"), (refused(400, 405),),
           port="outbound") for t in (
        b"/", b"http://app/", b"app", b"app:", b"app:0", b":443", b"app:99999", b"u@app:80", b"app:80/", b"a b:80", b"[::1:80",
        b"app:http", b"*", b"app:80#x", b"::1:80", b"app:+80", b"app:80,evil:80")],
    Case("REQ-19", "outbound-1.0", head(b"CONNECT @UPSTREAM@ HTTP/1.0"), (refused(400, 405),), port="outbound"),
    Case("REQ-19", "outbound-length", head(b"CONNECT @UPSTREAM@ HTTP/1.1", b"Host: @UPSTREAM@", _ITS_LENGTH, body=AFTER),
         (refused(400, 405),), port="outbound"),
    Case("REQ-19", "outbound-chunked", head(b"CONNECT @UPSTREAM@ HTTP/1.1", b"Host: @UPSTREAM@",
                                            b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER), (refused(400, 405),), port="outbound"),
    *[Case("REQ-20", f"{m.decode().lower()}-length", head(m + b" / HTTP/1.1", b"Host: app", _ITS_LENGTH, body=AFTER),
           (forwarded(Told(m, body=AFTER)), _NOT)) for m in (b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"PUT", b"PATCH")],
    *[Case("REQ-20", f"{m.decode().lower()}-chunked", head(m + b" / HTTP/1.1", b"Host: app", b"Transfer-Encoding: chunked",
           body=b"25\r\n" + AFTER + b"\r\n0\r\n\r\n"), (forwarded(Told(m, body=AFTER)), _NOT))
      for m in (b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"PUT", b"PATCH")],
    *[Case("REQ-20", f"{m.decode().lower()}-then-{n}", head(m + b" / HTTP/1.1", b"Host: app", b"Content-Length: 5", body=b"hello") + tail,
           (forwarded(Told(m, body=b"hello"), *told), _NOT))
      for m in (b"GET", b"HEAD", b"OPTIONS", b"DELETE")
      for n, tail, told in (("get", get(target=b"/2"), (Told(target=b"/2"),)),
                            ("post", post(b"Content-Length: 5", body=b"hello"), (_HELLO,)))],
    Case("REQ-20", "trace-length", head(b"TRACE / HTTP/1.1", b"Host: app", _ITS_LENGTH, body=AFTER),
         (forwarded(Told(b"TRACE", body=AFTER)), refused(400, 405))),
    *[Case("REQ-21", f"too-large-{n}", send, (refused(413),), rig="small-body") for n, send in (
        ("length", post(_HUNDRED, body=AFTER * 100)),
        ("length-get", get(_HUNDRED, body=AFTER * 100)),
        ("expect", post(_HUNDRED, b"Expect: 100-continue", body=AFTER * 100)))],
    *[Case("REQ-21", f"no-app-{n}", send, (refused(503),), rig="dead") for n, send in (
        ("length", post(_HUNDRED, body=AFTER * 100)),
        ("get-length", get(_ITS_LENGTH, body=AFTER)),
        ("chunked", post(b"Transfer-Encoding: chunked", body=b"25\r\n" + AFTER + b"\r\n0\r\n\r\n")))],
    Case("REQ-21", "own-listener", head(b"POST http://@INBOUND@/ HTTP/1.1", b"Host: @INBOUND@", _ITS_LENGTH, body=AFTER),
         (refused(403),), port="outbound"),
    Case("REQ-21", "no-route", post(_ITS_LENGTH, body=AFTER), (refused(400, 403, 404),), port="outbound"),
    Case("REQ-21", "bad-host", head(b"POST / HTTP/1.1", b"Host: a b", _ITS_LENGTH, body=AFTER), (_NOT,)),
    *[Case("REQ-24", n, get(*lines), (forwarded(Told(absent=(b"upgrade", b"http2-settings", b"connection"))),)) for n, lines in (
        ("h2c", (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")),
        ("h2c-no-connection", (b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")),
        ("h2c-case", (b"cONNECTION: uPGRADE, hTTP2-sETTINGS", b"uPGRADE: H2C", b"hTTP2-sETTINGS: AAMAAABkAAQAAP__")),
        ("h2", (b"Connection: Upgrade", b"Upgrade: h2")),
        ("settings-only", (b"HTTP2-Settings: AAMAAABkAAQAAP__",)))],
    Case("REQ-24", "h2c-list", get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c, foo", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
         (forwarded(Told(fields=((b"upgrade", b"foo"),), absent=(b"http2-settings",))),
          forwarded(Told(absent=(b"upgrade", b"http2-settings", b"connection"))))),
    Case("REQ-24", "h2c-post", post(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__",
                                    b"Content-Length: 5", body=b"hello"),
         (forwarded(Told(b"POST", body=b"hello", absent=(b"upgrade", b"http2-settings", b"connection"))),)),
    Case("REQ-2", "after-a-good-one", get() + post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello" + AFTER), (refused(400, after=1),)),
    Case("REQ-1", "after-a-good-one", post(b"Content-Length: 5", body=b"hello") +
         post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER), (refused(400, after=1),)),
]  # fmt: skip
