"""REQ-18 to 21, 24: whom a request is for, which of its bytes are body, and what an upgrade may ask for."""

from __future__ import annotations

from tests.hostile.case import AFTER, Case, Told, each, forwarded, get, head, post, refused

_HELLO = Told(b"POST", body=b"hello")

_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"

_NOT = refused(400)

_ITS_LENGTH = b"Content-Length: %d" % len(AFTER)

_HUNDRED = b"Content-Length: %d" % (100 * len(AFTER))


def _absolute(target: bytes, host: bytes, seen: bytes, path: bytes = b"/") -> Case:
    name = target.decode("latin-1").replace("/", "_") + "~" + host.decode("latin-1").replace("/", "_")
    return Case(
        "REQ-18",
        name,
        head(b"GET " + target + b" HTTP/1.1", b"Host: " + host),
        (forwarded(Told(target=path, host=seen)), refused(400)),
    )


CASES: list[Case] = [
    _absolute(b"http://other/", b"app", b"other"),
    _absolute(b"http://other:81/x?y", b"app", b"other:81", b"/x?y"),
    _absolute(b"HTTP://other/", b"app", b"other"),
    _absolute(b"http://other", b"app", b"other"),
    _absolute(b"http://app/", b"app", b"app"),
    _absolute(b"https://other/", b"app", b"other"),
    *each(
        "REQ-18",
        "bad-",
        [
            (t.hex(), head(b"GET " + t + b" HTTP/1.1", b"Host: app"))
            for t in (
                b"http://u@other/",
                b"http://u:p@other/",
                b"http:///x",
                b"http://",
                b"http:/x",
                b"http://a b/",
                b"ftp://other/",
                b"http://other:99999/",
                b"http://[::1/",
                b"http://other#f",
                b"http://other/#f",
                b"foo",
                b"/a#b",
                b"?x",
                b"app:80",
                b"//",
                b"*",
                b"http:other",
                b"://other/",
                b"http://a,b/",
                b"http://other\\@app/",
                b"http://%61%20b/",
            )
            if t != b"//"
        ],
        _NOT,
    ),
    Case("REQ-18", "bad-host-beside", head(b"GET http://app/ HTTP/1.1", b"Host: a b"), (_NOT,)),
    Case(
        "REQ-18",
        "outbound",
        head(b"GET http://@UPSTREAM@/x HTTP/1.1", b"Host: evil"),
        (forwarded(Told(target=b"/x", host=b"@UPSTREAM@")), _NOT),
        port="outbound",
    ),
    *each(
        "REQ-19",
        "",
        [
            ("plain", head(b"CONNECT app:80 HTTP/1.1", b"Host: app:80")),
            ("slash", head(b"CONNECT / HTTP/1.1", b"Host: app")),
            ("uri", head(b"CONNECT http://app/ HTTP/1.1", b"Host: app")),
            ("1.0", head(b"CONNECT app:80 HTTP/1.0", b"Host: app:80")),
            ("1.0-no-host", head(b"CONNECT app:80 HTTP/1.0")),
            ("length", head(b"CONNECT app:80 HTTP/1.1", b"Host: app:80", _ITS_LENGTH, body=AFTER)),
            (
                "chunked",
                head(b"CONNECT app:80 HTTP/1.1", b"Host: app:80", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER),
            ),
            ("smuggle", head(b"CONNECT app:80 HTTP/1.1", b"Host: app:80", body=AFTER)),
            ("upstream", head(b"CONNECT @UPSTREAM@ HTTP/1.1", b"Host: @UPSTREAM@", body=AFTER)),
        ],
        refused(400, 405),
    ),
    *[
        Case(
            "REQ-19",
            f"outbound-{t.hex()}",
            head(b"CONNECT " + t + b" HTTP/1.1", b"Host: app:80"),
            (refused(400, 405),),
            port="outbound",
        )
        for t in (
            b"/",
            b"http://app/",
            b"app",
            b"app:",
            b"app:0",
            b":443",
            b"app:99999",
            b"u@app:80",
            b"app:80/",
            b"a b:80",
            b"[::1:80",
            b"app:http",
            b"*",
            b"app:80#x",
            b"::1:80",
            b"app:+80",
            b"app:80,evil:80",
        )
    ],
    Case("REQ-19", "outbound-1.0", head(b"CONNECT @UPSTREAM@ HTTP/1.0"), (refused(400, 405),), port="outbound"),
    Case(
        "REQ-19",
        "outbound-length",
        head(b"CONNECT @UPSTREAM@ HTTP/1.1", b"Host: @UPSTREAM@", _ITS_LENGTH, body=AFTER),
        (refused(400, 405),),
        port="outbound",
    ),
    Case(
        "REQ-19",
        "outbound-chunked",
        head(b"CONNECT @UPSTREAM@ HTTP/1.1", b"Host: @UPSTREAM@", b"Transfer-Encoding: chunked", body=_CHUNKS + AFTER),
        (refused(400, 405),),
        port="outbound",
    ),
    *[
        Case(
            "REQ-20",
            f"{m.decode().lower()}-length",
            head(m + b" / HTTP/1.1", b"Host: app", _ITS_LENGTH, body=AFTER),
            (forwarded(Told(m, body=AFTER)), _NOT),
        )
        for m in (b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"PUT", b"PATCH")
    ],
    *[
        Case(
            "REQ-20",
            f"{m.decode().lower()}-chunked",
            head(
                m + b" / HTTP/1.1",
                b"Host: app",
                b"Transfer-Encoding: chunked",
                body=b"25\r\n" + AFTER + b"\r\n0\r\n\r\n",
            ),
            (forwarded(Told(m, body=AFTER)), _NOT),
        )
        for m in (b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"PUT", b"PATCH")
    ],
    *[
        Case(
            "REQ-20",
            f"{m.decode().lower()}-then-{n}",
            head(m + b" / HTTP/1.1", b"Host: app", b"Content-Length: 5", body=b"hello") + tail,
            (forwarded(Told(m, body=b"hello"), *told), _NOT),
        )
        for m in (b"GET", b"HEAD", b"OPTIONS", b"DELETE")
        for n, tail, told in (
            ("get", get(target=b"/2"), (Told(target=b"/2"),)),
            ("post", post(b"Content-Length: 5", body=b"hello"), (_HELLO,)),
        )
    ],
    Case(
        "REQ-20",
        "trace-length",
        head(b"TRACE / HTTP/1.1", b"Host: app", _ITS_LENGTH, body=AFTER),
        (forwarded(Told(b"TRACE", body=AFTER)), refused(400, 405)),
    ),
    *[
        Case("REQ-21", f"too-large-{n}", send, (refused(413),), rig="small-body")
        for n, send in (
            ("length", post(_HUNDRED, body=AFTER * 100)),
            ("length-get", get(_HUNDRED, body=AFTER * 100)),
            ("expect", post(_HUNDRED, b"Expect: 100-continue", body=AFTER * 100)),
        )
    ],
    *[
        Case("REQ-21", f"no-app-{n}", send, (refused(503),), rig="dead")
        for n, send in (
            ("length", post(_HUNDRED, body=AFTER * 100)),
            ("get-length", get(_ITS_LENGTH, body=AFTER)),
            ("chunked", post(b"Transfer-Encoding: chunked", body=b"25\r\n" + AFTER + b"\r\n0\r\n\r\n")),
        )
    ],
    Case(
        "REQ-21",
        "own-listener",
        head(b"POST http://@INBOUND@/ HTTP/1.1", b"Host: @INBOUND@", _ITS_LENGTH, body=AFTER),
        (refused(403),),
        port="outbound",
    ),
    Case("REQ-21", "no-route", post(_ITS_LENGTH, body=AFTER), (refused(400, 403, 404),), port="outbound"),
    Case("REQ-21", "bad-host", head(b"POST / HTTP/1.1", b"Host: a b", _ITS_LENGTH, body=AFTER), (_NOT,)),
    *[
        Case("REQ-24", n, get(*lines), (forwarded(Told(absent=(b"upgrade", b"http2-settings", b"connection"))),))
        for n, lines in (
            ("h2c", (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")),
            ("h2c-no-connection", (b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")),
            (
                "h2c-case",
                (b"cONNECTION: uPGRADE, hTTP2-sETTINGS", b"uPGRADE: H2C", b"hTTP2-sETTINGS: AAMAAABkAAQAAP__"),
            ),
            ("h2", (b"Connection: Upgrade", b"Upgrade: h2")),
            ("settings-only", (b"HTTP2-Settings: AAMAAABkAAQAAP__",)),
        )
    ],
    Case(
        "REQ-24",
        "h2c-list",
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c, foo", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
        (
            forwarded(Told(fields=((b"upgrade", b"foo"),), absent=(b"http2-settings",))),
            forwarded(Told(absent=(b"upgrade", b"http2-settings", b"connection"))),
        ),
    ),
    Case(
        "REQ-24",
        "h2c-post",
        post(
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABkAAQAAP__",
            b"Content-Length: 5",
            body=b"hello",
        ),
        (forwarded(Told(b"POST", body=b"hello", absent=(b"upgrade", b"http2-settings", b"connection"))),),
    ),
]
