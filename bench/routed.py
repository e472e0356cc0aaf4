"""What a route costs a request, where the machine is too noisy for rounds: ``python -m bench.routed [BLOCKS]``.

A call of `mesh` on one connection. The callee has two names, of which one has a VirtualService: of one route, and then
of 10,000 in 1,000 hosts, as in `routes-1` and `routes-10000`. In each block a hundred requests go to one name and a
hundred to the other, to the same processes within a tenth of a second, so both see the same machine. Told are the
medians over the blocks of the CPU time of a request at each hop, and of the ratio of both hops' sums, with its
quartiles. The times are the scheduler's own (proc(5): schedstat).
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.app import nginx
from bench.hops import HTTP_PORT, NAMESPACE, PLAIN, SERVICE
from bench.pair import Pair, pair
from bench.processes import BenchError, cores
from bench.proxies import OURS
from bench.turn import Turn

REQUESTS, BLOCKS, WARM = 100, 150, 1000
ROUTED, UNROUTED = (f"{name}.{NAMESPACE}.svc.cluster.local:{HTTP_PORT}".encode() for name in (SERVICE, PLAIN))
_END = b"a small answer of the app\n"
_GET = (
    b"GET http://%b/catalogue/items/%d?page=2 HTTP/1.1\r\nHost: %b\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
    b"Accept: application/json, text/plain, */*\r\nAccept-Encoding: gzip, deflate, br\r\nCookie: session=0f3c9a\r\n\r\n"
)


def main(words: Sequence[str]) -> None:
    blocks = int(words[0]) if words else BLOCKS
    proxy_core, load_core = cores()
    os.sched_setaffinity(0, {load_core})
    with tempfile.TemporaryDirectory(prefix="routed-") as directory:
        run = Path(directory)
        with nginx(run, load_core) as app:
            for routes in (1, 10_000):
                turn = Turn(OURS, app, run / f"routes-{routes}", proxy_core, load_core, 0)
                with pair(turn, routes=routes) as running:
                    print(f"{routes:,} routes: {measured(running, blocks)}", flush=True)


def measured(running: Pair, blocks: int) -> str:
    """The figures of so many blocks, in words."""
    found: dict[bytes, list[tuple[float, float]]] = {ROUTED: [], UNROUTED: []}
    with socket.create_connection(("127.0.0.1", running.outbound.port), timeout=10.0) as connection:
        for authority in found:
            _ask(connection, authority, WARM)
        for number in range(blocks):
            for authority in (ROUTED, UNROUTED) if number % 2 else (UNROUTED, ROUTED):
                before = _cpu(running)
                _ask(connection, authority, REQUESTS)
                outbound, inbound = (now - then for now, then in zip(_cpu(running), before, strict=True))
                found[authority].append((outbound / REQUESTS, inbound / REQUESTS))
    ratios = [sum(one) / sum(other) for one, other in zip(found[ROUTED], found[UNROUTED], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    routed, plain = (
        " and ".join(f"{statistics.median(hop):.0f}" for hop in zip(*found[each], strict=True)) for each in found
    )
    return f"{routed} us at outbound and inbound, without {plain}; both {middle:.3f} ({low:.3f} to {high:.3f})"


def _cpu(running: Pair) -> tuple[float, float]:
    """Microseconds of CPU of outbound and of inbound, of all threads."""
    outbound, inbound = (
        sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e3
        for pid in (running.outbound.process.pid, running.inbound.process.pid)
    )
    return outbound, inbound


def _ask(connection: socket.socket, authority: bytes, count: int) -> None:
    for number in range(count):
        connection.sendall(_GET % (authority, number, authority))
        answer = b""
        while not answer.endswith(_END):
            data = connection.recv(65_536)
            if not data or (answer and not answer.startswith(b"HTTP/1.1 200 ")):
                raise BenchError(f"not the app's answer: {answer!r}")
            answer += data


if __name__ == "__main__":
    main(sys.argv[1:])
