"""Where the sidecar spends its time in a scenario: ``python -m bench.profile http1``.

Plays one turn of a scenario with the sidecar under a profiler (`profiled` says which there are, and what they distort)
and prints the functions or lines that took most.
"""

from __future__ import annotations

import argparse
import json
import os
import pstats
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.app import nginx
from bench.hops import Hop, our_hop, our_words
from bench.processes import BenchError, cores
from bench.proxies import OURS, Mode, Place, Proxy, sidecar_flags
from bench.scenarios import SCENARIOS
from bench.turn import Turn


def main(argv: Sequence[str] | None = None) -> int:
    """Profile one scenario; 0 when it was played, 1 where it could not be."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description="Where the time goes.")
    # Those of root start their own proxies, which nobody looks into.
    parser.add_argument("scenario", choices=[name for name, scenario in SCENARIOS.items() if not scenario.root])
    parser.add_argument("--sample", action="store_true", help="sample lines instead of counting calls: truer, coarser")
    parser.add_argument("--seconds", type=int, default=5, metavar="S")
    parser.add_argument("--top", type=int, default=40, metavar="N", help="how many lines to print")
    parser.add_argument("--sort", default="tottime", choices=["tottime", "cumulative", "ncalls"])
    parser.add_argument("--hop", default="inbound", choices=["inbound", "outbound"], help="of a pair: which of the two")
    options = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="sidecar-profile-") as name:
            out = Path(name) / "profile"
            under = [sys.executable, "-m", "bench.profiled", "sampled" if options.sample else "exact", str(out)]
            _play(Path(name), under, options.scenario, options.hop, options.seconds)
            if options.sample:
                _print_samples(json.loads(out.read_text()), options.top)
            else:
                pstats.Stats(str(out)).sort_stats(options.sort).print_stats(options.top)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _play(directory: Path, under: Sequence[str], scenario: str, profiled_hop: str, seconds: int) -> None:
    """One turn of the scenario under the profiler, with a line about what was measured."""

    def command(mode: Mode, place: Place) -> list[str]:
        return [*under, "sidecar.cli", *sidecar_flags(mode, place)]

    def hop_command(hop: Hop) -> list[str]:
        return [*under, "bench.with_identity", *our_words(hop)] if hop.name == profiled_hop else our_hop(hop)

    # Only an ending of its own accord lets the profiler write what it saw.
    proxy = Proxy("ours", command, OURS.version, ready_line=OURS.ready_line, farewell=40.0, hop=hop_command)
    proxy_core, load_core = cores()
    os.sched_setaffinity(0, {load_core})
    with nginx(directory, load_core) as upstream:
        figures = SCENARIOS[scenario].play(Turn(proxy, upstream, directory / "turn", proxy_core, load_core, seconds))
    print(f"{scenario}, under the profiler:", ", ".join(f"{key} {value:.2f}" for key, value in figures.items()))


def _print_samples(seen: dict[str, dict[str, int]], top: int) -> None:
    total = sum(seen["lines"].values())
    own: dict[str, int] = {}
    for place, count in seen["lines"].items():
        function = place.rpartition(":")[0]
        own[function] = own.get(function, 0) + count
    for title, counts in (("lines", seen["lines"]), ("functions, own", own), ("with callees", seen["functions"])):
        print(f"\n{title} ({total} samples)")
        for place, count in sorted(counts.items(), key=lambda item: -item[1])[:top]:
            print(f"{count / total:7.1%}  {place}")


if __name__ == "__main__":
    sys.exit(main())
