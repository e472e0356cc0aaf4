"""What a noisy source does to others under a RateLimitPolicy: ``python -m bench.noise [SECONDS [ROUNDS]]``.

A sidecar has a core for itself. Twenty sources, each with an address of its own, ask 15 requests a second each, at
their own instants, and once in 50 ms a caller that is new connects and asks. The same while one more source

- asks 2,000 requests a second, 100 times the 20 that the limit gives each source (``requests``);
- makes 10,000 connections a second, where a limit admits 50 of each address (``connections``).

Both limits are in force all the time. Quiet runs, in which the load's core is only burned, and noisy ones take turns;
told are medians over the rounds. Run it as root, as ``bench.flood``.

At the end: CPU microseconds of charging one request, with ten sources and with 200,000.
"""

from __future__ import annotations

import json
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
from typing import Final

import msgspec

from bench.app import nginx
from bench.processes import BenchError, Process, cores
from sidecar.policy.authorize import Asked
from sidecar.policy.ratelimit import Limits, compile_limits
from sidecar.policy.rbac_request import Memo, Peer, View
from sidecar.resources.rate_limits import LimitPolicySpec
from tests.support.process import SidecarProcess

SOURCES, EACH_PER_SECOND = 20, 15
NEW_EVERY = 0.05
SHARE, NOISE = 20, 2000  # requests a second
CONNECTIONS_ADMITTED, CONNECTIONS_NOISE = 50, 10_000  # in a second
NOISY, NEWCOMER = "127.0.0.2", "127.0.0.3"
KINDS: Final = ("quiet", "requests", "connections")
GET: Final = b"GET /noise HTTP/1.1\r\nHost: app\r\n\r\n"
_LIMITS: Final = [
    {"name": "requests", "key": ["source.ip"], "rate": {"requests": SHARE, "per": "1s"}},
    {"name": "connections", "key": ["source.ip"], "connections": {"perSecond": CONNECTIONS_ADMITTED}},
]


@dataclass(slots=True)
class Seen:
    """What a run saw: milliseconds of each request, and of each new caller from connect to answer."""

    asked: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    refused: int = 0
    noise: float = 0.0  # requests or connections of the noisy source, per second
    busy: float = 0.0  # the sidecar's CPU time, of a core

    def row(self) -> tuple[float, ...]:
        asked, new = statistics.quantiles(self.asked, n=100), statistics.quantiles(self.new, n=100)
        return asked[49], asked[98], new[49], new[98], float(self.refused), self.noise, self.busy * 100


def _connected(source: str, port: int) -> socket.socket:
    sock = socket.socket()
    sock.bind((source, 0))
    sock.connect(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _answered(sock: socket.socket) -> bool:
    """Read one answer; return whether it is a 200."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(65_536)
        if not data:
            raise BenchError("the sidecar closed a connection")
        head += data
    fields, _, body = head.partition(b"\r\n\r\n")
    length = int(fields.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    while len(body) < length:
        body += sock.recv(65_536)
    return head.startswith(b"HTTP/1.1 200 ")


def quiet_load(port: int, seconds: float) -> Seen:
    """The quiet sources' requests for so long."""
    seen = Seen()
    began = time.monotonic() + 0.2
    coming = threading.Thread(target=_come, args=(port, began, began + seconds, seen))
    coming.start()
    apart = 1 / EACH_PER_SECOND
    opened = [_connected(f"127.0.1.{number + 1}", port) for number in range(SOURCES)]
    idle = deque((began + number * apart / SOURCES, each) for number, each in enumerate(opened))
    waiting: dict[socket.socket, float] = {}
    while idle[0][0] < began + seconds if idle else waiting:
        now = time.monotonic()
        while idle and idle[0][0] <= now:
            due, sock = idle.popleft()
            sock.sendall(GET)
            waiting[sock] = due
        pause = max(0.0, idle[0][0] - now) if idle else 1.0
        for sock in select.select(list(waiting), [], [], pause)[0]:
            seen.refused += not _answered(sock)
            due = waiting.pop(sock)
            seen.asked.append((time.monotonic() - due) * 1e3)
            insort(idle, (due + apart, sock), key=lambda each: each[0])
    coming.join()
    for sock in opened:
        sock.close()
    return seen


def _come(port: int, due: float, until: float, seen: Seen) -> None:
    number = 0
    while due < until:
        time.sleep(max(0.0, due - time.monotonic()))
        began = time.monotonic()
        number += 1
        with _connected(f"127.0.2.{number % 200 + 1}", port) as sock:
            sock.sendall(GET)
            seen.refused += not _answered(sock)
        seen.new.append((time.monotonic() - began) * 1e3)
        due = max(due + NEW_EVERY, time.monotonic())


def make_noise(kind: str, port: int) -> None:
    """The noisy source, in a process of its own, until it is killed; prints ten times a second what it did so far."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    done, told, began = 0, 0.0, time.monotonic()
    open_: list[socket.socket] = []
    per_second = NOISE if kind == "requests" else CONNECTIONS_NOISE
    if kind == "requests":
        open_ = [_connected(NOISY, port) for _ in range(8)]
    while True:
        now = time.monotonic()
        if now - told >= 0.1:
            told = now
            print(done, flush=True)
        if kind == "quiet" or done >= (now - began) * per_second:
            continue  # the core is burned all the same
        if kind == "requests":
            for sock in open_:
                sock.sendall(GET)
            for sock in open_:
                _answered(sock)
            done += len(open_)
        else:
            try:
                _connected(NOISY, port).close()
            except ConnectionError:
                pass  # refused while it was being made
            done += 1


def _done(process: Process) -> int:
    return int(process.out.read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[2])


def _cpu(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def noisy(kind: str, sidecar: SidecarProcess, run: Path, core: int, seconds: float) -> Seen:
    """A run of the quiet load beside noise of this kind."""
    command = [sys.executable, "-m", "bench.noise", kind, str(sidecar.inbound)]
    with Process(command, core, run, name="noise") as process:
        process.wait_until(lambda: process.out.read_bytes().endswith(b"\n"), 20.0)
        first, spent, began = _done(process), _cpu(sidecar.process.pid), time.monotonic()
        seen = quiet_load(sidecar.inbound, seconds)
        took = time.monotonic() - began
        seen.noise, seen.busy = (_done(process) - first) / took, (_cpu(sidecar.process.pid) - spent) / took
    return seen


def _told(row: Sequence[float]) -> str:
    p50, p99, new, late, refused, noise, busy = row
    return (
        f"p50 {p50:.2f} p99 {p99:.2f} ms; new callers p50 {new:.2f} p99 {late:.2f} ms; {refused:.0f} refused; "
        f"noise {noise:.0f}/s, CPU {busy:.0f} %"
    )


def measured(sidecar: SidecarProcess, run: Path, core: int, seconds: float, rounds: int) -> None:
    """Print each run, and the medians."""
    quiet_load(sidecar.inbound, 2.0)
    rows: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind, found in rows.items():
            found.append(noisy(kind, sidecar, run, core, seconds).row())
            print(f"{kind}: {_told(found[-1])}", flush=True)
    medians = {kind: [statistics.median(each) for each in zip(*found, strict=True)] for kind, found in rows.items()}
    still = medians["quiet"]
    for kind, row in medians.items():
        print(
            f"median: {kind}: {_told(row)}; times quiet: p99 {row[1] / still[1]:.2f}, new callers p50 "
            f"{row[2] / still[2]:.2f}",
            flush=True,
        )


def charging(sources: int) -> float:
    """CPU microseconds of charging one request, of so many sources in turn, to a limit for each."""
    spec = {"name": "each", "key": ["source.principal"], "rate": {"requests": 1_000_000, "per": "1s"}}
    policy = msgspec.convert({"name": "l", "namespace": "n", "limits": [spec]}, LimitPolicySpec)
    limits = compile_limits([policy], "INBOUND", "cluster.local", Limits())
    memo, peer, count = Memo(), Peer(b"", b"", b""), 400_000
    asked = [
        Asked("inbound", f"spiffe://cluster.local/ns/shop/sa/s-{number}", "192.0.2.1", "", "HTTP", b"GET", b"/")
        for number in range(sources)
    ]
    for each in asked:
        limits.charge(View(each, peer, memo), 0.0)
    before = time.process_time()
    for number in range(count):
        limits.charge(View(asked[number % sources], peer, memo), 0.0)
    return (time.process_time() - before) / count * 1e6


def main(words: Sequence[str]) -> None:
    if words and words[0] in KINDS:
        make_noise(words[0], int(words[1]))
    sys.setswitchinterval(1e-4)
    seconds, rounds = (*words, *("8", "5")[len(words) :])
    proxy_core, load_core = cores()
    os.sched_setaffinity(0, {load_core})
    with tempfile.TemporaryDirectory(prefix="noise-") as directory:
        run = Path(directory)
        policy = {"apiVersion": "sidecar/v1", "kind": "RateLimitPolicy", "metadata": {"name": "noise"}}
        (run / "limits.yaml").write_text(json.dumps(policy | {"spec": {"limits": _LIMITS}}))
        with nginx(run, load_core) as app, SidecarProcess(app, "--config", str(run / "limits.yaml")) as sidecar:
            os.sched_setaffinity(sidecar.process.pid, {proxy_core})
            if os.geteuid() == 0:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            measured(sidecar, run, load_core, float(seconds), int(rounds))
    few, many = charging(10), charging(200_000)
    print(f"charging one request: {few:.2f} us with 10 sources, {many:.2f} us with 200,000")


if __name__ == "__main__":
    main(sys.argv[1:])
