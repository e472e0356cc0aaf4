"""A connection's bytes: one ``ByteStream``, waited on under trio, with one coarse deadline.

All code above that moves bytes uses it. It does not depend on HTTP.

Theory of operation. A cancel scope with a deadline costs more than the rest of an exchange, so there is none. The
caller that starts a phase calls ``limit(seconds, reason)``; a single sweeper (``net.timers``) looks at all connections
every 50 ms and calls ``expire()`` on those that are overdue. ``expire`` notes the reason *first*, then wakes the tasks
that wait on the descriptor with ``trio.lowlevel.notify_closing``. A waiting task looks at the note before and after
each wait, so a wake-up between two waits is not lost.

Under load the cheapest wait is none: once all other tasks have had their turn, the peer's bytes are there, and reading
them needs neither the poller nor a second system call. So a connection whose last read succeeded that way only yields
before it reads again; the first read that comes too early waits properly, and every 32nd read tries again.

A connection's byte stream stays the same for its whole life. A TLS handshake takes a plain connection and returns
another (``hand_over``), which carries the connection on; the plain one is closed then, and its socket object detached,
so a stray use of it raises ConnectionClosed and never touches the connection.

A connection has one reader and one writer at a time (trio raises BusyResourceError otherwise). A cancelled ``send_all``
may have sent a part: close such a connection, never pool it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Protocol

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, wait_readable, wait_writable

from sidecar.errors import ProxyError, Reason
from sidecar.net.byte_stream import ByteStream, Sealed, Secured

READ_SIZE = 16_384  # one read of a head or of a small message
BULK_SIZE = 65_536  # one read of a long body: the soft mark of one direction's buffer
PROBE_MASK = 31  # every 32nd read tries without a wait, in case that is enough, and notices a cancellation
NEVER = float("inf")
LINGER_SECONDS = 1.0
LINGER_BYTES = 65_536

_GONE = {
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.ESHUTDOWN,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ENETDOWN,
    errno.EHOSTDOWN,
}


class ConnectionClosed(Exception):
    """The error of a connection that the peer reset, or that is closed on our side. ``detail`` is for people."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class DeadlineExceeded(ProxyError):
    """The error of a connection whose deadline passed; the reason is the one given to ``limit``."""


class Abortable(Protocol):
    """Work that ends when the client that it serves goes away."""

    def abort(self, reason: Reason) -> None: ...


class Connection:
    """A stream of bytes to and from one peer. It owns ``sock``, a connected, non-blocking socket or what a handshake
    made of one; ``secured`` is the result of that handshake. The connection is in ``registry`` until it is closed."""

    held_back = 0.0  # seconds in which a paced connection was held back by this proxy
    paced = False  # whether its bytes are slowed down, so that a relay must not bypass ``recv`` and ``send_nowait``

    __slots__ = (
        "_sealed",
        "bulk",
        "closed",
        "cut_for",
        "deadline",
        "eager",
        "fd",
        "overdue",
        "overdue_as",
        "peer",
        "reads",
        "registry",
        "secured",
        "sock",
        "watcher",
    )

    def __init__(
        self, sock: socket.socket | Sealed, peer: str, registry: set[Connection], secured: Secured | None = None
    ) -> None:
        self.sock: ByteStream = sock
        self._sealed = None if isinstance(sock, socket.socket) else sock
        self.secured = secured
        self.fd = sock.fileno()
        self.peer = peer
        self.deadline = NEVER
        self.overdue_as = Reason.CONNECTION_IDLE
        self.overdue: Reason | None = None
        self.cut_for = ""  # why it was cut, in a sentence
        self.bulk = False
        self.eager = False
        self.reads = 0
        self.closed = False
        self.watcher: Abortable | None = None  # the sweeper aborts it if the peer goes away while no task reads
        self.registry = registry
        registry.add(self)

    # -- deadlines ---------------------------------------------------------------------------------------------------

    def limit(self, seconds: float, reason: Reason) -> None:
        """Set the deadline: after ``seconds``, waits on this connection raise ``DeadlineExceeded(reason)``."""
        self.deadline = monotonic() + seconds
        self.overdue_as = reason

    def expire(self, reason: Reason) -> None:
        """End the current and every later wait with ``DeadlineExceeded(reason)``: for the sweeper, a drain, a
        watcher."""
        if not self.closed:
            self.deadline = NEVER
            self.overdue = reason
            trio.lowlevel.notify_closing(self.fd)

    def cut(self, reason: Reason, why: str) -> None:
        """Expire for good: no byte goes out or comes in any more, and work for this peer ends at once. For a peer whose
        identity is no longer good; ``why`` is for people."""
        if not self.closed:
            self.cut_for = f"{self.peer}: cut: {why}"
            self.expire(reason)
            if self.watcher is not None:
                self.watcher.abort(reason)
            with suppress(OSError):  # it is gone already
                self.sock.shutdown(socket.SHUT_RDWR)

    def revive(self) -> None:
        """Take back a ``DeadlineExceeded``, so that the caller that caught it can continue to wait."""
        self.overdue = None

    def check(self) -> None:
        """Raise what a wait would: DeadlineExceeded, or ConnectionClosed if the connection is closed on our side."""
        if self.overdue is not None:
            raise self._overdue()

    # -- reading -----------------------------------------------------------------------------------------------------

    async def recv(self) -> bytes:
        """Return the next bytes, at most READ_SIZE or BULK_SIZE of them; b"" at the peer's FIN.

        Raises ConnectionClosed when the peer is gone, DeadlineExceeded at the deadline. Cancelling it loses nothing; a
        connection that always has bytes to read notices a cancellation within PROBE_MASK + 1 reads.
        """
        # Waiting first spares the failing read that mostly comes before the peer has answered, unless we are busy.
        self.reads += 1
        if not self.reads & PROBE_MASK:
            await checkpoint()
            self.eager = True
        elif self.eager or self.bulk:
            await cancel_shielded_checkpoint()
            self.eager = True
        elif self.overdue is None:
            try:
                await wait_readable(self.fd)  # as in ``wait_readable`` below, one call less deep
            except trio.ClosedResourceError:
                if self.closed:
                    raise self._overdue() from None
        if self.overdue is not None:
            raise self._overdue()
        while True:
            try:
                data = self.sock.recv(BULK_SIZE if self.bulk else READ_SIZE)
            except BlockingIOError:
                self.bulk = self.eager = False
                await self.wait_readable()
            except OSError as error:
                raise self._gone(error) from None
            else:
                self.bulk = len(data) >= READ_SIZE
                return data

    def recv_nowait(self) -> bytes | None:
        """Receive as ``recv`` does, but return None at once if nothing is there."""
        try:
            data = self.sock.recv(BULK_SIZE if self.bulk else READ_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._gone(error) from None
        self.bulk = len(data) >= READ_SIZE
        return data

    def peek_nowait(self, size: int) -> bytes | None:
        """Return up to ``size`` bytes and leave them to be read; b"" at the peer's FIN, None if nothing is there.
        Raises ConnectionClosed."""
        try:
            data = self.sock.recv(size, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._gone(error) from None
        self.eager = True  # the next ``recv`` must not wait first: over TLS the bytes are no longer in the kernel
        return data

    async def peek(self, size: int) -> bytes:
        """Peek as ``peek_nowait`` does, but wait for the first byte. Raises ConnectionClosed, DeadlineExceeded."""
        while True:
            data = self.peek_nowait(size)
            if data is not None:
                return data
            await self.wait_readable()

    def take_unread(self) -> bytes:
        """Return what a peek has decrypted and no read has taken, which no wait reports; b"" without TLS."""
        return b"" if self._sealed is None else self._sealed.take_unread()

    def holds_unread(self) -> bool:
        """Return whether something has come that no wait reports: what a peek has left, or a part of a record. Always
        false without TLS."""
        return self._sealed is not None and self._sealed.holds_unread()

    async def wait_readable(self) -> None:
        """Wait until a read may not block (look again: wake-ups can be false). Raises ConnectionClosed,
        DeadlineExceeded."""
        if self.overdue is not None:
            raise self._overdue()
        try:
            await wait_readable(self.fd)
        except trio.ClosedResourceError:
            if self.closed:
                raise self._overdue() from None
        if self.overdue is not None:
            raise self._overdue()

    # -- writing -----------------------------------------------------------------------------------------------------

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Hand the kernel what it takes now; return how many bytes that was (0: it is full). Raises
        ConnectionClosed."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._gone(error) from None

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``, waiting while the peer is slow. Raises ConnectionClosed, DeadlineExceeded."""
        sent = self.send_nowait(data)
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            await self.wait_writable()
            rest = rest[self.send_nowait(rest) :]

    async def wait_writable(self) -> None:
        """Wait until a write may not block (look again). Raises ConnectionClosed, DeadlineExceeded."""
        if self.overdue is not None:
            raise self._overdue()
        try:
            await wait_writable(self.fd)
        except trio.ClosedResourceError:
            if self.closed:
                raise self._overdue() from None
        if self.overdue is not None:
            raise self._overdue()

    # -- TLS ---------------------------------------------------------------------------------------------------------

    @property
    def plain(self) -> socket.socket:
        """The socket of a connection without TLS. Raises TypeError if the connection is secured."""
        if not isinstance(self.sock, socket.socket):
            raise TypeError("the connection is secured already")
        return self.sock

    def hand_over(self, seal: Callable[[socket.socket], Sealed], secured: Secured) -> Connection:
        """Return the connection that takes this one's place, over what ``seal`` makes of its socket.

        It takes this connection's place in the registry, with its deadline, expiry and watcher. This one is closed
        without closing the connection. Raises ConnectionClosed if it was closed before.
        """
        if self.closed:
            raise self._overdue()
        raw = self.plain
        family, kind, proto = raw.family, raw.type | socket.SOCK_NONBLOCK, raw.proto
        above = self.__class__(
            seal(socket.socket(family, kind, proto, raw.detach())), self.peer, self.registry, secured
        )
        above.deadline, above.overdue_as, above.overdue = self.deadline, self.overdue_as, self.overdue
        above.cut_for, above.watcher = self.cut_for, self.watcher
        self._leave()
        return above

    # -- the end -----------------------------------------------------------------------------------------------------

    def send_eof(self) -> None:
        """Send FIN, unless the peer is gone already. Raises ConnectionClosed, and BlockingIOError if TLS has no room
        for its notice: ``finish`` waits then."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in _GONE:
                raise self._gone(error) from None

    async def finish(self) -> None:
        """Send FIN as ``send_eof`` does, but wait for room. Raises ConnectionClosed, DeadlineExceeded."""
        while True:
            try:
                return self.send_eof()
            except BlockingIOError:
                await self.wait_writable()

    def close(self) -> None:
        """Close at once; unread bytes make the kernel send RST. Safe to call twice."""
        if not self.closed:
            self._leave()
            trio.lowlevel.notify_closing(self.fd)
            self.sock.close()

    def _leave(self) -> None:
        self.closed = True
        if self.overdue is None:
            self.overdue = Reason.CONNECTION_IDLE  # no task may wait on a number that may be another connection's now
        self.registry.discard(self)  # before the kernel can give the number to another connection

    def reset(self) -> None:
        """Close with RST: what was sent so far must not look complete."""
        if not self.closed:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            except OSError as error:
                if error.errno not in _GONE and error.errno != errno.EINVAL:
                    raise self._gone(error) from None
            self.close()

    async def close_after_reply(self) -> None:
        """Send FIN, drop up to 64 KiB that come within 1 s, then close: an RST would destroy the reply just sent."""
        try:
            self.revive()
            self.limit(LINGER_SECONDS, Reason.CLIENT_IDLE)
            await self.finish()
            drained = 0
            while drained < LINGER_BYTES:
                data = await self.recv()
                if not data:
                    break
                drained += len(data)
        except (ConnectionClosed, DeadlineExceeded):
            return
        finally:
            self.close()

    # -- errors ------------------------------------------------------------------------------------------------------

    def _overdue(self) -> Exception:
        if self.overdue is None or self.closed:
            return ConnectionClosed("the connection was closed on our side")
        return DeadlineExceeded(self.overdue, f"while waiting for {self.peer}: {self.overdue.word.replace('_', ' ')}")

    def _gone(self, error: OSError) -> ConnectionClosed:
        if self.secured is not None and error.strerror:
            return ConnectionClosed(error.strerror)
        if error.errno not in _GONE and error.errno != errno.EBADF:
            return ConnectionClosed(f"unexpected error on the connection: {errno.errorcode.get(error.errno or 0, '?')}")
        return ConnectionClosed(errno.errorcode.get(error.errno or 0, "closed"))
