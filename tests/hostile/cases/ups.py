"""UPS: what a hostile or broken app may answer, and what its client is then told.

Each case is the bytes of the answer to a request for ``/script/NAME``, and what the app does then. A 502, or where the
head had gone out already a reply that is visibly cut; and always: that connection to the app is not used again.
"""

from __future__ import annotations

from dataclasses import dataclass

_OK = b"HTTP/1.1 200 OK\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """``statuses`` are what the client may get; ``cut``: a truncated 200 is as good; ``body`` what a whole reply must
    carry; ``reused``: the connection is good for another request. ``then``: keep, close or reset."""

    id: str
    name: str
    send: bytes
    statuses: tuple[int, ...] = (502,)
    then: str = "keep"
    cut: bool = False
    body: bytes | None = None
    reused: bool = False
    request: bytes = b"GET /script/@ HTTP/1.1\r\nHost: app\r\n\r\n"

    def __str__(self) -> str:
        return f"{self.id}-{self.name}"


_HEAD = b"HEAD /script/@ HTTP/1.1\r\nHost: app\r\n\r\n"
_UPGRADE = b"GET /script/@ HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"

_BROKEN = [
    ("both", _OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("both-te-first", _OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("two-lengths", _OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok"),
    ("list-lengths", _OK + b"Content-Length: 2, 3\r\n\r\nok"),
    ("length-plus", _OK + b"Content-Length: +2\r\n\r\nok"),
    ("length-minus", _OK + b"Content-Length: -2\r\n\r\nok"),
    ("length-word", _OK + b"Content-Length: two\r\n\r\nok"),
    ("length-empty", _OK + b"Content-Length:\r\n\r\nok"),
    ("length-huge", _OK + b"Content-Length: " + b"9" * 40 + b"\r\n\r\nok"),
    ("te-1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("te-unknown", _OK + b"Transfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("te-identity", _OK + b"Transfer-Encoding: identity\r\n\r\nok"),
    ("te-list", _OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("te-twice", _OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("te-space-colon", _OK + b"Transfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("fold", _OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nok"),
    ("fold-te", _OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("bare-lf", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    ("bare-lf-field", _OK + b"X: y\nContent-Length: 2\r\n\r\nok"),
    ("bare-cr", _OK + b"X: a\rb\r\nContent-Length: 2\r\n\r\nok"),
    ("nul", _OK + b"X: a\x00b\r\nContent-Length: 2\r\n\r\nok"),
    ("control", _OK + b"X: a\x01b\r\nContent-Length: 2\r\n\r\nok"),
    ("del", _OK + b"X: a\x7fb\r\nContent-Length: 2\r\n\r\nok"),
    ("no-colon", _OK + b"X\r\nContent-Length: 2\r\n\r\nok"),
    ("bad-name", _OK + b"X Y: z\r\nContent-Length: 2\r\n\r\nok"),
    ("empty-name", _OK + b": z\r\nContent-Length: 2\r\n\r\nok"),
    ("status-2-digits", b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("status-4-digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("status-word", b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok"),
    ("status-0", b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("status-plus", b"HTTP/1.1 +20 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("version-2", b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("version-9", b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("version-0.9", b"hello, world\r\n"),
    ("lower", b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("tab-line", b"HTTP/1.1\t200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("control-reason", b"HTTP/1.1 200 O\x01K\r\nContent-Length: 2\r\n\r\nok"),
    ("request", b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"),
    ("preface", b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    ("large", _OK + b"X: " + b"a" * 70000 + b"\r\nContent-Length: 2\r\n\r\nok"),
    ("many-fields", _OK + b"a:\r\n" * 10000 + b"Content-Length: 2\r\n\r\nok"),
    ("garbage", bytes(range(128, 256))),
]
_BAD_CHUNKS = [
    b"0x2\r\nok\r\n0\r\n\r\n",
    b"+2\r\nok\r\n0\r\n\r\n",
    b"-2\r\nok\r\n0\r\n\r\n",
    b"Z\r\nok\r\n0\r\n\r\n",
    b"\r\nok\r\n0\r\n\r\n",
    b"2 \r\nok\r\n0\r\n\r\n",
    b"2\nok\r\n0\r\n\r\n",
    b"2;a\rb\r\nok\r\n0\r\n\r\n",
    b"00000000000000000002\r\nok\r\n0\r\n\r\n",
    b"2\r\nokXX0\r\n\r\n",
    b"2\r\nok0\r\n\r\n",
    b"2\r\nok\r\n0\r\nX: y\nZ: z\r\n\r\n",
    b"2\r\nok\r\n0\r\n X: y\r\n\r\n",
]

ANSWERS: list[Answer] = [
    *[Answer("UPS-1", name, data) for name, data in _BROKEN],
    *[Answer("UPS-1", f"chunk-{data.hex()[:24]}", _CHUNKED + data, (502, 200), cut=True) for data in _BAD_CHUNKS],
    Answer("UPS-1", "chunk-fin", _CHUNKED + b"2\r\nok\r\n", (502, 200), "close", cut=True),
    Answer("UPS-1", "length-fin", _OK + b"Content-Length: 10\r\n\r\nok", (502, 200), "close", cut=True),
    # 503: a reset also destroys what the kernel had taken and the proxy had not read yet, the head with it.
    Answer("UPS-1", "length-reset", _OK + b"Content-Length: 10\r\n\r\nok", (502, 503, 200), "reset", cut=True),
    Answer("UPS-1", "head-fin", _OK + b"Content-Le", (502, 503), "close"),
    Answer("UPS-1", "good", _OK + b"Content-Length: 2\r\n\r\nok", (200,), body=b"ok", reused=True),
    Answer("UPS-1", "good-chunked", _CHUNKED + b"2\r\nok\r\n0\r\n\r\n", (200,), body=b"ok", reused=True),
    Answer("UPS-1", "good-until-close", _OK + b"\r\nok", (200,), "close", body=b"ok"),
    Answer(
        "UPS-1", "good-no-reason", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", (200, 502), body=b"ok", reused=True
    ),
    Answer("UPS-1", "good-1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", (200,), "close", body=b"ok"),
    Answer("UPS-2", "extra", _OK + b"Content-Length: 2\r\n\r\nokEXTRA", (200,), body=b"ok"),
    Answer("UPS-2", "extra-reply", (_OK + b"Content-Length: 2\r\n\r\nok") * 2, (200,), body=b"ok"),
    Answer("UPS-2", "extra-chunked", _CHUNKED + b"2\r\nok\r\n0\r\n\r\nEXTRA", (200,), body=b"ok"),
    Answer("UPS-2", "extra-crlf", _OK + b"Content-Length: 2\r\n\r\nok\r\n", (200,), body=b"ok"),
    Answer(
        "UPS-2",
        "extra-empty",
        _OK + b"Content-Length: 0\r\n\r\n" + _OK + b"Content-Length: 6\r\n\r\npoison",
        (200,),
        body=b"",
    ),
    Answer(
        "UPS-3",
        "101-unasked",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw",
    ),
    Answer("UPS-3", "101-bare", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    Answer(
        "UPS-3",
        "101-other",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\nraw",
        request=_UPGRADE,
    ),
    Answer("UPS-3", "101-no-upgrade", b"HTTP/1.1 101 Switching Protocols\r\n\r\nraw", request=_UPGRADE),
    Answer(
        "UPS-3",
        "200-to-upgrade",
        _OK + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nok",
        (200,),
        body=b"ok",
        request=_UPGRADE,
        reused=True,
    ),
    Answer("UPS-3", "103-1000", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000 + _OK + b"Content-Length: 2\r\n\r\nok"),
    Answer("UPS-3", "103-11", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 11 + _OK + b"Content-Length: 2\r\n\r\nok"),
    Answer(
        "UPS-3",
        "103-3",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3 + _OK + b"Content-Length: 2\r\n\r\nok",
        (200,),
        body=b"ok",
        reused=True,
    ),
    Answer(
        "UPS-3",
        "1xx-with-length",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\nok" + _OK + b"Content-Length: 2\r\n\r\nok",
    ),
    Answer("UPS-4", "head-body", _OK + b"Content-Length: 6\r\n\r\npoison", (200,), body=b"", request=_HEAD),
    Answer("UPS-4", "head-chunked", _CHUNKED + b"2\r\nok\r\n0\r\n\r\n", (200,), body=b"", request=_HEAD),
    Answer("UPS-4", "204-body", b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison", (204, 502), body=b""),
    Answer("UPS-4", "204-body-bare", b"HTTP/1.1 204 No Content\r\n\r\npoison", (204, 502), body=b""),
    Answer(
        "UPS-4",
        "204-chunked",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        (204, 502),
        body=b"",
    ),
    Answer("UPS-4", "304-body", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison", (304,), body=b""),
    Answer("UPS-4", "304-body-bare", b"HTTP/1.1 304 Not Modified\r\n\r\npoison", (304,), body=b""),
    Answer("UPS-4", "good-head", _OK + b"Content-Length: 6\r\n\r\n", (200,), body=b"", request=_HEAD, reused=True),
    Answer("UPS-4", "good-204", b"HTTP/1.1 204 No Content\r\n\r\n", (204,), body=b"", reused=True),
    Answer("UPS-8", "reset", b"", (502, 503), "reset"),
    Answer("UPS-8", "fin", b"", (502, 503), "close"),
    Answer("UPS-8", "tls-alert", b"\x15\x03\x03\x00\x02\x02\x28", (502, 503), "close"),
    Answer("UPS-8", "half-head", b"HTTP/1.1 2", (502, 503), "close"),
    Answer("UPS-8", "half-head-reset", b"HTTP/1.1 2", (502, 503), "reset"),
    Answer("H11-2", "both", _OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    Answer("H11-15", "103-1000", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000 + _OK + b"Content-Length: 2\r\n\r\nok"),
    Answer("H11-16", "extra", (_OK + b"Content-Length: 2\r\n\r\nok") * 2, (200,), body=b"ok"),
]
