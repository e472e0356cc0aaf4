"""What ``sidecar-control`` does when it is not to serve: ``restore FILE [--void-tokens]`` and ``new-epoch``.

Who calls it: ``control.cli``, with the words behind the command's name. The flags of ``sidecar-control`` itself may
follow; they say which store is meant.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from control.settings import Settings

VOID_TOKENS: Final = "--void-tokens"
Task = Callable[[Settings], None]


def restore(words: Sequence[str]) -> tuple[Task | None, list[str], list[str]]:
    """(what to do, the words that are left, what is wrong)."""
    left = [word for word in words if word != VOID_TOKENS]
    if not left or left[0].startswith("-"):
        return None, left, ["restore: names no file; write sidecar-control restore FILE, with the copy to put in place"]
    copy = Path(left.pop(0))

    def run(told: Settings) -> None:
        from control import store_recovery

        store_recovery.restore(told, copy, VOID_TOKENS in words, time.time())

    return run, left, []


def new_epoch(words: Sequence[str]) -> tuple[Task | None, list[str], list[str]]:
    """Likewise."""

    def run(told: Settings) -> None:
        from control import store_recovery

        store_recovery.new_epoch(told, time.time())

    return run, list(words), []


COMMANDS: Final = {"restore": restore, "new-epoch": new_epoch}
