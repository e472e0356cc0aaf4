"""The relay of opaque bytes between two connections, both ways, until both have ended.

Called by tunnels and opaque connections in ``proxy``. It interprets nothing of what it carries.

Theory of operation. Each direction is a task, and is in one of three states. *Small*: its task sleeps, and the relay
reactor carries its messages, with one receive and one send each. *Long*: a read came back full, so the task reads by
itself, 64 KiB at a time, until the source pauses. *Spliced*: the same once the direction has moved SPLICE_AFTER bytes,
through a pipe that is held for the burst only. If the sink is full, the task waits for it and reads nothing meanwhile:
one direction holds at most 64 KiB in this process (over TLS the same once more, sealed), or a pipe's worth in the
kernel.

The end. FIN from one side becomes FIN for the other, and the other direction continues; the side that sent it is still
watched, for a reset. Any other end stops both directions at once by cancelling the nursery: a reset, an idle time
(detected by ``look``, which the relay reactor calls), or a call of ``Connection.expire``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import trio

from sidecar.errors import Reason
from sidecar.net.connection import BULK_SIZE, NEVER, READ_SIZE, Connection, ConnectionClosed, DeadlineExceeded
from sidecar.net.relay_reactor import ReactorEntry, RelayReactor
from sidecar.net.splice_pipes import Pipe, Pipes

SPLICE_AFTER = 262_144  # bytes; a shorter transfer is not worth a pipe
YIELD_AFTER = 524_288  # bytes moved without a wait before other tasks run: well under 1 ms


class Spliced(Protocol):
    """The counter of bytes that went through a pipe."""

    spliced_bytes: int


@dataclass(frozen=True, slots=True)
class Relayed:
    """The bytes that were relayed, and the reason of the end: None if both sides sent FIN."""

    bytes_to_right: int
    bytes_to_left: int
    reason: Reason | None


async def relay(
    left: Connection,
    right: Connection,
    *,
    to_right: bytes = b"",
    to_left: bytes = b"",
    idle: float,
    half_close_idle: float,
    counters: Spliced,
    pipes: Pipes,
) -> Relayed:
    """Carry bytes both ways until both directions have ended. It does not close the connections.

    ``left`` is the client's side. ``to_right`` and ``to_left`` were read before, and go first. The relay ends when
    neither direction moved a byte for ``idle`` seconds, or for ``half_close_idle`` once one of them has ended (coarse:
    0.1 s). If one side is reset, the other side is reset, too. Earlier deadlines and watchers of the connections are
    removed: here a FIN does not mean that the client has gone.

    Raises nothing of its own. Cancelling it leaves connections that may have sent a part: close them.
    """
    return await _Relay(left, right, idle, half_close_idle, counters, pipes).run(to_right, to_left)


class _Relay:
    """Two directions that end together."""

    __slots__ = (
        "_closing",
        "_idle",
        "_idle_at",
        "_left",
        "_moved",
        "_reason",
        "_right",
        "_scope",
        "to_left",
        "to_right",
    )

    def __init__(
        self, left: Connection, right: Connection, idle: float, half_close_idle: float, counters: Spliced, pipes: Pipes
    ) -> None:
        board = RelayReactor.current()
        self.to_right = _Direction(left, right, board, counters, pipes)
        self.to_left = _Direction(right, left, board, counters, pipes)
        self._left = left
        self._right = right
        self._idle = idle
        self._closing = half_close_idle
        self._reason: Reason | None = None
        self._moved = 0
        self._idle_at = monotonic() + idle
        self._scope = trio.CancelScope()

    async def run(self, to_right: bytes, to_left: bytes) -> Relayed:
        self._left.deadline = self._right.deadline = NEVER
        self._left.watcher = self._right.watcher = None
        board = self.to_right.board
        board.watch(self)
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._direct, self.to_left, self.to_right, to_left, Reason.UPSTREAM_CLOSED)
                    await self._direct(self.to_right, self.to_left, to_right, Reason.CLIENT_CLOSED)
        finally:
            board.forget(self)
        return Relayed(self.to_right.moved, self.to_left.moved, self._reason)

    async def _direct(self, ours: _Direction, other: _Direction, first: bytes, source_died: Reason) -> None:
        """Carry one direction from its first byte to its FIN, then watch its source until the other direction ends."""
        sink_died = Reason.UPSTREAM_CLOSED if source_died is Reason.CLIENT_CLOSED else Reason.CLIENT_CLOSED
        try:
            await ours.run(first)
            await ours.sink.finish()
            if not other.ended:
                self._idle_at = monotonic() + self._closing
                await ours.wait_reset()
                raise SourceDied
        except SourceDied:
            ours.sink.reset()
            self._end(ours.source.overdue or source_died)  # the source may have been cut on our side
        except ConnectionClosed:
            ours.source.reset()
            self._end(ours.sink.overdue or sink_died)
        except DeadlineExceeded as error:
            self._end(error.reason)
        except OSError:  # the kernel has no watch or no memory left for the relay reactor
            self._end(Reason.INTERNAL)
        else:
            self._scope.cancel()

    def look(self, now: float) -> None:
        """End the relay if it has been idle, or if one of its connections was expired or closed."""
        for connection in (self._left, self._right):
            if connection.closed:
                return self._end(Reason.CLIENT_CLOSED if connection is self._left else Reason.UPSTREAM_CLOSED)
            if connection.overdue is not None:
                return self._end(connection.overdue)
        moved = self.to_right.moved + self.to_left.moved
        if moved != self._moved:
            self._moved = moved
            self._idle_at = now + (self._closing if self.to_right.ended or self.to_left.ended else self._idle)
        elif now >= self._idle_at:
            self._end(Reason.UPSTREAM_IDLE if self.to_right.ended else Reason.CLIENT_IDLE)
        return None

    def _end(self, reason: Reason) -> None:
        if not self._scope.cancel_called:
            self._reason = reason
            self._scope.cancel()


class SourceDied(Exception):
    """The error of a direction whose source has gone without a FIN."""


class _Direction(ReactorEntry):
    """The direction from ``source`` to ``sink``. ``moved`` counts the bytes that the sink's kernel took."""

    __slots__ = (
        "_paced",
        "_pipes",
        "_receive",
        "_rest",
        "_send",
        "_spliceable",
        "board",
        "counters",
        "ended",
        "moved",
        "sink",
        "source",
    )

    def __init__(
        self, source: Connection, sink: Connection, board: RelayReactor, counters: Spliced, pipes: Pipes
    ) -> None:
        super().__init__()
        self.source = source
        self.sink = sink
        self.board = board
        self.counters = counters
        self.ended = False
        self.moved = 0
        self._pipes = pipes
        self._paced = source.paced or sink.paced
        self._spliceable = source.secured is None and sink.secured is None
        self._receive: Callable[[int], bytes] = source.sock.recv
        self._send: Callable[[bytes | memoryview], int] = sink.sock.send
        self._rest: bytes | None = b""

    def carry(self) -> bool:
        """Receive and send one small message. Return False at FIN, a full sink, or more than a small message. Raises
        SourceDied, or ConnectionClosed for the sink."""
        try:
            data = self._receive(READ_SIZE)
        except BlockingIOError:
            return True
        except OSError:
            raise SourceDied from None
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ConnectionClosed(str(error.strerror)) from None
        self.moved += sent
        size = len(data)
        if sent == size < READ_SIZE and size:
            return True
        self._rest = data[sent:] if size else None
        return False

    async def run(self, first: bytes) -> None:
        """Carry until the source's FIN. Raises SourceDied, ConnectionClosed for the sink, DeadlineExceeded."""
        await self._push(first)
        while not self.ended:
            if self.source.closed:
                raise SourceDied
            if self._paced:
                await self._slowly()
                continue
            await self.board.carry(self.source.fd, self)
            if self._rest is None:
                self.ended = True
            else:
                await self._push(self._rest)
                await self._long()

    async def _slowly(self) -> None:
        """Carry one read by the connections' own methods, which keep to a rate."""
        try:
            data = await self.source.recv()
        except ConnectionClosed:
            raise SourceDied from None
        self.ended = not data
        await self._push(data)

    async def wait_reset(self) -> None:
        """Wait after the FIN until the source is gone for good."""
        if not self.source.closed:
            await self.board.carry(self.source.fd, _Hangup(), 0)

    async def _push(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            sent = self.sink.send_nowait(rest)
            self.moved += sent
            rest = rest[sent:]
            if rest:
                await self.sink.wait_writable()

    async def _long(self) -> None:
        """Read until the source pauses: a read that is not full, or FIN."""
        full = True
        while full and not self.ended:
            if self.source.closed:  # while we waited for the sink: its descriptor number may be reused by now
                raise SourceDied
            try:
                await self.source.wait_readable()
            except ConnectionClosed:
                raise SourceDied from None
            pipe = self._pipes.take() if self._spliceable and self.moved >= SPLICE_AFTER else None
            full = await self._copy() if pipe is None else await self._splice(pipe)

    async def _copy(self) -> bool:
        try:
            data = self._receive(BULK_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            raise SourceDied from None
        self.ended = not data
        await self._push(data)
        return len(data) >= READ_SIZE

    async def _splice(self, pipe: Pipe) -> bool:
        """Splice, as ``_copy`` copies, until YIELD_AFTER bytes or a pause. Give the pipe back."""
        flags = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
        source, sink = self.source.sock, self.sink.sock
        budget = YIELD_AFTER
        try:
            while budget > 0:
                try:
                    pipe.held = os.splice(source.fileno(), pipe.writing, pipe.size, flags=flags)
                except BlockingIOError:
                    return False
                except OSError:
                    raise SourceDied from None
                if not pipe.held:
                    self.ended = True
                    return False
                size = pipe.held
                budget -= size
                while pipe.held:
                    try:
                        sent = os.splice(pipe.reading, sink.fileno(), pipe.held, flags=flags)
                    except BlockingIOError:
                        await self.sink.wait_writable()
                        continue
                    except OSError as error:
                        raise ConnectionClosed(str(error.strerror)) from None
                    pipe.held -= sent
                    self.moved += sent
                    self.counters.spliced_bytes += sent
                if size < READ_SIZE:
                    return False
            return True
        finally:
            self._pipes.give(pipe)


class _Hangup(ReactorEntry):
    """An entry that waits only for errors and hang-ups, which end it."""

    __slots__ = ()

    def carry(self) -> bool:
        return False
