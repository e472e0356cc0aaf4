"""HDR: which fields an unauthenticated client may have the app believe, and which end at this hop.

The client of these cases is 127.0.0.1, without an identity, and in no list of trusted proxies.
"""

from __future__ import annotations

from tests.hostile.case import Case, Forwarded, Told, chunked, forwarded, get, refused

_MESH = [
    b"X-Forwarded-Client-Cert",
    b"X-Source-Principal",
    b"X-Source-Ip",
    b"X-Source-Anything",
    b"X-Envoy-Internal",
    b"X-Envoy-Original-Path",
    b"X-Envoy-External-Address",
    b"X-Envoy-Upstream-Rq-Timeout-Ms",
    b"X-Envoy-Attempt-Count",
    b"X-Envoy-Expected-Rq-Timeout-Ms",
    b"X-Envoy-Max-Retries",
    b"X-Envoy-Peer-Metadata",
    b"L5d-Client-Id",
    b"L5d-Dst-Override",
    b"L5d-Anything",
    b"X-Envoy-Decorator-Operation",
]
_HOP = [
    (b"Keep-Alive: timeout=5", b"keep-alive"),
    (b"Proxy-Connection: keep-alive", b"proxy-connection"),
    (b"TE: gzip", b"te"),
    (b"TE: trailers, gzip", None),
    (b"TE: deflate;q=0.5", b"te"),
    (b"Trailer: X-Sum", b"trailer"),
    (b"Upgrade: foo", b"upgrade"),
    (b"Connection: keep-alive, X-Private\r\nX-Private: 1", b"x-private"),
    (b"X-Private: 1\r\nConnection: x-private", b"x-private"),
    (b"Connection: close", b"x-none"),
    (b"Connection: , ,X-Private,\r\nX-Private: 1", b"x-private"),
    (b"Connection: X-A\r\nConnection: X-B\r\nX-A: 1", b"x-a"),
    (b"KEEP-ALIVE: 1", b"keep-alive"),
    (b"pROXY-cONNECTION: close", b"proxy-connection"),
]


def _gone(*lines: bytes, absent: tuple[bytes, ...]) -> tuple[bytes, Forwarded]:
    return get(*lines), forwarded(Told(absent=absent))


def _nominated(name: bytes) -> Case:
    """``Connection: NAME`` must not take our own value of that field away: either kept with one value of ours, or 400."""
    want = {b"x-forwarded-for": b"127.0.0.1", b"x-forwarded-proto": b"http"}.get(name.lower())
    fields = ((name.lower(), want),) if want else ()
    return Case(
        "HDR-3",
        name.decode().lower(),
        get(b"Connection: " + name, name + b": sent"),
        (forwarded(Told(fields=fields)), refused(400)),
    )


CASES: list[Case] = [
    *[Case("HDR-1", n.decode().lower(), get(n + b": spoofed"), (forwarded(Told(absent=(n.lower(),))),)) for n in _MESH],
    Case(
        "HDR-1",
        "all-at-once",
        get(*(n + b": spoofed" for n in _MESH)),
        (forwarded(Told(absent=tuple(n.lower() for n in _MESH))),),
    ),
    Case(
        "HDR-1",
        "twice",
        get(b"X-Forwarded-Client-Cert: a", b"X-Any: y", b"X-Forwarded-Client-Cert: b"),
        (forwarded(Told(absent=(b"x-forwarded-client-cert",), fields=((b"x-any", b"y"),))),),
    ),
    *[
        Case(
            "HDR-2",
            f"underscores-{n.decode().lower()}",
            get(n.replace(b"-", b"_") + b": spoofed"),
            (forwarded(Told(absent=(n.lower(), n.lower().replace(b"-", b"_")))), refused(400)),
        )
        for n in _MESH
    ],
    *[
        Case(
            "HDR-2",
            f"mixed-{n.decode().lower()}",
            get(n.swapcase() + b": spoofed"),
            (forwarded(Told(absent=(n.lower(),))),),
        )
        for n in _MESH
    ],
    *[
        Case(
            "HDR-2",
            f"one-underscore-{n.decode().lower()}",
            get(n.replace(b"-", b"_", 1) + b": spoofed"),
            (forwarded(Told(absent=(n.lower(), n.lower().replace(b"-", b"_", 1)))), refused(400)),
        )
        for n in _MESH
    ],
    *[
        Case(
            "HDR-2",
            f"trailer-{n.decode().lower()}",
            chunked(b"5\r\nhello\r\n0\r\n" + n + b": spoofed\r\n\r\n", b"TE: trailers", b"Connection: te"),
            (forwarded(Told(b"POST", body=b"hello", trailers=(), absent=(n.lower(),))), refused(400, partial=True)),
        )
        for n in _MESH
    ],
    *[
        _nominated(n)
        for n in (b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Request-Id", b"x-forwarded-client-cert", b"Forwarded")
    ],
    *[
        Case(
            "HDR-3",
            f"framing-{n.decode().lower()}",
            get(b"Connection: " + n, n + b": " + v, body=body),
            (forwarded(Told(body=b"hello" if body else b"")), refused(400)),
        )
        for n, v, body in (
            (b"Content-Length", b"5", b"hello"),
            (b"Transfer-Encoding", b"chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        )
    ],
    Case("HDR-3", "host", get(b"Connection: Host"), (forwarded(Told(host=b"app")), refused(400))),
    Case(
        "HDR-3",
        "authorization",
        get(b"Connection: Authorization", b"Authorization: Basic x"),
        (forwarded(Told()), refused(400)),
    ),
    *[
        Case("HDR-4", line.split(b"\r\n")[0].decode().lower().replace(" ", ""), *_pair)
        for line, name in _HOP
        for _pair in [(get(line), (forwarded(Told(absent=(name,) if name else ())),))]
    ],
    *[
        Case("HDR-5", n, get(*lines), (forwarded(Told(fields=fields, absent=absent)),))
        for n, lines, fields, absent in (
            ("xff-replaced", (b"X-Forwarded-For: 1.2.3.4",), ((b"x-forwarded-for", b"127.0.0.1"),), ()),
            ("xff-made", (), ((b"x-forwarded-for", b"127.0.0.1"),), ()),
            ("xff-private", (b"X-Forwarded-For: 10.0.0.1, 127.0.0.1",), ((b"x-forwarded-for", b"127.0.0.1"),), ()),
            (
                "xff-two",
                (b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-For: 5.6.7.8"),
                ((b"x-forwarded-for", b"127.0.0.1"),),
                (),
            ),
            ("xff-case", (b"x-FORWARDED-for: 1.2.3.4",), ((b"x-forwarded-for", b"127.0.0.1"),), ()),
            ("proto-replaced", (b"X-Forwarded-Proto: https",), ((b"x-forwarded-proto", b"http"),), ()),
            (
                "proto-two",
                (b"X-Forwarded-Proto: https", b"X-Forwarded-Proto: x"),
                ((b"x-forwarded-proto", b"http"),),
                (),
            ),
        )
    ],
    *[
        Case("HDR-5", n, get(line), (forwarded(Told(absent=absent)), refused(400)))
        for n, line, absent in (
            ("xff-twin", b"X_Forwarded_For: 1.2.3.4", (b"x_forwarded_for",)),
            ("proto-twin", b"X_Forwarded_Proto: https", (b"x_forwarded_proto",)),
        )
    ],
    *[
        Case("HDR-6", n, send, expect)
        for n, send, expect in (
            ("ua-quote", get(b'User-Agent: a"b\\c'), (forwarded(Told(fields=((b"user-agent", b'a"b\\c'),))),)),
            ("ua-crlf", get(b"User-Agent: a\r\nX: b"), (forwarded(),)),
            ("ua-high", get(b"User-Agent: \xff\xfe\x80"), (forwarded(), refused(400))),
            ("ua-utf8", get("User-Agent: ä\u2028".encode()), (forwarded(), refused(400))),
            ("ua-json", get(b'User-Agent: "},{"flag":"x'), (forwarded(),)),
            ("ua-lf", b"GET / HTTP/1.1\r\nHost: app\r\nUser-Agent: a\nb\r\n\r\n", (refused(400),)),
            ("path-quote", get(target=b'/a"b'), (forwarded(Told(target=b'/a"b')), refused(400))),
            ("path-backslash", get(target=b"/a\\b"), (forwarded(Told(target=b"/a\\b")), refused(400))),
            ("path-encoded-crlf", get(target=b"/a%0d%0ab"), (refused(400),)),
            ("path-encoded-nul", get(target=b"/a%00b"), (refused(400),)),
            ("path-lone-escape", get(target=b"/a%u0022b"), (forwarded(Told(target=b"/a%u0022b")), refused(400))),
            ("request-id-quote", get(b'X-Request-Id: a"b'), (forwarded(), refused(400))),
            ("request-id-long", get(b"X-Request-Id: " + b"a" * 8000), (forwarded(), refused(400))),
            ("host-quote", b'GET / HTTP/1.1\r\nHost: a"b\r\n\r\n', (refused(400),)),
            ("referer-esc", get(b"Referer: \x1b[31m"), (refused(400),)),
        )
    ],
]
