"""A connection whose bytes are slowed down to a rate, for limits of bytes per second.

Made by ``graceful_drain`` in place of a ``Connection`` where such limits are in force. To its callers it looks like a
slow peer: a read waits, and a write is taken in part, until the rate allows more. Nothing above it knows of rates, with
one exception: no time limit of the peer's runs while this proxy holds its bytes back (``held_back``).

Connections that share a pace take turns, in the order in which they came: with many of them, none is starved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, Protocol

import trio

from sidecar.net.byte_stream import Sealed, Secured
from sidecar.net.connection import NEVER, READ_SIZE, Connection

QUANTUM: Final = 4096  # bytes of a turn, if no more are allowed
LONGEST_SLEEP: Final = 0.5  # seconds; then look whether the connection was cut meanwhile


class Pace(Protocol):
    """The rate of bytes in one direction, which several connections may share. ``turns`` are those that wait."""

    turns: deque[object]

    def available(self, now: float) -> int: ...

    def spend(self, count: int) -> None: ...

    def wait(self, now: float) -> float: ...


class PacedConnection(Connection):
    """See the module. Its paces may be set later, and are kept when a handshake puts another connection in its
    place."""

    __slots__ = ("_begun", "_offered", "_received", "_sent", "_woken", "held_back")

    paced = True

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._received: tuple[Pace, ...] = ()
        self._sent: tuple[Pace, ...] = ()
        self._begun = False  # a byte was received
        self._offered = 0  # bytes that TLS may have sealed already: it wants to be offered them again
        self.held_back = 0.0  # seconds in all
        self._woken = trio.Event()  # it may be its turn

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
        if not self._received:
            return await super().recv()
        await self._turn(self._received)
        size = max(QUANTUM, min([pace.available(monotonic()) for pace in self._received]))
        while True:
            self.check()
            try:
                data = self.sock.recv(min(size, READ_SIZE))
            except BlockingIOError:
                await self.wait_readable()
            except OSError as error:
                raise self._gone(error) from None
            else:
                self._count(data)
                return data

    def recv_nowait(self) -> bytes | None:
        """See ``Connection``. The first bytes are not held back: by them it is decided what the connection carries."""
        if self._begun and any(pace.wait(monotonic()) for pace in self._received):
            return None
        data = super().recv_nowait()
        self._count(data or b"")
        return data

    def _count(self, data: bytes) -> None:
        self._begun = self._begun or bool(data)
        self.bulk = self.eager = False  # short reads: a long one would leave a debt of many seconds
        for pace in self._received:
            pace.spend(len(data))

    def send_nowait(self, data: bytes | memoryview) -> int:
        if not self._sent:
            return super().send_nowait(data)
        now = monotonic()
        size = min(len(data), max(min([pace.available(now) for pace in self._sent]), self._offered))
        if size <= 0:
            return 0
        sent = super().send_nowait(memoryview(data)[:size])
        self._offered = size - sent
        for pace in self._sent:
            pace.spend(sent)
        return sent

    async def wait_writable(self) -> None:
        if self._sent and not self._offered:
            await self._turn(self._sent)
        await super().wait_writable()

    async def _turn(self, paces: tuple[Pace, ...]) -> None:
        """Wait until it is this connection's turn, and the paces let bytes go. The connection's deadline moves on by as
        much. Raises what other waits raise."""
        began = monotonic()
        deadline, self.deadline = self.deadline, NEVER
        for pace in paces:
            pace.turns.append(self)  # in one go, so that two of them are in the same order at every pace
        try:
            while True:
                self.check()
                now = monotonic()
                first = all(pace.turns[0] is self for pace in paces)
                seconds = max([pace.wait(now) for pace in paces])
                if first and not seconds:
                    break
                self._woken = trio.Event()
                with trio.move_on_after(min(seconds, LONGEST_SLEEP) if first else LONGEST_SLEEP):
                    await self._woken.wait()
        finally:
            for pace in paces:
                pace.turns.remove(self)
                if pace.turns and isinstance(head := pace.turns[0], PacedConnection):
                    head._woken.set()
            held = monotonic() - began
            self.held_back += held
            if self.deadline == NEVER:  # no drain has set a sooner one meanwhile
                self.deadline = deadline + held
        await trio.lowlevel.checkpoint()
