"""Request ids: a caller's id is kept if it is sane; otherwise one is made (a random UUID, as Envoy makes them)."""

from __future__ import annotations

import os
import re
from typing import Final

_SANE: Final = re.compile(rb"[A-Za-z0-9._~:+/=@-]{1,128}")
_BLOCK: Final = 4096  # bytes of randomness fetched at a time: a system call per id would cost more than the id


class RequestIds:
    """A source of ids from the kernel's randomness, fetched a block at a time."""

    def __init__(self) -> None:
        self._ready: list[bytes] = []

    def new(self) -> bytes:
        """Return a version 4 UUID (RFC 9562 section 5.4) in its text form."""
        if not self._ready:
            digits = os.urandom(_BLOCK).hex().encode()
            self._ready = [_uuid(digits[at : at + 32]) for at in range(0, len(digits), 32)]
        return self._ready.pop()


def _uuid(digits: bytes) -> bytes:
    variant = b"89ab"[digits[16] & 3]
    return b"%b-%b-4%b-%c%b-%b" % (digits[:8], digits[8:12], digits[13:16], variant, digits[17:20], digits[20:])


def sane(request_id: bytes) -> bool:
    """Return whether a peer's id may be kept: short, and with no character that is unsafe in a log or a page."""
    return _SANE.fullmatch(request_id) is not None
