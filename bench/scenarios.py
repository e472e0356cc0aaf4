"""The scenarios: what is done to a proxy in one turn, and which figure is held against Envoy's.

Called by the command line, which lets the proxies take turns. A turn starts a fresh process, warms it up, checks that
it does its duties, measures, and kills it: so the median over rounds is also one over address space layouts and hash
seeds, which move a Python process by some per cent.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from bench import load
from bench.app import greeter
from bench.captured import compare
from bench.checks import check_duties, check_log, check_mix, check_small
from bench.handshakes import handshake, mtls_idle
from bench.mesh import mesh, mtls_bytes
from bench.proxies import Mode, Running, started
from bench.turn import Figures, Scenario, Turn

IDLE_CONNECTIONS = 2000
GREETINGS = 20


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
            check_log(running, logged, seen.requests)
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
    return compare(
        turn.run, turn.proxy_core, turn.load_core, turn.seconds, captured_first=turn.round % 2 == 1,
        tree=turn.proxy.tree,
    )  # fmt: skip


def ten_rules(turn: Turn) -> Figures:
    return mesh(turn, rules=10)


def thousand_rules(turn: Turn) -> Figures:
    return mesh(turn, rules=1000)


def caller_limit(turn: Turn) -> Figures:
    return mesh(turn, limited=True)


def one_route(turn: Turn) -> Figures:
    return mesh(turn, routes=1)


def many_routes(turn: Turn) -> Figures:
    return mesh(turn, routes=10_000)


_HTTP1 = frozenset({"ours", "envoy", "haproxy", "mitmproxy"})
_PAIRS = frozenset({"ours", "envoy"})
_ALL = (
    Scenario("http1", "small GET, 16 keep-alive connections", "cpu_us", "CPU us/request", http1, 1.5, 1.0, 99, _HTTP1),
    Scenario("mix", "20 fields: 8 KiB chunked answers, 64 KiB POSTs", "cpu_us", "CPU us/request", mix, 2.0),
    Scenario("connect", "small GET, a connection per request", "cpu_us", "CPU us/request", connect, 2.5),
    Scenario("tcp", "small GET through an opaque relay", "cpu_us", "CPU us/request", tcp, 2.2, 1.8),
    Scenario("bytes", "10 MiB downloads through an opaque relay", "cpu_s_per_gb", "CPU s/GB", bytes_, 1.15, 0.95),
    Scenario("idle", "2,000 idle keep-alive connections", "idle_kb", "kB/connection", idle, 1.0, 0.6, 3),
    Scenario("start", "memory when ready or after http1", "largest_rss_mb", "MB RSS", http1, 0.5, None, 3, of="http1"),
    Scenario("server-first", "time to the app's greeting", "greeting_ms", "ms", server_first, rounds=1, limit=150.0),
    Scenario(
        "captured", "small GET from pod to pod, captured", "captured_ratio", "times explicit", captured, rounds=3,
        proxies=frozenset({"ours"}), limit=1.1, root=True,
    ),
    Scenario("mesh", "small GET through two sidecars", "cpu_us", "CPU us/hop", mesh, 1.4, 1.0, 99, _PAIRS),
    Scenario("mesh-10-rules", "mesh, a policy of 10 rules", "cpu_us", "CPU us/hop", ten_rules, proxies=_PAIRS),
    Scenario("mesh-1000-rules", "mesh, one of 1,000", "cpu_us", "CPU us/hop", thousand_rules, proxies=_PAIRS),
    Scenario("mesh-limit", "mesh, a limit for each caller", "cpu_us", "CPU us/hop", caller_limit, proxies=_PAIRS),
    Scenario(
        "routes-1", "mesh, a route, retries, budget", "cpu_us", "CPU us/hop", one_route, proxies=_PAIRS,
        beside=(("mesh", 1.05),),
    ),
    Scenario(
        "routes-10000", "mesh, 10,000 in 1,000 hosts", "cpu_us", "CPU us/hop", many_routes, proxies=_PAIRS,
        beside=(("mesh", 1.05), ("routes-1", 1.03)),
    ),
    Scenario("mesh-alone", "one connection: median", "alone_ms", "ms", mesh, 0.9, None, 99, _PAIRS, of="mesh"),
    Scenario("mesh-p50", "300 requests/s: median", "paced_p50_ms", "ms", mesh, 1.2, None, 99, _PAIRS, of="mesh"),
    Scenario("mesh-p99", "300 requests/s: 99 %", "paced_p99_ms", "ms", mesh, 1.2, None, 99, _PAIRS, of="mesh"),
    Scenario("mesh-rss", "memory of a sidecar", "rss_mb", "MB RSS", mesh, 0.7, None, 99, _PAIRS, of="mesh"),
    Scenario("handshake", "full mTLS handshakes", "handshake_us", "CPU us", handshake, 3.0, 2.3, 99, _PAIRS),
    Scenario("mtls-bytes", "10 MiB by two sidecars", "cpu_s_per_gb", "CPU s/GB", mtls_bytes, 1.6, None, 99, _PAIRS),
    Scenario("mtls-idle", "1,000 idle mTLS connections", "idle_kb", "kB/connection", mtls_idle, 1.0, None, 3, _PAIRS),
)  # fmt: skip
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
