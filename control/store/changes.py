"""What no store takes: a write that means two things, a name that can't be written, a value without bound. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from control.store import Change

MOST_VALUE: Final = 64 * 1024 * 1024


def check(changes: Sequence[Change]) -> None:
    """Raises ValueError, before anything is done: what one writer does wrong must not fail those that share a commit
    with it. A name is any text that can be written as UTF-8."""
    if len({(change.kind, change.name) for change in changes}) != len(changes):
        raise ValueError("a write names an entry twice")
    for change in changes:
        change.kind.encode()
        change.name.encode()
        if change.value is not None and len(change.value) > MOST_VALUE:
            raise ValueError(f"a value has at most {MOST_VALUE} bytes")
