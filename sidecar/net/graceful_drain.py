"""Accepted connections: bounded in number, isolated from each other's failures, and asked to leave at a drain.

One ``ConnectionTracker`` per direction. ``app`` calls it, and decides in which order the directions drain.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Protocol

import trio

from sidecar.addresses import ClientAddr
from sidecar.errors import Reason
from sidecar.net.connection import NEVER, Connection
from sidecar.net.paced_connection import PacedConnection

LAST_REQUEST_SECONDS = 1.0  # in a drain, an idle connection may still bring a request for this long
_LOOK_SECONDS = 0.1
_RESET = b"\x01\0\0\0\0\0\0\0"  # struct linger: on, and no seconds
_log = logging.getLogger(__name__)


class DrainState:
    """The drain of the process, or of a generation of certificates: whether it has begun. Set once."""

    __slots__ = ("active",)

    def __init__(self) -> None:
        self.active = False


NOT_DRAINING = DrainState()


class ConnectionCounters(Protocol):
    """The counters that connections increment and decrement."""

    connections_active: int
    connections_refused: int


class Admitted(Protocol):
    """A connection that was admitted by a limit. ``paced``: its bytes may have to be slowed down."""

    paced: bool

    def attach(self, connection: Connection) -> None:
        """Slow this connection down, if a limit wants that."""
        ...

    def release(self) -> None:
        """Count the connection's end."""
        ...


class Gate(Protocol):
    """The limits of connections that are judged when these are accepted."""

    def admit(self, client: ClientAddr) -> Admitted | None:
        """Count a connection; return None for one that is refused, and recorded."""
        ...


class _Accepted(set[Connection]):
    """The open connections of one direction. Each is also in the registry of the process: a connection enters and
    leaves both at once, also when a TLS handshake puts another one in its place."""

    def __init__(self, registry: set[Connection]) -> None:
        super().__init__()
        self._registry = registry

    def add(self, connection: Connection) -> None:
        super().add(connection)
        self._registry.add(connection)

    def discard(self, connection: object) -> None:
        super().discard(connection)
        self._registry.discard(connection)


class ConnectionTracker:
    """The connections of one direction, served by ``serve(connection, host)`` in ``nursery``.

    ``admits(active)`` returns whether one more may come while ``active`` are open in all directions; ``refused(peer)``
    is called for each connection that is refused. ``gate`` judges each one that may come; None: all may.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        serve: Callable[[Connection, str], Awaitable[None]],
        registry: set[Connection],
        counters: ConnectionCounters,
        admits: Callable[[int], bool],
        refused: Callable[[str], None],
        gate: Gate | None = None,
    ) -> None:
        self._nursery = nursery
        self._serve = serve
        self._counters = counters
        self._admits = admits
        self._refused = refused
        self._gate = gate
        self._connections = _Accepted(registry)
        self._served = 0  # tasks
        self._left = trio.Event()

    @property
    def open(self) -> int:
        """The number of connections that are being served."""
        return self._served

    def take(self, sock: socket.socket, client: ClientAddr) -> None:
        """Serve a connection that was accepted, or refuse it with RST."""
        admitted = None
        has_room = self._admits(self._counters.connections_active)
        if has_room and self._gate is not None and (admitted := self._gate.admit(client)) is None:
            with suppress(OSError):  # nothing is made of it: there may be a flood
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()
            return
        kind = PacedConnection if admitted is not None and admitted.paced else Connection
        connection = kind(sock, str(client), self._connections)
        if not has_room:
            self._counters.connections_refused += 1
            connection.reset()
            self._refused(connection.peer)
            return
        if admitted is not None:
            admitted.attach(connection)
        self._counters.connections_active += 1
        self._served += 1
        self._nursery.start_soon(self._guarded, connection, client.host, admitted)

    async def _guarded(self, connection: Connection, host: str, admitted: Admitted | None) -> None:
        try:
            await self._serve(connection, host)
        except Exception:
            _log.exception("internal error while serving a connection; please report it")
        finally:
            connection.close()
            if admitted is not None:
                admitted.release()
            self._served -= 1
            self._counters.connections_active -= 1
            self._left.set()

    async def wait_drained(self) -> None:
        """Ask idle connections to leave, also those that become idle later, and wait until none is left."""
        while self._served:
            self._hurry_idle()
            self._left = trio.Event()
            with trio.move_on_after(_LOOK_SECONDS):
                await self._left.wait()

    def _hurry_idle(self) -> None:
        soon = monotonic() + LAST_REQUEST_SECONDS
        for connection in self._connections:
            if soon < connection.deadline < NEVER and connection.overdue_as is Reason.CONNECTION_IDLE:
                connection.deadline = soon
