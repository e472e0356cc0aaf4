"""A WebSocket library (wsproto) as client and as app, through the proxy: inbound, by CONNECT, and in absolute form."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from wsproto.events import AcceptConnection, CloseConnection, Ping, Pong, RejectConnection, TextMessage

from tests.support.process import SidecarProcess
from tests.support.upstream import wait_until
from tests.support.websocket import EchoApp, Talk


@pytest.fixture(scope="module")
def app() -> Iterator[EchoApp]:
    with EchoApp() as running:
        yield running


@pytest.fixture(scope="module")
def sidecar(app: EchoApp) -> Iterator[SidecarProcess]:
    with SidecarProcess(app.port) as running:
        yield running


def _opened(way: str, app: EchoApp, sidecar: SidecarProcess, target: str) -> Talk:
    port = sidecar.inbound if way == "inbound" else sidecar.outbound
    sock = socket.create_connection(("127.0.0.1", port), timeout=8)
    host = f"127.0.0.1:{app.port}"
    if way == "connect":
        sock.sendall(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    return Talk(sock, host, f"http://{host}{target}" if way == "absolute" else target)


@pytest.mark.parametrize("way", ["inbound", "connect", "absolute"])
def test_conversation(app: EchoApp, sidecar: SidecarProcess, way: str) -> None:
    talk = _opened(way, app, sidecar, "/chat")
    with talk.sock:
        accepted = talk.next()
        assert isinstance(accepted, AcceptConnection)
        assert accepted.subprotocol == "chat"
        talk.send(TextMessage(data="hello"))
        said = talk.next()
        assert isinstance(said, TextMessage)
        assert said.data == "HELLO"
        talk.send(Ping(payload=b"there?"))
        assert talk.next() == Pong(payload=b"there?")
        for size in (1, 1000, 100_000, 2_000_000):
            data = os.urandom(size)
            assert talk.echoed(data) == data
        talk.send(CloseConnection(code=1000, reason="done"))
        assert isinstance(talk.next(), CloseConnection)
        assert talk.sock.recv(1) == b""
    direction = "inbound" if way == "inbound" else "outbound"
    wait_until(lambda: bool(_switched(sidecar, direction, way)), "a record of the WebSocket")
    (record,) = _switched(sidecar, direction, way)
    assert record["bytes_received"] > 2_101_001
    assert record["bytes_sent"] > 2_101_001


def _switched(sidecar: SidecarProcess, direction: str, way: str) -> list[dict]:
    wanted = [r for r in sidecar.log_records() if r["response_code"] == 101 and r["direction"] == direction]
    return wanted[-1:] if way != "absolute" or len(wanted) == 2 else []


@pytest.mark.parametrize("way", ["inbound", "connect", "absolute"])
def test_declined(app: EchoApp, sidecar: SidecarProcess, way: str) -> None:
    talk = _opened(way, app, sidecar, "/elsewhere")
    with talk.sock:
        declined = talk.next()
        assert isinstance(declined, RejectConnection)
        assert declined.status_code == 403
