"""Listening sockets: bound before anything else starts, accepted from in a loop that no error stops, closed losslessly.

Called by ``app``. Options that an accepted socket inherits (no delay, keep-alive, user time-out) are set here once, not
once per connection.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import trio

from sidecar.addresses import Address, ClientAddr, parse_ip
from sidecar.errors import StartError
from sidecar.net.local_addresses import is_local

BACKLOG = 4096
# How long sent bytes may stay unacknowledged, in milliseconds: otherwise a half-dead peer stays for hours. Linux also
# counts the time in which a reader keeps its window shut, so this is no shorter than the stream idle time.
USER_TIMEOUT = 300_000
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_PAUSE_SECONDS = 0.1
_ACCEPTS_PER_WAKE = 16  # some 2 ms; then other tasks run
_SO_ATTACH_FILTER = 26
HANDSHAKE_SECONDS = 0.1  # from an accepted SYN to its connection: a round trip, or the rest of one
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 20), (socket.TCP_KEEPCNT, 3))


class AcceptCounters(Protocol):
    """The counters that a listener increments."""

    connections_accepted: int
    accept_errors: int


class Listener:
    """One bound socket. ``name`` is for people: inbound, outbound, admin, scrape."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        self.name = name
        self.sock = sock
        host, port = sock.getsockname()[:2]
        self.address = Address(host, port)

    async def accept(self, counters: AcceptCounters, take: Callable[[socket.socket, ClientAddr], None]) -> None:
        """Hand each connection to ``take``, which must not raise, until it is cancelled or the socket is closed."""
        while True:
            try:
                await trio.lowlevel.wait_readable(self.sock)
            except trio.ClosedResourceError:
                return
            try:
                self._accept_some(counters, take, _ACCEPTS_PER_WAKE)
            except OSError as error:
                if error.errno == errno.EBADF:
                    return
                counters.accept_errors += 1
                if error.errno in _EXHAUSTED:
                    await trio.sleep(_PAUSE_SECONDS)
                    if self.sock.fileno() < 0:  # closed meanwhile: without a number, it can't be waited for
                        return

    def _accept_some(
        self, counters: AcceptCounters, take: Callable[[socket.socket, ClientAddr], None], most: int
    ) -> int:
        for count in range(most):
            try:
                sock, address = self.sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return count
            sock.setblocking(False)
            counters.connections_accepted += 1
            take(sock, ClientAddr(address[0], address[1]))
        return most

    def refuse_new(self) -> None:
        """Drop every SYN from now on. Handshakes under way still complete, which takes a round trip."""
        self._filtered(_DROP_SYN)

    def close_losslessly(self, counters: AcceptCounters, take: Callable[[socket.socket, ClientAddr], None]) -> None:
        """Take the connections that are complete already, then close.

        A plain close resets connections that completed since the last accept. So first a filter drops every packet.
        Call ``refuse_new`` HANDSHAKE_SECONDS before; otherwise that filter cuts handshakes in two, and their clients
        believe that they are connected.
        """
        self._filtered(_DROP_ALL)
        try:
            while self._accept_some(counters, take, _ACCEPTS_PER_WAKE):
                pass
        except OSError as error:
            if error.errno not in _EXHAUSTED and error.errno != errno.EBADF:
                counters.accept_errors += 1
        finally:
            self.close()

    def _filtered(self, instructions: Sequence[tuple[int, int, int, int]]) -> None:
        """Attach the filter. Hardened kernels let only root do so. The one difference without a filter: a connection
        that completes between the last accept and the close is reset."""
        program = _ClassicFilter(instructions)
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program.pointer)

    def close(self) -> None:
        """Close at once. Safe to call twice."""
        if self.sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self.sock)
            self.sock.close()


# Classic BPF: (code, jump if true, jump if false, constant). It sees a packet from its TCP header on.
_DROP_ALL = ((0x06, 0, 0, 0),)  # return 0: nothing of the packet is kept
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte with the flags
    (0x54, 0, 0, 0x12),  # and SYN|ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),  # the whole packet is kept
)


class _ClassicFilter:
    """A ``struct sock_fprog`` for a short program; it keeps the memory that its pointer refers to."""

    def __init__(self, instructions: Sequence[tuple[int, int, int, int]]) -> None:
        from ctypes import addressof, create_string_buffer  # needed once, at the end of a process's life

        code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
        self._memory = create_string_buffer(code, len(code))
        self.pointer = struct.pack("HP", len(instructions), addressof(self._memory))


def bind(name: str, flag: str, addresses: Sequence[Address]) -> tuple[list[Listener], list[str]]:
    """Bind all addresses, port 0 to one and the same free port. Return the listeners and warnings.

    If the machine has no IPv6, an IPv6 address is left out with a warning, provided that there is another address.
    Raises StartError, which names ``flag``.
    """
    listeners: list[Listener] = []
    warnings: list[str] = []
    try:
        for address in addresses:
            port = address.port or (listeners[0].address.port if listeners else 0)
            try:
                listeners.append(Listener(name, _listening_socket(address.host, port)))
            except OSError as error:
                if ":" in address.host and error.errno in _NO_IPV6 and len(addresses) > 1:
                    warnings.append(f"{name}: this machine has no IPv6; not listening on {address}")
                    continue
                raise StartError(f"{flag}: cannot listen on {Address(address.host, port)}: {_why(error)}") from None
    except StartError:
        for listener in listeners:
            listener.sock.close()
        raise
    return listeners, warnings


def bind_datagrams(flag: str, addresses: Sequence[Address]) -> list[socket.socket]:
    """Return non-blocking UDP sockets bound to all addresses. Raises StartError, which names ``flag``."""
    bound: list[socket.socket] = []
    try:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            bound.append(socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
            if family == socket.AF_INET6:
                bound[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound[-1].bind((address.host, address.port))
    except OSError as error:
        for sock in bound:
            sock.close()
        raise StartError(f"{flag}: cannot listen on {address} (UDP): {_why(error)}") from None
    return bound


_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is taken; stop what listens there, or choose another port (0: any)"
    if error.errno == errno.EACCES:
        return "not permitted; choose a port above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; choose one of its own"
    return f"{(error.strerror or 'unknown error').lower()}; choose another address"


def _listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def is_own(listeners: Sequence[Listener], host: str, port: int) -> bool:
    """Return whether ``host`` (an IP literal) is this machine's and ``port`` one of ``listeners``', whatever address
    that is bound to: a connection to one of our ports would only lead here again. Raises ProxyError if that can't be
    determined."""
    if all(listener.address.port != port for listener in listeners):
        return False
    wanted = parse_ip(host)
    return wanted is not None and (wanted.is_unspecified or wanted.is_loopback or is_local(str(wanted)))
