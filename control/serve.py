"""The API on its listeners: Hypercorn's connections under trio, each listener with its own door.

Who calls it: ``control.app``, with sockets that are bound already. One connection is one task of Hypercorn's, guarded
so that none can end the others, and there are so many at once. HTTP/1.1 is all that is spoken: Hypercorn would also
take ``Upgrade: h2c`` and the preface of HTTP/2 on the same port, and a connection that changes its protocol behind a
proxy is one whose requests that proxy no longer reads; so this takes the first for a request without it, and the
second for a request that nothing answers.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from socket import socket
from typing import Any, Final

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Event
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from control.api_trust import App

CONNECTIONS: Final = 4096  # on all listeners; each has a task and a few buffers
HEAD_BYTES: Final = 16 * 1024  # a Kubernetes token has 1 to 2 KiB
IDLE_SECONDS: Final = 75.0  # a connection between two requests, or with a head that is not complete
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listening:
    """A listener: a socket that is bound and listens, what stands in front of the API there, and how many connections
    there may be at once."""

    sock: socket
    door: App
    most: int = CONNECTIONS


def most_on_loopback(descriptors: int) -> int:
    """Connections to all listeners on loopback, where anybody on this machine comes: whoever holds on to all of these
    leaves room, and some of so many descriptors, for those who come over TLS."""
    return max(1, min(3 * CONNECTIONS // 4, descriptors // 4))


class _Http1(H11Protocol):
    async def _check_protocol(self, event: h11.Request) -> None:
        """Changes to no other protocol; see the module."""


class _Connection(TCPServer):
    async def protocol_send(self, event: Event) -> None:
        """As Hypercorn's, but for a client that is answered and closed while it still sends: the two tasks of its
        connection may meet, and the later one has nothing to add."""
        try:
            await super().protocol_send(event)
        except trio.BusyResourceError:
            pass

    async def _read_data(self) -> None:
        offered = self.protocol
        self.protocol = _Http1(  # type: ignore[assignment]  # it has the two methods that are used
            offered.app,
            offered.config,
            offered.context,
            offered.task_group,
            offered.state,
            offered.ssl,
            offered.client,
            offered.server,
            offered.send,
        )
        await super()._read_data()
        await self.idle_task.stop()  # Hypercorn's goes on, and with it the connection, though nobody is there any more


class Server:
    """All listeners together. Connections are counted by their door, which several listeners may share."""

    def __init__(self, listening: Sequence[Listening], most: int = CONNECTIONS) -> None:
        self._listening = listening
        self._most = most
        self._open: Counter[App] = Counter()

    @property
    def open(self) -> int:
        """How many connections there are."""
        return self._open.total()

    async def serve(self, closing: trio.Event, grace: float) -> None:
        """Serves until ``closing`` is set; then what is under way has ``grace`` seconds. Closes the sockets."""
        context = WorkerContext(None)
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                for one in self._listening:
                    listener = trio.SocketListener(trio.socket.from_stdlib_socket(one.sock))
                    accepting.start_soon(self._accept, listener, one, context, connections)
                await closing.wait()
                accepting.cancel_scope.cancel()
            await context.terminated.set()  # idle connections end now, busy ones after their answer
            connections.cancel_scope.deadline = trio.current_time() + grace

    async def _accept(
        self, listener: trio.SocketListener, one: Listening, context: WorkerContext, connections: trio.Nursery
    ) -> None:
        async def connection(stream: trio.SocketStream) -> None:
            await self._connection(stream, one, context)

        async with listener:
            await trio.serve_listeners(connection, [listener], handler_nursery=connections)

    async def _connection(self, stream: trio.SocketStream, one: Listening, context: WorkerContext) -> None:
        if self.open >= self._most or self._open[one.door] >= one.most:
            await stream.aclose()
            return
        self._open[one.door] += 1
        try:
            served: Any = stream  # Hypercorn's annotation names only the TLS one of its two kinds
            await _Connection(ASGIWrapper(_as_asgi(one.door)), _config(), context, ConnectionState({}), served)
        except Exception:
            _log.exception("a connection ended by a mistake of ours")
        finally:
            self._open[one.door] -= 1


def _as_asgi(door: App) -> Any:
    """Hypercorn describes ASGI by types of its own, for the same dictionaries."""
    return door


def _config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("control.server")
    config.include_server_header = False
    config.keep_alive_timeout = IDLE_SECONDS
    config.h11_max_incomplete_size = HEAD_BYTES
    return config
