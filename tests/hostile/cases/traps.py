"""H11: the inputs that h11 takes and we must not, one id for each row of that table, in its order.

``ROWS`` keeps each row's words, with what must happen; the guards script takes the guard of each row out in turn and
asks which of these cases notices.
"""

from __future__ import annotations

from tests.hostile.case import AFTER, Case, Told, chunked, each, forwarded, get, head, post, refused

ROWS: dict[str, tuple[str, str]] = {
    "H11-1": ("Content-Length and Transfer-Encoding together, in a request", "400, close"),
    "H11-2": ("the same in a response", "502, drop the upstream connection"),
    "H11-3": ("Transfer-Encoding: chunked on HTTP/1.0", "400, close"),
    "H11-4": ("header or trailer lines ended by a bare LF", "400, close"),
    "H11-5": ("obs-fold, also of Transfer-Encoding", "400, close"),
    "H11-6": ("0x01-0x1f (but HTAB) and 0x7f in values", "400"),
    "H11-7": ("HTTP/9.9, HTTP/2.0, the HTTP/2 preface as a request", "505, switch to HTTP/2, or close"),
    "H11-8": ("Content-Length: 5, 5, equal duplicates, 005", "400"),
    "H11-9": ("chunk size of 20 hex digits", "400 above 16 digits"),
    "H11-10": ("space or tab after the chunk size, bare CR in a chunk extension", "400, close"),
    "H11-11": ("trailers named Content-Length, Host, ...", "drop or 400"),
    "H11-12": ("Host empty, or a b/@c?#", "400"),
    "H11-13": ("targets foo, /a#b, absolute form, CONNECT with a length", "checks of our own"),
    "H11-14": ("a 60 KB head or 10,000 fields in one read", "the same answer both ways"),
    "H11-15": ("1,000 interim 103 replies", "cap at 10, then 502"),
    "H11-16": ("bytes after the end of a response", "that connection is never reused"),
}

_NOT = refused(400)
_BAD = refused(400, partial=True)
_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
_TE = b"Transfer-Encoding: chunked"

CASES: list[Case] = [
    Case("H11-1", "both", post(b"Content-Length: 5", _TE, body=_CHUNKS + AFTER), (_NOT,)),
    Case("H11-3", "http-1.0", head(b"POST / HTTP/1.0", b"Host: app", _TE, body=_CHUNKS), (_NOT,)),
    Case("H11-4", "header", b"GET / HTTP/1.1\r\nHost: app\nX: y\r\n\r\n", (_NOT,)),
    Case("H11-4", "all-lines", b"GET / HTTP/1.1\nHost: app\n\n", (_NOT,)),
    Case("H11-4", "trailer", chunked(b"5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n"), (_BAD,)),
    Case("H11-4", "trailer-last", chunked(b"5\r\nhello\r\n0\r\nX: y\n\r\n"), (_BAD,)),
    Case("H11-5", "any", get(b"X: a\r\n b"), (_NOT,)),
    Case("H11-5", "te", post(b"Transfer-Encoding:\r\n chunked", body=_CHUNKS), (refused(400, 501),)),
    *each(
        "H11-6", "", [(f"{b:02x}", get(b"X: a" + bytes([b]) + b"b")) for b in (*range(1, 9), *range(14, 32), 127)], _NOT
    ),
    *each(
        "H11-7",
        "",
        [(v.decode(), head(b"GET / " + v, b"Host: app")) for v in (b"HTTP/9.9", b"HTTP/2.0")],
        refused(400, 505),
    ),
    Case(
        "H11-7",
        "preface",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        (refused(400, 505, silent=True),),
        finish=True,
    ),
    *each(
        "H11-8",
        "",
        [
            ("5-5", post(b"Content-Length: 5, 5", body=b"hello")),
            ("5-5-lines", post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello")),
            ("005", post(b"Content-Length: 005", body=b"hello")),
            ("00", post(b"Content-Length: 00")),
        ],
        _NOT,
    ),
    *each(
        "H11-9",
        "",
        [(str(n), chunked(b"5".rjust(n, b"0") + b"\r\nhello\r\n0\r\n\r\n")) for n in (17, 20, 21, 40)],
        _BAD,
    ),
    *each(
        "H11-10",
        "",
        [
            ("space", chunked(b"5 \r\nhello\r\n0\r\n\r\n")),
            ("tab", chunked(b"5\t\r\nhello\r\n0\r\n\r\n")),
            ("ext-cr", chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n")),
            ("last-space", chunked(b"5\r\nhello\r\n0 \r\n\r\n")),
        ],
        _BAD,
    ),
    *[
        Case(
            "H11-11",
            name.decode().lower(),
            chunked(b"5\r\nhello\r\n0\r\n" + name + b": 5\r\n\r\n", b"TE: trailers", b"Connection: te"),
            (forwarded(Told(b"POST", body=b"hello", trailers=())), _BAD),
        )
        for name in (b"Content-Length", b"Host", b"Transfer-Encoding", b"TE", b"Authorization", b"Connection")
    ],
    *each(
        "H11-12",
        "",
        [
            ("empty", head(b"GET / HTTP/1.1", b"Host:")),
            ("all", head(b"GET / HTTP/1.1", b"Host: a b/@c?#")),
            *((c.hex(), head(b"GET / HTTP/1.1", b"Host: a" + c + b"b")) for c in (b" ", b"/", b"@", b"?", b"#")),
        ],
        _NOT,
    ),
    *each("H11-13", "", [("foo", get(target=b"foo")), ("fragment", get(target=b"/a#b"))], _NOT),
    Case("H11-13", "absolute", get(target=b"http://other/x"), (forwarded(Told(target=b"/x", host=b"other")), _NOT)),
    Case(
        "H11-13",
        "connect-length",
        head(b"CONNECT @UPSTREAM@ HTTP/1.1", b"Host: @UPSTREAM@", b"Content-Length: 5", body=b"hello"),
        (refused(400, 405),),
        port="outbound",
    ),
    Case("H11-14", "60-KB", get(*[b"X: " + b"a" * 4000] * 15), (refused(431),), slow=True),
    Case("H11-14", "1000-fields", head(b"GET / HTTP/1.1", b"Host: app", *[b"a:"] * 1000), (refused(431),), slow=True),
    Case("H11-14", "10000-fields", head(b"GET / HTTP/1.1", b"Host: app", *[b"a:"] * 10000), (refused(431),), slow=True),
]
