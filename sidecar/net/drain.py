"""Who is connected: bounded in number, each guarded from the others, and asked to leave when it is time.

One ``Connections`` per direction. Called by ``app``, which decides in which order the directions drain.
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

LAST_REQUEST_SECONDS = 1.0  # an idle connection may bring one more request for so long
_LOOK_SECONDS = 0.1
_log = logging.getLogger(__name__)


class ConnectionCounters(Protocol):
    """The numbers that connections count up and down."""

    connections_active: int
    connections_refused: int


class Connections:
    """The connections of one direction, served by ``serve(channel, host)`` in ``nursery``.

    ``admits`` says whether one more may come, given how many are active in all directions; ``refused`` is told of each
    that may not, by its peer's address.
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
        self._registry = registry
        self._counters = counters
        self._admits = admits
        self._refused = refused
        self._open: set[Channel] = set()
        self._left = trio.Event()

    @property
    def open(self) -> int:
        """How many there are now."""
        return len(self._open)

    def take(self, sock: socket.socket, client: ClientAddr) -> None:
        """Serves a connection that was accepted, or refuses it with RST."""
        channel = Channel(sock, str(client), self._registry)
        if not self._admits(self._counters.connections_active):
            self._counters.connections_refused += 1
            channel.reset()
            self._refused(channel.peer)
            return
        self._counters.connections_active += 1
        self._open.add(channel)
        self._nursery.start_soon(self._guarded, channel, client.host)

    async def _guarded(self, channel: Channel, host: str) -> None:
        try:
            await self._serve(channel, host)
        except Exception:
            _log.exception("a connection failed for a reason that is ours; please report it")
        finally:
            channel.close()
            self._open.discard(channel)
            self._counters.connections_active -= 1
            self._left.set()

    async def wait_drained(self) -> None:
        """Asks idle connections to leave, those that become idle too, and waits until nobody is left."""
        while self._open:
            self._hurry_idle()
            self._left = trio.Event()
            with trio.move_on_after(_LOOK_SECONDS):
                await self._left.wait()

    def _hurry_idle(self) -> None:
        soon = monotonic() + LAST_REQUEST_SECONDS
        for channel in self._open:
            if soon < channel.deadline < NEVER and channel.overdue_as is Reason.CONNECTION_IDLE:
                channel.deadline = soon
