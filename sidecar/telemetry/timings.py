"""Durations in a few buckets: a histogram as plain numbers, for what is measured seldom (detection, lag, GC pauses)."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

BOUNDS: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)  # seconds


@dataclass(frozen=True, slots=True)
class SecondsFigures:
    """A copy of a Seconds, see there."""

    counts: tuple[int, ...]
    total: float


class Seconds:
    """``counts`` has one number per bound, not cumulative, and one for all that is longer; ``total`` is in seconds."""

    __slots__ = ("counts", "longest", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self.longest = 0.0

    def note(self, seconds: float) -> None:
        """One more, of ``seconds``."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        if seconds > self.longest:
            self.longest = seconds

    def read(self) -> SecondsFigures:
        """The numbers as they are now."""
        return SecondsFigures(tuple(self.counts), self.total)

    def reset(self) -> None:
        """As if nothing had been noted yet."""
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self.longest = 0.0
