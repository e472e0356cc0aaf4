"""Request ids: kept when a caller sent a sane one, else made (a random UUID, as Envoy makes them)."""

from __future__ import annotations

import os
import re
from typing import Final

_SANE: Final = re.compile(rb"[A-Za-z0-9._~:+/=@-]{1,128}")
_BLOCK: Final = 4096  # bytes of randomness fetched at a time: a system call per id would cost more than the id


class RequestIds:
    """Makes ids from the kernel's randomness, a block at a time."""

    def __init__(self) -> None:
        self._random = ""
        self._position = 0

    def new(self) -> bytes:
        """A version 4 UUID (RFC 9562 section 5.4) in its text form."""
        position = self._position
        if position + 32 > len(self._random):
            self._random = os.urandom(_BLOCK).hex()
            position = 0
        self._position = position + 32
        digits = self._random[position : position + 32]
        variant = "89ab"[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}".encode()


def sane(request_id: bytes) -> bool:
    """Whether an id that a peer sent may be kept: short, and without anything that a log or a page could trip over."""
    return _SANE.fullmatch(request_id) is not None
