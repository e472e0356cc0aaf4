"""A WebSocket library (wsproto) as client and as app, on plain sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from types import TracebackType

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)


class EchoApp:
    """Accepts WebSockets on /chat and sends back what it gets; declines elsewhere."""

    def __init__(self, listener: socket.socket | None = None) -> None:
        """On a port of loopback, unless it is given a listener."""
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
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
