"""The scenarios `mesh` and `mtls-bytes`: a call from one sidecar to another, by mutual TLS, on one core.

Called by the scenarios' table. The load asks the caller's sidecar for a service by its full name, in absolute form, as
an explicit proxy is asked: of both proxies alike.
"""

from __future__ import annotations

from bench import load
from bench.checks import check_caller, check_duties, check_log, check_small
from bench.hops import HTTP, TCP
from bench.pair import Pair, pair
from bench.turn import Figures, Turn

_CONNECTIONS = 16
_PACED = 300  # requests per second of all connections together, where they wait in between
_MOST_PACED_SECONDS = 5  # fewer than some thousand requests have no 99th percentile to speak of


def mesh(turn: Turn, rules: int = 0, *, limited: bool = False, routes: int = 0) -> Figures:
    """What a request costs a hop when all is busy, how long it takes when nothing else is done, and at a usual load;
    with an AuthorizationPolicy of so many rules, if any, or a limit for each caller, at the app's sidecar; or with so
    many routes at the caller's."""
    with pair(turn, rules=rules, limited=limited, routes=routes) as running:
        port = running.outbound.port
        check_small(port, HTTP)
        check_duties(port, HTTP)
        check_caller(port, HTTP, running.caller)
        _ask(turn, running, 1)
        before, logged = running.cpu_seconds(), [hop.log_lines() for hop in (running.outbound, running.inbound)]
        seen = _ask(turn, running, turn.seconds)
        outbound, inbound = (last - first for first, last in zip(before, running.cpu_seconds(), strict=True))
        rss = running.rss_bytes()
        for hop, lines in zip((running.outbound, running.inbound), logged, strict=True):
            check_log(hop, lines, seen.requests)
        alone = _ask(turn, running, turn.seconds, connections=1)
        pause = _CONNECTIONS / _PACED * 1e3 - alone.p50
        paced = _ask(turn, running, max(turn.seconds, _MOST_PACED_SECONDS), f"pause={pause:.0f}")
        return {
            "cpu_us": (outbound + inbound) / 2 / seen.requests * 1e6,
            "outbound_us": outbound / seen.requests * 1e6,
            "inbound_us": inbound / seen.requests * 1e6,
            "p50_ms": seen.p50,
            "p99_ms": seen.p99,
            "per_second": seen.requests / seen.seconds,
            "alone_ms": alone.p50,
            "paced_p50_ms": paced.p50,
            "paced_p99_ms": paced.p99,
            "paced_per_second": paced.requests / paced.seconds,
            "rss_mb": rss / 1e6,
        }


def _ask(turn: Turn, running: Pair, seconds: int, *more: str, connections: int = _CONNECTIONS) -> load.Outcome:
    return load.run_wrk(
        "small.lua", f"http://127.0.0.1:{running.outbound.port}/", [f"proxied={HTTP}", *more],
        connections=connections, seconds=seconds, core=turn.load_core, run=turn.run,
    )  # fmt: skip


def mtls_bytes(turn: Turn) -> Figures:
    """Four connections that download 10 MiB again and again, opaque on all the way; the CPU time is of both hops."""
    with pair(turn, opaque=True) as running:
        # Envoy has no port for explicit callers here: its listener leads to the one service.
        tunnel = "" if turn.proxy.name == "envoy" else TCP
        load.downloads(running.outbound.port, connections=4, seconds=0.3, tunnel=tunnel)
        before = running.cpu_seconds()
        seen = load.downloads(running.outbound.port, connections=4, seconds=turn.seconds, tunnel=tunnel)
        outbound, inbound = (last - first for first, last in zip(before, running.cpu_seconds(), strict=True))
        gigabytes = seen.bytes / 1e9
        return {
            "cpu_s_per_gb": (outbound + inbound) / gigabytes,
            "outbound_s_per_gb": outbound / gigabytes,
            "inbound_s_per_gb": inbound / gigabytes,
            "p50_ms": seen.p50,
            "p99_ms": seen.p99,
            "gb_per_second": gigabytes / seen.seconds,
            "rss_mb": running.rss_bytes() / 1e6,
        }
