"""Who could not be reached a moment ago is asked last, for a while, and nobody is left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.recent import AVOIDED_SECONDS, MOST, Failures


def test_they_take_turns() -> None:
    failures: Failures[str] = Failures()
    assert [next(failures.in_turn("abc", turn, 0.0)) for turn in range(4)] == ["a", "b", "c", "a"]
    assert list(failures.in_turn("abc", 1, 0.0)) == ["b", "c", "a"]


def test_one_that_failed_comes_last_until_its_time_is_over() -> None:
    failures: Failures[str] = Failures()
    failures.note("b", 100.0)
    assert list(failures.in_turn("abc", 1, 100.1)) == ["c", "a", "b"]
    assert list(failures.in_turn("abc", 1, 100.0 + AVOIDED_SECONDS)) == ["b", "c", "a"]
    assert list(failures.in_turn("b", 0, 100.1)) == ["b"], "where there is no other"


@given(st.lists(st.integers(0, 20), unique=True), st.lists(st.integers(0, 20)), st.integers(0, 99))
def test_nobody_is_left_out_or_asked_twice(endpoints: list[int], failed: list[int], turn: int) -> None:
    failures: Failures[int] = Failures()
    for each in failed:
        failures.note(each, 1.0)
    assert sorted(failures.in_turn(endpoints, turn, 2.0)) == sorted(endpoints)


def test_what_is_remembered_is_bounded_and_makes_room() -> None:
    failures: Failures[int] = Failures()
    for number in range(2 * MOST):
        failures.note(number, 1.0)
    assert next(failures.in_turn([2 * MOST - 1, 7], 0, 2.0)) == 2 * MOST - 1, "it is full, and says nothing of that one"
    failures.note(5000, 1.0 + AVOIDED_SECONDS)
    assert next(failures.in_turn([5000, 7], 0, 2.0 + AVOIDED_SECONDS)) == 7
