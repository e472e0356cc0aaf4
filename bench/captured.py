"""The scenario `captured`: what it costs to be captured by the kernel, beside the explicit path, at each hop.

Called by the scenarios; only ours plays, against itself. Two pods, as the tests of interception have them, the load in
one and the app in the other. Each hop is played alone, so that no other proxy competes for its core: the load's pod has
a proxy and outbound is the hop, or the app's has one and it is inbound. On the explicit path, without rules, the load
asks the proxy on 15001, or the app's pod on 15006; on the captured one it asks the app, and the kernel brings the proxy
in. What is compared is the proxy's CPU time per request; the hop with the larger ratio is what counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import load, measure
from bench.app import start_nginx
from bench.processes import ROOT, BenchError, Process
from tests.netns.bed import Bed
from tests.netns.environment import PROXY_ID
from tests.netns.pod import Pod

_APP, _INBOUND, _OUTBOUND = 8080, 15006, 15001
_CONNECTIONS = 16
# The share of requests that the log of each proxy must have: else they went another way.
_LOGGED = 0.9


@dataclass(frozen=True, slots=True)
class Way:
    """One of the two paths: its flags for both proxies, and whether there are rules."""

    name: str
    flags: tuple[str, ...]
    rules: bool


EXPLICIT = Way("explicit", ("--upstream", f"127.0.0.1:{_APP}"), rules=False)
CAPTURED = Way("captured", ("--interception", "redirect"), rules=True)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where it is played: two pods, a directory, the two cores, and how long to measure."""

    caller: Pod
    callee: Pod
    run: Path
    proxy_core: int
    load_core: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU microseconds of the proxy per request, what the load saw, and resident bytes."""

    cpu: float
    seen: load.Outcome
    rss: int


HOPS = ("outbound", "inbound")


def compare(
    run: Path, proxy_core: int, load_core: int, seconds: int, *, captured_first: bool, tree: Path = ROOT
) -> dict[str, float]:
    """Play each hop both ways, in the same two pods, with the code of ``tree``; raises BenchError where one can't be
    played."""
    run.mkdir()
    ways = (CAPTURED, EXPLICIT) if captured_first else (EXPLICIT, CAPTURED)
    try:
        with Bed(tree) as bed:
            stage = Stage(bed.pod("caller"), bed.pod("callee"), run, proxy_core, load_core, seconds)
            with start_nginx(run, load_core, f"0.0.0.0:{_APP}", stage.callee.command(0)) as nginx:
                nginx.wait_until(lambda: _accepts(stage.callee, _APP), 10.0)
                cost = {(hop, way.name): _play(hop, way, stage) for hop in HOPS for way in ways}
    except AssertionError as error:  # the bed's way to say what went wrong
        raise BenchError(str(error)) from error
    ratios = {hop: cost[hop, "captured"].cpu / cost[hop, "explicit"].cpu for hop in HOPS}
    worst = cost[max(ratios, key=lambda hop: ratios[hop]), "captured"]
    return {
        "captured_ratio": max(ratios.values()),
        **{f"{way}_{hop}_us": played.cpu for (hop, way), played in cost.items()},
        "p50_ms": worst.seen.p50,
        "p99_ms": worst.seen.p99,
        "per_second": worst.seen.requests / worst.seen.seconds,
        "rss_mb": worst.rss / 1e6,
    }


def _play(hop: str, way: Way, stage: Stage) -> Cost:
    pod = stage.caller if hop == "outbound" else stage.callee
    with contextlib.ExitStack() as stack:
        if way.rules:
            pod.init()
            stack.callback(pod.init, "--cleanup")
        proxy = stack.enter_context(_proxy(hop, way, stage, pod))
        _ask(hop, way, stage, 1)
        before, logged = measure.cpu_seconds(proxy.pid), _lines(proxy)
        seen = _ask(hop, way, stage, stage.seconds)
        spent = measure.cpu_seconds(proxy.pid) - before
        # Raises BenchError where the log has fewer lines: then the requests went another way.
        proxy.wait_until(lambda: _lines(proxy) >= logged + seen.requests * _LOGGED, 3.0)
        return Cost(spent / seen.requests * 1e6, seen, measure.rss_bytes(proxy.pid))


def _ask(hop: str, way: Way, stage: Stage, seconds: int) -> load.Outcome:
    """The same requests each time; only whom they are sent to differs, and by that the form of their target."""
    app, proxy = f"{stage.callee.v4}:{_APP}", f"{stage.callee.v4}:{_INBOUND}"
    url, argument = f"http://{app}/", f"host={app}"
    if not way.rules:
        url = f"http://127.0.0.1:{_OUTBOUND}/" if hop == "outbound" else f"http://{proxy}/"
        argument = f"proxied={app}" if hop == "outbound" else f"host={app}"
    return load.run_wrk(
        "small.lua", url, [argument], connections=_CONNECTIONS, seconds=seconds, core=stage.load_core, run=stage.run,
        inside=stage.caller.command(0),
    )  # fmt: skip


@contextlib.contextmanager
def _proxy(hop: str, way: Way, stage: Stage, pod: Pod) -> Iterator[Process]:
    environment = pod.environment
    command = pod.command(PROXY_ID, str(environment.python), "-m", "sidecar", *way.flags)
    name = f"{way.name}-{hop}"
    with Process(command, stage.proxy_core, stage.run, name=name, environment=environment.variables) as proxy:
        proxy.wait_until(lambda: b"sidecar: ready" in proxy.err.read_bytes(), 20.0)
        yield proxy


def _lines(proxy: Process) -> int:
    with proxy.out.open("rb") as log:
        return sum(block.count(b"\n") for block in iter(lambda: log.read(1 << 20), b""))


def _accepts(pod: Pod, port: int) -> bool:
    try:
        pod.connect("127.0.0.1", port).close()
    except OSError:
        return False
    return True
