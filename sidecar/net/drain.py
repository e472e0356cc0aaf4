"""Accepted connections: bounded in number, isolated from each other's failures, and asked to leave at a drain.

One ``Connections`` per direction. ``app`` calls it, and decides in which order the directions drain.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Protocol

import trio

from sidecar.addresses import ClientAddr
from sidecar.errors import Reason
from sidecar.net.channel import NEVER, Channel

LAST_REQUEST_SECONDS = 1.0  # in a drain, an idle connection may still bring a request for this long
_LOOK_SECONDS = 0.1
_log = logging.getLogger(__name__)


class DrainState:
    """Whether what shares it is on its way out: the process, or a generation of certificates. Set once."""

    __slots__ = ("active",)

    def __init__(self) -> None:
        self.active = False


NOT_DRAINING = DrainState()


class ConnectionCounters(Protocol):
    """The numbers that connections count up and down."""

    connections_active: int
    connections_refused: int


class _Accepted(set[Channel]):
    """The open channels of one direction. Each is in the whole process's registry, too: a channel enters and leaves
    both at once, also when a TLS handshake hands its connection over to another channel."""

    def __init__(self, registry: set[Channel]) -> None:
        super().__init__()
        self._registry = registry

    def add(self, channel: Channel) -> None:
        super().add(channel)
        self._registry.add(channel)

    def discard(self, channel: object) -> None:
        super().discard(channel)
        self._registry.discard(channel)


class Connections:
    """The connections of one direction, served by ``serve(channel, host)`` in ``nursery``.

    ``admits(active)`` returns whether one more may come while ``active`` are open in all directions; ``refused(peer)``
    is called for each connection that is refused.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        serve: Callable[[Channel, str], Awaitable[None]],
        registry: set[Channel],
        counters: ConnectionCounters,
        admits: Callable[[int], bool],
        refused: Callable[[str], None],
    ) -> None:
        self._nursery = nursery
        self._serve = serve
        self._counters = counters
        self._admits = admits
        self._refused = refused
        self._channels = _Accepted(registry)
        self._served = 0  # tasks
        self._left = trio.Event()

    @property
    def open(self) -> int:
        """How many connections are being served."""
        return self._served

    def take(self, sock: socket.socket, client: ClientAddr) -> None:
        """Serve a connection that was accepted, or refuse it with RST."""
        channel = Channel(sock, str(client), self._channels)
        if not self._admits(self._counters.connections_active):
            self._counters.connections_refused += 1
            channel.reset()
            self._refused(channel.peer)
            return
        self._counters.connections_active += 1
        self._served += 1
        self._nursery.start_soon(self._guarded, channel, client.host)

    async def _guarded(self, channel: Channel, host: str) -> None:
        try:
            await self._serve(channel, host)
        except Exception:
            _log.exception("internal error while serving a connection; please report it")
        finally:
            channel.close()
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
        for channel in self._channels:
            if soon < channel.deadline < NEVER and channel.overdue_as is Reason.CONNECTION_IDLE:
                channel.deadline = soon
