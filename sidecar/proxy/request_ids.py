"""Request ids: a caller's id is kept if it is sane; otherwise one is made (a random UUID, as Envoy makes them)."""

from __future__ import annotations

import os
import re
from typing import Final

_SANE: Final = re.compile(rb"[A-Za-z0-9._~:+/=@-]{1,128}")
_BLOCK: Final = 4096  # bytes of randomness fetched at a time: a system call per id would cost more than the id
_PARTS: Final = re.compile(rb"(.{8})(.{4})(.{4})(.{4})(.{12})")
_UUID_BITS: Final = "ffffffffffff0fff3fffffffffffffff", "00000000000040008000000000000000"  # kept, set
_KEPT, _SET = (int(digits * (_BLOCK // 16), 16) for digits in _UUID_BITS)


class RequestIds:
    """A source of ids from the kernel's randomness, fetched a block at a time."""

    def __init__(self) -> None:
        self._ready: list[bytes] = []

    def new(self) -> bytes:
        """Return a version 4 UUID (RFC 9562 section 5.4) in its text form."""
        if not self._ready:
            digits = b"%0*x" % (2 * _BLOCK, int.from_bytes(os.urandom(_BLOCK)) & _KEPT | _SET)
            self._ready = list(map(b"-".join, _PARTS.findall(digits)))
        return self._ready.pop()


def sane(request_id: bytes) -> bool:
    """Return whether a peer's id may be kept: short, and with no character that is unsafe in a log or a page."""
    return _SANE.fullmatch(request_id) is not None
