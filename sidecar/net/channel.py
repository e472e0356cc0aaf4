"""A connection's bytes: one non-blocking socket, waited on under trio, with one coarse deadline.

Who calls it: everything above that moves bytes. It knows nothing of HTTP.

Theory of operation. A cancel scope with a deadline costs more than the rest of an exchange, so there is none. Whoever
starts a phase calls ``limit(seconds, reason)``; a single sweeper (``net.timers``) looks at all channels every 50 ms
and calls ``expire()`` on those that are overdue: the channel notes the reason *first* and then wakes whoever waits on
its descriptor with ``trio.lowlevel.notify_closing``. A waiter looks at the note before and after each wait, so that a
wake-up that fell between two waits is not lost.

Under load the cheapest wait is none: by the time that all other tasks have had their turn, the peer's bytes are there,
and neither the poller nor a second system call is needed to know it. So a channel whose last read went well that way
reads again after a mere yield; the first that comes too early makes it wait properly, and every 32nd read tries anew.

A channel has one reader and one writer at a time (trio raises BusyResourceError otherwise). A cancelled ``send_all``
may have sent a part: such a channel is only closed, never pooled.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, wait_readable, wait_writable

from sidecar.errors import ProxyError, Reason

if TYPE_CHECKING:  # pyOpenSSL takes 10 MB, and many a proxy has no identity
    from sidecar.net.tls import Secured

READ_SIZE = 16_384  # one read of a head or of a small message
BULK_SIZE = 65_536  # one read of a long body: the soft mark of one direction's buffer
PROBE_MASK = 31  # every 32nd read tries without a wait, to see whether that would do, and looks for a cancellation
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


class ChannelClosed(Exception):
    """The peer reset the connection, or it is closed on our side. ``detail`` says how, for people."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Overdue(ProxyError):
    """A channel's deadline passed; the reason is the one that ``limit`` was given."""


class Abortable(Protocol):
    """Work that ends when the client it is done for goes away."""

    def abort(self, reason: Reason) -> None: ...


class Channel:
    """Bytes to and from one peer. Construct it with a connected, non-blocking socket; it owns the socket."""

    __slots__ = (
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

    def __init__(self, sock: socket.socket, peer: str, registry: set[Channel]) -> None:
        self.sock = sock  # or a stand-in with its ways: see ``net.tls``
        self.secured: Secured | None = None  # what its TLS handshake agreed on
        self.fd = sock.fileno()
        self.peer = peer
        self.deadline = NEVER
        self.overdue_as = Reason.CONNECTION_IDLE
        self.overdue: Reason | None = None
        self.cut_for = ""  # where it was cut: why, in a sentence
        self.bulk = False
        self.eager = False
        self.reads = 0
        self.closed = False
        self.watcher: Abortable | None = None  # told by the sweeper when this peer goes away while nobody reads
        self.registry = registry
        registry.add(self)

    # -- deadlines ---------------------------------------------------------------------------------------------------

    def limit(self, seconds: float, reason: Reason) -> None:
        """From now on, whoever still waits on this channel after ``seconds`` gets ``Overdue(reason)``."""
        self.deadline = monotonic() + seconds
        self.overdue_as = reason

    def expire(self, reason: Reason) -> None:
        """Ends the current and every later wait with ``Overdue(reason)``: for the sweeper, a drain, a watcher."""
        if not self.closed:
            self.deadline = NEVER
            self.overdue = reason
            trio.lowlevel.notify_closing(self.fd)

    def cut(self, reason: Reason, why: str) -> None:
        """As ``expire``, and for good: whoever holds it, nothing goes out or comes in any more, and what was under way
        for this peer ends at once. For a peer that is no longer good; ``why`` is for people."""
        if not self.closed:
            self.cut_for = f"{self.peer}: cut: {why}"
            self.expire(reason)
            if self.watcher is not None:
                self.watcher.abort(reason)
            with suppress(OSError):  # it is gone already
                self.sock.shutdown(socket.SHUT_RDWR)

    def revive(self) -> None:
        """Takes an ``Overdue`` back: its catcher decided to go on waiting."""
        self.overdue = None

    def check(self) -> None:
        """Raises what a wait would: Overdue, or ChannelClosed where it is closed on our side."""
        if self.overdue is not None:
            raise self._overdue()

    # -- reading -----------------------------------------------------------------------------------------------------

    async def recv(self) -> bytes:
        """The next bytes, at most READ_SIZE or BULK_SIZE of them; b"" at the peer's FIN.

        Raises ChannelClosed when the peer is gone, Overdue at the deadline. Cancelling it loses nothing; a channel on
        which bytes are always there notices it within PROBE_MASK + 1 reads.
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
        """As ``recv``, but None at once where nothing is there."""
        try:
            data = self.sock.recv(BULK_SIZE if self.bulk else READ_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._gone(error) from None
        self.bulk = len(data) >= READ_SIZE
        return data

    def take_unread(self) -> bytes:
        """What a peek has decrypted and nobody has read, which no wait would tell of; b"" without TLS."""
        return b"" if self.secured is None else self.sock.take_unread()  # type: ignore[attr-defined]

    def holds_unread(self) -> bool:
        """Whether something has come that no wait would tell of: what a peek has left, or a part of a record. Never
        without TLS."""
        return self.secured is not None and self.sock.holds_unread()  # type: ignore[attr-defined]

    async def wait_readable(self) -> None:
        """Waits until a read may not block (look again: wake-ups can be false). Raises ChannelClosed, Overdue."""
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
        """Hands the kernel what it takes now; returns how many bytes that was (0: it is full). Raises ChannelClosed."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._gone(error) from None

    async def send_all(self, data: bytes) -> None:
        """Sends all of it, waiting where the peer is slow. Raises ChannelClosed, Overdue."""
        sent = self.send_nowait(data)
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            await self.wait_writable()
            rest = rest[self.send_nowait(rest) :]

    async def wait_writable(self) -> None:
        """Waits until a write may not block (look again). Raises ChannelClosed, Overdue."""
        if self.overdue is not None:
            raise self._overdue()
        try:
            await wait_writable(self.fd)
        except trio.ClosedResourceError:
            if self.closed:
                raise self._overdue() from None
        if self.overdue is not None:
            raise self._overdue()

    # -- the end -----------------------------------------------------------------------------------------------------

    def send_eof(self) -> None:
        """FIN. Whoever is gone already does not get one. ``finish`` also waits where TLS has to say so first."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in _GONE:
                raise self._gone(error) from None

    async def finish(self) -> None:
        """``send_eof``, which over TLS needs room for a few bytes. Raises ChannelClosed, Overdue."""
        while True:
            try:
                return self.send_eof()
            except BlockingIOError:
                await self.wait_writable()

    def close(self) -> None:
        """Closes at once; unread bytes make the kernel send RST. Safe to call twice."""
        if not self.closed:
            self.closed = True
            if self.overdue is None:
                self.overdue = Reason.CONNECTION_IDLE  # so that nobody waits on a descriptor that may be another's now
            self.registry.discard(self)  # before the descriptor's number can be given to somebody else
            trio.lowlevel.notify_closing(self.fd)
            self.sock.close()

    def reset(self) -> None:
        """Closes with RST: what was sent so far must not look complete."""
        if not self.closed:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            except OSError as error:
                if error.errno not in _GONE and error.errno != errno.EINVAL:
                    raise self._gone(error) from None
            self.close()

    async def close_after_reply(self) -> None:
        """FIN, then up to 64 KiB or 1 s of draining, then close: an RST would destroy the reply just written."""
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
        except (ChannelClosed, Overdue):
            return
        finally:
            self.close()

    # -- errors ------------------------------------------------------------------------------------------------------

    def _overdue(self) -> Exception:
        if self.overdue is None or self.closed:
            return ChannelClosed("the connection was closed on our side")
        return Overdue(self.overdue, f"while waiting for {self.peer}: {self.overdue.word.replace('_', ' ')}")

    def _gone(self, error: OSError) -> ChannelClosed:
        if self.secured is not None and error.strerror:
            return ChannelClosed(error.strerror)
        if error.errno not in _GONE and error.errno != errno.EBADF:
            return ChannelClosed(f"unexpected error on the connection: {errno.errorcode.get(error.errno or 0, '?')}")
        return ChannelClosed(errno.errorcode.get(error.errno or 0, "closed"))
