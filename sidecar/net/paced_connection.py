"""A connection whose bytes are slowed down to a rate, for limits of bytes per second.

Made by ``graceful_drain`` in place of a ``Connection`` where such limits are in force. To its callers it looks like a
slow peer: a read finds nothing, and a write is taken in part, until the rate allows more. So nothing above it knows of
rates, and no time limit on progress is exceeded, since some bytes go at least every second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

import trio

from sidecar.net.byte_stream import Sealed, Secured
from sidecar.net.connection import Connection


class Pace(Protocol):
    """The rate of bytes in one direction, which several connections may share."""

    def available(self, now: float) -> int: ...

    def spend(self, count: int) -> None: ...

    def wait(self, now: float) -> float: ...


class PacedConnection(Connection):
    """See the module. Its paces may be set later, and are kept when a handshake puts another connection in its
    place."""

    __slots__ = ("_offered", "_received", "_sent")

    paced = True

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._received: tuple[Pace, ...] = ()
        self._sent: tuple[Pace, ...] = ()
        self._offered = 0  # bytes that TLS may have sealed already: it wants to be offered them again

    def slow_down(self, received: Sequence[Pace], sent: Sequence[Pace]) -> None:
        """Keep to these paces, beside those that it has."""
        self._received += tuple(received)
        self._sent += tuple(sent)

    def hand_over(self, seal: Callable[..., Sealed], secured: Secured) -> Connection:
        above = super().hand_over(seal, secured)
        assert isinstance(above, PacedConnection)
        above.slow_down(self._received, self._sent)
        return above

    async def recv(self) -> bytes:
        await self._wait(self._received)
        data = await super().recv()
        self._count(len(data))
        self.bulk = False  # short reads: a long one would leave a debt of many seconds
        return data

    def recv_nowait(self) -> bytes | None:
        if self._wait_seconds(self._received):
            return None
        data = super().recv_nowait()
        self._count(len(data or b""))
        return data

    def _count(self, size: int) -> None:
        for pace in self._received:
            pace.spend(size)

    def send_nowait(self, data: bytes | memoryview) -> int:
        if not self._sent:
            return super().send_nowait(data)
        now = monotonic()
        size = max(min([pace.available(now) for pace in self._sent]), self._offered)
        if size <= 0:
            return 0
        sent = super().send_nowait(memoryview(data)[:size])
        self._offered = 0 if sent else min(size, len(data))
        for pace in self._sent:
            pace.spend(sent)
        return sent

    async def wait_writable(self) -> None:
        if not self._offered:
            await self._wait(self._sent)
        await super().wait_writable()

    @staticmethod
    def _wait_seconds(paces: tuple[Pace, ...]) -> float:
        now = monotonic()
        return max([pace.wait(now) for pace in paces], default=0.0)

    async def _wait(self, paces: tuple[Pace, ...]) -> None:
        """Wait until the paces let bytes go. Raises what other waits raise, up to a second late."""
        while seconds := self._wait_seconds(paces):
            if self.overdue is not None:
                raise self._overdue()
            await trio.sleep(min(seconds, 1.0))
