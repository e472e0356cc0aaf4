"""The scenarios: what is done to a proxy in one turn, and which figure is held against Envoy's.

Called by the command line, which lets the proxies take turns. A turn starts a fresh process, warms it up, checks that
it does its duties, measures, and kills it: so the median over rounds is also one over address space layouts and hash
seeds, which move a Python process by some per cent.
"""

from __future__ import annotations

import ipaddress
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import load
from bench.app import PAGE_BYTES, greeter
from bench.captured import compare
from bench.processes import BenchError
from bench.proxies import Mode, Proxy, Running, started

IDLE_CONNECTIONS = 2000
GREETINGS = 20
# Envoy holds up to 64 KiB of log lines back for 10 s: some hundred of the many thousands of a turn.
_LOGGED = 0.9
_FEW = 5000

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Turn:
    """One proxy's turn: where its app is, its directory, the two cores, how long to measure, and in which round."""

    proxy: Proxy
    upstream: int
    run: Path
    proxy_core: int
    load_core: int
    seconds: int
    round: int = 0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario and what it promises.

    `figure` is the key of the figure that is compared; `bound` is the largest ratio to Envoy's that is accepted for
    ours and `aim` the one wished for; `limit` is the largest value of any turn that is accepted whatever Envoy's is;
    `rounds` caps the rounds where one more would tell nothing new; `root` says that only root can play it.
    """

    name: str
    title: str
    figure: str
    unit: str
    play: Callable[[Turn], Figures]
    bound: float | None = None
    aim: float | None = None
    rounds: int = 99
    proxies: frozenset[str] = frozenset({"ours", "envoy", "haproxy"})
    limit: float | None = None
    root: bool = False


def _requests(turn: Turn, mode: Mode, script: str, check: Callable[[int], None], *, close: bool = False) -> Figures:
    """Warm up for a second, then measure what a request of the script costs."""
    with started(turn.proxy, mode, turn.upstream, turn.run, turn.proxy_core) as running:
        check(running.port)
        if turn.proxy.logs and mode is Mode.HTTP:
            check_duties(running.port)
        _wrk(turn, running, script, seconds=1, close=close)
        before, logged = running.cpu_seconds(), running.log_lines() if turn.proxy.logs else 0
        seen = _wrk(turn, running, script, seconds=turn.seconds, close=close)
        spent, rss = running.cpu_seconds() - before, running.rss_bytes()
        if turn.proxy.logs and mode is Mode.HTTP:
            _check_log(running, logged, seen.requests)
        return {
            "cpu_us": spent / seen.requests * 1e6,
            "p50_ms": seen.p50,
            "p99_ms": seen.p99,
            "per_second": seen.requests / seen.seconds,
            "rss_mb": rss / 1e6,
            "largest_rss_mb": max(running.ready_rss, rss) / 1e6,
            "ready_rss_mb": running.ready_rss / 1e6,
        }


def _wrk(turn: Turn, running: Running, script: str, *, seconds: int, close: bool) -> load.Outcome:
    return load.wrk(
        script, running.port, connections=16, seconds=seconds, core=turn.load_core, run=turn.run, close=close
    )


def http1(turn: Turn) -> Figures:
    return _requests(turn, Mode.HTTP, "small.lua", check_small)


def mix(turn: Turn) -> Figures:
    return _requests(turn, Mode.HTTP, "mix.lua", check_mix)


def connect(turn: Turn) -> Figures:
    return _requests(turn, Mode.HTTP, "small.lua", check_small, close=True)


def tcp(turn: Turn) -> Figures:
    return _requests(turn, Mode.TCP, "small.lua", check_small)


def bytes_(turn: Turn) -> Figures:
    """Four connections that download 10 MiB again and again through an opaque relay."""
    with started(turn.proxy, Mode.TCP, turn.upstream, turn.run, turn.proxy_core) as running:
        load.downloads(running.port, connections=4, seconds=0.3)
        before = running.cpu_seconds()
        seen = load.downloads(running.port, connections=4, seconds=turn.seconds)
        spent = running.cpu_seconds() - before
        return {
            "cpu_s_per_gb": spent / (seen.bytes / 1e9),
            "p50_ms": seen.p50,
            "p99_ms": seen.p99,
            "gb_per_second": seen.bytes / 1e9 / seen.seconds,
            "rss_mb": running.rss_bytes() / 1e6,
        }


def idle(turn: Turn) -> Figures:
    """What 2,000 connections that made a request each add to the memory of a proxy that has warmed up."""
    with started(turn.proxy, Mode.HTTP, turn.upstream, turn.run, turn.proxy_core) as running:
        _wrk(turn, running, "small.lua", seconds=1, close=False)
        before = running.rss_bytes()
        with load.idle_connections(running.port, IDLE_CONNECTIONS):
            # Let deferred work (a sweep, a log's flush, an allocator's trim) be done.
            time.sleep(1.0)
            after = running.rss_bytes()
        return {"idle_kb": (after - before) / IDLE_CONNECTIONS / 1e3, "rss_mb": after / 1e6}


def server_first(turn: Turn) -> Figures:
    """How long a client waits for the greeting of an app that speaks first; the longest wait is what counts."""
    with greeter() as port, started(turn.proxy, Mode.UNKNOWN, port, turn.run, turn.proxy_core) as running:
        took = load.greetings(running.port, GREETINGS)
        return {
            "greeting_ms": max(took),
            "p50_ms": statistics.median(took),
            "p99_ms": max(took),
            "rss_mb": running.rss_bytes() / 1e6,
        }


def captured(turn: Turn) -> Figures:
    """Ours beside itself; the way that is played first changes with the round."""
    return compare(turn.run, turn.proxy_core, turn.load_core, turn.seconds, captured_first=turn.round % 2 == 1)


def check_small(port: int) -> None:
    """Raises BenchError where the answer of the app does not come through."""
    head, body = load.ask(port, "/catalogue/items/1")
    if not head.startswith(b"HTTP/1.1 200 ") or body != b"a small answer of the app\n":
        raise BenchError(f"not the app's answer: {head!r} {body!r}")


def check_mix(port: int) -> None:
    """Raises BenchError where the page does not come chunked and whole, or the upload is not taken."""
    head, body = load.ask(port, "/mix/get/1")
    if not head.startswith(b"HTTP/1.1 200 ") or b"transfer-encoding: chunked" not in head.lower():
        raise BenchError(f"not a chunked answer: {head!r}")
    if not body.endswith(b"0\r\n\r\n") or not PAGE_BYTES < len(body) < PAGE_BYTES + 200:
        raise BenchError(f"not the page: {len(body)} bytes, ending with {body[-20:]!r}")
    head, body = load.ask(port, "/mix/post/1", method="POST", body=bytes(65536))
    if not head.startswith(b"HTTP/1.1 200 ") or body != b"stored\n":
        raise BenchError(f"the upload was not taken: {head!r} {body!r}")


def check_duties(port: int) -> None:
    """Raises BenchError where the app is not told a request id and who the client is."""
    _, body = load.ask(port, "/duties")
    request_id, _, forwarded = body.decode(errors="replace").strip().partition(" ")
    # Envoy puts an address of the machine's own for a client on loopback, so any address will do.
    if len(request_id) < 8 or not _is_address(forwarded):
        raise BenchError(f"duties not done: x-request-id is {request_id!r}, x-forwarded-for is {forwarded!r}")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_log(running: Running, before: int, requests: int) -> None:
    """Raises BenchError where the access log lacks the load's requests: a proxy that drops them spares the cost."""
    deadline = time.monotonic() + 2.0
    while (lines := running.log_lines() - before) < requests * _LOGGED:
        if requests < _FEW:
            return
        if time.monotonic() > deadline:
            raise BenchError(f"{running.proxy.name} logged {lines} of {requests} requests")
        time.sleep(0.05)


_HTTP1 = frozenset({"ours", "envoy", "haproxy", "mitmproxy"})
_ALL = (
    Scenario("http1", "small GET, 16 keep-alive connections", "cpu_us", "CPU us/request", http1, 1.5, 1.0, 99, _HTTP1),
    Scenario("mix", "20 fields: 8 KiB chunked answers, 64 KiB POSTs", "cpu_us", "CPU us/request", mix, 2.0),
    Scenario("connect", "small GET, a connection per request", "cpu_us", "CPU us/request", connect, 2.5),
    Scenario("tcp", "small GET through an opaque relay", "cpu_us", "CPU us/request", tcp, 2.2, 1.8),
    Scenario("bytes", "10 MiB downloads through an opaque relay", "cpu_s_per_gb", "CPU s/GB", bytes_, 1.15, 0.95),
    Scenario("idle", "2,000 idle keep-alive connections", "idle_kb", "kB/connection", idle, 1.0, 0.6, 3),
    Scenario("start", "memory when ready or after http1", "largest_rss_mb", "MB RSS", http1, 0.5, None, 3),
    Scenario("server-first", "time to the app's greeting", "greeting_ms", "ms", server_first, rounds=1, limit=150.0),
    Scenario(
        "captured", "small GET from pod to pod, captured", "captured_ratio", "times explicit", captured, rounds=3,
        proxies=frozenset({"ours"}), limit=1.1, root=True,
    ),
)  # fmt: skip
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
