"""What has been counted so far, by direction and by reason: two of these make a rate. Pure.

Who calls it: ``admin.events``; ``admin.status_summary`` takes the differences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sidecar.telemetry.metrics import HISTOGRAM_CELLS, OPAQUE_CODE, RequestFigures
from sidecar.telemetry.record import SERVER_ERROR

DIRECTIONS: Final = ("inbound", "outbound")
APP_WORD: Final = "app_error"  # stands with the reasons for a 5xx that the app gave


@dataclass(frozen=True, slots=True)
class Totals:
    """What had been counted at ``at`` (monotonic). By direction; ``reasons`` by word, with the app's own 5xx."""

    at: float
    requests: dict[str, float]
    errors: dict[str, float]
    opaque: dict[str, float]
    reasons: dict[str, float]


def totals(figures: RequestFigures, at: float) -> Totals:
    """Sums up the series of each direction."""
    requests: dict[str, float] = dict.fromkeys(DIRECTIONS, 0.0)
    errors, opaque = requests.copy(), requests.copy()
    reasons: dict[str, float] = {}
    for (word, _), times in figures.errors:
        reasons[word] = reasons.get(word, 0.0) + times
    cells = figures.cells
    for (direction, code, flag, _), at_cell in figures.series:
        if code == OPAQUE_CODE:
            count = cells[at_cell + 2]
            opaque[direction] += count
        else:
            count = sum(cells[at_cell : at_cell + HISTOGRAM_CELLS - 1])
            requests[direction] += count
        if flag != "-" or code >= SERVER_ERROR:
            errors[direction] += count
        if flag == "-" and code >= SERVER_ERROR:
            reasons[APP_WORD] = reasons.get(APP_WORD, 0.0) + count
    return Totals(at, requests, errors, opaque, reasons)


@dataclass(slots=True)
class Latest:
    """The last summary, shared by all who listen: as it was sent, what had been counted, how many there have been."""

    event: bytes = b""
    totals: Totals | None = None
    made: int = 0
