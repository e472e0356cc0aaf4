"""How many instructions of Python's machine a request takes in the sidecar's own modules: ``python -m bench.opcodes``.

The count is the same on a busy machine and on an idle one, so it tells changes of a per cent that no time tells there.
It is blind to what C code takes (the kernel, OpenSSL, dicts), and so is a measure beside the CPU time of `bench`, not
in its place. The scenarios are `http1`, and outbound of `mesh` and of those with routes; one connection asks 100 times
in a row, and the median of several such batches counts. ``--against REV`` counts another revision beside.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.app import nginx
from bench.hops import HTTP, Hop
from bench.pair import pair
from bench.processes import ROOT, BenchError, Process, cores
from bench.proxies import Mode, Place, Proxy, started
from bench.revision import Tree, checked_out, side, working_tree
from bench.turn import Turn

SCENARIOS = {"http1": -1, "mesh": 0, "routes-1": 1, "routes-10000": 10_000}  # routes of outbound
BATCH, BATCHES = 100, 5
_GET = (
    b"GET %b/catalogue/items/%d?page=2 HTTP/1.1\r\nHost: %b\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
    b"Accept: application/json, text/plain, */*\r\nAccept-Encoding: gzip, deflate, br\r\nCookie: session=0f3c9a\r\n\r\n"
)
Counts = dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Count, and print the counts; 1 if that can't be done."""
    parser = argparse.ArgumentParser(prog="python -m bench.opcodes", description="Instructions of a request.")
    parser.add_argument("--only", default=",".join(SCENARIOS), metavar="NAME,...", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--against", metavar="REV", help="count this git revision, too")
    parser.add_argument("--top", type=int, default=0, metavar="N", help="print the N functions that differ most")
    options = parser.parse_args(argv)
    names = options.only.split(",")
    if unknown := set(names) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}")
    try:
        with tempfile.TemporaryDirectory(prefix="sidecar-opcodes-") as place, contextlib.ExitStack() as stack:
            trees = {"this": working_tree()}
            if options.against:
                trees["other"] = stack.enter_context(checked_out(options.against, Path(place)))
            _print(_all(names, trees, Path(place)), options.top)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def _all(names: Sequence[str], trees: dict[str, Tree], run: Path) -> dict[tuple[str, str], Counts]:
    found = {}
    core, load_core = cores()
    with nginx(run, load_core) as upstream:
        for name in names:
            for which, tree in trees.items():
                if which == "other" and SCENARIOS[name] > 0 and not (tree.root / "bench" / "routes.py").exists():
                    continue  # it has no routes yet
                place = run / f"{name}-{which}"
                turn = Turn(side(which, tree), upstream, place, core, load_core, 0)
                found[name, which] = _counted(turn, SCENARIOS[name])
    return found


def _counted(turn: Turn, routes: int) -> Counts:
    """The instructions of a request, by function."""
    out = turn.run / "counts.json"
    proxy = replace(turn.proxy, command=partial(_command, turn.proxy, out), hop=partial(_hop, turn.proxy, out))
    with contextlib.ExitStack() as stack:
        if routes < 0:
            running = stack.enter_context(started(proxy, Mode.HTTP, turn.upstream, turn.run, turn.proxy_core))
        else:
            running = stack.enter_context(pair(replace(turn, proxy=proxy), routes=routes)).outbound
        authority = b"app.example" if routes < 0 else HTTP.encode()
        target = b"" if routes < 0 else b"http://" + authority
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=60))
        _ask(connection, target, authority)
        _told(running.process, out)
        batches = []
        for _ in range(BATCHES):
            _ask(connection, target, authority)
            batches.append(_told(running.process, out))
    names = {name for each in batches for name in each}
    return {name: statistics.median(each.get(name, 0.0) for each in batches) / BATCH for name in names}


def _command(proxy: Proxy, out: Path, mode: Mode, place: Place) -> list[str]:
    return _counting(proxy.command(mode, place), out)


def _hop(proxy: Proxy, out: Path, hop: Hop) -> list[str]:
    assert proxy.hop is not None
    words = proxy.hop(hop)
    return _counting(words, out) if hop.name == "outbound" else list(words)


def _counting(words: Sequence[str], out: Path) -> list[str]:
    """The same command, counted: by this tree's profiler, which another revision may lack."""
    at = words.index("-m")
    module = "sidecar.cli" if words[at + 1] == "sidecar" else words[at + 1]
    profiled = str(ROOT / "bench" / "profiled.py")
    return [*words[:at], "-P", profiled, "counted", str(out), module, *words[at + 2 :]]


def _ask(connection: socket.socket, target: bytes, authority: bytes) -> None:
    for number in range(BATCH):
        connection.sendall(_GET % (target, number, authority))
        answer = b""
        while not answer.endswith(b"a small answer of the app\n"):
            data = connection.recv(65_536)
            if not data:
                raise BenchError(f"no answer, but {answer!r}")
            answer += data


def _told(process: Process, out: Path) -> dict[str, int]:
    """What was counted since the last time."""
    out.unlink(missing_ok=True)
    os.kill(process.pid, signal.SIGUSR1)
    process.wait_until(out.exists, 30.0)
    found: dict[str, int] = json.loads(out.read_text())
    return found


def _print(found: dict[tuple[str, str], Counts], top: int) -> None:
    base = sum(found.get(("mesh", "this"), {}).values())
    for (name, which), counts in found.items():
        total = sum(counts.values())
        other = sum(found.get((name, "other"), {}).values())
        more = f"; {total / other:.3f} times the other's" if which == "this" and other else ""
        more += f"; {total / base:.3f} times mesh" if name.startswith("routes") and base else ""
        print(f"{name}, {which}: {total:,.0f}{more}")
    if not top:
        return
    for (name, which), counts in found.items():
        beside = found.get((name, "other")) if which == "this" else None
        if beside is None and name.startswith("routes") and which == "this":
            beside = found.get(("mesh", "this"))
        if beside is None:
            continue
        print(f"\n{name}: what differs")
        changes = {each: counts.get(each, 0) - beside.get(each, 0) for each in {*counts, *beside}}
        for each, change in sorted(changes.items(), key=lambda item: -abs(item[1]))[:top]:
            if change:
                print(f"{change:+8.1f}  {counts.get(each, 0):8.1f}  {each}")


if __name__ == "__main__":
    sys.exit(main())
