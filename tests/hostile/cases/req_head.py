"""REQ-10 to 12, 14 to 17: the lines of a head, their ends, their bytes, the version and the Host."""

from __future__ import annotations

from tests.hostile.case import AFTER, Case, Opaque, Told, each, forwarded, get, head, post, refused

_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"

_NOT = refused(400)

_ITS_LENGTH = b"Content-Length: %d" % len(AFTER)

_CONTROLS = [byte for byte in (*range(0x20), 0x7F) if byte not in (0x09, 0x0A, 0x0D)]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

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
]

_NO_NAMES = [
    ("no-colon", get(b"X")),
    ("no-colon-last", head(b"GET / HTTP/1.1", b"Host: app", b"Foo bar")),
    ("empty-name", get(b": value")),
    ("only-colon", get(b":")),
    *(
        (f"name-{char.hex()}", get(b"X" + char + b"Y: z"))
        for char in [
            b"(",
            b")",
            b"<",
            b">",
            b"@",
            b",",
            b";",
            b"\\",
            b'"',
            b"/",
            b"[",
            b"]",
            b"?",
            b"=",
            b"{",
            b"}",
            b" ",
            b"\t",
            b"\x00",
            b"\x01",
            b"\x7f",
            b"\x80",
            b"\xa0",
            b"\xc3\xa9",
            b"\xff",
        ]
    ),
    ("te-no-colon", post(b"Transfer-Encoding chunked", body=_CHUNKS + AFTER)),
    ("utf8-name", get("Höst: x".encode())),
]

_LINES = [
    ("double-space", head(b"GET  / HTTP/1.1", b"Host: app")),
    ("double-space-2", head(b"GET /  HTTP/1.1", b"Host: app")),
    ("tab", head(b"GET\t/ HTTP/1.1", b"Host: app")),
    ("tab-2", head(b"GET /\tHTTP/1.1", b"Host: app")),
    ("no-target", head(b"GET HTTP/1.1", b"Host: app")),
    ("no-target-2", head(b"GET  HTTP/1.1", b"Host: app")),
    ("trailing-space", head(b"GET / HTTP/1.1 ", b"Host: app")),
    ("space-in", head(b"GET /a b HTTP/1.1", b"Host: app")),
    ("vt", head(b"GET\x0b/ HTTP/1.1", b"Host: app")),
    ("ff", head(b"GET /\x0cHTTP/1.1", b"Host: app")),
    ("cr", head(b"GET /\rHTTP/1.1", b"Host: app")),
    ("nul", head(b"GET /\x00 HTTP/1.1", b"Host: app")),
    ("ctl", head(b"GET /\x01 HTTP/1.1", b"Host: app")),
    ("del", head(b"GET /\x7f HTTP/1.1", b"Host: app")),
    ("high", head(b"GET /\xff HTTP/1.1", b"Host: app")),
    ("utf8", head("GET /ä HTTP/1.1".encode(), b"Host: app")),
    ("lower-version", head(b"GET / http/1.1", b"Host: app")),
    ("no-slash", head(b"GET / HTTP1.1", b"Host: app")),
    ("version-space", head(b"GET / HTTP/ 1.1", b"Host: app")),
    ("version-word", head(b"GET / FTP/1.1", b"Host: app")),
    ("injected", head(b"GET / HTTP/1.1 HTTP/1.1", b"Host: app")),
]

_VERSIONS = [
    (version.decode(), head(b"GET / " + version, b"Host: app"))
    for version in (
        b"HTTP/9.9",
        b"HTTP/2.0",
        b"HTTP/2",
        b"HTTP/1.2",
        b"HTTP/0.9",
        b"HTTP/3",
        b"HTTP/1",
        b"HTTP/1.10",
        b"HTTP/01.1",
        b"HTTP/1.01",
        b"HTTP/11.1",
        b"HTTP/1.1x",
        b"HTTP/1,1",
        b"HTTP/-1.1",
    )
]

_HOSTS = [
    ("missing", head(b"GET / HTTP/1.1")),
    ("missing-2", head(b"GET / HTTP/1.1", b"X: y")),
    ("two", head(b"GET / HTTP/1.1", b"Host: app", b"Host: evil")),
    ("two-same", head(b"GET / HTTP/1.1", b"Host: app", b"Host: app")),
    ("two-case", head(b"GET / HTTP/1.1", b"Host: app", b"X: y", b"hOST: evil")),
    *(
        (f"value-{value.hex()[:24]}", head(b"GET / HTTP/1.1", b"Host:" + value))
        for value in (
            b"",
            b" ",
            b" a b",
            b" a\tb",
            b" u@app",
            b" app/",
            b" app/x",
            b" a,b",
            b" app, evil",
            b" app:port",
            b" app:99999",
            b" app:-1",
            b" app:+80",
            b" app:80:80",
            b" app:0x50",
            b" [::1",
            b" ::1",
            b" [gg::1]",
            b" [::1]x",
            b" [::1]:x",
            b" []",
            b" app?x",
            b" app#x",
            b" app\\x",
            b" http://app",
            b" app\x80",
            b" \xc3\xa4pp",
            b' "app"',
            b" <app>",
            b" app;x y",
            b" {app}",
            b" a|b",
            b" a^b",
            b" app:8 0",
            b" :80",
            b" @",
            b" app:80@evil",
            b" [::1%25eth0 ]",
            b" app:123456",
            b" `id`",
        )
    ),
    ("two-absolute", head(b"GET http://app/ HTTP/1.1", b"Host: app", b"Host: evil")),
    ("post-body", head(b"POST / HTTP/1.1", _ITS_LENGTH, body=AFTER)),
]

CASES: list[Case] = [
    *each("REQ-10", "", _BARE_LF, _NOT),
    *each("REQ-11", "value-", [(f"{b:02x}", get(b"X-Any: a" + bytes([b]) + b"b")) for b in _CONTROLS], _NOT),
    *each("REQ-11", "value-start-", [(f"{b:02x}", get(b"X-Any:" + bytes([b]) + b"b")) for b in _CONTROLS], _NOT),
    *each("REQ-11", "value-end-", [(f"{b:02x}", get(b"X-Any: b" + bytes([b]))) for b in _CONTROLS], _NOT),
    *each("REQ-11", "host-", [(f"{b:02x}", head(b"GET / HTTP/1.1", b"Host: a" + bytes([b]))) for b in _CONTROLS], _NOT),
    Case("REQ-11", "tab-is-legal", get(b"X-Any: a\tb"), (forwarded(Told(fields=((b"x-any", b"a\tb"),))),)),
    Case(
        "REQ-11", "obs-text-is-legal", get(b"X-Any: a\xffb"), (forwarded(Told(fields=((b"x-any", b"a\xffb"),))), _NOT)
    ),
    *each("REQ-12", "", _NO_NAMES, _NOT),
    *each(
        "REQ-14",
        "",
        [
            ("no-version", b"GET /\r\n\r\n"),
            ("no-version-host", b"GET /\r\nHost: app\r\n\r\n"),
            ("post", b"POST /\r\n\r\n"),
            ("no-version-space", b"GET / \r\n\r\n"),
        ],
        _NOT,
    ),
    Case("REQ-14", "no-version-fin", b"GET /\r\n", (refused(400, silent=True),), finish=True),
    Case("REQ-14", "no-line-end-fin", b"GET /", (refused(400, silent=True),), finish=True),
    Case("REQ-15", "preface", _PREFACE, (refused(400, 505, silent=True),), finish=True),
    Case(
        "REQ-15",
        "preface-settings",
        _PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        (refused(400, 505, silent=True),),
        finish=True,
    ),
    Case(
        "REQ-15",
        "preface-line-only",
        b"PRI * HTTP/2.0\r\n\r\n",
        (refused(400, 505, silent=True),),
        finish=True,
    ),
    Case(
        "REQ-15",
        "preface-with-host",
        head(b"PRI * HTTP/2.0", b"Host: app", body=b"SM\r\n\r\n"),
        (refused(400, 505, silent=True),),
        finish=True,
    ),
    Case("REQ-15", "preface-second", get() + _PREFACE, (refused(400, 505, after=1),)),
    *each("REQ-15", "version-", _VERSIONS, refused(400, 505)),
    *each("REQ-16", "", _LINES, refused(400, 505)),
    Case("REQ-16", "leading-space", b" GET / HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT,)),
    Case("REQ-16", "leading-tab", b"\tGET / HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT,)),
    Case("REQ-16", "leading-crlf", b"\r\nGET / HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT, forwarded())),
    Case("REQ-16", "leading-lf", b"\nGET / HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT,)),
    Case("REQ-16", "leading-cr", b"\rGET / HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT,)),
    Case("REQ-16", "leading-crlf-space", b"\r\n GET / HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT,)),
    Case(
        "REQ-16",
        "second-leading-space",
        get() + b" GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n",
        (refused(400, after=1),),
    ),
    Case("REQ-16", "method-not-token", b"G(T / HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT,), (Opaque(), _NOT), finish=True),
    Case("REQ-16", "no-method", b"/ HTTP/1.1\r\nHost: app\r\n\r\n", (_NOT,), (Opaque(), _NOT), finish=True),
    Case(
        "REQ-16",
        "lower-method",
        b"get / HTTP/1.1\r\nHost: app\r\n\r\n",
        (_NOT, refused(405, 501), forwarded(Told(b"get"))),
        (_NOT, refused(405, 501), forwarded(Told(b"get")), Opaque()),
        finish=False,
    ),
    Case("REQ-16", "binary", bytes(range(256)), (refused(400, silent=True),), (Opaque(),), finish=True),
    Case("REQ-16", "ssh", b"SSH-2.0-OpenSSH_9.2\r\n", (refused(400, silent=True),), (Opaque(),), finish=True),
    Case(
        "REQ-16",
        "reply-as-request",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        (refused(400, 505),),
        (Opaque(), refused(400, 505)),
        finish=True,
    ),
    *each("REQ-17", "", _HOSTS, _NOT),
    Case("REQ-17", "empty-port", head(b"GET / HTTP/1.1", b"Host: app:"), (_NOT, forwarded())),
    Case("REQ-17", "ipv6", head(b"GET / HTTP/1.1", b"Host: [::1]:8080"), (forwarded(Told(host=b"[::1]:8080")),)),
    Case("REQ-17", "http-1.0-none", b"GET / HTTP/1.0\r\n\r\n", (forwarded(Told()), _NOT)),
]
