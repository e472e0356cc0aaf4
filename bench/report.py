"""What was measured, as a table for people: its rows as text, and their form on a terminal.

Called by the command line, and by `docs` for the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from bench.results import Results, beyond_bounds, mitmproxy_factor, source
from bench.scenarios import SCENARIOS
from bench.turn import Figures, Scenario


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, as text."""

    scenario: str
    proxy: str
    figure: str
    p50: str
    p99: str
    rate: str
    rss: str
    ratio: str
    bound: str


HEADER = Row("scenario", "proxy", "figure", "p50 ms", "p99 ms", "per second", "RSS MB", "to Envoy", "bound")


def rows(results: Results) -> Iterator[Row]:
    """The table's lines, scenario by scenario in the order that they are declared in."""
    for scenario in SCENARIOS.values():
        if scenario.name not in results.scenarios:
            continue
        for proxy in results.proxies:
            reason = results.failures.get(source(results, scenario.name), {}).get(proxy)
            if reason:
                yield Row(scenario.name, proxy, f"failed: {reason.splitlines()[-1].strip()}", "", "", "", "", "", "")
            elif proxy in scenario.proxies and (figures := results.medians(scenario.name, proxy)):
                yield _row(results, scenario, proxy, figures)


def _row(results: Results, scenario: Scenario, proxy: str, figures: Figures) -> Row:
    ratio = results.ratio(scenario, proxy)
    own = {} if scenario.of else figures  # what was seen under another scenario's load would be taken for this one's
    return Row(
        scenario=scenario.name,
        proxy=proxy,
        figure=f"{_three_digits(figures[scenario.figure])} {scenario.unit}",
        p50=f"{figures['p50_ms']:.2f}" if "p50_ms" in own else "",
        p99=f"{figures['p99_ms']:.2f}" if "p99_ms" in own else "",
        rate=_rate(own),
        rss=f"{figures['rss_mb']:.1f}",
        ratio=f"{ratio:.2f}" if ratio is not None and proxy != "envoy" and scenario.limit is None else "",
        bound=_bound(scenario) if proxy == "ours" else "",
    )


def _bound(scenario: Scenario) -> str:
    if scenario.limit is not None:
        return f"{scenario.limit:g} {scenario.unit}"
    if scenario.bound is None:
        return ""
    return f"{scenario.bound:g}" + (f", aim {scenario.aim:g}" if scenario.aim is not None else "")


def _rate(figures: Figures) -> str:
    if "gb_per_second" in figures:
        return f"{figures['gb_per_second']:.2f} GB"
    return f"{figures['per_second']:,.0f}" if "per_second" in figures else ""


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(results: Results) -> str:
    """The table for a terminal."""
    lines = [list(asdict(row).values()) for row in (HEADER, *rows(results))]
    widths = [
        max(len(line[column]) for line in lines if not line[2].startswith("failed") or column < 2)
        for column in range(9)
    ]
    # Names to the left, numbers to the right.
    text = []
    for line in lines:
        cells = [
            cell.ljust(width) if at < 3 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    text.insert(1, "-" * max(len(line) for line in text))
    if dearer := mitmproxy_factor(results):
        text.append(f"\nmitmproxy takes {dearer:.1f} times our CPU for a request of http1.")
    text += ["", *(f"PAST ITS BOUND: {sentence}" for sentence in beyond_bounds(results))]
    text.append(f"{results.rounds} rounds of {results.seconds} s; it took {results.took:.0f} s in all.")
    return "\n".join(text)
