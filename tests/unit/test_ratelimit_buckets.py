"""Counts of requests: exact against a direct reading of their rules, bounded, and never fresh because of others."""

from __future__ import annotations

import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.ratelimit_buckets import ALL, OTHERS, SWEEP_STEPS, Buckets, Shares, SlidingWindows, TokenBuckets

STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 3.0)), max_size=80)


class TokenModel:
    """A bucket as it is told to people: tokens that drip in, and one that goes with each request."""

    def __init__(self, requests: int, per: float, burst: int) -> None:
        self.rate, self.burst = requests / per, burst
        self.tokens, self.at = float(burst), 0.0

    def admits(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1.0 - 1e-6:
            return False
        self.tokens -= 1.0
        return True


class WindowModel:
    """Two counters, made each time of all requests that were admitted."""

    def __init__(self, requests: int, per: float) -> None:
        self.requests, self.per = requests, per
        self.times: list[float] = []

    def admits(self, now: float) -> bool:
        number = math.floor(now / self.per)
        gone = now / self.per - number
        current = sum(math.floor(time / self.per) == number for time in self.times)
        before = sum(math.floor(time / self.per) == number - 1 for time in self.times)
        if round(before * (1 - gone) + current - 1e-9) >= self.requests:
            return False
        self.times.append(now)
        return True


def admits(buckets: Buckets, key: str, now: float) -> bool:
    slot = buckets.slot(key, now)
    if buckets.wait(slot, now):
        return False
    buckets.take(slot, now)
    return True


@given(STEPS, st.integers(1, 20), st.floats(0.1, 10.0), st.integers(1, 20))
def test_a_token_bucket_admits_what_its_rule_says(
    steps: list[tuple[str, float]], requests: int, per: float, burst: int
) -> None:
    buckets, now = TokenBuckets(requests, per, burst, 100), 0.0
    models = {key: TokenModel(requests, per, burst) for key in "abc"}
    for key, pause in steps:
        now += pause
        if abs(models[key].tokens + (now - models[key].at) * models[key].rate - 1.0) < 1e-6:
            continue  # as near as this, floating-point numbers decide
        assert admits(buckets, key, now) is models[key].admits(now)
        assert 0.0 <= buckets.left(key, now) <= burst
        buckets.sweep(now, SWEEP_STEPS)


@given(STEPS, st.integers(1, 20), st.sampled_from([0.5, 1.0, 4.0]))
def test_a_sliding_window_admits_what_its_rule_says(steps: list[tuple[str, float]], requests: int, per: float) -> None:
    buckets, now = SlidingWindows(requests, per, 100), 0.0
    models = {key: WindowModel(requests, per) for key in "abc"}
    for key, pause in steps:
        now += round(pause * 64) / 64  # exact as binary numbers
        assert admits(buckets, key, now) is models[key].admits(now)
        assert 0.0 <= buckets.left(key, now) <= requests
        buckets.sweep(now, SWEEP_STEPS)


@given(st.integers(1, 50), st.sampled_from([0.5, 1.0, 4.0]), st.lists(st.floats(0.0, 2.0), min_size=1, max_size=60))
def test_after_the_wait_one_more_is_admitted_and_not_before(requests: int, per: float, pauses: list[float]) -> None:
    for buckets in (TokenBuckets(requests, per, requests, 10), SlidingWindows(requests, per, 10)):
        now = 0.0
        for pause in pauses:
            now += pause
            while not (wait := buckets.wait("a", now)):
                buckets.take("a", now)
            assert buckets.wait("a", now + wait * 0.99) > 0.0
            assert buckets.wait("a", now + wait + 1e-6) == 0.0
            assert buckets.full_in("a", now) >= wait - 1e-6


@pytest.mark.parametrize("algorithm", ["token-bucket", "sliding-window"])
def test_a_thousand_sources_at_once_get_their_rate_within_a_hundredth(algorithm: str) -> None:
    """60 s of virtual time, 10 requests a second allowed, and sources that ask for 2, 9 and 20 of them."""
    tokens = algorithm == "token-bucket"
    buckets: Buckets = TokenBuckets(10, 1.0, 10, 10_000) if tokens else SlidingWindows(10, 1.0, 10_000)
    demands = [(2, 9, 20)[source % 3] for source in range(1000)]
    arrivals = sorted(
        ((number + source / 1000) / demand, source)
        for source, demand in enumerate(demands)
        for number in range(60 * demand)
    )
    admitted = [0] * 1000
    for count, (now, source) in enumerate(arrivals):
        admitted[source] += admits(buckets, f"source-{source}", now)
        if not count % 500:
            buckets.sweep(now, SWEEP_STEPS)
    most = 10 * 60 + (10 if tokens else 0)  # a bucket is full at the beginning
    for source, demand in enumerate(demands):
        assert admitted[source] == pytest.approx(min(demand * 60, most), rel=0.01), (source, demand)


def test_a_full_table_shares_one_bucket_and_never_refills_one() -> None:
    buckets = TokenBuckets(10, 1.0, 10, 100)
    for number in range(100):
        for _ in range(10):
            assert admits(buckets, f"old{number}", 0.0)
    shared = [admits(buckets, f"new{number}", 0.0) for number in range(1000)]
    assert sum(shared) == 10  # one bucket for all of them
    assert buckets.slot("new5", 0.0) == OTHERS
    assert [admits(buckets, f"old{number}", 0.0) for number in range(100)] == [False] * 100
    assert len(buckets) == 101  # the shared one is beyond the hundred


def test_a_bucket_makes_room_once_it_is_full_again() -> None:
    buckets = TokenBuckets(10, 1.0, 10, 100)
    for number in range(100):
        admits(buckets, f"old{number}", 0.0)
    assert buckets.slot("new", 0.05) == OTHERS
    assert buckets.slot("new", 0.2) == "new"
    for _ in range(2):  # the round that was begun, and a whole one
        buckets.sweep(0.2, SWEEP_STEPS)
    assert len(buckets) == 0


@pytest.mark.parametrize("sends", [3, 1])
def test_a_flood_of_keys_changes_nothing_for_others(sends: int) -> None:
    """One that is always at its limit keeps its bucket, and one that is not finds room: newcomers that have used a
    token of twenty make room again within a second."""

    def run(newcomers: int) -> int:
        buckets, admitted = TokenBuckets(20, 20.0, 20, 5000), 0
        for tick in range(400):
            now = tick / 4
            admitted += sum(admits(buckets, "other", now) for _ in range(sends if not tick % 8 else 0))
            for number in range(newcomers):
                admits(buckets, f"{tick}-{number}", now)
            buckets.sweep(now, SWEEP_STEPS)
        return admitted

    assert run(1000) == run(0)


def test_what_200_000_keys_take() -> None:
    """The figure of docs/rate-limits.md: a table of 100,000 keys and what they hold."""
    tracemalloc.start()
    try:
        buckets = TokenBuckets(100, 60.0, 100, 100_000)
        for number in range(200_000):
            admits(buckets, f"spiffe://cluster.local/ns/shop/sa/caller-{number}", 0.0)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(buckets) == 100_001
    assert used < 32 << 20


def shared(demands: dict[str, float], seconds: int = 60) -> dict[str, float]:
    """What each of these sources gets of 100 requests a second in ``seconds``, by what it asks for."""
    total, shares = TokenBuckets(100, 1.0, 100, 1), Shares(100, 1.0, 100, 1000)
    admitted = dict.fromkeys(demands, 0)
    for tick in range(seconds * 100):
        now = tick / 100
        for source, demand in demands.items():
            for _ in range(int(demand * (tick + 1) / 100) - int(demand * tick / 100)):
                within = shares.within(source, now)
                if total.left(ALL, now) >= 1.0 + (0.0 if within else shares.reserve) - 1e-6:
                    total.take(ALL, now)
                    if within:
                        shares.take(source, now)
                    admitted[source] += 1
        shares.sweep(now, SWEEP_STEPS)
    return {source: count / seconds for source, count in admitted.items()}


def test_a_source_within_its_share_gets_all_that_it_asks_for() -> None:
    got = shared({"noisy": 5000.0, "quiet": 20.0, "calm": 30.0})
    assert got["quiet"] == pytest.approx(20.0, rel=0.01)
    assert got["calm"] == pytest.approx(30.0, rel=0.01)
    assert 48.0 <= got["noisy"] <= 53.0  # what the others leave, and the burst at the beginning
    assert sum(got.values()) <= 100 + 100 / 60


def test_greedy_sources_share_alike() -> None:
    got = shared({"a": 500.0, "b": 500.0, "c": 500.0, "d": 10.0})
    assert got["d"] == pytest.approx(10.0, rel=0.01)
    for name in "abc":
        assert got[name] == pytest.approx(30.0, rel=0.1)


def test_one_source_alone_gets_the_whole_total() -> None:
    assert shared({"a": 5000.0})["a"] == pytest.approx(100.0, rel=0.03)
