"""Which destination a random number leads to."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.traffic_split import Split

ALMOST_ONE = math.nextafter(1.0, 0.0)


@pytest.mark.parametrize(
    ("weights", "chosen"),
    [
        ([95, 5], {0.0: 0, 0.9499: 0, 0.95: 1, ALMOST_ONE: 1}),
        ([1, 1, 2], {0.0: 0, 0.25: 1, 0.5: 2, ALMOST_ONE: 2}),
        ([0, 100], {0.0: 1, ALMOST_ONE: 1}),
        ([100, 0], {0.0: 0, ALMOST_ONE: 0}),
        ([0, 1, 0, 3, 0], {0.0: 1, 0.2499: 1, 0.25: 3, ALMOST_ONE: 3}),
        ([None, 1], {0.0: 1, ALMOST_ONE: 1}),
        ([None], {0.0: 0, ALMOST_ONE: 0}),
        ([0], {0.0: 0, ALMOST_ONE: 0}),
        ([7], {0.0: 0, ALMOST_ONE: 0}),
        ([None, None], {0.0: 0, ALMOST_ONE: 0}),
        ([4_294_967_295] * 2 + [1], {0.0: 0, 0.5: 1, ALMOST_ONE: 2}),
    ],
)
def test_a_choice(weights: list[int | None], chosen: dict[float, int]) -> None:
    split = Split(weights)
    assert {number: split.choose(number) for number in chosen} == chosen


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9).filter(any), st.floats(0, 1, exclude_max=True))
def test_what_weighs_nothing_is_never_chosen(weights: list[int], number: float) -> None:
    chosen = Split(weights).choose(number)
    assert weights[chosen] > 0
    if len(weights) > 1:
        assert sum(weights[:chosen]) <= number * sum(weights) <= sum(weights[: chosen + 1])


def test_shares_are_kept_within_chance() -> None:
    split, chance = Split([90, 10, 0]), random.Random(1)
    counts = Counter(split.choose(chance.random()) for _ in range(20_000))
    assert counts[2] == 0
    assert abs(counts[1] - 2_000) < 5 * math.sqrt(20_000 * 0.1 * 0.9)
    assert [split.share(number) for number in range(3)] == [0.9, 0.1, 0.0]
    assert [Split([None]).share(0), Split([0, 0]).share(0), Split([0, 0]).share(1)] == [1.0, 1.0, 0.0]
