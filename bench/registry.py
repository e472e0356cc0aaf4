"""The control plane under a mesh: how long a change takes to whoever needs it, and what that costs.

``python -m bench.registry`` starts a real ``sidecar-control`` on one core and simulated proxies on the other: 1,000
services with 10 endpoints each, 200 proxies that each need 3 of them by a Sidecar document. Then single endpoints
change at random instants. Told: the time from the answer to the change until it has arrived at each proxy that needs
it; whether anybody else was woken; CPU and memory of the control plane. ``--times 10`` makes all of it ten times as
large.

Services and nine endpoints of each are documents, applied in bulk; the tenth is registered by its workload, and that is
what changes. The proxies ask on loopback, so no handshake is in the figures.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import trio

from bench.churn import NEEDED, Measured, Size, measure
from bench.processes import BenchError, Process, cores, held_port, listens
from bench.simulated import ControlRefused
from sidecar.addresses import Address


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it, and writes the figures; 1 where it could not be run, or a proxy got too few, too many or nothing."""
    parser = argparse.ArgumentParser(prog="python -m bench.registry", description="The control plane under a mesh.")
    parser.add_argument("--times", type=int, default=1, help="so many times the services and the proxies")
    parser.add_argument("--changes", type=int, default=300, help="endpoints that change")
    parser.add_argument("--seed", type=int, default=1, help="of what is random")
    told = parser.parse_args(argv)
    size = Size(services=1000 * told.times, proxies=200 * told.times, changes=told.changes)
    try:
        measured = run(size, told.seed)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print("\n".join(report(size, measured)))
    good = not measured.missing and not measured.strangers and measured.holds == (NEEDED, NEEDED)
    return 0 if good else 1


def run(size: Size, seed: int) -> Measured:
    """A control plane on one core, and all else on the other."""
    control_core, load_core = cores()
    os.sched_setaffinity(0, {load_core})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name, held_port() as port:
        directory = Path(name)
        argv = [
            sys.executable, "-m", "control", "--ca-dir", str(directory / "ca"), "--listen", f"127.0.0.1:{port}",
            "--audit-log", str(directory / "audit.jsonl"),
        ]  # fmt: skip
        with Process(argv, control_core, directory, name="control") as process:
            process.wait_until(lambda: listens(port), 30)
            operator = (directory / "ca" / "operator-token").read_text().strip()
            address = Address("127.0.0.1", port)
            try:
                return trio.run(measure, address, operator, process.pid, size, random.Random(seed))
            except (ControlRefused, ExceptionGroup) as refused:
                raise BenchError(f"{_first(refused)}; {process.last_words()}") from None


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def report(size: Size, measured: Measured) -> Iterator[str]:
    """The figures, line by line."""
    yield f"{size.services:,} services with {size.endpoints} endpoints, {size.proxies:,} proxies with {NEEDED} each"
    yield f"seeded in {measured.seeded:.1f} s; {measured.cpu_seeding:.1f} s of CPU"
    yield f"first snapshots of all in {measured.first:.2f} s; {measured.cpu_first:.2f} s of CPU"
    quantiles = [f"{each * 1e3:.0f} ms" for each in statistics.quantiles(measured.delays, n=100, method="inclusive")]
    yield (
        f"{size.changes} changes in {measured.took:.0f} s, {len(measured.delays)} arrivals: p50 {quantiles[49]}, "
        f"p99 {quantiles[98]}, max {max(measured.delays) * 1e3:.0f} ms; {measured.missing} missing, "
        f"{measured.strangers} for nothing; a proxy holds {measured.holds[0]} to {measured.holds[1]} services"
    )
    idle = measured.cpu_idle * measured.took
    yield (
        f"CPU of the control plane: {measured.cpu_changes:.2f} s, "
        f"{(measured.cpu_changes - idle) / size.changes * 1e3:.1f} ms a change; "
        f"{measured.cpu_idle * 100:.1f} % of a core without changes; RSS {measured.rss / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
