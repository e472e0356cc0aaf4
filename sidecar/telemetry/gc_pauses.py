"""How long the garbage collector stops everything: each of its runs is timed by its own callbacks.

Who calls it: the composition root installs one; the interpreter calls it at the start and the end of a collection, in
whatever thread that happens. With thresholds as high as ours that is seldom, and costs under a microsecond.
"""

from __future__ import annotations

import gc
from time import perf_counter

from sidecar.telemetry.metric_snapshot import Readings
from sidecar.telemetry.timings import Seconds

GENERATIONS = 3


class GcPauses:
    """One histogram per generation."""

    __slots__ = ("_began", "by_generation")

    def __init__(self) -> None:
        self.by_generation = tuple(Seconds() for _ in range(GENERATIONS))
        self._began = 0.0

    def install(self) -> None:
        """Begins to measure; at most once."""
        gc.callbacks.append(self.note)

    def remove(self) -> None:
        """No more."""
        gc.callbacks.remove(self.note)

    def note(self, phase: str, info: dict[str, int]) -> None:
        """As ``gc.callbacks`` wants it: ``phase`` is "start" or "stop"; collections never overlap."""
        if phase == "start":
            self._began = perf_counter()
        elif self._began:
            self.by_generation[info["generation"]].note(perf_counter() - self._began)
            self._began = 0.0

    def longest(self) -> Readings:
        """The longest pause of each generation."""
        return [((str(number),), each.longest) for number, each in enumerate(self.by_generation)]

    def reset(self) -> None:
        """As if the process had just started."""
        for each in self.by_generation:
            each.reset()
