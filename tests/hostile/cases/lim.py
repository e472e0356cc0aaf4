"""LIM-1, LIM-2: how large a head may be; the same verdict in one write and in many. The rest of LIM takes time or many
connections, and lives in test_slow.py and test_overload.py."""

from __future__ import annotations

from tests.hostile.case import Case, Told, forwarded, get, head, post, refused

_LARGE = refused(431)


def _fields(count: int) -> list[bytes]:
    """That many field lines, the Host included."""
    return [b"Host: app", *(b"X-%d: y" % index for index in range(count - 1))]


def _of_size(size: int) -> bytes:
    """A head of that many bytes, in values below 8 KiB each."""
    start = b"GET / HTTP/1.1\r\nHost: app\r\n"
    room = size - len(start) - 2
    lines = b""
    while room:
        take = room if room <= 4000 else 2000
        lines += b"X-A: " + b"a" * (take - 7) + b"\r\n"
        room -= take
    return start + lines + b"\r\n"


CASES: list[Case] = [
    Case("LIM-1", "33-KiB", _of_size(33 * 1024), (_LARGE,)),
    Case("LIM-1", "one-value", get(b"X: " + b"a" * 33 * 1024), (_LARGE,), slow=True),
    Case("LIM-1", "no-end", b"GET / HTTP/1.1\r\nHost: app\r\nX: " + b"a" * 33 * 1024, (_LARGE,), slow=True),
    Case("LIM-1", "target", get(target=b"/" + b"a" * 33 * 1024), (refused(431, 414),), slow=True),
    Case("LIM-1", "60-KiB", _of_size(60 * 1024), (_LARGE,), slow=True),
    Case("LIM-1", "1-MiB", _of_size(1024 * 1024), (_LARGE,), slow=True),
    Case(
        "LIM-1",
        "method",
        b"G" * 33 * 1024 + b" / HTTP/1.1\r\nHost: app\r\n\r\n",
        (refused(431, 414, 400),),
        finish=True,
        slow=True,
    ),
    Case("LIM-1", "name", get(b"X" * 33 * 1024 + b": y"), (_LARGE,), slow=True),
    Case("LIM-1", "spaces", get(b"X: " + b" " * 33 * 1024), (_LARGE, refused(400)), slow=True),
    Case("LIM-1", "31-KiB-is-well", _of_size(31 * 1024), (forwarded(Told(fields=())),)),
    Case("LIM-1", "second-head", get() + _of_size(33 * 1024), (refused(431, after=1),), slow=True),
    Case(
        "LIM-1", "with-body", post(b"Content-Length: 5", b"X: " + b"a" * 33 * 1024, body=b"hello"), (_LARGE,), slow=True
    ),
    Case("LIM-2", "100-is-well", head(b"GET / HTTP/1.1", *_fields(100)), (forwarded(),)),
    Case("LIM-2", "101", head(b"GET / HTTP/1.1", *_fields(101)), (_LARGE,)),
    Case("LIM-2", "1000", head(b"GET / HTTP/1.1", *_fields(1000)), (_LARGE,), slow=True),
    Case("LIM-2", "10000-tiny", head(b"GET / HTTP/1.1", b"Host: app", *[b"a:"] * 10000), (_LARGE,), slow=True),
    Case(
        "LIM-2", "10000-cookies", head(b"GET / HTTP/1.1", b"Host: app", *[b"Cookie: a"] * 10000), (_LARGE,), slow=True
    ),
    Case("LIM-2", "second-101", get() + head(b"GET / HTTP/1.1", *_fields(101)), (refused(431, after=1),)),
]
