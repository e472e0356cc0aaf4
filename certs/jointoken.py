"""The text of a token: what its holder shows, and what it tells the holder about whom to show it to. Pure.

Who uses it: the control plane makes them, a client takes them apart. Five parts with dots between them::

    sct1 . ID . SECRET . PINS . CONTROL

``ID`` is public and goes into logs. ``SECRET`` is 32 random bytes. ``PINS`` is the SHA-256 of the public key
(SubjectPublicKeyInfo) of the root that the control plane's chain ends in, or two of them one after the other while a
root is being replaced. ``CONTROL`` is the SPIFFE id that the control plane must prove. The last three are base64url
without padding. So a client that has nothing but the token knows whom to trust, before it has a bundle.

The version stands first, so that a token found in a log or a repository can be recognized (``sct1\\.``).
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Final

PREFIX: Final = "sct1"
SECRET_BYTES: Final = 32
PIN_BYTES: Final = 32
PINS: Final = 4  # at most: a root, the next one, and room
TOKEN_CHARS: Final = 4096  # an id has at most 2048 bytes, which are 2731 characters
_ID: Final = re.compile(r"[a-z0-9]{1,32}", re.ASCII)
_PART: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token taken apart. ``repr`` does not show the secret; ``str`` is the text that is to be kept secret."""

    id: str
    secret: bytes = field(repr=False)
    pins: tuple[bytes, ...]
    control_id: str

    def __str__(self) -> str:
        parts = (self.secret, b"".join(self.pins), self.control_id.encode())
        return ".".join([PREFIX, self.id, *map(_encode, parts)])


def parse(text: str) -> JoinToken:
    """The inverse of ``str``. ValueError with a clause that repeats nothing of the text."""
    parts = text.split(".")
    if len(text) > TOKEN_CHARS or len(parts) != 5 or parts[0] != PREFIX:
        raise ValueError("it is no token of this kind: sct1 and four parts with dots between them")
    if not _ID.fullmatch(parts[1]):
        raise ValueError("its id is not one")
    secret, pins, control_id = (_decode(part) for part in parts[2:])
    if len(secret) != SECRET_BYTES:
        raise ValueError("its secret has another length")
    if not pins or len(pins) % PIN_BYTES or len(pins) > PINS * PIN_BYTES:
        raise ValueError("its pins have another length")
    if not control_id.isascii():
        raise ValueError("its last part is not an identity")
    split = tuple(pins[at : at + PIN_BYTES] for at in range(0, len(pins), PIN_BYTES))
    return JoinToken(parts[1], secret, split, control_id.decode("ascii"))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(part: str) -> bytes:
    if not _PART.fullmatch(part) or len(part) % 4 == 1:
        raise ValueError("a part of it is not base64url")
    data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if _encode(data) != part:  # the last character has bits to spare: one token has one text
        raise ValueError("a part of it is not base64url")
    return data
