"""Figures of distribution: rounds, snapshots, and how long a change takes.

Who calls it: ``control.distribution.push`` and ``api`` count; ``/metrics`` renders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from control.metrics import Figures

_DELAYS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)


class RoundFigures:
    """Those of rounds and of what is sent."""

    def __init__(self, figures: Figures) -> None:
        self._rounds = figures.counter("sidecar_control_rounds", "Rounds in which changes became snapshots.")
        self._seconds = figures.counter(
            "sidecar_control_round_cpu_seconds", "CPU that rounds took, and the placing of identities that came."
        )
        self._snapshots = figures.counter("sidecar_control_snapshots", "Snapshots that were made, one per identity.")
        self._sent = figures.counter("sidecar_control_snapshots_sent", "Snapshots that were sent to proxies.")
        self._bytes = figures.counter("sidecar_control_snapshot_bytes", "Bytes of snapshots that were sent.")
        self._delays = figures.histogram(
            "sidecar_control_publish_seconds",
            "From the first change of a batch to the end of the round that published it.",
            _DELAYS,
        )
        self.ahead = figures.counter(
            "sidecar_control_proxies_ahead",
            "Proxies that held a newer version than there is: the store was put back without a new epoch.",
        )
        self._longest = 0.0
        figures.gauge(
            "sidecar_control_round_longest_step_seconds",
            "The longest that rounds held the loop at once, in CPU time.",
            lambda: self._longest,
        )

    def round(self, spent: float, longest: float, published: int, delay: float) -> None:
        """One round: CPU in all and at once, snapshots that it made, and how long the first change had waited (s)."""
        self._rounds.inc()
        self._seconds.inc(spent)
        self._longest = max(self._longest, longest)
        self._snapshots.inc(published)
        if published:
            self._delays.observe(delay)

    def admitted(self, spent: float, longest: float) -> None:
        """An identity was placed: its CPU (s)."""
        self._seconds.inc(spent)
        self._longest = max(self._longest, longest)
        self._snapshots.inc()

    def sent(self, length: int) -> None:
        """A snapshot went out."""
        self._sent.inc()
        self._bytes.inc(length)


def add_gauges(figures: Figures, by_state: Callable[[], Mapping[str, float]], held: Callable[[], float]) -> None:
    """What is read when somebody asks: proxies by state, bytes of the pieces held."""
    figures.gauges(
        "sidecar_control_proxies",
        "Proxies by how they hold what there is: in sync, behind, refused, unknown (not said yet).",
        "state",
        by_state,
    )
    figures.gauge("sidecar_control_pieces_bytes", "Bytes of encoded services that are held.", held)
