"""The scenario `captured`: what it costs to be captured by the kernel, beside the explicit path, at each hop.

Called by the scenarios; only ours plays, against itself. Two pods, as the tests of interception have them: the load and
its proxy in one, the app and its proxy in the other. On the explicit path, without rules, the load asks its proxy on
15001 for the other pod's 15006; on the captured one it asks the app, and the kernel brings both proxies in. What is
compared is the CPU time of each proxy per request; the hop with the larger ratio is what counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import load, measure
from bench.app import start_nginx
from bench.processes import BenchError, Process
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
    """CPU microseconds per request of the caller's proxy and of the app's, what the load saw, and resident bytes."""

    outbound: float
    inbound: float
    seen: load.Outcome
    rss: int


def compare(run: Path, proxy_core: int, load_core: int, seconds: int, *, captured_first: bool) -> dict[str, float]:
    """Play both ways, one after the other, in the same two pods; raises BenchError where one can't be played."""
    run.mkdir()
    ways = (CAPTURED, EXPLICIT) if captured_first else (EXPLICIT, CAPTURED)
    try:
        with Bed() as bed:
            stage = Stage(bed.pod("caller"), bed.pod("callee"), run, proxy_core, load_core, seconds)
            with start_nginx(run, load_core, f"0.0.0.0:{_APP}", stage.callee.command(0)) as nginx:
                nginx.wait_until(lambda: _accepts(stage.callee, _APP), 10.0)
                cost = {way.name: _play(way, stage) for way in ways}
    except AssertionError as error:  # the bed's way to say what went wrong
        raise BenchError(str(error)) from error
    captured, explicit = cost["captured"], cost["explicit"]
    return {
        "captured_ratio": max(captured.outbound / explicit.outbound, captured.inbound / explicit.inbound),
        "outbound_us": captured.outbound,
        "inbound_us": captured.inbound,
        "explicit_outbound_us": explicit.outbound,
        "explicit_inbound_us": explicit.inbound,
        "p50_ms": captured.seen.p50,
        "p99_ms": captured.seen.p99,
        "per_second": captured.seen.requests / captured.seen.seconds,
        "rss_mb": captured.rss / 1e6,
    }


def _play(way: Way, stage: Stage) -> Cost:
    with contextlib.ExitStack() as stack:
        if way.rules:
            for pod in (stage.caller, stage.callee):
                pod.init()
                stack.callback(pod.init, "--cleanup")
        outbound = stack.enter_context(_proxy(way, stage, stage.caller, "outbound"))
        inbound = stack.enter_context(_proxy(way, stage, stage.callee, "inbound"))
        _ask(way, stage, 1)
        before = [measure.cpu_seconds(proxy.pid) for proxy in (outbound, inbound)]
        logged = [_lines(proxy) for proxy in (outbound, inbound)]
        seen = _ask(way, stage, stage.seconds)
        after = [measure.cpu_seconds(proxy.pid) for proxy in (outbound, inbound)]
        for proxy, lines in zip((outbound, inbound), logged, strict=True):
            _check_log(proxy, lines + seen.requests * _LOGGED)
        spent = [(last - first) / seen.requests * 1e6 for first, last in zip(before, after, strict=True)]
        return Cost(spent[0], spent[1], seen, measure.rss_bytes(outbound.pid))


def _check_log(proxy: Process, enough: float) -> None:
    """Raises BenchError where the log has fewer lines: the requests went another way."""
    proxy.wait_until(lambda: _lines(proxy) >= enough, 3.0)


def _ask(way: Way, stage: Stage, seconds: int) -> load.Outcome:
    """The same requests on both ways; only whom they are sent to differs, and by that the form of their target."""
    callee = stage.callee.v4
    url = f"http://{callee}:{_APP}/" if way.rules else f"http://127.0.0.1:{_OUTBOUND}/"
    argument = f"host={callee}:{_APP}" if way.rules else f"proxied={callee}:{_INBOUND}"
    return load.run_wrk(
        "small.lua", url, [argument], connections=_CONNECTIONS, seconds=seconds, core=stage.load_core, run=stage.run,
        inside=stage.caller.command(0),
    )  # fmt: skip


@contextlib.contextmanager
def _proxy(way: Way, stage: Stage, pod: Pod, name: str) -> Iterator[Process]:
    environment = pod.environment
    command = pod.command(PROXY_ID, str(environment.python), "-m", "sidecar", *way.flags)
    name = f"{way.name}-{name}"
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
