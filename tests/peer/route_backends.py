"""Backends of the judged routes, in threads: each records what it got, and answers as the request itself asks.

Called by ``make_route_data`` behind Envoy, and by ``test_route_verdicts`` behind our proxy. Fields of a request steer
the backend that gets it:

* ``x-ask: ID``: by which its record is found.
* ``x-status: 503``: this status. ``503*2``: only for the first two requests of this backend with this id, then 200.
* ``x-cut: 1``: close instead of an answer, for as many of its first requests with this id.
* ``x-delay: 0.5``: wait so many seconds before the answer.
* ``x-reply: NAME: VALUE``: a field of the answer; any number of these.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.ports import held_port
from tests.support.upstream import wait_until

NAMES = ("v1", "v2", "v3", "other")
_Fields = list[tuple[str, str]]


class Seen(NamedTuple):
    """One request as a backend got it; names of fields are in lower case."""

    backend: str
    method: str
    path: str
    fields: _Fields

    def values(self, name: str) -> list[str]:
        """Return what all fields of this name say."""
        return [value for each, value in self.fields if each == name]


class Backends:
    """The backends, and ``ports`` by the names that documents have for them. A context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, list[Seen]] = {}
        self._stack = contextlib.ExitStack()
        self.ports: dict[str, int] = {}
        for name in NAMES:
            listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            self.ports[name.upper()] = listener.getsockname()[1]
            self._stack.callback(_close, listener)
            threading.Thread(target=self._accept, args=(name, listener), daemon=True).start()
        self.ports["CLOSED"] = self._stack.enter_context(held_port())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def fill(self, text: str) -> str:
        """Return the text with the ports in place of ``${V1}`` and so on."""
        for name, port in self.ports.items():
            text = re.sub(rf"""["']?\$\{{{name}\}}["']?""", str(port), text)
        return text

    def seen(self, ident: str) -> list[Seen]:
        """Return what came with this id so far."""
        with self._lock:
            return list(self._seen.get(ident, ()))

    def wait_seen(self, ident: str, count: int) -> list[Seen]:
        """Return what came with this id once it is at least ``count`` requests: mirrors come when they come."""
        wait_until(lambda: len(self.seen(ident)) >= count, f"{count} requests with the id {ident}")
        return self.seen(ident)

    def _accept(self, name: str, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(name, connection), daemon=True).start()

    def _serve(self, name: str, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reader = connection.makefile("rb")
            first = reader.readline().decode("latin-1").split()
            if not first:
                return
            fields: _Fields = []
            while line := reader.readline().decode("latin-1").strip():
                field, _, value = line.partition(":")
                fields.append((field.lower(), value.strip()))
            seen = Seen(name, first[0], first[1], fields)
            if "chunked" in seen.values("transfer-encoding"):
                while size := int(reader.readline(), 16):
                    reader.read(size + 2)
                reader.readline()
            for length in seen.values("content-length"):
                reader.read(int(length))
            self._answer(connection, seen)

    def _answer(self, connection: socket.socket, seen: Seen) -> None:
        asked = {name: value for name, value in seen.fields if name in ("x-ask", "x-status", "x-cut", "x-delay")}
        with self._lock:
            before = self._seen.setdefault(asked.get("x-ask", ""), [])
            before.append(seen)
            turn = [each.backend for each in before].count(seen.backend)
        if turn <= int(asked.get("x-cut", 0)):
            return
        time.sleep(float(asked.get("x-delay", 0)))
        wanted, _, times = asked.get("x-status", "200").partition("*")
        status = wanted if not times or turn <= int(times) else "200"
        body = "" if seen.method == "HEAD" else seen.backend
        lines = [
            f"HTTP/1.1 {status} As-Asked",
            f"x-backend: {seen.backend}",
            "connection: close",  # so that each attempt has a connection of its own
            f"content-length: {len(seen.backend)}",
            *seen.values("x-reply"),
        ]
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1"))


def _close(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)  # ends accept() in its thread
    listener.close()
