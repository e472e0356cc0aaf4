"""Which endpoint is next: the less busy of two different ones, whatever the random numbers are."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.balance import least_request

CHANCE = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 50), CHANCE, CHANCE)
def test_one_of_them_is_taken(count: int, first: float, second: float) -> None:
    assert least_request(range(count), lambda _: 0, first, second) in range(count)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=20), CHANCE, CHANCE)
def test_the_busiest_is_never_taken_unless_others_are_as_busy(loads: list[int], first: float, second: float) -> None:
    taken = least_request(range(len(loads)), loads.__getitem__, first, second)
    assert loads[taken] < max(loads) or loads.count(max(loads)) > 1


def test_equals_are_taken_equally_often() -> None:
    chance = Random(7)
    taken = Counter(least_request(range(4), lambda _: 0, chance.random(), chance.random()) for _ in range(4000))
    assert all(abs(count - 1000) < 100 for count in taken.values())
