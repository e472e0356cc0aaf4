"""Parts of a document that are still bytes, which are decoded when their turn comes. Pure.

Used by ``incremental_compile`` and ``incremental_routes``, which share what counts as large and how a part that can't
be read is reported.
"""

from __future__ import annotations

from typing import Final

import msgspec

LARGE: Final = 16 << 10  # bytes of a part that is decoded in parts itself: about 100 endpoints, or 50 routes
UNREADABLE: Final = (msgspec.MsgspecError, RecursionError, UnicodeError)


def size_of(raw: msgspec.Raw) -> int:
    """How many bytes it has."""
    return len(memoryview(raw))


def why(error: Exception) -> str:
    """One line; what stands in the bytes is in it as far as msgspec repeats it, which is names of fields."""
    return "it can't be read: " + ascii(str(error))[1:-1][:200]
