"""Traffic for the page to show, made by processes of their own so that they wait for nobody's interpreter.

``python -m tests.browser.traffic app`` is an app: it prints its port, answers after a millisecond or so, and fails on
demand (``/fail/error`` 500, ``/fail/close`` closes instead of an answer). ``... load INBOUND OUTBOUND APP RATE`` sends
it that many requests per second through a sidecar, in and out, with a few failures of every kind among them, until its
standard input ends; for each line there it prints how many it has sent.
"""

from __future__ import annotations

import contextlib
import math
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from tests.support.process import ROOT, SidecarProcess

CONNECTIONS = 8
OUTBOUND_SHARE = 0.15
PATHS = (
    "/", "/cart", "/cart/items?user=4711", "/checkout", "/search?q=shoes&page=2", "/static/app.js", "/orders/8812"
)  # fmt: skip
BAD_FRAMING = (
    b"POST /cart HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
)


# -- the app ---------------------------------------------------------------------------------------------------------


def app() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    chance = random.Random()
    with connection, contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            if b"/fail/close" in data:
                return
            time.sleep(min(chance.lognormvariate(-6.9, 0.8), 0.2))  # a millisecond mostly, some much longer
            if b"/fail/error" in data:
                connection.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\n\r\nno\n")
            else:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")


# -- the load --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """Where to, and how much per second; ``failures`` is how many of these fail."""

    inbound: int
    outbound: int
    app: int
    rate: float
    failures: float


class _Worker:
    """One connection's worth of it: paced, so that the sum is the rate however long answers take."""

    def __init__(self, load: Load, number: int) -> None:
        self.sent = 0
        self._load = load
        self._outward = number < CONNECTIONS * OUTBOUND_SHARE
        self._source = f"127.0.0.{11 + number // 2}"
        self._chance = random.Random(number)
        self._connection: socket.socket | None = None

    def run(self, ended: threading.Event) -> None:
        load = self._load
        due = time.monotonic()
        while not ended.is_set():
            wave = 1 + 0.12 * math.sin(due / 7) + 0.05 * math.sin(due / 1.7)
            due += CONNECTIONS / load.rate / wave
            if (wait := due - time.monotonic()) > 0:
                time.sleep(wait)
            elif wait < -1:
                due = time.monotonic()  # behind by a second: no use in catching up
            self.sent += 1
            if self._chance.random() < load.failures / load.rate:
                self._fail()
            else:
                self._ask(self._chance.choice(PATHS))

    def _ask(self, path: str) -> None:
        try:
            if self._connection is None:
                port = self._load.outbound if self._outward else self._load.inbound
                self._connection = socket.create_connection(("127.0.0.1", port), 5, source_address=(self._source, 0))
                self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            host = f"localhost:{self._load.app}" if self._outward else "shop.example"
            target = f"http://{host}{path}" if self._outward else path
            self._connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: load\r\n\r\n".encode())
            answer = self._connection.recv(65536)
            if not answer or b"connection: close" in answer.lower():
                self._drop()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _fail(self) -> None:
        kind = self._chance.random()
        if self._outward:
            self._once(
                self._load.outbound, b"GET http://127.0.0.1:9/stock?token=abc HTTP/1.1\r\nHost: 127.0.0.1:9\r\n\r\n"
            )
        elif kind < 0.4:
            self._ask("/fail/error")
        elif kind < 0.8:
            self._ask("/fail/close?session=77")
        else:
            self._once(self._load.inbound, BAD_FRAMING)

    def _once(self, port: int, data: bytes) -> None:
        with contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", port), 5, source_address=(self._source, 0)) as connection:
                connection.sendall(data)
                connection.recv(65536)


def load(what: Load) -> None:
    ended = threading.Event()
    workers = [_Worker(what, number) for number in range(CONNECTIONS)]
    threads = [threading.Thread(target=worker.run, args=(ended,)) for worker in workers]
    for thread in threads:
        thread.start()
    for _ in sys.stdin:
        print(sum(worker.sent for worker in workers), flush=True)
    ended.set()
    for thread in threads:
        thread.join()


# -- both, for a test ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.browser.traffic", *arguments],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def running_app() -> Generator[int]:
    """The app's port."""
    with _process("app") as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


@contextlib.contextmanager
def running_load(
    sidecar: SidecarProcess, app_port: int, *, rate: float, failures: float = 2.0
) -> Generator[Callable[[], int]]:
    """Load, until the end of the block; yields how many requests it has sent."""
    ports = (sidecar.inbound, sidecar.outbound, app_port)
    with _process("load", *map(str, ports), str(rate), str(failures)) as process:

        def sent() -> int:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield sent
        process.communicate("", timeout=20)


if __name__ == "__main__":
    if sys.argv[1] == "app":
        app()
    else:
        load(Load(*map(int, sys.argv[2:5]), *map(float, sys.argv[5:7])))
