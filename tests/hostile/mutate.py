"""Bytes made from the cases' bytes: mutated, spliced, doubled; the same seed and number give the same bytes.

Pure. ``input_of(seed, index)`` is one fuzz input, so that any failure can be made again from two numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tests.hostile.case import get, post

_NUMBERS = [
    b"0",
    b"1",
    b"-1",
    b"+5",
    b"5",
    b"6",
    b"00",
    b"0x5",
    b"ffffffffffffffff",
    b"10000000000000000",
    b"99999999999999999999",
]
_SPACES = [b" ", b"\t", b"\r\n ", b"\x0b", b"\x0c", b"\xa0", b"\x85", b"", b"\x00", b"  "]
_ENDS = [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r\n", b"", b"\r\n ", b"\x0b\r\n", b"\n\n"]
_WORDS = [
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Host: evil\r\n",
    b"Connection: close\r\n",
    b"TE: trailers\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: websocket\r\nConnection: upgrade\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"X-Forwarded-Client-Cert: x\r\n",
    b"Connection: host, content-length\r\n",
    b" HTTP/1.0\r\n",
    b"HTTP/1.1",
    b"chunked",
    b"x_envoy_internal: 1\r\n",
]

_GOOD = [
    get(),
    get(b"X: y"),
    post(b"Content-Length: 5", body=b"hello"),
    get() + get(),
    get(b"Connection: close"),
    post(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n") + get(target=b"/2"),
    post(
        b"Transfer-Encoding: chunked",
        b"TE: trailers",
        b"Connection: te",
        body=b"5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    ),
    post(b"Content-Length: 5", b"Expect: 100-continue", body=b"hello"),
    b"GET / HTTP/1.0\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: app\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: app\r\n\r\n",
    b"PUT /a%2fb;c=d?e=f HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 1\r\n\r\nx",
]

Mutation = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def _flip(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _insert(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    data[at:at] = bytes([rng.randrange(256)]) * rng.choice((1, 1, 1, 2, 40))


def _insert_word(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = rng.choice([*_line_starts(data), rng.randint(0, len(data))])
    data[at:at] = rng.choice(_WORDS)


def _delete(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    del data[at : at + rng.choice((1, 1, 2, 8))]


def _cut(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[rng.randint(0, len(data)) :]


def _splice(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = rng.choice(seeds)
    data[rng.randint(0, len(data)) :] = other[rng.randint(0, len(other)) :]


def _append(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    data += rng.choice(seeds)


def _double_line(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    starts = _line_starts(data)
    at = rng.choice(starts)
    end = data.find(b"\r\n", at)
    if end >= 0:
        line = data[at : end + 2]
        where = rng.choice(starts)
        data[where:where] = line


def _line_end(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    _swap(rng, data, b"\r\n", rng.choice(_ENDS))


def _space(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    _swap(rng, data, rng.choice((b" ", b":", b": ")), rng.choice(_SPACES))


def _number(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    digits = [index for index, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if digits:
        at = rng.choice(digits)
        data[at : at + 1] = rng.choice(_NUMBERS)


def _case(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        at = rng.randrange(len(data))
        data[at : at + 12] = data[at : at + 12].swapcase()


_MUTATIONS: tuple[Mutation, ...] = (
    _flip,
    _insert,
    _insert_word,
    _delete,
    _cut,
    _splice,
    _append,
    _double_line,
    _line_end,
    _space,
    _number,
    _case,
)


def seeds_from(cases: Sequence[bytes]) -> list[bytes]:
    """The inputs to start from: the cases' bytes up to 4 KiB, and good requests as often again, so that most mutants
    come past the first line."""
    small = [data for data in cases if len(data) <= 4096]
    return small + _GOOD * max(1, len(small) // len(_GOOD))


def input_of(seed: int, index: int, seeds: Sequence[bytes]) -> bytes:
    """The fuzz input of that number."""
    rng = random.Random(f"{seed}:{index}")
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        rng.choice(_MUTATIONS)(rng, data, seeds)
    return bytes(data)


def _line_starts(data: bytearray) -> list[int]:
    starts = [0]
    at = data.find(b"\r\n")
    while at >= 0:
        starts.append(at + 2)
        at = data.find(b"\r\n", at + 2)
    return starts


def _swap(rng: random.Random, data: bytearray, old: bytes, new: bytes) -> None:
    places = []
    at = data.find(old)
    while at >= 0:
        places.append(at)
        at = data.find(old, at + 1)
    if places:
        at = rng.choice(places)
        data[at : at + len(old)] = new
