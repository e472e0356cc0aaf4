"""A WebSocket library (wsproto) as client and as app, through the proxy: inbound, by CONNECT, and in absolute form."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from types import TracebackType

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from tests.support.process import SidecarProcess
from tests.support.upstream import wait_until


class EchoApp:
    """Accepts WebSockets on /chat and sends back what it gets; declines elsewhere."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> EchoApp:
        threading.Thread(target=self._accept, daemon=True, name="websocket-app").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True, name="websocket-connection").start()

    def _serve(self, sock: socket.socket) -> None:
        connection = WSConnection(ConnectionType.SERVER)
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                connection.receive_data(data)
                for event in connection.events():
                    for answer in _answers(event):
                        sock.sendall(connection.send(answer))
                        if isinstance(answer, RejectConnection | CloseConnection):
                            return


def _answers(event: Event) -> Iterator[Event]:
    if isinstance(event, Request):
        yield AcceptConnection(subprotocol="chat") if event.target == "/chat" else RejectConnection(status_code=403)
    elif isinstance(event, TextMessage):
        yield TextMessage(data=event.data.upper(), message_finished=event.message_finished)
    elif isinstance(event, BytesMessage):
        yield BytesMessage(data=event.data, message_finished=event.message_finished)
    elif isinstance(event, Ping | CloseConnection):
        yield event.response()


class Talk:
    """The client's side of a WebSocket on a connected socket."""

    def __init__(self, sock: socket.socket, host: str, target: str) -> None:
        self.sock = sock
        self.connection = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []
        self.send(Request(host=host, target=target, subprotocols=["chat", "other"]))

    def send(self, event: Event) -> None:
        self.sock.sendall(self.connection.send(event))

    def next(self) -> Event:
        while not self._events:
            data = self.sock.recv(65536)
            self.connection.receive_data(data or None)
            self._events += self.connection.events()
        return self._events.pop(0)

    def echoed(self, data: bytes) -> bytes:
        """Sends a binary message and takes as many bytes back, in however many pieces."""
        self.send(BytesMessage(data=data))
        back = b""
        while len(back) < len(data):
            event = self.next()
            assert isinstance(event, BytesMessage)
            back += event.data
        return back


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
