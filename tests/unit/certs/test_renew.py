"""When to renew, when to try again, whose clock is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.renew import clock_skew, renew_at, retry_after

JITTER = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("remaining", "jitter", "instant"),
    [(20, 0.5, 110), (20, 0.0, 109), (86_400, 0.5, 43_300), (0, 0.7, 100), (-5, 0.7, 100)],
)
def test_renewal_is_at_half_of_what_was_left(remaining: float, jitter: float, instant: float) -> None:
    assert renew_at(100, remaining, jitter) == pytest.approx(instant)


@given(st.floats(0, 1e9), st.floats(0, 1e8), JITTER)
def test_renewal_is_within_a_tenth_of_the_half(received: float, remaining: float, jitter: float) -> None:
    half = remaining / 2
    assert received + 0.9 * half - 1e-6 <= renew_at(received, remaining, jitter) <= received + 1.1 * half + 1e-6


@given(st.integers(1, 10_000), JITTER)
def test_retries_are_bounded(attempt: int, jitter: float) -> None:
    assert 0.1 <= retry_after(attempt, jitter) <= min(10.0, 2.0 ** min(attempt - 1, 10))
    assert retry_after(attempt, jitter, remaining=20) <= 2
    assert retry_after(attempt, jitter, remaining=-1) == retry_after(attempt, jitter)


def test_retries_spread_ever_wider() -> None:
    assert [retry_after(attempt, 0.5) for attempt in (1, 2, 3, 4, 5, 6, 7)] == [0.5, 1, 2, 4, 5, 5, 5]


@pytest.mark.parametrize(
    ("date", "skew"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.5),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60.5),
        ("Sun, 06 Nov 1994 08:48:37 GMT", -59.5),
        ("Sun, 06 Nov 1994 08:49:60 GMT", 22.5),  # a leap second
        (None, None),
        ("", None),
        ("Sunday, 06-Nov-94 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 CET", None),
        ("Sun, 31 Feb 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 25:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT\n", None),
    ],
)
def test_the_skew_of_a_clock(date: str | None, skew: float | None) -> None:
    assert clock_skew(date, 784_111_777.0) == skew
