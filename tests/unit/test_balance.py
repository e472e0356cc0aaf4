"""Which endpoint is next: the less busy of two different ones, each in its turn, or any; and how weights count."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.balance import Balancer, Balancing, balancer, balancing, least_request

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


IDLE = [0.0] * 8


def shares(chosen: Balancer, count: int, load: Callable[[int], float] = IDLE.__getitem__, seed: int = 7) -> list[float]:
    """The share of each endpoint in 8,000 choices."""
    chance = Random(seed)
    taken = Counter(chosen.choose(load, chance.random(), chance.random()) for _ in range(8000))
    return [taken[number] / 8000 for number in range(count)]


@pytest.mark.parametrize("way", ["LEAST_REQUEST", "RANDOM", "ROUND_ROBIN"])
@pytest.mark.parametrize("weights", [[], [1, 1, 1], [0, 1, 0], [1, 2, 5], [90, 5, 5], [100, 0, 0]])
def test_each_has_its_share_by_weight(way: Balancing, weights: list[int]) -> None:
    heavy = [max(1, each) for each in weights] or [1, 1, 1]
    found = shares(balancer(way, weights, 3, 0.5), 3)
    assert all(abs(share - each / sum(heavy)) < 0.02 for share, each in zip(found, heavy, strict=True)), found


@pytest.mark.parametrize("start", [0.0, 0.3, 0.99])
def test_round_robin_gives_each_its_turn(start: float) -> None:
    turns = balancer("ROUND_ROBIN", [], 4, start)
    taken = [turns.choose(IDLE.__getitem__, 0.0, 0.0) for _ in range(12)]
    assert taken[0] == int(start * 4)
    assert all((b - a) % 4 == 1 for a, b in itertools.pairwise(taken))


def test_turns_of_the_heavy_come_in_between() -> None:
    turns = balancer("ROUND_ROBIN", [2, 1, 1], 3, 0.0)
    assert "".join("abc"[turns.choose(IDLE.__getitem__, 0.0, 0.0)] for _ in range(8)) in "abcaabcaabca"


def test_the_busy_one_is_passed_over_by_its_weight() -> None:
    """Twice the weight carries twice the load before it counts as busier."""
    loads = [3.0, 2.0]
    chosen = balancer("LEAST_REQUEST", [2, 1], 2, 0.0)
    assert shares(chosen, 2, loads.__getitem__) == [1.0, 0.0]
    loads[:] = [5.0, 2.0]
    assert shares(chosen, 2, loads.__getitem__) == [0.0, 1.0]


@pytest.mark.parametrize("way", ["LEAST_REQUEST", "RANDOM", "ROUND_ROBIN"])
@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.data(), CHANCE, CHANCE)
def test_one_of_those_that_are_left_is_taken(
    way: Balancing, weights: list[int], data: st.DataObject, first: float, second: float
) -> None:
    count = len(weights)
    left = data.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))
    chosen = balancer(way, weights, count, first)
    assert chosen.choose_among(left, lambda _: 0.0, first, second) in left
    assert chosen.choose(lambda _: 0.0, first, second) in range(count)


def test_round_robin_passes_over_what_is_not_to_be_picked() -> None:
    turns = balancer("ROUND_ROBIN", [], 4, 0.0)
    loads = [0.0, float("inf"), 0.0, float("inf")]
    assert [turns.choose(loads.__getitem__, 0.0, 0.0) for _ in range(4)] == [0, 2, 0, 2]


@pytest.mark.parametrize(
    ("simple", "way"),
    [
        ("UNSPECIFIED", "LEAST_REQUEST"),
        ("LEAST_CONN", "LEAST_REQUEST"),
        ("LEAST_REQUEST", "LEAST_REQUEST"),
        ("RANDOM", "RANDOM"),
        ("ROUND_ROBIN", "ROUND_ROBIN"),
    ],
)
def test_the_names_of_documents(simple: str, way: str) -> None:
    assert balancing(simple) == way
