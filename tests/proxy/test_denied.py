"""What a policy denies is never dialed, and no byte of it goes on: whatever the client speaks, or if it is silent.

Where connections are captured: ``tests/netns/test_denied.py``.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.process import SidecarProcess
from tests.support.raw import Client
from tests.support.tls import client_hello
from tests.support.upstream import wait_until

SILENCE = 0.5  # seconds: beyond that after which the app is dialed for a silent client
SAID = {
    "HTTP": [b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"],
    "HTTP with a body": [b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nhello"],
    "TLS": [client_hello("app.example", (b"h2", b"http/1.1"))],
    "TCP": [b"\0\1\2\3"],
    "a word": [b"ruok", b""],
    "silent": [b""],
    "silent, then TCP": [b"", b"\0\1\2\3"],
    "silent, then HTTP": [b"", b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"],
}


@pytest.fixture(scope="module")
def app() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        yield listener


@pytest.fixture(scope="module", params=["auto", "http", "tcp"])
def sidecar(request: pytest.FixtureRequest, app: socket.socket) -> Iterator[SidecarProcess]:
    entry = ("-m", "tests.support.denying_process")
    flags = ("--protocol", request.param, "--request-head-timeout", "1s", "--drain-seconds", "1")
    with SidecarProcess(app.getsockname()[1], *flags, entry=entry) as running:
        yield running


def denied(sidecar: SidecarProcess, direction: str) -> int:
    return sum(line.startswith(f"denied: {direction} ") for line in sidecar.errors)


def never_dialed(app: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        app.accept()


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_inbound(sidecar: SidecarProcess, app: socket.socket, said: list[bytes]) -> None:
    before = denied(sidecar, "inbound")
    with Client(sidecar.inbound) as client:
        for piece in said:
            client.send(piece)
            if not piece:
                time.sleep(SILENCE)
        client.read_to_end()
        assert client.heard.raw.startswith(b"HTTP/1.1 4") or not client.heard.raw
    never_dialed(app)
    is_http = b"HTTP/1.1" in b"".join(said)
    asked = is_http or sidecar.command[sidecar.command.index("--protocol") + 1] != "http"
    if asked:
        wait_until(lambda: denied(sidecar, "inbound") > before, "the question is told")


def test_outbound_by_its_url(sidecar: SidecarProcess, app: socket.socket) -> None:
    host = b"127.0.0.1:%d" % app.getsockname()[1]
    before = denied(sidecar, "outbound")
    with Client(sidecar.outbound) as client:
        client.send(b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (host, host))
        (reply,) = client.replies((b"GET",), 1)
    assert reply.status == 403 and b"the policy of the test" in reply.body
    never_dialed(app)
    wait_until(lambda: denied(sidecar, "outbound") == before + 1, "the question is told")


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_outbound_by_connect(sidecar: SidecarProcess, app: socket.socket, said: list[bytes]) -> None:
    host = b"127.0.0.1:%d" % app.getsockname()[1]
    with Client(sidecar.outbound) as client:
        client.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (host, host) + said[0])
        reply = client.replies((b"CONNECT",), 1)[0]
    assert reply.status == 403
    never_dialed(app)
