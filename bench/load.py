"""The loads: wrk for requests, and plain sockets for what wrk can't do.

Called by the scenarios. Plain sockets are used where the client's own cost must vanish (downloads are thrown away in
the kernel by MSG_TRUNC), for connections that idle, and for the time to a greeting.
"""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.app import DOWNLOAD_BYTES, GREETING
from bench.processes import ROOT, BenchError, Process, which

_SCRIPTS = ROOT / "bench" / "wrk"
GET = b"GET %s HTTP/1.1\r\nHost: app.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
# More than this share of failed requests, and the figures would tell of something else.
_FAILURES = 0.001


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a load saw: requests answered 2xx, its own seconds, and latencies in milliseconds."""

    requests: int
    seconds: float
    bytes: int
    p50: float
    p99: float


def wrk(
    script: str, port: int, *, connections: int, seconds: int, core: int, run: Path, close: bool = False
) -> Outcome:
    """Ask a port of 127.0.0.1; raises BenchError where more than 0.1 % of the requests fail."""
    arguments = ["close"] if close else []
    return run_wrk(
        script, f"http://127.0.0.1:{port}/", arguments, connections=connections, seconds=seconds, core=core, run=run
    )


def run_wrk(
    script: str,
    url: str,
    arguments: Sequence[str],
    *,
    connections: int,
    seconds: int,
    core: int,
    run: Path,
    inside: Sequence[str] = (),
) -> Outcome:
    """Run wrk with a script of `wrk/` and its arguments, one thread; raises BenchError where more than 0.1 % of the
    requests fail. ``inside`` is a command that runs another one in a namespace."""
    command = [*inside, which("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s"]
    command += ["-s", str(_SCRIPTS / script), url, "--", *arguments]
    with Process(command, core, run, name="wrk", environment={"LUA_PATH": f"{_SCRIPTS}/?.lua"}) as process:
        last = process.wait(seconds + 15.0).strip().splitlines()[-1]
    seen = json.loads(last)
    total, failed = seen["requests"], seen["refused"] + seen["broken"]
    if total == 0 or failed > total * _FAILURES:
        raise BenchError(f"{script}: of {total} requests {seen['refused']} were refused and {seen['broken']} broke")
    return Outcome(
        requests=total - seen["refused"],
        seconds=seen["microseconds"] / 1e6,
        bytes=seen["bytes"],
        p50=seen["p50"] / 1e3,
        p99=seen["p99"] / 1e3,
    )


def ask(port: int, path: str, *, method: str = "GET", body: bytes = b"", authority: str = "") -> tuple[bytes, bytes]:
    """One request on a connection of its own, ended by the proxy; returns head and body as they came. For an
    ``authority`` the port is asked as an explicit proxy."""
    target = f"http://{authority}{path}" if authority else path
    head = f"{method} {target} HTTP/1.1\r\nHost: {authority or 'app.example'}\r\nConnection: close\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n" if body else "\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10.0) as connection:
        connection.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    found, _, content = answer.partition(b"\r\n\r\n")
    return found, content


def downloads(port: int, *, connections: int, seconds: float, tunnel: str = "") -> Outcome:
    """Download the big file again and again on some connections; counts whole downloads only, finishing the last.
    For a ``tunnel`` each connection first asks to be led to that authority (CONNECT)."""
    until = time.monotonic() + seconds
    began = time.monotonic()
    with ThreadPoolExecutor(connections) as pool:
        took = [
            each
            for worker in pool.map(lambda _: _download_until(port, until, tunnel), range(connections))
            for each in worker
        ]
    return Outcome(
        requests=len(took),
        seconds=time.monotonic() - began,
        bytes=len(took) * DOWNLOAD_BYTES,
        p50=statistics.median(took) * 1e3,
        p99=max(took) * 1e3 if len(took) < 100 else statistics.quantiles(took, n=100)[98] * 1e3,
    )


def _download_until(port: int, until: float, tunnel: str) -> list[float]:
    took = []
    sink = bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port), timeout=10.0) as connection:
        if tunnel:
            connection.sendall(f"CONNECT {tunnel} HTTP/1.1\r\nHost: {tunnel}\r\n\r\n".encode())
            _rest_after_head(connection)
        while time.monotonic() < until:
            began = time.monotonic()
            connection.sendall(GET % b"/download")
            left = DOWNLOAD_BYTES - len(_rest_after_head(connection))
            while left > 0:
                count = connection.recv_into(sink, min(left, len(sink)), socket.MSG_TRUNC)
                if count == 0:
                    raise BenchError(f"a download was cut {left} bytes before its end")
                left -= count
            took.append(time.monotonic() - began)
    return took


def _rest_after_head(connection: socket.socket) -> bytes:
    """Read a 200 head; returns what came of the body with it. Raises BenchError for anything else."""
    seen = b""
    while b"\r\n\r\n" not in seen:
        block = connection.recv(4096)
        if not block:
            raise BenchError(f"the connection ended within a head: {seen!r}")
        seen += block
    if not seen.startswith(b"HTTP/1.1 200 "):
        raise BenchError(f"not a 200: {seen[:200]!r}")
    return seen.partition(b"\r\n\r\n")[2]


@contextlib.contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    """Open connections that each make one request and then idle, until the block ends."""
    with contextlib.ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10.0))
            connection.sendall(GET % b"/idle/%d" % number)
            _rest_after_head(connection)
        yield


def greetings(port: int, count: int) -> list[float]:
    """Milliseconds from connect to the app's greeting, one connection after the other."""
    took = []
    for _ in range(count):
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), timeout=10.0) as connection:
            seen = connection.recv(256)
            took.append((time.monotonic() - began) * 1e3)
            if seen != GREETING:
                raise BenchError(f"not the greeting: {seen!r}")
    return took
