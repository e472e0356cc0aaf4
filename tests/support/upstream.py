"""The app behind the proxy under test: a real TCP server that records every byte and answers as it is told.

Blocking sockets and a thread per connection, so that it shares nothing with the event loop it judges. A request whose
target is ``/script/NAME`` is answered by the steps of that name; every other one gets a correct 200 that echoes what
was understood. Bytes that are no canonical request are recorded as such, read to their end, and never answered.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from tests.support.strict import Request, StrictReader, Violation

Step = Callable[["Connection"], bool]
"""One thing an upstream does; False ends the connection."""


def send(data: bytes) -> Step:
    """Write these bytes."""

    def step(connection: Connection) -> bool:
        connection.write(data)
        return True

    return step


def split(data: bytes, pause: float = 0.002) -> Step:
    """Write these bytes one at a time."""

    def step(connection: Connection) -> bool:
        for index in range(len(data)):
            connection.write(data[index : index + 1])
            time.sleep(pause)
        return True

    return step


def close(connection: Connection) -> bool:
    """End the connection with FIN."""
    return False


def reset(connection: Connection) -> bool:
    """End the connection with RST."""
    connection.linger = True
    return False


def hold(connection: Connection) -> bool:
    """Say nothing until the proxy ends the connection."""
    connection.drain()
    return False


def until(event: threading.Event, deadline: float = 30.0) -> Step:
    """Go on when the event is set."""

    def step(connection: Connection) -> bool:
        return event.wait(deadline)

    return step


def ok(body: bytes = b"ok", *, head_only: bool = False) -> bytes:
    """A plain 200."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + (b"" if head_only else body)


@dataclass
class Connection:
    """What one connection of the proxy to the app carried. ``ended`` is how the proxy ended it: eof, reset or None."""

    number: int
    sock: socket.socket
    raw: bytearray = field(default_factory=bytearray)
    requests: list[Request] = field(default_factory=list)
    violation: str | None = None
    ended: str | None = None
    finished: bool = False
    linger: bool = False
    mid_request: bool = False
    sent: int = 0

    def write(self, data: bytes) -> None:
        self.sock.sendall(data)
        self.sent += len(data)

    def read(self) -> bytes:
        """The next bytes, recorded; empty at the end."""
        try:
            data = self.sock.recv(65536)
        except ConnectionError:
            self.ended = "reset"
            return b""
        except OSError:
            return b""
        if not data:
            self.ended = "eof"
        self.raw += data
        return data

    def drain(self) -> None:
        while self.read():
            pass


@dataclass(frozen=True, slots=True)
class Seen:
    """What reached the app since the last time it was asked."""

    requests: tuple[Request, ...]
    partial: int  # requests that began and did not end
    strays: tuple[bytes, ...]  # all bytes of each connection that broke the rules
    violations: tuple[str, ...]


class RecordingUpstream:
    """A server on an ephemeral port of 127.0.0.1; a context manager. ``strict`` False asks for right framing only;
    ``mesh``: its proxy is in one, and may vouch for callers."""

    def __init__(
        self,
        scripts: Mapping[str, Sequence[Step]] | None = None,
        *,
        greeting: bytes = b"",
        strict: bool = True,
        mesh: bool = False,
    ) -> None:
        self.scripts: dict[str, Sequence[Step]] = dict(scripts or {})
        self.greeting = greeting
        self.strict = strict
        self.mesh = mesh
        self.connections: list[Connection] = []
        self.on_violation: Callable[[Connection], None] | None = None
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True, name="upstream")

    def __enter__(self) -> RecordingUpstream:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and end every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections = list(self.connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def take(self) -> Seen:
        """What came since the last call, requests in the order of their ends; connections that ended are forgotten."""
        partial = 0
        strays: list[bytes] = []
        violations: list[str] = []
        with self._lock:
            kept = []
            for connection in self.connections:
                if connection.violation is not None:
                    strays.append(bytes(connection.raw))
                    violations.append(connection.violation)
                elif connection.mid_request:
                    partial += 1
                if not connection.finished and connection.violation is None:
                    kept.append(connection)
            self.connections = kept
            requests, self._requests = self._requests, []
        return Seen(tuple(requests), partial, tuple(strays), tuple(violations))

    def settled(self) -> bool:
        """Nothing has come that was not read yet, and no request has begun on a connection that is still open."""
        waiting = select.poll()
        with self._lock:
            for connection in self.connections:
                if connection.finished:
                    continue
                if connection.mid_request:
                    return False
                if (fd := connection.sock.fileno()) >= 0:
                    waiting.register(fd, select.POLLIN)
            return not any(events & select.POLLIN for _, events in waiting.poll(0))

    def live(self) -> list[Connection]:
        """The connections that are still open."""
        with self._lock:
            return [connection for connection in self.connections if not connection.finished]

    def _accept(self) -> None:
        for number in range(1 << 62):
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(number, sock)
            with self._lock:
                self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True, name=f"upstream-{number}").start()

    def _serve(self, connection: Connection) -> None:
        try:
            if self.greeting:
                connection.write(self.greeting)
            self._talk(connection)
        except OSError:
            connection.ended = connection.ended or "reset"
        finally:
            if connection.linger:
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sock.close()
            connection.finished = True

    def _talk(self, connection: Connection) -> None:
        reader = StrictReader(connection.number, strict=self.strict, mesh=self.mesh)
        started = False
        readable = select.poll()
        readable.register(connection.sock, select.POLLIN)
        while True:
            readable.poll()
            try:
                with self._lock:  # reading as well: nobody may ask between a byte's arrival and what it means
                    if not (data := connection.read()):
                        return
                    done = reader.feed(data)
                    connection.requests += done
                    self._requests += done
                    connection.mid_request = reader.mid_request
            except Violation as violation:
                connection.violation = str(violation)
                if self.on_violation is not None:
                    self.on_violation(connection)
                connection.drain()
                return
            for request in done:
                if not (started and request is done[0]) and not self._answer(connection, request):
                    return
                started = False
            target = reader.target
            if target is not None and target.startswith(b"/early/") and not started:
                started = True
                if not self._run(connection, target.removeprefix(b"/early/").decode("latin-1")):
                    return

    def _answer(self, connection: Connection, request: Request) -> bool:
        if request.target.startswith(b"/script/"):
            return self._run(connection, request.target.removeprefix(b"/script/").decode("latin-1"))
        if request.get(b"expect") and request.method != b"HEAD":
            connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b"" if request.method == b"CONNECT" else b"%s %s %d" % (
            request.method, request.target[:200], len(request.body)
        )  # fmt: skip
        connection.write(ok(body, head_only=request.method == b"HEAD"))
        return True

    def _run(self, connection: Connection, name: str) -> bool:
        steps = self.scripts.get(name)
        if steps is None:
            connection.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return True
        return all(step(connection) for step in steps)


def wait_until(true: Callable[[], bool], what: str, deadline: float = 30.0) -> None:
    """Look until it is so; AssertionError names what did not come to be."""
    end = time.monotonic() + deadline
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {what}")
        time.sleep(0.005)
