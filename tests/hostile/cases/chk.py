"""CHK: bodies in the chunked coding. The head may have gone to the app before the bad chunk came, so what must hold is
that the app never sees such a request as complete, and that none of its bytes become another one."""

from __future__ import annotations

from tests.hostile.case import AFTER, Case, Told, chunked, each, forwarded, get, refused

_BAD = refused(400, partial=True)
_CUT = refused(400, partial=True, silent=True)
_HELLO = Told(b"POST", body=b"hello")
_END = b"0\r\n\r\n"

_SIZES = [
    b"0x1",
    b"+1",
    b"-1",
    b"1_0",
    b" 1",
    b"",
    b"Z",
    b"1Z",
    b"0x",
    b"1 ",
    b"1\t",
    b"\t1",
    b"1.0",
    b"1e1h",
    b"--1",
    b"+0",
    b"-0",
    b"0_0",
    b"\xb2",
    b"1\xa0",
    b"\xd9\xa1",
    b"(1)",
    b"'1'",
    b'"1"',
    b"1,",
    b"1=1",
    b"1\x00",
    b"\x001",
    b"1\x0b",
    b"1 1",
    b"h",
    b"5 ;a",
    b"5\t;a",
    b" ",
    b"0X5",
    b"5h",
    b"#5",
    b"$5",
    b"5\x7f",
    b"5\xff",
]
_LONG = [
    b"1" * 17,
    b"0" * 16 + b"5",
    b"F" * 17,
    b"f" * 20,
    b"1" + b"0" * 100,
    b"0" * 1000 + b"5",
    b"ffffffffffffffffff",
]
_EXTENSIONS = [
    b";a\rb",
    b";a\x00b",
    b";",
    b";\r",
    b";a=b\rc",
    b"; ",
    b";=",
    b";=b",
    b";a\x01",
    b";a\x7f",
    b";a=\x00",
    b";;",
    b";a;",
    b';a="b\r"',
    b';a="\n"',
    b";a b",
    b";\x0ba",
    b';a="b',
]


def _sized(size: bytes) -> bytes:
    return chunked(size + b"\r\nhello\r\n" + _END + AFTER)


_TRAILERS = [
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Host: evil",
    b"Authorization: Basic x",
    b"Connection: x-a",
    b"X-Forwarded-Client-Cert: By=x",
    b"x_forwarded_client_cert: By=x",
    b"X-Forwarded-For: 1.2.3.4",
    b"Cookie: a=b",
    b"X-Envoy-Internal: true",
    b"L5d-Client-Id: x",
    b"Upgrade: h2c",
    b"TE: trailers",
    b"Trailer: x",
    b"Expect: 100-continue",
    b"content_length: 5",
    b"Transfer_Encoding: chunked",
    b"X-Source-Principal: x",
    b"Forwarded: for=x",
]
_BAD_TRAILERS = [
    b"X: a\nY: b",
    b"X : a",
    b" X: a",
    b"X: a\r\n b",
    b"no-colon",
    b": a",
    b"X: a\x00",
    b"X: a\x01",
    b"X\xff: a",
    b"X: a\rb",
    b"\tX: a",
    b"X: \x7f",
    b"\n",
    b"\r",
    b"GET / HTTP/1.1",
]


def _named(data: bytes) -> str:
    return data.hex()[:48] or "empty"


CASES: list[Case] = [
    *each("CHK-1", "size-", [(_named(v), _sized(v)) for v in _SIZES], _BAD),
    *each(
        "CHK-1",
        "second-size-",
        [(_named(v), chunked(b"1\r\nx\r\n" + v + b"\r\nhello\r\n" + _END + AFTER)) for v in _SIZES[:12]],
        _BAD,
    ),
    Case("CHK-1", "good", chunked(b"5\r\nhello\r\n" + _END), (forwarded(_HELLO),)),
    Case("CHK-1", "good-upper", chunked(b"A\r\nhellohello\r\n" + _END), (forwarded(Told(b"POST", body=b"hello" * 2)),)),
    Case("CHK-1", "good-leading-zeros", chunked(b"0005\r\nhello\r\n000\r\n\r\n"), (forwarded(_HELLO), _BAD)),
    *each(
        "CHK-2",
        "digits-",
        [(str(len(v)) + "-" + _named(v)[:8], _sized(v)) for v in _LONG],
        refused(400, 413, partial=True),
    ),
    *[
        Case("CHK-2", f"over-the-body-limit-{n}", chunked(body), (refused(413, 400, partial=True),), rig="small-body")
        for n, body in (
            ("one", b"1001\r\n" + b"x" * 0x1001 + b"\r\n" + _END),
            ("said", b"ffffffff\r\nhello"),
            ("many", b"100\r\n" + b"x" * 0x100 + b"\r\n" + (b"100\r\n" + b"y" * 0x100 + b"\r\n") * 8 + _END),
        )
    ],
    *each("CHK-3", "ext-", [(_named(v), _sized(b"5" + v)) for v in _EXTENSIONS], _BAD),
    *each(
        "CHK-3",
        "last-ext-",
        [(_named(v), chunked(b"5\r\nhello\r\n0" + v + b"\r\n\r\n" + AFTER)) for v in _EXTENSIONS[:8]],
        _BAD,
    ),
    *each(
        "CHK-3",
        "",
        [
            ("bare-lf-size", chunked(b"5\nhello\r\n" + _END + AFTER)),
            ("bare-lf-ext", chunked(b"5;a\nhello\r\n" + _END + AFTER)),
            ("bare-cr-size", chunked(b"5\rhello\r\n" + _END + AFTER)),
            ("cr-cr-lf", chunked(b"5\r\r\nhello\r\n" + _END + AFTER)),
            ("ext-hides-size", chunked(b"2;\nxx\r\n25\r\n" + _END + AFTER)),
            ("ext-64-KiB", chunked(b"5;" + b"a" * 65536 + b"\r\nhello\r\n" + _END)),
        ],
        _BAD,
    ),
    Case("CHK-3", "good-ext", chunked(b'5;a=b\r\nhello\r\n0;c="d"\r\n\r\n'), (forwarded(_HELLO), _BAD)),
    *each(
        "CHK-4",
        "spill-",
        [
            (_named(v), chunked(b"5\r\nhello" + v + _END + AFTER))
            for v in (
                b"",
                b"X",
                b"XX",
                b"\r",
                b"\n",
                b"\rX",
                b"X\n",
                b"\n\r",
                b"\n\n",
                b"\r\r\n",
                b"X\r\n",
                b"XX\r\n",
                b" \r\n",
                b"\x00\x00",
            )
        ],
        _BAD,
    ),
    *each(
        "CHK-4",
        "",
        [
            ("short-chunk", chunked(b"6\r\nhello\r\n" + _END + AFTER)),
            ("long-chunk", chunked(b"4\r\nhello\r\n" + _END + AFTER)),
            ("second", chunked(b"1\r\nx\r\n5\r\nhelloXX" + _END + AFTER)),
        ],
        _BAD,
    ),
    *each(
        "CHK-5",
        "",
        [
            ("zero-then-x", chunked(b"5\r\nhello\r\n0\r\nX" + AFTER)),
            ("zero-then-xx", chunked(b"5\r\nhello\r\n0\r\nXX\r\n\r\n")),
            ("lf-last", chunked(b"5\r\nhello\r\n0\n\n" + AFTER)),
            ("lf-last-2", chunked(b"5\r\nhello\r\n0\r\n\n" + AFTER)),
            ("lf-last-3", chunked(b"5\r\nhello\r\n0\n\r\n" + AFTER)),
            ("cr-last", chunked(b"5\r\nhello\r\n0\r\r\n" + AFTER)),
        ],
        _BAD,
    ),
    *[
        Case("CHK-5", f"fin-{n}", chunked(body), (_CUT,), finish=True)
        for n, body in (
            ("no-last", b"5\r\nhello\r\n"),
            ("after-zero", b"5\r\nhello\r\n0\r\n"),
            ("in-chunk", b"5\r\nhel"),
            ("in-size", b"5"),
            ("nothing", b""),
            ("after-zero-cr", b"5\r\nhello\r\n0\r\n\r"),
            ("in-trailer", b"0\r\nX: y\r\n"),
            ("after-data", b"5\r\nhello"),
            ("zero-only", b"5\r\nhello\r\n0"),
        )
    ],
    *[
        Case(
            "CHK-6",
            f"trailer-{t.split(b':')[0].decode().lower()}",
            chunked(b"5\r\nhello\r\n0\r\n" + t + b"\r\n\r\n") + get(target=b"/2"),
            (
                forwarded(
                    Told(b"POST", body=b"hello", trailers=(), absent=(b"authorization", b"cookie", b"expect")),
                    Told(target=b"/2"),
                ),
                _BAD,
            ),
        )
        for t in _TRAILERS
    ],
    *[
        Case(
            "CHK-6",
            f"te-trailer-{t.split(b':')[0].decode().lower()}",
            chunked(b"5\r\nhello\r\n0\r\n" + t + b"\r\n\r\n", b"TE: trailers", b"Connection: te", b"Trailer: X-Sum"),
            (
                forwarded(Told(b"POST", body=b"hello", trailers=(), absent=(b"authorization", b"cookie", b"expect"))),
                _BAD,
            ),
        )
        for t in _TRAILERS
    ],
    *each(
        "CHK-6",
        "bad-trailer-",
        [(_named(t), chunked(b"5\r\nhello\r\n0\r\n" + t + b"\r\n\r\n" + AFTER)) for t in _BAD_TRAILERS],
        _BAD,
    ),
    Case(
        "CHK-6",
        "trailers-40-KiB",
        chunked(b"5\r\nhello\r\n0\r\nX: " + b"a" * 40000 + b"\r\n\r\n"),
        (refused(400, 431, partial=True),),
        slow=True,
    ),
    Case(
        "CHK-6",
        "trailers-200",
        chunked(b"5\r\nhello\r\n0\r\n" + b"X: a\r\n" * 200 + b"\r\n"),
        (refused(400, 431, partial=True),),
    ),
    Case(
        "CHK-7", "length-fin", b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\nhello", (_CUT,), finish=True
    ),
    Case(
        "CHK-7", "length-fin-none", b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\n", (_CUT,), finish=True
    ),
    Case("CHK-7", "chunked-fin", chunked(b"a\r\nhello"), (_CUT,), finish=True),
]
