"""The choice of the next endpoint. Pure: the randomness is passed in.

Called by ``upstream.cluster`` for each attempt of a request and each opaque connection.

LEAST_REQUEST by two random choices, the common default: take the one of two different endpoints with fewer requests in
progress. That spreads requests nearly as well as comparing all endpoints, without any shared state, and without the
herd that forms when every caller picks the endpoint that is idle at this moment.

With weights, both choices are drawn by weight, and requests in progress are compared in proportion to it. So an
endpoint of twice the weight gets twice the requests, idle or busy. (Envoy draws all by an order of deadlines instead
when weights differ; what each endpoint gets is the same.)

Sources: Envoy's documentation, "Supported load balancers"; Mitzenmacher, "The Power of Two Choices in Randomized Load
Balancing" (2001).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from itertools import accumulate
from typing import Final, Literal, Protocol, TypeVar

E = TypeVar("E")
Load = Callable[[int], float]
Balancing = Literal["LEAST_REQUEST", "RANDOM", "ROUND_ROBIN"]
LEAST_REQUEST: Final[Balancing] = "LEAST_REQUEST"
_NOT_NOW: Final = float("inf")  # the load of an endpoint that is not to be picked while there are others


def balancing(simple: str) -> Balancing:
    """Return the way of a DestinationRule's ``loadBalancer.simple``. PASSTHROUGH never gets here: such a request names
    its endpoint."""
    return "RANDOM" if simple == "RANDOM" else "ROUND_ROBIN" if simple == "ROUND_ROBIN" else LEAST_REQUEST


def least_request(endpoints: Sequence[E], active: Callable[[E], float], first: float, second: float) -> E:
    """Return the less busy of two different endpoints; if there is only one, return that.

    ``active`` returns the requests in progress at an endpoint. ``first`` and ``second`` are independent random numbers
    of the interval [0, 1). ``endpoints`` is not empty.
    """
    count = len(endpoints)
    if count == 1:
        return endpoints[0]
    one = int(first * count)
    other = int(second * (count - 1))
    if other >= one:
        other += 1
    a, b = endpoints[one], endpoints[other]
    return a if active(a) <= active(b) else b


class Balancer(Protocol):
    """A way to choose one of a fixed number of endpoints, by their numbers. ``first`` and ``second`` are as of
    ``least_request``; a load of infinity means: only if there is no other."""

    def choose(self, load: Load, first: float, second: float) -> int:
        """Return one of all."""
        ...

    def choose_among(self, left: Sequence[int], load: Load, first: float, second: float) -> int:
        """Return one of these, which are not empty: the choice among all was not to be picked now."""
        ...


def balancer(balancing: Balancing, weights: Sequence[int], count: int, start: float) -> Balancer:
    """Return the balancer of ``count`` endpoints. Without ``weights`` all weigh the same, as they do with a weight of
    0. ``start``, of [0, 1), is where ROUND_ROBIN begins, so that callers do not all begin with the same endpoint."""
    heavy = [max(1, weight) for weight in weights] or [1] * count
    if balancing == "ROUND_ROBIN":
        return _RoundRobin(heavy, start)
    return _Weighted(heavy, least=balancing == LEAST_REQUEST)


class _Weighted:
    """RANDOM, and LEAST_REQUEST (``least``), by weight."""

    __slots__ = ("_least", "_until", "_weights")

    def __init__(self, weights: list[int], *, least: bool) -> None:
        self._weights = weights
        self._until = list(accumulate(weights))
        self._least = least

    def choose(self, load: Load, first: float, second: float) -> int:
        """See ``Balancer``."""
        return self._drawn(self._weights, self._until, load, first, second)

    def choose_among(self, left: Sequence[int], load: Load, first: float, second: float) -> int:
        """See ``Balancer``."""
        weights = [self._weights[each] for each in left]
        found = self._drawn(weights, list(accumulate(weights)), lambda each: load(left[each]), first, second)
        return left[found]

    def _drawn(self, weights: list[int], until: list[int], load: Load, first: float, second: float) -> int:
        one = bisect_right(until, first * until[-1])
        if not self._least or len(weights) == 1:
            return one
        weight = weights[one]
        at = second * (until[-1] - weight)
        if at >= until[one] - weight:
            at += weight
        other = bisect_right(until, at)
        return one if load(one) * weights[other] <= load(other) * weight else other


class _RoundRobin:
    """Each in its turn. An endpoint of twice the weight has its turn twice as often, in between the others: each turn
    is due 1/weight after the last one of the same endpoint."""

    __slots__ = ("_turns", "_weights")

    def __init__(self, weights: list[int], start: float) -> None:
        self._weights = weights
        count = len(weights)
        first = int(start * count)
        # When each turn is due, its place among those that are due at the same moment, and whose it is.
        self._turns = [(1 / weights[each], (each - first) % count, each) for each in range(count)]
        heapify(self._turns)

    def choose(self, load: Load, first: float, second: float) -> int:
        """See ``Balancer``. Turns of endpoints that are not to be picked now are passed over."""
        number = 0
        for _ in range(len(self._weights)):
            number = self._next()
            if load(number) < _NOT_NOW:
                break
        return number

    def choose_among(self, left: Sequence[int], load: Load, first: float, second: float) -> int:
        """See ``Balancer``."""
        return left[int(first * len(left))]

    def _next(self) -> int:
        due, order, number = self._turns[0]
        heapreplace(self._turns, (due + 1 / self._weights[number], order, number))
        return number
