"""The command line of the benchmark: ``python -m bench``.

Plans the rounds, lets the proxies take turns, and hands what was measured to `report`. Everything that it starts ends
with it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from bench import against, docs, report
from bench.app import nginx
from bench.processes import BenchError, cores
from bench.proxies import PROXIES, Proxy
from bench.results import Results, beyond_bounds, machine, save
from bench.revision import checked_out, side, working_tree
from bench.scenarios import SCENARIOS
from bench.turn import Scenario, Turn

ROUNDS = 5
SECONDS = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 when it was run, 1 when it could not be or `--check` found a ratio past its bound."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.against and (options.check or options.write_docs):
        parser.error("--against judges by another revision; --check and --write-docs go by the bounds beside Envoy")
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        if options.write_docs:
            docs.write()
            return 0
        rounds = options.rounds or (1 if options.quick else ROUNDS)
        seconds = options.seconds or (1 if options.quick else SECONDS)
        scenarios = _playable(options.only)
        if options.against:
            beside = [PROXIES[name] for name in options.proxies or () if name != "ours"]
            return _against(options.against, scenarios, beside, rounds, seconds)
        measured = run(scenarios, [PROXIES[name] for name in options.proxies or PROXIES], rounds, seconds)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    print(report.table(measured))
    print("\nwritten:", *save(measured, latest=measured.whole and not options.quick))
    return 1 if options.check and beyond_bounds(measured) else 0


def _against(revision: str, scenarios: Sequence[str], beside: Sequence[Proxy], rounds: int, seconds: int) -> int:
    """The working tree and another revision take turns, and the other proxies, if any; 1 where a figure is missing."""
    playable = [name for name in scenarios if "ours" in SCENARIOS[name].proxies]
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name, checked_out(revision, Path(name)) as tree:
        sides = [side(against.THIS, working_tree()), side(against.OTHER, tree)]
        measured = run(playable, [*sides, *beside], rounds, seconds)
    print(against.table(measured))
    print("\nwritten:", *save(measured, latest=False, beside="-against"))
    return 1 if any(row.compared is None for row in against.rows(measured)) else 0


def run(scenarios: Sequence[str], proxies: Sequence[Proxy], rounds: int, seconds: int) -> Results:
    """Play the scenarios in rounds; a proxy that can't be had or fails is noted and left out of the rest."""
    proxy_core, load_core = cores()
    os.sched_setaffinity(0, {load_core})
    _allow_many_descriptors()
    names = [proxy.name for proxy in proxies]
    results = Results(list(scenarios), names, rounds, seconds, machine(proxies))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        upstream = stack.enter_context(nginx(directory, load_core))
        for number, scenario in _turns(_planned(scenarios), rounds):
            for proxy in _in_turn(scenario, proxies, number):
                if not results.failed(scenario.name, proxy.name):
                    _say(f"{time.monotonic() - began:5.0f} s  {scenario.name} {number + 1}: {proxy.name}")
                    place = directory / f"{scenario.name}-{number}-{proxy.name}"
                    turn = Turn(proxy, upstream, place, proxy_core, load_core, seconds, number)
                    _play(scenario, turn, results)
    _say("")
    results.took = time.monotonic() - began
    return results


def _play(scenario: Scenario, turn: Turn, results: Results) -> None:
    try:
        figures = scenario.play(turn)
    except (BenchError, OSError) as error:
        _say("")
        print(f"bench: {scenario.name}: {turn.proxy.name}: {error}", file=sys.stderr)
        results.fail(scenario.name, turn.proxy.name, str(error))
    else:
        results.add(scenario.name, turn.proxy.name, figures)
    finally:
        # A turn's access log has tens of megabytes.
        shutil.rmtree(turn.run, ignore_errors=True)


def _planned(names: Sequence[str]) -> list[Scenario]:
    """The scenarios to play: `start` is read off `http1` where both are wanted, and others likewise."""
    return [scenario for name, scenario in SCENARIOS.items() if name in names and scenario.of not in names]


def _turns(scenarios: Sequence[Scenario], rounds: int) -> Iterator[tuple[int, Scenario]]:
    """Each round of each scenario. Those that are held against each other are played in the same rounds."""
    left = list(scenarios)
    while left:
        first = left[0]
        together = [each for each in left if each is first or first.name in dict(each.beside)]
        left = [each for each in left if each not in together]
        for number in range(min(rounds, first.rounds)):
            yield from ((number, each) for each in together)


def _playable(names: Sequence[str]) -> list[str]:
    """Without those that need root, where we are not; each is told."""
    left_out = [name for name in names if SCENARIOS[name].root and os.geteuid() != 0]
    for name in left_out:
        print(f"bench: {name} is left out: network namespaces need root", file=sys.stderr)
    return [name for name in names if name not in left_out]


def _in_turn(scenario: Scenario, proxies: Sequence[Proxy], number: int) -> list[Proxy]:
    """The proxies of this round: another one begins each time, so that none is always first after a pause."""
    playing = [proxy for proxy in proxies if scenario.is_played_by(proxy)]
    first = number % len(playing) if playing else 0
    # mitmproxy's distance is so great that two rounds tell it.
    return [proxy for proxy in playing[first:] + playing[:first] if proxy.name != "mitmproxy" or number < 2]


def _allow_many_descriptors() -> None:
    """Raise the soft limit to the hard one: for the idle connections here, and for the proxies, which inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    """Progress on a terminal only, on one line that is overwritten."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def _names(known: Sequence[str], what: str) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"no {what} {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="CPU and memory beside other proxies.")
    add = parser.add_argument
    only = f"of {', '.join(SCENARIOS)} (default all)"
    add("--only", type=_names([*SCENARIOS], "scenario"), default=[*SCENARIOS], metavar="NAME,...", help=only)
    proxies = f"of {', '.join(PROXIES)} (default all; with --against none beside its two sides)"
    add("--proxies", type=_names([*PROXIES], "proxy"), metavar="NAME,...", help=proxies)
    add("--rounds", type=int, default=None, metavar="N", help=f"turns of each proxy (default {ROUNDS})")
    add("--seconds", type=int, default=None, metavar="S", help=f"measured seconds of a turn (default {SECONDS})")
    add("--quick", action="store_true", help="one round of one second each: does it work at all?")
    other = "measure the working tree and this git revision in the same rounds; prints this/other for each scenario"
    add("--against", metavar="REV", help=other)
    add("--check", action="store_true", help="exit with 1 where a ratio to Envoy is past its bound")
    add("--write-docs", action="store_true", help="write results/latest.json into docs/performance.md; runs nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
