"""Costs as a number of executed lines: the same on every machine, so that a test may compare them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any


class Lines:
    """Counts the lines of Python that run in its ``with``."""

    def __init__(self) -> None:
        self.count = 0
        self._before: Any = None

    def __enter__(self) -> Lines:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self.count += 1
        return self._trace


def lines_of(act: Callable[[], object]) -> int:
    """Return how many lines a call runs."""
    with Lines() as lines:
        act()
    return lines.count


def longest_step(steps: Generator[None, None, object]) -> int:
    """Return how many lines the longest step of a generator runs."""
    longest = 0
    while True:
        with Lines() as lines:
            try:
                next(steps)
            except StopIteration:
                return max(longest, lines.count)
        longest = max(longest, lines.count)
