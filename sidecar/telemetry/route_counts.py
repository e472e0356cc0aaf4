"""How many requests each rule of a VirtualService has routed, and where to. Pure numbers.

``Telemetry.finish`` notes each record that has a route; ``gauges`` and the admin page read them. The names come from
documents, and statuses from apps, so the number of series is bounded: what is new beyond it is counted as ``other``.
"""

from __future__ import annotations

from typing import Final

from sidecar.telemetry.record import Record

MAX_SERIES: Final = 2048  # of 200 bytes each
OTHER: Final = ("other", "", "", "")

Series = tuple[str, str, str, str]
"""Route (NAMESPACE/VIRTUAL-SERVICE/RULE), destination, subset, status."""

_Counted = tuple[str, str, str, int]  # likewise, with the cluster's name; status 0 with all empty is OTHER
_REST: Final[_Counted] = ("", "", "", 0)


def destination(cluster: str) -> str:
    """Return HOST:PORT of a cluster's name, which is in Envoy's form."""
    kind, _, rest = cluster.partition("|")
    port, _, rest = rest.partition("|")
    return f"{rest.rpartition('|')[2]}:{port}" if kind == "outbound" and rest else cluster


class RouteCounts:
    """Requests by route, destination, subset and status."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[_Counted, int] = {}

    def note(self, record: Record) -> None:
        """Count a request that a rule has routed."""
        series = (record.route, record.cluster, record.subset, record.status)
        counts = self._counts
        number = counts.get(series)
        if number is None and len(counts) >= MAX_SERIES:
            series, number = _REST, counts.get(_REST)
        counts[series] = (number or 0) + 1

    def read(self) -> list[tuple[Series, float]]:
        """Return all numbers."""
        return [
            (OTHER if series is _REST else (route, destination(cluster), subset, str(status)), float(number))
            for series, number in self._counts.items()
            for route, cluster, subset, status in (series,)
        ]

    def by_destination(self) -> dict[str, dict[str, int]]:
        """Return how many requests each route has sent to each destination: ``HOST:PORT``, or ``HOST:PORT SUBSET``, in
        the order of their names."""
        found: dict[str, dict[str, int]] = {}
        for (route, cluster, subset, _), number in self._counts.items():
            where = f"{destination(cluster)} {subset}".strip() or "answered by the proxy"
            sent = found.setdefault(route, {})
            sent[where] = sent.get(where, 0) + number
        return {route: dict(sorted(sent.items())) for route, sent in found.items()}
