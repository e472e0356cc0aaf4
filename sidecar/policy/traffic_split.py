"""Which of several destinations gets a request or a connection: by their weights, at random. Pure.

Called once for each request: retries stay with the destination that was chosen.

Source: Istio's reference of VirtualService ("HTTPRouteDestination", "RouteDestination").
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


class Split:
    """The shares of destinations, in their order. ``weights``: None for a destination that has none.

    A single destination gets all, whatever its weight. Of several, one without a weight, or with 0, gets nothing; if
    that goes for all of them, which documents may not say, the first one gets all.
    """

    __slots__ = ("_ends", "_total", "only", "weights")

    def __init__(self, weights: Sequence[int | None]) -> None:
        self.weights = [1] if len(weights) == 1 else [weight or 0 for weight in weights]
        self._ends = list(accumulate(self.weights))
        self._total = self._ends[-1] if self._ends else 0
        taken = [number for number, weight in enumerate(self.weights) if weight]
        # The destination that gets everything; -1 if it takes a choice.
        self.only = taken[0] if len(taken) == 1 else -1 if taken else 0

    def choose(self, random: float) -> int:
        """Return the number of the destination for a random number from 0 to below 1."""
        if self.only >= 0:
            return self.only
        return bisect_right(self._ends, random * self._total)

    def share(self, number: int) -> float:
        """Return the share of a destination, from 0 to 1."""
        if not self._total:
            return float(number == self.only)
        return self.weights[number] / self._total
