"""All numbers of one moment, copied from the event loop, to be rendered elsewhere or by others.

Who calls it: ``Telemetry.read`` makes them, the exposition and the admin pages show them. Imports no metrics library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from sidecar.telemetry.metric_catalog import READ
from sidecar.telemetry.metrics import RequestFigures
from sidecar.telemetry.timings import SecondsFigures

Labels = tuple[str, ...]  # values, in the order of the metric's label names
Readings = Iterable[tuple[Labels, float]]
COUNTERS: Final = frozenset(metric.name for metric in READ if metric.kind == "counter")


@dataclass(frozen=True, slots=True)
class MetricSnapshot:
    """``read`` has a list of (label values, value) per metric of ``catalog.READ``, ``timings`` one of histograms per
    metric of ``catalog.TIMINGS``; a metric that nobody reads is not there."""

    counters: tuple[int, ...]  # in the order of METERS
    requests: RequestFigures
    timings: tuple[tuple[str, tuple[tuple[Labels, SecondsFigures], ...]], ...]
    read: tuple[tuple[str, tuple[tuple[Labels, float], ...]], ...]
    principal: str = ""  # who this proxy is; empty outside a mesh


class Gauges:
    """What is read only when somebody asks: by each metric's name, who knows its numbers now.

    Those who know count for themselves and for ever, and for more than metrics; so after a reset what is shown of a
    counter is what came since. Which of them are counters stands in the catalog alone, so that none is forgotten.
    """

    __slots__ = ("_at_reset", "_forget", "_readers")

    def __init__(self) -> None:
        self._readers: dict[str, Callable[[], Readings]] = {}
        self._forget: list[Callable[[], None]] = []
        self._at_reset: dict[str, dict[Labels, float]] = {}

    def add(self, name: str, read: Callable[[], float]) -> None:
        """A metric without labels."""
        self._readers[name] = lambda: [((), float(read()))]

    def add_labelled(self, name: str, read: Callable[[], Readings]) -> None:
        """A metric with labels."""
        self._readers[name] = read

    def add_peak(self, name: str, read: Callable[[], float], forget: Callable[[], None]) -> None:
        """A metric without labels that is the most there was since the start or a reset; ``forget`` begins it anew."""
        self.add(name, read)
        self._forget.append(forget)

    def read(self) -> tuple[tuple[str, tuple[tuple[Labels, float], ...]], ...]:
        """All of them as they are now, and the counters since the last reset."""
        return tuple((name, self._since_reset(name, read())) for name, read in self._readers.items())

    def reset(self) -> None:
        """Counters and peaks begin at zero; the series stay."""
        self._at_reset = {name: dict(read()) for name, read in self._readers.items() if name in COUNTERS}
        for forget in self._forget:
            forget()

    def _since_reset(self, name: str, readings: Readings) -> tuple[tuple[Labels, float], ...]:
        before = self._at_reset.get(name)
        if before is None:
            return tuple(readings)
        return tuple((labels, max(0.0, value - before.get(labels, 0.0))) for labels, value in readings)
