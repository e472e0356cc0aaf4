"""How many retries may run beside requests: both forms of the budget, in times that are handed in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.retry_budget import ClusterLoad, ConcurrencyBudget, RatioBudget, RetryBudget, compile_budget
from sidecar.resources.destination_rule import RetryBudget as ConcurrencySpec
from sidecar.resources.destination_rule import RetryRatioBudget as RatioSpec


def begun(load: ClusterLoad, now: float = 0.0) -> int:
    """How many retries may begin at once; they stay in progress."""
    count = 0
    while count < 10_000 and load.begin_retry(now):
        count += 1
    return count


@pytest.mark.parametrize(
    ("requests", "allowed"), [(0, 3), (10, 3), (15, 3), (19, 3), (20, 4), (100, 20), (104, 20), (1000, 200)]
)
def test_envoys_form(requests: int, allowed: int) -> None:
    load = ClusterLoad(ConcurrencyBudget())
    load.requests = requests
    assert begun(load) == allowed
    load.end_retry()
    assert begun(load) == 1


def test_a_budget_of_nothing() -> None:
    load = ClusterLoad(ConcurrencyBudget(0, 0))
    load.requests = 1000
    assert begun(load) == 0


def test_without_a_budget_every_retry_may_begin() -> None:
    assert begun(ClusterLoad(None)) == 10_000


def test_linkerds_form() -> None:
    budget = RatioBudget(0.2, 10, 10.0)
    load = ClusterLoad(budget)
    assert load.dated
    assert begun(load, 100.0) == 100  # ten per second, of ten seconds
    for _ in range(500):
        budget.note(100.5)
    assert begun(load, 101.0) == 100
    assert begun(load, 105.0) == 0
    assert begun(load, 150.0) == 100  # all of that is forgotten


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(0, 30), st.integers(0, 30)), max_size=60))
def test_no_window_has_more_than_its_ratio(steps: list[tuple[float, int, int]]) -> None:
    """Whatever comes when: at each retry, those of the last nine seconds are bounded by the requests of the last ten,
    since the window moves on in tenths."""
    ratio, per_second, ttl = 0.25, 2.0, 10.0
    budget = RatioBudget(ratio, per_second, ttl)
    now = 1000.0
    requests: list[float] = []
    retries: list[float] = []
    for passed, asked, again in steps:
        now += passed
        for _ in range(asked):
            budget.note(now)
            requests.append(now)
        taken = sum(budget.take(0, 0, now) for _ in range(again))
        retries += [now] * taken
        window = 0.9 * ttl
        recent = sum(each > now - window for each in retries)
        assert not taken or recent <= per_second * ttl + ratio * sum(each > now - ttl - 0.001 for each in requests)


def test_equal_terms_make_equal_budgets() -> None:
    assert ConcurrencyBudget() == ConcurrencyBudget(20, 3) != ConcurrencyBudget(20, 4)
    assert RatioBudget() == RatioBudget(0.2, 10, 10.0) != RatioBudget(0.3)
    assert len({RatioBudget(), RatioBudget(), ConcurrencyBudget(), ConcurrencyBudget()}) == 2
    assert ConcurrencyBudget() != RatioBudget()


@pytest.mark.parametrize(
    ("spec", "budget", "words"),
    [
        (None, ConcurrencyBudget(20, 3), "20 % of the requests in progress, at least 3"),
        (ConcurrencySpec(), ConcurrencyBudget(20, 3), "20 % of the requests in progress, at least 3"),
        (ConcurrencySpec(12.5, 0), ConcurrencyBudget(12.5, 0), "12.5 % of the requests in progress, at least 0"),
        (
            RatioSpec(0.1, 5, "1m"),
            RatioBudget(0.1, 5, 60.0),
            "10 % of the requests of the last 60 s, and 5 per second beside that",
        ),
    ],
)
def test_of_documents(spec: ConcurrencySpec | RatioSpec | None, budget: RetryBudget, words: str) -> None:
    assert compile_budget(spec) == budget
    assert str(compile_budget(spec)) == words
