"""Records of a peer's, sealed by another hand, fed to an Unsealer as a socket would, and what was heard of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.tls.record_reader import BULK_BYTES, SLACK_BYTES, RecordReader
from sidecar.tls.records import SEALED_BYTES, SUITES, Keys
from tests.support.sealing import HANDSHAKE, UPDATE, UPDATE_ASKING, Hand

SUITE = "TLS_AES_128_GCM_SHA256"
SECRET = bytes(range(32))
FULL = bytes(range(256)) * 64

Part = tuple[int, bytes] | tuple[int, bytes, int] | bytes
"""A record's type, content and padding; or bytes as they are."""


@dataclass(frozen=True, slots=True)
class Heard:
    """``end`` and ``alert`` as an Unsealer has them; ``asked`` counts reads that wanted new keys of ours."""

    data: bytes
    end: str | None
    alert: int = 0
    asked: bool = False


def wire_of(parts: Sequence[Part]) -> bytes:
    """As a peer seals it, whose keys follow its own KeyUpdates."""
    hand = Hand(SUITE, SECRET)
    said = b""
    for part in parts:
        if isinstance(part, bytes):
            said += part
            continue
        said += hand.seal(*part)
        if part[0] == HANDSHAKE and part[1].endswith((UPDATE, UPDATE_ASKING)):
            hand.update()
    return said


def hear(pieces: Sequence[bytes], *, tickets: bool = True) -> Heard:
    """Feeds them as a socket would, as bytes and as views of a buffer, and goes on after an end, when nothing may come
    any more."""
    heard = _hear(pieces, tickets, lambda data: data)
    assert _hear(pieces, tickets, lambda data: memoryview(bytearray(data))) == heard
    return heard


def _hear(pieces: Sequence[bytes], tickets: bool, form: Callable[[bytes], bytes | memoryview]) -> Heard:
    unsealer = RecordReader(Keys(SUITES[SUITE], SECRET), tickets=tickets)
    data, asked, ended = b"", False, False
    for piece in pieces:
        while piece:
            held = len(unsealer.held)
            assert held < 5 + SEALED_BYTES
            now, piece = piece[: BULK_BYTES + SLACK_BYTES - held], piece[BULK_BYTES + SLACK_BYTES - held :]
            opened = unsealer.open(form(unsealer.held + now))
            assert not (ended and opened)
            assert ended or unsealer.news or (unsealer.end is None and not unsealer.asked)
            data += opened
            asked |= unsealer.asked
            ended = unsealer.end is not None
            unsealer.news = unsealer.asked = False
    assert not (ended and unsealer.held)
    return Heard(data, unsealer.end, unsealer.alert, asked)
