"""Who goes for its silence: timelines of heartbeats, judged every second as the control plane does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import pytest

from control.registry.liveness import (
    FORGOTTEN,
    Lateness,
    Liveness,
    anew,
    gone,
    heard,
    lateness,
    mesh_is_heard,
    unheard,
)

TTL = 15.0
Beats = Mapping[str, Iterable[float]]


def every(seconds: float, start: float, end: float) -> list[float]:
    """Heartbeats from ``start`` until before ``end``."""
    return [start + seconds * n for n in range(int((end - start) / seconds) + 1) if start + seconds * n < end]


def played(beats: Beats, end: float, ttls: Mapping[str, float] | None = None, mesh: bool = False) -> dict[str, float]:
    """When each endpoint was dropped, of those that were; all are there from the start of the control plane, at 0."""
    ttls = ttls or {}
    hearings = {name: unheard(0.0, ttls.get(name, TTL)) for name in beats}
    waiting = sorted((when, name) for name, each in beats.items() for when in each)
    dropped: dict[str, float] = {}
    for now in every(1.0, 1.0, end):
        while waiting and waiting[0][0] <= now:
            when, name = waiting.pop(0)
            if name in hearings:
                hearings[name] = heard(hearings[name], when, hearings[name].ttl)
        for name in gone(hearings, now, mesh):
            dropped[name] = now
            del hearings[name]
    return dropped


def steady(end: float, phase: float = 0.0) -> list[float]:
    return every(5.0, 1.0 + phase, end)


def around_a_cut(phase: float, start: float, end: float, back: float, last: float) -> list[float]:
    """Heartbeats but for a cut; the first one after it comes ``back`` seconds later."""
    return [*every(5.0, 1.0 + phase, start), *every(5.0, end + back, last)]


def test_one_dead_of_three_goes_and_the_others_stay() -> None:
    dropped = played({"a": steady(200), "b": steady(200, 2), "c": steady(100)}, 200)
    assert dropped == {"c": 96.0 + TTL + 1}


def test_one_dead_of_two_goes() -> None:
    assert set(played({"a": steady(200), "b": steady(100)}, 200)) == {"b"}


def test_the_last_one_stays_however_silent() -> None:
    assert played({"a": steady(100)}, 5000) == {}


def test_of_those_that_all_fall_silent_none_goes() -> None:
    beats = {"a": steady(100), "b": steady(100, 1.7), "c": steady(100, 3.4)}
    assert played(beats, 5000) == {}


@pytest.mark.parametrize("length", [1, 4, 7, 9, 10, 11, 12, 14, 15, 16, 20, 45, 90, 600, 100_000])
@pytest.mark.parametrize("back", [0.0, 1.0, 2.5, 4.9, 8.0])
def test_a_cut_of_all_drops_nobody_wherever_it_falls_and_however_long_it_is(length: float, back: float) -> None:
    for start in (100.0, 101.3, 103.9, 105.1):
        end = start + length
        last = end + 200
        beats = {
            "first": around_a_cut(0, start, end, 0.0, last),
            "other": around_a_cut(1.7, start, end, back / 2, last),
            "late": around_a_cut(3.4, start, end, back, last),
        }
        assert played(beats, last) == {}, (start, length, back)


def test_after_a_cut_of_all_who_does_not_come_back_goes() -> None:
    beats = {"a": around_a_cut(0, 100, 160, 1, 400), "b": steady(100)}
    (dropped,) = played(beats, 400).items()
    assert dropped[0] == "b"
    assert dropped[1] > 161 + 2 * TTL  # the one that is back has to be heard for long enough to answer for it


def test_a_cut_of_half_drops_that_half_since_nothing_tells_it_from_a_death() -> None:
    beats = {"a": steady(300), "b": steady(300, 2), "c": steady(100), "d": steady(100, 2)}
    assert set(played(beats, 300)) == {"c", "d"}


def test_who_comes_back_in_time_stays() -> None:
    late = [*steady(100), *every(5.0, 110.0, 300.0)]
    assert played({"a": steady(300), "b": late}, 300) == {}


def test_after_a_start_all_are_as_if_heard_and_nobody_goes_until_a_witness_is_sure() -> None:
    beats: Beats = {"a": every(5.0, 3.0, 200.0), "b": [], "c": every(5.0, 25.0, 200.0)}
    dropped = played(beats, 200)
    assert set(dropped) == {"b"}
    assert dropped["b"] > 3.0 + 2 * TTL


@pytest.mark.parametrize("back", [1.0, 9.0, 19.0])
def test_however_short_the_ttl_is_all_have_time_to_come_back(back: float) -> None:
    """The tries of who was away too long are ten seconds apart, whatever its ttl."""
    beats: Beats = {"a": every(1.0, 0.5, 200.0), "b": every(1.0, back, 200.0)}
    assert played(beats, 200, {"a": 3.0, "b": 3.0}) == {}
    assert set(played({"a": beats["a"], "b": []}, 200, {"a": 3.0, "b": 3.0})) == {"b"}


def test_after_a_start_in_which_nobody_comes_all_stay() -> None:
    assert played({"a": [], "b": []}, 5000) == {}


def test_a_lost_heartbeat_makes_nobody_go() -> None:
    for lost in range(3, 30):
        beats = steady(300)
        assert played({"a": beats[:lost] + beats[lost + 1 :], "b": steady(300, 2)}, 300) == {}


def test_the_longer_ttl_of_two_counts_for_both() -> None:
    slow = every(100.0, 1.0, 3000.0)
    # One that is heard every 100 s has not noticed a cut of 20 s, and answers for nobody's silence of 3 s.
    cut = [*every(1.0, 1.0, 1000.0), *every(1.0, 1020.0, 3000.0)]
    ttls = {"slow": 300.0, "quick": 3.0}
    assert played({"slow": slow, "quick": cut}, 3000, ttls) == {}
    assert set(played({"slow": slow, "quick": every(1.0, 1.0, 1000.0)}, 3000, ttls)) == {"quick"}


def test_after_a_day_the_last_one_goes_too_if_the_mesh_was_heard() -> None:
    silent = {"a": Liveness(0.0, 0.0, TTL)}
    assert gone(silent, FORGOTTEN + 1, mesh_heard=True) == ["a"]
    assert gone(silent, FORGOTTEN - 1, mesh_heard=True) == []
    assert gone(silent, FORGOTTEN * 100, mesh_heard=False) == []


def test_the_mesh_is_heard_by_one_that_has_been_there_for_ten_minutes() -> None:
    now = 100_000.0
    there = Liveness(now - 5, now - 601, TTL)
    back = Liveness(now - 5, now - 30, TTL)
    silent = Liveness(now - 50, 0.0, TTL)
    assert mesh_is_heard({"a": silent, "b": there}, now)
    assert not mesh_is_heard({"a": silent, "b": back, "c": unheard(now, TTL)}, now)
    assert not mesh_is_heard({}, now)


# -- our own absence -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("planned", "now", "found"),
    [
        (10.0, 10.0, Lateness.ON_TIME),
        (10.0, 10.4, Lateness.ON_TIME),
        (10.0, 10.6, Lateness.LATE),
        (10.0, 11.9, Lateness.LATE),
        (10.0, 12.1, Lateness.AWAY),
        (10.0, 99_999.0, Lateness.AWAY),
    ],
)
def test_a_round_knows_by_its_own_clock_whether_we_were_there(planned: float, now: float, found: Lateness) -> None:
    assert lateness(planned, now) is found


def test_what_was_heard_before_an_absence_answers_for_nobody_after_it() -> None:
    back = 1000.0
    before = {"a": Liveness(499.0, 0.0, TTL), "b": Liveness(498.0, 0.0, TTL)}
    hearings = {name: anew(each, back) for name, each in before.items()}
    assert gone(hearings, back + TTL + 1, False) == []
    for when in every(5.0, back, back + 28):
        hearings["a"] = heard(hearings["a"], when, TTL)
    assert gone(hearings, back + 28, False) == []
    for when in (back + 30, back + 35):
        hearings["a"] = heard(hearings["a"], when, TTL)
    assert gone(hearings, back + 36, False) == ["b"]


def test_stale_is_who_is_silent_for_longer_than_it_said() -> None:
    assert not Liveness(10.0, 0.0, TTL).stale(25.0)
    assert Liveness(10.0, 0.0, TTL).stale(25.1)


@pytest.mark.parametrize("make", [lambda now: unheard(now, TTL), lambda now: anew(Liveness(0.0, 0.0, TTL), now)])
def test_a_heartbeat_after_a_start_begins_a_streak_and_does_not_reach_back(make: Callable[[float], Liveness]) -> None:
    assert heard(make(100.0), 103.0, TTL).since == 103.0
    assert heard(heard(make(100.0), 103.0, TTL), 108.0, TTL).since == 103.0
    assert heard(heard(make(100.0), 103.0, TTL), 114.0, TTL).since == 114.0
