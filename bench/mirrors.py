"""What a mirror that hangs does to the requests that it copies: ``python -m bench.mirrors [SECONDS [ROUNDS]]``.

One sidecar, on a core of its own, carries 300 requests a second on 20 connections to an app, each sent when it is due,
by a VirtualService of three rules: without a mirror, with one for all requests that takes connections and never
answers, and with one that answers at once. Every request is of the next of these kinds, so all three see the same
machine. In a quiet run before, all are of the first kind. Told are the 99th percentiles of each kind, and the medians
over the rounds of the ratios within a round. Run it as root: then nothing else takes the two cores meanwhile.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bench.app import nginx
from bench.processes import BenchError, cores
from tests.support.process import SidecarProcess

HOST: Final = "shop.example"
KINDS: Final = ("none", "hangs", "answers")
CONNECTIONS, EACH_PER_SECOND = 20, 15
_GET: Final = "GET http://{host}/{kind}/items/1 HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
_END: Final = b"a small answer of the app\n"
Milliseconds = dict[str, list[float]]


@contextlib.contextmanager
def hanging() -> Iterator[int]:
    """A server that takes connections, and what is sent, and never answers; yields its port."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(listener.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for each in taken:
                each.close()


def documents(app: int, hangs: int) -> str:
    """A host for the app and one for each mirror, and the three rules."""
    hosts = {HOST: app, "hangs.example": hangs, "answers.example": app}
    entries = [
        _document(
            "ServiceEntry",
            host.partition(".")[0],
            {
                "hosts": [host],
                "ports": [{"number": 80, "name": "http"}],
                "resolution": "STATIC",
                "endpoints": [{"address": "127.0.0.1", "ports": {"http": port}}],
            },
        )
        for host, port in hosts.items()
    ]
    rules: list[dict[str, Any]] = [
        {"match": [{"uri": {"prefix": f"/{kind}/"}}], "route": [{"destination": {"host": HOST}}]} for kind in KINDS
    ]
    for rule, kind in zip(rules[1:], KINDS[1:], strict=True):
        rule["mirrors"] = [{"destination": {"host": f"{kind}.example"}, "percentage": {"value": 100}}]
    service = _document("VirtualService", "shop", {"hosts": [HOST], "http": rules})
    return "\n---\n".join(map(json.dumps, [*entries, service]))


def _document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def ask(port: int, seconds: float, kinds: Sequence[str]) -> Milliseconds:
    """Requests of these kinds in turn for so long; returns how long each took from when it was due."""
    seen: Milliseconds = {kind: [] for kind in kinds}
    asking = {kind: _GET.format(host=HOST, kind=kind).encode() for kind in kinds}
    apart = 1 / EACH_PER_SECOND
    began = time.monotonic() + 0.2
    opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    idle = deque((began + number * apart / CONNECTIONS, each) for number, each in enumerate(opened))
    waiting: dict[socket.socket, tuple[float, str]] = {}
    number = 0
    while idle[0][0] < began + seconds if idle else waiting:
        now = time.monotonic()
        while idle and idle[0][0] <= now:
            due, sock = idle.popleft()
            kind = kinds[number % len(kinds)]
            number += 1
            sock.sendall(asking[kind])
            waiting[sock] = due, kind
        pause = max(0.0, idle[0][0] - now) if idle else 1.0
        for sock in select.select(list(waiting), [], [], pause)[0]:
            answer = sock.recv(65_536)
            if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(_END):
                raise BenchError(f"not the app's answer: {answer!r}")
            due, kind = waiting.pop(sock)
            seen[kind].append((time.monotonic() - due) * 1e3)
            insort(idle, (due + apart, sock), key=lambda each: each[0])
    for sock in opened:
        sock.close()
    return seen


def p99(milliseconds: Sequence[float]) -> float:
    return statistics.quantiles(milliseconds, n=100)[98]


def measured(sidecar: SidecarProcess, seconds: float, rounds: int) -> None:
    """Print each round, and the medians."""
    ask(sidecar.outbound, 2.0, KINDS)
    ratios: dict[str, list[float]] = {"none, beside mirrors, to quiet": [], "hangs to none": [], "answers to none": []}
    for _ in range(rounds):
        quiet = p99(ask(sidecar.outbound, seconds / 3, KINDS[:1])["none"])
        none, hangs, answers = (p99(each) for each in ask(sidecar.outbound, seconds, KINDS).values())
        found = none / quiet, hangs / none, answers / none
        for each, ratio in zip(ratios.values(), found, strict=True):
            each.append(ratio)
        print(
            f"p99: quiet {quiet:.2f} ms, none {none:.2f}, hangs {hangs:.2f}, answers {answers:.2f}; "
            f"hangs to none {hangs / none:.3f}",
            flush=True,
        )
    for name, each in ratios.items():
        print(f"median of {rounds}: p99 of {name} {statistics.median(each):.3f} ({min(each):.2f} to {max(each):.2f})")


def main(words: Sequence[str]) -> None:
    seconds, rounds = (*words, *("30", "5")[len(words) :])
    proxy_core, load_core = cores()
    os.sched_setaffinity(0, {load_core})
    if os.geteuid() == 0:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # what is started here as well
    with tempfile.TemporaryDirectory(prefix="mirrors-") as directory, hanging() as hangs:
        run = Path(directory)
        with nginx(run, load_core) as app:
            (run / "routes.json").write_text(documents(app, hangs))
            with SidecarProcess(app, "--config", str(run / "routes.json"), access_log="text") as sidecar:
                for task in Path(f"/proc/{sidecar.process.pid}/task").iterdir():
                    os.sched_setaffinity(int(task.name), {proxy_core})
                measured(sidecar, float(seconds), int(rounds))
                print(*[each for each in sidecar.admin_get("/metrics")[1].splitlines() if "_mirrored_" in each][2:])


if __name__ == "__main__":
    main(sys.argv[1:])
