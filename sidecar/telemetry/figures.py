"""All numbers of one moment, copied from the event loop, to be rendered elsewhere or by others.

Who calls it: ``Telemetry.read`` makes them, the exposition and the admin pages show them. Imports no metrics library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sidecar.telemetry.metrics import RequestFigures
from sidecar.telemetry.timings import SecondsFigures

Labels = tuple[str, ...]  # values, in the order of the metric's label names
Readings = Iterable[tuple[Labels, float]]


@dataclass(frozen=True, slots=True)
class Figures:
    """``read`` has a list of (label values, value) per metric of ``catalog.READ``, ``timings`` one of histograms per
    metric of ``catalog.TIMINGS``; a metric that nobody reads is not there."""

    counters: tuple[int, ...]  # in the order of METERS
    requests: RequestFigures
    timings: tuple[tuple[str, tuple[tuple[Labels, SecondsFigures], ...]], ...]
    read: tuple[tuple[str, tuple[tuple[Labels, float], ...]], ...]
    principal: str = ""  # who this proxy is; empty outside a mesh


class Gauges:
    """What is read only when somebody asks: by each metric's name, who knows its numbers now."""

    __slots__ = ("_readers",)

    def __init__(self) -> None:
        self._readers: dict[str, Callable[[], Readings]] = {}

    def add(self, name: str, read: Callable[[], float]) -> None:
        """A metric without labels."""
        self._readers[name] = lambda: [((), float(read()))]

    def add_labelled(self, name: str, read: Callable[[], Readings]) -> None:
        """A metric with labels."""
        self._readers[name] = read

    def read(self) -> tuple[tuple[str, tuple[tuple[Labels, float], ...]], ...]:
        """All of them as they are now."""
        return tuple((name, tuple(read())) for name, read in self._readers.items())
