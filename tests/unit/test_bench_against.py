"""The benchmark's pairs: a ratio is taken within a round, and a side without figures gives none."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from bench.against import OTHER, THIS, paired, rows, table
from bench.processes import BenchError
from bench.results import Results
from bench.revision import Tree, ready


def results(*scenarios: str, beside: tuple[str, ...] = ()) -> Results:
    machine = {THIS: "1234567-dirty", OTHER: "v1, 89abcde"}
    return Results(list(scenarios), [THIS, OTHER, *beside], 3, 1, machine)


def played(found: Results, scenario: str, proxy: str, **figures: tuple[float, ...]) -> None:
    for turn in zip(*figures.values(), strict=True):
        found.add(scenario, proxy, dict(zip(figures, turn, strict=True)))


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    """The machine halves its speed in the last round; the ratio of the medians would be 2."""
    compared = paired([10.0, 22.0, 40.0], [10.0, 11.0, 40.0])
    assert (compared.this, compared.other) == (22.0, 11.0)
    assert (compared.ratio, compared.least, compared.most, compared.rounds) == (1.0, 1.0, 2.0, 3)


@pytest.mark.parametrize(("this", "other"), [([], []), ([1.0], []), ([1.0], [1.0, 2.0])])
def test_rounds_that_only_one_side_played_are_no_pairs(this: list[float], other: list[float]) -> None:
    with pytest.raises(ValueError, match="are no pairs"):
        paired(this, other)


@pytest.mark.parametrize(("this", "other", "ratio"), [(0.0, 0.0, 1.0), (-1.0, 0.0, 1.0), (1.0, 0.0, math.inf)])
def test_a_figure_of_nothing_has_a_ratio_too(this: float, other: float, ratio: float) -> None:
    assert paired([this], [other]).ratio == ratio


def test_a_scenario_that_is_read_off_anothers_turns_has_its_row() -> None:
    found = results("http1", "start")
    played(found, "http1", THIS, cpu_us=(60.0, 62.0), largest_rss_mb=(33.0, 33.0))
    played(found, "http1", OTHER, cpu_us=(60.0, 60.0), largest_rss_mb=(30.0, 30.0))
    http1, start = rows(found)
    assert http1.compared is not None and start.compared is not None
    assert (http1.name, start.name) == ("http1", "start")
    assert start.compared.ratio == pytest.approx(1.1)
    assert (http1.worse, start.worse) == (False, True)


def test_captured_has_rows_for_what_a_request_costs_either_hop() -> None:
    found = results("captured")
    for name, cost in ((THIS, 110.0), (OTHER, 100.0)):
        played(
            found, "captured", name,
            captured_ratio=(1.0,), captured_outbound_us=(cost,), captured_inbound_us=(cost,),
        )  # fmt: skip
    assert [(row.name, row.worse) for row in rows(found)] == [
        ("captured", False), ("captured-outbound", True), ("captured-inbound", True),
    ]  # fmt: skip


def test_a_side_that_failed_leaves_no_figure_and_says_why() -> None:
    found = results("http1")
    played(found, "http1", THIS, cpu_us=(60.0,))
    found.fail("http1", OTHER, "sidecar ended with 2:\n  no such flag")
    (row,) = rows(found)
    assert row.compared is None and row.reason == "other: no such flag"
    assert "NO FIGURE: http1: other: no such flag\n" in table(found)


def test_the_table_flags_what_is_past_the_bound_and_shows_who_played_along() -> None:
    found = results("http1", "mix", beside=("envoy",))
    for scenario, costs in (("http1", (61.0, 60.0)), ("mix", (126.0, 120.0))):
        for name, cost in ((THIS, costs[0]), (OTHER, costs[1]), ("envoy", 70.0)):
            played(found, scenario, name, cpu_us=(cost,))
    text = table(found)
    assert [line.split() for line in text.splitlines() if line.startswith(("scenario", "http1"))] == [
        ["scenario", "figure", "this", "other", "ratio", "min", "max", "rounds", "envoy"],
        ["http1", "CPU", "us/request", "61", "60", "1.017", "1.017", "1.017", "1", "70"],
    ]
    assert [line for line in text.splitlines() if line.startswith("PAST")] == [
        "PAST 1.03: mix: 1.050 times the other's, 1.050 to 1.050 in 1 rounds"
    ]
    assert "this: 1234567-dirty\nother: v1, 89abcde\n" in text


def test_a_tree_whose_interpreter_imports_another_sidecar_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="was to be measured, and its interpreter imports"):
        ready(Tree(tmp_path, sys.executable, "empty"))
