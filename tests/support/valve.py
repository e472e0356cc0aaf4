"""What lies between sidecars and their control plane, and can go wrong: a TCP relay on loopback.

    with Valve(port) as valve:
        valve.turn("cut")

``open`` passes everything on. ``cut``: nothing comes through any more, and nobody is told; what was sent comes when
it is open again, as what TCP sends once more does. ``slow``: what the control plane says comes LATE seconds later, in
small pieces. ``reset``: each connection is reset, the open ones too. ``nonsense``: each is answered, by what no control
plane would say. Whoever connects meanwhile finds somebody listening, as behind a load balancer.
"""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

Turned = Literal["open", "cut", "slow", "reset", "nonsense"]
LATE = 3.0  # seconds
PIECE = 100  # bytes, every
TICK = 0.01  # seconds, while it is slow
NONSENSE = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\noops!",
    b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"version\": 17}",
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 86400\r\nContent-Length: 0\r\n\r\n",
    bytes(range(255, 0, -1)),
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n[",
    b"HTTP/1.1 200 OK\r\nETag: \"1.1\"\r\nContent-Length: 2\r\n\r\n{}",
)  # fmt: skip


@dataclass(slots=True)
class _End:
    """One side of a connection. ``late``: what is to be sent to the other side, and when."""

    other: socket.socket
    from_client: bool
    late: deque[tuple[float, bytes]] = field(default_factory=deque)


class Valve:
    """To the port ``target`` of 127.0.0.1; ``port`` is where it listens. A context manager."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._turned: Turned = "open"
        self._ends: dict[socket.socket, _End] = {}
        self._said = itertools.cycle(NONSENSE)
        self._over = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True, name="valve")
        self._thread.start()

    def __enter__(self) -> Valve:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._thread.join(10)
        for sock in (self._listener, *self._ends):
            sock.close()

    def turn(self, to: Turned) -> None:
        """From now on; what is open is reset where its like would be."""
        with self._lock:
            self._turned = to
            if to in ("reset", "nonsense"):
                for sock in list(self._ends):
                    _reset(sock)
                self._ends.clear()

    def _run(self) -> None:
        while not self._over:
            with self._lock:
                turned = self._turned
                if turned != "cut":
                    self._send_late()
                    self._look(turned)
            time.sleep(TICK if turned in ("slow", "cut") else 0.001)

    def _look(self, turned: Turned) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            for sock in self._ends:
                selector.register(sock, selectors.EVENT_READ)
            ready = {key.fileobj for key, _ in selector.select(0.005)}
        if self._listener in ready:
            self._accept(turned)
        for sock in [each for each in self._ends if each in ready]:
            if sock in self._ends:  # else ended by its other
                self._pass(sock, turned)

    def _accept(self, turned: Turned) -> None:
        client, _ = self._listener.accept()
        if turned == "reset":
            _reset(client)
            return
        if turned == "nonsense":
            _answer(client, next(self._said))
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            _reset(client)
            return
        for one, other in ((client, server), (server, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[one] = _End(other, one is client)

    def _pass(self, sock: socket.socket, turned: Turned) -> None:
        end = self._ends[sock]
        try:
            data = sock.recv(65536)
        except OSError:
            data = b""
        if not data or end.from_client or (turned == "open" and not end.late):
            self._give(sock, data)
            return
        at = time.monotonic() + LATE
        pieces = range(0, len(data), PIECE)
        end.late.extend((at + number * TICK, data[begin : begin + PIECE]) for number, begin in enumerate(pieces))

    def _send_late(self) -> None:
        now = time.monotonic()
        for sock, end in list(self._ends.items()):
            while sock in self._ends and end.late and end.late[0][0] <= now:
                self._give(sock, end.late.popleft()[1])

    def _give(self, sock: socket.socket, data: bytes) -> None:
        """To the other side; nothing is the end of both."""
        other = self._ends[sock].other
        try:
            if data:
                other.sendall(data)
                return
        except OSError:
            pass  # it is gone, and so is this one
        for one in (sock, other):
            self._ends.pop(one, None)
            one.close()


def _answer(client: socket.socket, words: bytes) -> None:
    """Once it has said something."""
    with client, contextlib.suppress(OSError):
        client.settimeout(1.0)
        client.recv(65536)
        client.sendall(words)


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
