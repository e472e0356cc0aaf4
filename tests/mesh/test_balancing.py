"""Requests spread over the endpoints of a service one by one, also those of a caller that sends one after the other on
one connection, and an endpoint that is slow gets few of them."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.member import Member
from tests.support.papers import Authority
from tests.support.raw import Client

SEQUENTIAL = 4000
CALLERS, EACH = 16, 40
QUICK, SLOW = 0.01, 0.1  # seconds that an app takes to answer


class App:
    """Answers every request with its number, after ``delay`` seconds."""

    def __init__(self, number: int) -> None:
        self.delay = 0.0
        self._reply = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        data = b""
        with sock, contextlib.suppress(ConnectionError):
            while more := sock.recv(65536):
                data += more
                while b"\r\n\r\n" in data:
                    data = data.partition(b"\r\n\r\n")[2]
                    if self.delay:
                        time.sleep(self.delay)
                    sock.sendall(self._reply)


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[Member, list[App]]]:
    """The caller's sidecar, and the four apps of a service, each behind a sidecar of its own."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority = Authority(directory)
        web, caller = authority.issue("web"), authority.issue("caller")
        apps = [App(number) for number in range(4)]
        for app in apps:
            stack.callback(app.listener.close)
        webs = [
            stack.enter_context(
                Member(app.port, web, "--mesh", str(_mesh(directory, [])), "--service-account", "web", *_ME)
            )
            for app in apps
        ]
        mesh = _mesh(directory, [each.inbound for each in webs])
        called = Member(apps[0].port, caller, "--mesh", str(mesh), "--service-account", "caller", *_ME)
        yield stack.enter_context(called), apps


_ME = ("--namespace", "shop")


def _mesh(directory: Path, ports: list[int]) -> Path:
    path = directory / f"mesh-{len(ports)}.yaml"
    endpoints = "".join(f"  - {{address: 127.0.0.1, port: {port}, mode: direct}}\n" for port in ports)
    path.write_text(
        "services:\n- name: web\n  namespace: shop\n  serviceAccounts: [web]\n  ports: [{port: 80, name: http}]\n"
        + (f"  endpoints:\n{endpoints}" if ports else "")
    )
    return path


def _ask(caller: Member, count: int) -> Counter[bytes]:
    """So many requests, one after the other, on one connection; which app answered how many."""
    answered: Counter[bytes] = Counter()
    with Client(caller.outbound, deadline=120) as client:
        for _ in range(count):
            client.heard.raw.clear()
            client.send(b"GET http://web.shop/ HTTP/1.1\r\nHost: web.shop\r\n\r\n")
            (reply,) = client.replies((b"GET",), 1)
            assert reply.status == 200
            answered[reply.body] += 1
    return answered


def test_one_request_after_the_other(service: tuple[Member, list[App]]) -> None:
    caller, _ = service
    answered = _ask(caller, SEQUENTIAL)
    assert len(answered) == 4
    assert all(abs(count / SEQUENTIAL - 0.25) < 0.04 for count in answered.values()), answered


def test_a_slow_endpoint_gets_few(service: tuple[Member, list[App]]) -> None:
    caller, apps = service
    for app in apps:
        app.delay = QUICK
    apps[2].delay = SLOW
    with ThreadPoolExecutor(CALLERS) as pool:
        answered = sum(pool.map(lambda _: _ask(caller, EACH), range(CALLERS)), Counter[bytes]())
    assert answered.total() == CALLERS * EACH
    assert answered[b"2"] / answered.total() < 0.10, answered
