"""What was measured: the figures of every turn, their medians, the judgement on them, and where they are kept.

Called by the command line; `report`, `chart` and `docs` show what is here. What counts is the median over the rounds,
and each ratio is that of two medians. The JSON keeps every turn, so that the spread can be seen.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench import chart
from bench.processes import ROOT, BenchError
from bench.proxies import PROXIES, Proxy
from bench.scenarios import SCENARIOS
from bench.turn import Figures, Scenario

RESULTS = ROOT / "bench" / "results"
LATEST = RESULTS / "latest.json"
# A proxy in Python that is no faster than this would not be worth its own code.
MITMPROXY_FACTOR = 15.0


@dataclass(slots=True)
class Results:
    """The figures of a run: per scenario and proxy a list with one entry a turn."""

    scenarios: list[str]
    proxies: list[str]
    rounds: int
    seconds: int
    machine: dict[str, str]
    turns: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    took: float = 0.0

    def add(self, scenario: str, proxy: str, figures: Figures) -> None:
        self.turns.setdefault(scenario, {}).setdefault(proxy, []).append(figures)

    def fail(self, scenario: str, proxy: str, reason: str) -> None:
        """A proxy that failed once is out of the scenario: half its rounds would be compared with all of another's."""
        self.failures.setdefault(scenario, {})[proxy] = reason
        self.turns.get(scenario, {}).pop(proxy, None)

    @property
    def whole(self) -> bool:
        """Whether every scenario and proxy was played; only mitmproxy, which is there for scale, may have failed."""
        failed = {proxy for failures in self.failures.values() for proxy in failures} - {"mitmproxy"}
        return set(self.scenarios) == set(SCENARIOS) and set(self.proxies) == set(PROXIES) and not failed

    def failed(self, scenario: str, proxy: str) -> bool:
        return proxy in self.failures.get(scenario, {})

    def medians(self, scenario: str, proxy: str) -> Figures:
        """The median of each figure over the rounds; empty where there is none."""
        played = self.turns.get(source(self, scenario), {}).get(proxy, [])
        return {key: statistics.median(turn[key] for turn in played) for key in played[0]} if played else {}

    def ratio(self, scenario: Scenario, proxy: str) -> float | None:
        """The scenario's figure over Envoy's; None where either is missing."""
        own = self.medians(scenario.name, proxy).get(scenario.figure)
        envoy = self.medians(scenario.name, "envoy").get(scenario.figure)
        return own / envoy if own is not None and envoy else None


def beside(results: Results, scenario: Scenario, name: str) -> float | None:
    """Our figure over ours of another scenario: the median of the ratios of each round, since both are played in it;
    None where either is missing."""
    turns = [results.turns.get(source(results, each), {}).get("ours", []) for each in (scenario.name, name)]
    figures = [(each[scenario.figure], other[scenario.figure]) for each, other in zip(*turns, strict=False)]
    return statistics.median(each / other for each, other in figures) if figures else None


def beyond_bounds(results: Results) -> list[str]:
    """What is past its bound or failed, as sentences; nothing where ours was not among the proxies."""
    past = []
    judged = results.scenarios if "ours" in results.proxies else []
    for scenario in [known for name, known in SCENARIOS.items() if name in judged]:
        ratio, own = results.ratio(scenario, "ours"), results.medians(scenario.name, "ours").get(scenario.figure)
        if own is None:
            past.append(f"{scenario.name}: no figure for ours")
        elif scenario.bound is not None and ratio is not None and ratio > scenario.bound:
            past.append(f"{scenario.name}: {ratio:.2f} times Envoy's, of {scenario.bound:g} at most")
        elif scenario.limit is not None and own > scenario.limit:
            past.append(f"{scenario.name}: {own:.3g} {scenario.unit}, of {scenario.limit:g} at most")
        past += [
            f"{scenario.name}: {found:.3f} times {name}, of {most:g} at most"
            for name, most in scenario.beside
            if (found := beside(results, scenario, name)) is not None and found > most
        ]
    dearer = mitmproxy_factor(results)
    if dearer is not None and dearer < MITMPROXY_FACTOR:
        past.append(f"http1: mitmproxy is only {dearer:.1f} times dearer, of {MITMPROXY_FACTOR:g} at least")
    return past


def mitmproxy_factor(results: Results) -> float | None:
    """How many times our CPU mitmproxy takes for a request; None where one of them was not measured."""
    own = results.medians("http1", "ours").get("cpu_us")
    theirs = results.medians("http1", "mitmproxy").get("cpu_us")
    return theirs / own if own and theirs else None


def save(results: Results, *, latest: bool, beside: str = "") -> list[Path]:
    """Write JSON and chart to bench/results/ under the time of day, and as `latest` if wanted; returns the paths. With
    a word in ``beside`` it is in the name, and there is no chart, which is of ratios to Envoy."""
    RESULTS.mkdir(exist_ok=True)
    names = [results.machine["date"].replace(":", "").replace("+0000", "Z") + beside]
    names += ["latest"] if latest else []
    written = []
    for name in names:
        target = RESULTS / f"{name}.json"
        target.write_text(json.dumps(asdict(results), indent=1) + "\n")
        written.append(target)
        if not beside and (picture := chart.draw(RESULTS / f"{name}.png", results.proxies, list(_ratios(results)))):
            written.append(picture)
    return written


def read(source: Path) -> Results:
    """Results that `save` has written; raises BenchError where there are none."""
    try:
        return Results(**json.loads(source.read_text()))
    except FileNotFoundError:
        raise BenchError(f"{source} is missing: run python -m bench first") from None


def _ratios(results: Results) -> Iterator[chart.Bars]:
    for scenario in SCENARIOS.values():
        if scenario.name in results.scenarios and scenario.limit is None:
            heights = {
                proxy: ratio
                for proxy in results.proxies
                if proxy in scenario.proxies and (ratio := results.ratio(scenario, proxy)) is not None
            }
            if heights:
                yield chart.Bars(scenario.name, scenario.unit, heights, scenario.bound)


def source(results: Results, scenario: str) -> str:
    """Where a scenario's figures are: some are read off the turns of another one where those were played."""
    of = SCENARIOS[scenario].of
    return of if of in results.scenarios else scenario


def machine(proxies: Sequence[Proxy]) -> dict[str, str]:
    """What the figures were taken on, and of which versions."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "",
    )
    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S+0000"),
        "cpu": f"{cpu or platform.machine()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    for proxy in proxies:
        try:
            found[proxy.name] = proxy.version()
        except (BenchError, OSError, subprocess.CalledProcessError):
            found[proxy.name] = "unknown"
    return found
