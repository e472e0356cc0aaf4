"""What a flood of handshakes does to others: ``python -m bench.flood [SECONDS [ROUNDS [PROXY,...]]]``.

The app's sidecar has a core for itself and carries 300 requests per second on 16 mTLS connections that are open
already, each asked at its own instants whether or not the last answer has come; twice a second a caller that is new
shakes hands and asks once. The same while one peer, of another address, opens full handshakes with all that is left of
the other core: with a good certificate, and with one of a stranger's authority. Quiet runs, in which that core is only
burned, and floods take turns; told are medians over the rounds. Run it as root: all but the flood has real-time
priority then, and what else the machine does is not in the figures.
"""

from __future__ import annotations

import os
import select
import socket
import statistics
import sys
import tempfile
import threading
import time
from bisect import insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from OpenSSL import SSL

from bench import load
from bench.app import nginx
from bench.pair import Callee, callee
from bench.processes import BenchError, Process, cores
from bench.proxies import PROXIES, Running
from bench.turn import Turn
from tests.support.papers import Authority, Papers

CONNECTIONS, PER_SECOND = 16, 300
NEW_EVERY = 0.5
AT_ONCE = 256  # handshakes of the flood under way
FLOOD, CALLER = "127.0.0.2", "127.0.0.3"
QUIET, GOOD, BAD = "quiet", "good certificate", "bad certificate"


@dataclass(slots=True)
class Seen:
    """What a run saw: milliseconds of each request, and of each new caller from connect to answer."""

    asked: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    failed: int = 0
    said: float = 0.0  # handshakes of the flood, per second
    busy: float = 0.0  # the sidecar's CPU time, of a core

    def row(self) -> tuple[float, ...]:
        new = statistics.quantiles(self.new, n=10)
        asked = statistics.quantiles(self.asked, n=100)
        return asked[49], asked[98], new[4], new[8], self.said, self.busy * 100


class Load:
    """The callers. ``port`` is the sidecar's."""

    def __init__(self, port: int, papers: Papers) -> None:
        self._port = port
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.use_certificate_chain_file(str(papers.chain))
        self._context.use_privatekey_file(str(papers.key))
        self._open = [self._secured() for _ in range(CONNECTIONS)]

    def run(self, seconds: float) -> Seen:
        """The callers' requests for so long."""
        seen = Seen()
        began = time.monotonic() + 0.2
        coming = threading.Thread(target=self._come, args=(began, began + seconds, seen))
        coming.start()
        self._ask(began, began + seconds, seen)
        coming.join()
        return seen

    def _ask(self, began: float, until: float, seen: Seen) -> None:
        """Each connection asks when it is due. Where its last answer is late, so is its next request; that counts."""
        apart = 1 / PER_SECOND
        idle = deque((began + number * apart, each) for number, each in enumerate(self._open))
        waiting: dict[SSL.Connection, float] = {}
        while idle[0][0] < until if idle else waiting:
            now = time.monotonic()
            while idle and idle[0][0] <= now:
                due, connection = idle.popleft()
                connection.sendall(load.GET % b"/flood")
                waiting[connection] = due
            pause = max(0.0, idle[0][0] - now) if idle else 1.0
            for connection in select.select(list(waiting), [], [], pause)[0]:
                _expect_answer(connection)
                due = waiting.pop(connection)
                seen.asked.append((time.monotonic() - due) * 1e3)
                insort(idle, (due + CONNECTIONS * apart, connection), key=lambda each: each[0])

    def _come(self, due: float, until: float, seen: Seen) -> None:
        while due < until:
            time.sleep(max(0.0, due - time.monotonic()))
            began = time.monotonic()
            try:
                connection = self._secured()
                connection.sendall(load.GET % b"/flood")
                _expect_answer(connection)
            except (SSL.Error, OSError):
                seen.failed += 1
            else:
                seen.new.append((time.monotonic() - began) * 1e3)
                connection.shutdown()
                connection.sock_shutdown(socket.SHUT_WR)
                connection.close()
            due = max(due + NEW_EVERY, time.monotonic())

    def _secured(self) -> SSL.Connection:
        plain = socket.socket()
        plain.bind((CALLER, 0))
        plain.connect(("127.0.0.1", self._port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = SSL.Connection(self._context, plain)
        connection.set_alpn_protos([b"istio-http/1.1"])
        connection.set_connect_state()
        connection.do_handshake()
        return connection


def _expect_answer(connection: SSL.Connection) -> None:
    seen = b""
    while not seen.endswith(b"of the app\n"):
        seen += connection.recv(4096)
    if not seen.startswith(b"HTTP/1.1 200 "):
        raise BenchError(f"not a 200: {seen[:100]!r}")


def flooded(load_: Load, running: Running, papers: Papers, turn: Turn, kind: str) -> Seen:
    """A run of the load with the flood of this kind, or with a core that is burned."""
    words = [str(0 if kind == QUIET else running.port), FLOOD, str(papers.key), str(papers.chain), str(AT_ONCE)]
    command = [sys.executable, "-m", "bench.flooder", *words]
    with Process(command, turn.load_core, turn.run, name="flooder") as flooder:
        flooder.wait_until(lambda: flooder.out.read_bytes().endswith(b"\n"), 20.0)
        first, spent, began = _said(flooder), running.cpu_seconds(), time.monotonic()
        seen = load_.run(turn.seconds)
        took = time.monotonic() - began
        seen.said, seen.busy = (_said(flooder) - first) / took, (running.cpu_seconds() - spent) / took
    return seen


def _said(flooder: Process) -> int:
    return int(flooder.out.read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[2].split()[0])


def measured(turn: Turn, running: Callee, rounds: int) -> None:
    """Prints each run, and the medians."""
    papers = {GOOD: running.client, QUIET: running.client, BAD: Authority(turn.run).issue("stranger")}
    load_ = Load(running.inbound.port, running.client)
    load_.run(2.0)
    rows: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in (QUIET, GOOD, BAD)}
    for _ in range(rounds):
        for kind, found in rows.items():
            seen = flooded(load_, running.inbound, papers[kind], turn, kind)
            found.append(seen.row())
            print(f"{turn.proxy.name}: {kind}: {_told(found[-1])}; {seen.failed} failed", flush=True)
    medians = {kind: [statistics.median(each) for each in zip(*found, strict=True)] for kind, found in rows.items()}
    for kind, row in medians.items():
        ratio = row[1] / medians[QUIET][1]
        print(f"{turn.proxy.name}: median: {kind}: {_told(row)}; p99 {ratio:.2f} times the quiet one", flush=True)


def _told(row: Sequence[float]) -> str:
    p50, p99, new, late, said, busy = row
    return (
        f"p50 {p50:.2f} p99 {p99:.2f} ms; new callers p50 {new:.1f} p90 {late:.1f} ms; "
        f"{said:.0f} handshakes/s, CPU {busy:.0f} %"
    )


def main(words: Sequence[str]) -> None:
    sys.setswitchinterval(1e-4)
    seconds, rounds, names = (*words, *("5", "5", "ours,envoy")[len(words) :])
    proxy_core, load_core = cores()
    os.sched_setaffinity(0, {load_core})
    if os.geteuid() == 0:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    with tempfile.TemporaryDirectory(prefix="flood-") as directory:
        run = Path(directory)
        with nginx(run, load_core) as app:
            for name in names.split(","):
                turn = Turn(PROXIES[name], app, run / name, proxy_core, load_core, int(seconds))
                with callee(turn) as running:
                    measured(turn, running, int(rounds))


if __name__ == "__main__":
    main(sys.argv[1:])
