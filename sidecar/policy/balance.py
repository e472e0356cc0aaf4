"""The choice of the next endpoint. Pure: the randomness is passed in.

Called by ``upstream.cluster`` for each request and each opaque connection.

LEAST_REQUEST by two random choices, the common default: take the one of two different endpoints with fewer requests in
progress. That spreads requests nearly as well as comparing all endpoints, without any shared state, and without the
herd that forms when every caller picks the endpoint that is idle at this moment.

Source: Envoy's documentation, "Weighted least request"; Mitzenmacher, "The Power of Two Choices in Randomized Load
Balancing" (2001).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

E = TypeVar("E")


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
