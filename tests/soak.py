"""Long runs: does anything grow, and does a drain under load ever lose something?

    python -m tests.soak [leak|drain|prometheus|mesh|outage|control|store|all] [--times N]

``leak``: after a warm-up of 10,000 requests, 100,000 on 64 keep-alive connections and then 20,000 with a connection
each; no error, and afterwards memory within 2 MB, tasks and descriptors as before. ``drain``: SIGTERM under a steady
load of 16 connections, again and again; no request that was sent is lost, no body is cut, exit code 0 in time.
``prometheus``: a minute of even load that Prometheus scrapes; its counts are those of the sender, its rates within 1 %.
``mesh`` and ``outage`` are those of ``tests.soak_mesh``, ``control`` that of ``tests.soak_control``, ``store`` that of
``tests.soak_store``. In short they are run by ``tests/proxy/test_soak.py``, ``tests/mesh/test_soak.py``,
``tests/mesh/test_outages.py``, ``tests/peer/test_prometheus.py`` and ``tests/control/test_store_crash.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tests.peer.prometheus_load import observe
from tests.support.process import SidecarProcess
from tests.support.upstream import wait_until

KEPT = 64  # keep-alive connections
BATCH = 32  # connections at a time where each serves one request
RSS_GROWTH = 2_000_000
DRAIN_SECONDS = 10
LOAD = 16
ANSWER = bytes(range(256)) * 32  # 8 KiB
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: (\d+)\r\n")
_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b"


class App:
    """A quick app on one thread: each request, read to its end, gets ANSWER, or the body's length where it has one."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="soak-app")

    def __enter__(self) -> App:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(0.1):
                if key.fileobj is self._listener:
                    with contextlib.suppress(BlockingIOError):
                        sock, _ = self._listener.accept()
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        self._selector.register(sock, selectors.EVENT_READ, bytearray())
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._serve(key.fileobj, key.data)

    def _serve(self, sock: socket.socket, data: bytearray) -> None:
        try:
            more = sock.recv(65536)
        except ConnectionError:
            more = b""
        if not more:
            self._selector.unregister(sock)
            sock.close()
            return
        data += more
        while (end := data.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(data, 0, end + 2)
            size = int(found[1]) if found else 0
            if len(data) < end + 4 + size:
                return
            del data[: end + 4 + size]
            body = b"%d" % size if found else ANSWER
            with contextlib.suppress(ConnectionError):
                sock.sendall(_REPLY % (len(body), body))


class Failed(Exception):
    """A request did not get what it should."""


def ask(sock: socket.socket, number: int, *, close: bool = False) -> bool:
    """One exchange, checked to the last byte; every third is a POST. Says whether the connection may be used again."""
    send_one(sock, number, close=close)
    return take_one(sock, number)


def send_one(sock: socket.socket, number: int, *, close: bool = False, base: bytes = b"", host: bytes = b"app") -> None:
    """``base`` stands before the path, as explicit proxies want it."""
    extra = b"Connection: close\r\n" if close else b""
    target = b"%b/%d" % (base, number)
    if number % 3 == 0:
        head = b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Length: 4096\r\n%b\r\n" % (target, host, extra)
        sock.sendall(head + bytes(4096))
    else:
        sock.sendall(b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (target, host, extra))


def take_one(sock: socket.socket, number: int) -> bool:
    expected = b"4096" if number % 3 == 0 else ANSWER
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0 or len(data) < end + 4 + len(expected):
        more = sock.recv(65536)
        if not more:
            raise Failed(f"request {number}: the connection ended after {len(data)} bytes of the reply")
        data += more
        if data[:13] != b"HTTP/1.1 200 "[: len(data)]:
            raise Failed(f"request {number}: {data[:200]!r}")
    if data[end + 4 :] != expected:
        raise Failed(f"request {number}: {len(data) - end - 4} bytes of body instead of {len(expected)}")
    return b"\r\nconnection: close\r\n" not in data[: end + 2].lower()


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


# -- leak --------------------------------------------------------------------------------------------------------------


def kept(port: int, count: int) -> None:
    """So many requests over KEPT connections, all of which are used at once."""
    socks = [connect(port) for _ in range(KEPT)]
    try:
        for number in range(0, count, KEPT):
            asked = socks[: count - number]
            for sock in asked:
                send_one(sock, number)
            for sock in asked:
                if not take_one(sock, number):
                    raise Failed("a keep-alive connection was closed")
    finally:
        for sock in socks:
            sock.close()


def one_each(port: int, count: int) -> None:
    """So many requests with a connection each, BATCH at a time."""
    for number in range(0, count, BATCH):
        socks = [connect(port) for _ in range(min(BATCH, count - number))]
        for sock in socks:
            send_one(sock, number, close=True)
        for sock in socks:
            take_one(sock, number)
            if sock.recv(1):
                raise Failed("bytes after the last reply")
            sock.close()


def leak(warm_up: int = 10_000, keep_alive: int = 100_000, single: int = 20_000) -> str:
    """Runs it; returns what was measured. Raises Failed or AssertionError."""
    with App() as app, SidecarProcess(app.port) as sidecar:
        one_each(sidecar.inbound, warm_up // 5)
        kept(sidecar.inbound, warm_up - warm_up // 5)
        before = at_rest(sidecar, lambda memory: True)
        kept(sidecar.inbound, keep_alive)
        one_each(sidecar.inbound, single)
        after = at_rest(
            sidecar,
            lambda memory: memory["tasks"] <= before["tasks"] and memory["descriptors"] <= before["descriptors"],
        )
        growth = after["rss_bytes"] - before["rss_bytes"]
        text = (
            f"{keep_alive} requests on {KEPT} connections and {single} with one each: memory {growth / 1e6:+.2f} MB "
            f"to {after['rss_bytes'] / 1e6:.1f} MB, tasks {before['tasks']} -> {after['tasks']}, "
            f"descriptors {before['descriptors']} -> {after['descriptors']}"
        )
        assert growth <= RSS_GROWTH, text
        return text


def at_rest(sidecar: SidecarProcess, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What ``/memory`` says once no client is connected any more, and ``enough`` holds."""
    last: dict[str, Any] = {}

    def rests() -> bool:
        nonlocal last
        page = sidecar.admin_get("/metrics")[1]  # first, since its library is loaded when it is asked for
        last = sidecar.memory()
        return "\nsidecar_connections_active 0.0\n" in page and enough(last)

    try:
        wait_until(rests, "the proxy is at rest", 15)
    except AssertionError as error:
        raise AssertionError(f"{error}; last seen: {last}") from None
    return last


# -- drain -------------------------------------------------------------------------------------------------------------


class Load:
    """LOAD clients that ask as fast as they can, each on a connection that it keeps as long as it may."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.done = [0] * LOAD
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(index,), daemon=True) for index in range(LOAD)]
        for thread in self._threads:
            thread.start()

    def wait_steady(self, requests: int) -> None:
        """Waits until each client has had so many replies."""
        wait_until(lambda: min(self.done) >= requests, "a steady load")

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive(), "a client waits for ever"

    def _run(self, index: int) -> None:
        while True:
            try:
                sock = connect(self._port)
            except ConnectionRefusedError:
                return  # nobody listens any more: nothing was sent
            except OSError as error:
                self.failures.append(f"connecting: {error!r}")
                return
            served = self.done[index]
            with sock:
                try:
                    while ask(sock, self.done[index]):
                        self.done[index] += 1
                    self.done[index] += 1
                except (OSError, Failed) as error:
                    served = self.done[index] - served
                    self.failures.append(f"client {index}, after {served} requests on its connection: {error!r}")
                    return


def drain(times: int) -> str:
    """SIGTERM under load, so many times; returns what was seen. Raises AssertionError."""
    total, slowest = 0, 0.0
    for round_ in range(times):
        with App() as app, SidecarProcess(app.port, "--drain-seconds", str(DRAIN_SECONDS)) as sidecar:
            load = Load(sidecar.inbound)
            load.wait_steady(20 + 3 * round_)  # at another moment in each round
            began = time.monotonic()
            sidecar.terminate()
            sidecar.wait_clean_exit(DRAIN_SECONDS)
            slowest = max(slowest, time.monotonic() - began)
            load.join()
            assert not load.failures, f"round {round_ + 1}: {load.failures}"
            logged = len(sidecar.log_lines())
            assert logged == sum(load.done), f"{logged} records of {sum(load.done)} requests"
            total += sum(load.done)
    return f"{times} drains under {LOAD} connections: {total} requests, none lost; the slowest took {slowest:.2f} s"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Long runs; see the module's text.")
    parser.add_argument(
        "what",
        nargs="?",
        choices=["leak", "drain", "prometheus", "mesh", "outage", "control", "store", "all"],
        default="all",
    )
    parser.add_argument("--times", type=int, default=0, help="drains (default 20), or kills (200)")
    options = parser.parse_args()
    from tests import soak_control, soak_mesh, soak_store  # the first two take their clients and their app from here

    try:
        if options.what in ("leak", "all"):
            print(leak(), flush=True)
        if options.what in ("drain", "all"):
            print(drain(options.times or 20), flush=True)
        if options.what in ("prometheus", "all"):
            seen = observe(60.0)
            seen.check()
            print(
                f"{seen.counted:.0f} of {seen.sent} requests counted, {seen.rate:.2f} of {seen.sent_rate:.2f} a second"
            )
        if options.what in ("mesh", "all"):
            print(soak_mesh.mesh(), flush=True)
        if options.what in ("outage", "all"):
            print(soak_mesh.outage(), flush=True)
        if options.what in ("control", "all"):
            print(soak_control.control(), flush=True)
        if options.what in ("store", "all"):
            print(soak_store.kills(options.times or 200), flush=True)
    except (Failed, AssertionError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
