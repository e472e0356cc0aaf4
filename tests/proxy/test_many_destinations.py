"""More destinations than are kept: the oldest make room, and their idle connections go with them."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from sidecar.upstream.bounded_table import MOST
from tests.support.process import SidecarProcess
from tests.support.raw import Client
from tests.support.upstream import ok, wait_until


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Enough of them, for this process and its children: 1,024 are the usual limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * MOST), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
def test_one_more_than_are_kept() -> None:
    """All of 127.0.0.0/8 is this machine; each address is a destination of its own."""
    held: list[socket.socket] = []
    with socket.create_server(("0.0.0.0", 0), backlog=64) as app:
        port = app.getsockname()[1]
        threading.Thread(target=_answer, args=(app, held), daemon=True).start()
        with SidecarProcess(port) as sidecar, Client(sidecar.outbound, deadline=30.0) as client:
            before = sidecar.descriptors()
            for number in range(MOST + 8):
                host = b"127.1.%d.%d:%d" % (number // 200, number % 200 + 1, port)
                client.heard.raw.clear()
                client.send(b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (host, host))
                (reply,) = client.replies((b"GET",), 1)
                assert reply.status == 200, f"destination {number}: {reply}"
            wait_until(lambda: sidecar.descriptors() <= before + MOST, "closed ones' descriptors go")
    for sock in held:
        sock.close()


def _answer(app: socket.socket, held: list[socket.socket]) -> None:
    """One request per connection, which stays open."""
    while True:
        try:
            sock, _ = app.accept()
        except OSError:
            return
        held.append(sock)
        if sock.recv(65_536):
            sock.sendall(ok())
