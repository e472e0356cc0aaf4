"""The working tree beside another revision: the rounds of both in pairs, their ratios, and the table of them.

Called by the command line for ``--against``. Pure. Both sides play each round, one right after the other, so a machine
that gets slower meanwhile does so for both: the ratio is taken within a round, and the median over the rounds counts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.results import Results, source
from bench.scenarios import SCENARIOS

THIS, OTHER = "this", "other"
NOT_WORSE = 1.03

# What is compared beside each scenario's own figure: that of `captured` is a ratio already, which hides a loss that
# both of its ways have.
_MORE = {"captured": (("captured-outbound", "captured_outbound_us"), ("captured-inbound", "captured_inbound_us"))}


@dataclass(frozen=True, slots=True)
class Compared:
    """Both medians, and the median, smallest and largest of the ratios this/other of each round."""

    this: float
    other: float
    ratio: float
    least: float
    most: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; ``compared`` is None where a side has no figures, and ``reason`` is why. ``beside`` are the
    medians of the proxies that played along."""

    name: str
    unit: str
    compared: Compared | None
    reason: str = ""
    beside: tuple[float | None, ...] = ()

    @property
    def worse(self) -> bool:
        return self.compared is not None and self.compared.ratio > NOT_WORSE


def paired(this: Sequence[float], other: Sequence[float]) -> Compared:
    """Compare figures of which the smaller one is better, round by round; ValueError unless each side has the same
    number of them, and at least one."""
    if not this or len(this) != len(other):
        raise ValueError(f"{len(this)} rounds of one side and {len(other)} of the other are no pairs")
    ratios = [_ratio(mine, theirs) for mine, theirs in zip(this, other, strict=True)]
    return Compared(
        statistics.median(this), statistics.median(other), statistics.median(ratios), min(ratios), max(ratios),
        len(ratios),
    )  # fmt: skip


def _ratio(mine: float, theirs: float) -> float:
    if theirs > 0:
        return mine / theirs
    return 1.0 if mine <= 0 else math.inf  # memory of idle connections that fits in what was there before


def rows(results: Results) -> Iterator[Row]:
    """A row for each scenario that was played, in the order that they are declared in."""
    for scenario in SCENARIOS.values():
        if scenario.name not in results.scenarios:
            continue
        yield _row(results, scenario.name, scenario.name, scenario.figure, scenario.unit)
        for name, figure in _MORE.get(scenario.name, ()):
            yield _row(results, scenario.name, name, figure, "CPU us/request")


def _row(results: Results, scenario: str, name: str, figure: str, unit: str) -> Row:
    played = results.turns.get(source(results, scenario), {})
    this, other = ([turn[figure] for turn in played.get(side, [])] for side in (THIS, OTHER))
    beside = tuple(results.medians(scenario, proxy).get(figure) for proxy in _beside(results))
    if this and len(this) == len(other):
        return Row(name, unit, paired(this, other), beside=beside)
    failures = results.failures.get(source(results, scenario), {})
    reasons = [f"{side}: {text.splitlines()[-1].strip()}" for side, text in failures.items()]
    return Row(name, unit, None, "; ".join(reasons) or "not played", beside)


def _beside(results: Results) -> list[str]:
    return [proxy for proxy in results.proxies if proxy not in (THIS, OTHER)]


def table(results: Results) -> str:
    """The table for a terminal, and a line for each row whose ratio is past `NOT_WORSE`."""
    found = list(rows(results))
    lines = [["scenario", "figure", THIS, OTHER, "ratio", "min", "max", "rounds", *_beside(results)]]
    lines += [_cells(row) for row in found if row.compared is not None]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        "  ".join(
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    text.insert(1, "-" * max(map(len, text)))
    text.append("")
    text += [f"NO FIGURE: {row.name}: {row.reason}" for row in found if row.compared is None]
    text += [_worse(row.name, row.compared) for row in found if row.worse and row.compared is not None]
    text += [f"{side}: {results.machine[side]}" for side in (THIS, OTHER)]
    text.append(f"{results.rounds} rounds of {results.seconds} s; it took {results.took:.0f} s in all.")
    return "\n".join(text)


def _worse(name: str, compared: Compared) -> str:
    return (
        f"PAST {NOT_WORSE:g}: {name}: {compared.ratio:.3f} times the other's, "
        f"{compared.least:.3f} to {compared.most:.3f} in {compared.rounds} rounds"
    )


def _cells(row: Row) -> list[str]:
    compared = row.compared
    assert compared is not None
    ratios = (f"{ratio:.3f}" for ratio in (compared.ratio, compared.least, compared.most))
    beside = (_figure(median) if median is not None else "" for median in row.beside)
    return [
        row.name, row.unit, _figure(compared.this), _figure(compared.other), *ratios, str(compared.rounds), *beside,
    ]  # fmt: skip


def _figure(value: float) -> str:
    return f"{value:,.1f}" if value >= 100 else f"{value:.3g}"
