"""Dialing: from addresses to a connected connection.

Called by the pool, tunnels and opaque connections. ``net.resolve`` looks up names before.

Theory of operation. Most dials go to one address, often on this machine, where the handshake is over before connect()
returns: the kernel still reports EINPROGRESS, and a second connect() reports that it is done (connect(2)). So the
second call comes before any wait, and a local dial costs only system calls: no nursery, no cancel scope, no turn of the
loop. Addresses that fail at once are passed over in the same way. The race of RFC 8305 section 5 begins only when one
connect is really under way and other addresses are left.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from time import monotonic

import trio

from sidecar.addresses import Endpoint
from sidecar.errors import ProxyError, Reason
from sidecar.net.connection import NEVER, Connection, ConnectionClosed, DeadlineExceeded

ATTEMPT_DELAY = 0.25  # seconds; RFC 8305 section 5, "Connection Attempt Delay"

# Notice a peer that vanished: an idle one by probes after a minute, one that owes acknowledgements after five minutes.
# Not sooner: a reader that takes nothing for so long has a zero window, and the kernel counts that, too (tcp(7)).
KEEPALIVE_IDLE = 60  # seconds
USER_TIMEOUT = 300_000  # milliseconds; the stream idle time

SOURCES = ("127.0.0.6", "::6")  # of connections to the app, as Istio has them; sidecar-init gives ::6 to lo

_PENDING = {errno.EINPROGRESS, errno.EALREADY}
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BIND_ADDRESS_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT, which the socket module does not name
_STREAM = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)


def source_for(address: str) -> str:
    """Return the source address of a connection to the app at this IP literal. The rules let it through by that."""
    return SOURCES[1] if ":" in address else SOURCES[0]


async def dial(
    addresses: Sequence[str], port: int, *, timeout: float, registry: set[Connection], source: str = ""
) -> Connection:
    """Return a connection to the first of ``addresses`` (IP literals, in order of preference) that answers.

    ``source`` is the local address that the connection comes from; only its family is dialed then. ``timeout`` in
    seconds is for all addresses together, and coarse (``Connection.limit``). The connection has no deadline left. It
    may return without a checkpoint. Cancelling it closes what was begun.

    Raises ProxyError: CONNECT_FAILED if every address refused, CONNECT_TIMEOUT if one of them stayed silent until the
    time ran out, another reason if the connection was expired with it (by a drain).
    """
    failure = ProxyError(Reason.CONNECT_FAILED, "there is no address to connect to")
    for index, address in enumerate(addresses, 1):
        try:
            sock, connected = _begin(address, port, source)
        except ProxyError as error:
            failure = error
            continue
        connection = Connection(sock, str(Endpoint(address, port)), registry)
        if connected:
            return connection
        if index == len(addresses):
            return await _finish(connection, timeout)
        return await _race(connection, addresses[index:], port, source, monotonic() + timeout, registry)
    raise failure


def dial_unix(path: str, name: str, registry: set[Connection]) -> Connection:
    """Return a connection to the unix socket at ``path``, called ``name`` in records. It never waits. Raises
    ProxyError(CONNECT_FAILED), also if too many connections wait to be accepted there (unix(7), EAGAIN)."""
    try:
        sock = socket.socket(socket.AF_UNIX, _STREAM)
    except OSError as error:
        raise ProxyError(Reason.CONNECT_FAILED, f"{name}: {os.strerror(error.errno or 0).lower()}") from None
    code = sock.connect_ex(path)
    if code:
        sock.close()
        raise ProxyError(Reason.CONNECT_FAILED, f"{name}: {os.strerror(code).lower()}")
    return Connection(sock, name, registry)


def _begin(address: str, port: int, source: str) -> tuple[socket.socket, bool]:
    """Return a socket with its options set and its connect begun, and whether it is connected. Raises ProxyError."""
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, _STREAM)
    except OSError as error:
        raise _refused(address, port, error.errno or 0) from None
    if source:
        _bind(sock, source, address, port)
    try:
        code = sock.connect_ex((address, port))
        if code in _PENDING or not code:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
            if code:
                code = sock.connect_ex((address, port))
    except OSError as error:
        code = error.errno or errno.EINVAL
    if code and code not in _PENDING:
        sock.close()
        raise _refused(address, port, code)
    return sock, not code


def _bind(sock: socket.socket, source: str, address: str, port: int) -> None:
    """Bind to ``source``. The kernel chooses the port at connect, so it has to be free for this destination only
    (ip(7), IP_BIND_ADDRESS_NO_PORT). Raises ProxyError."""
    try:
        sock.setsockopt(socket.SOL_IP, _BIND_ADDRESS_NO_PORT, 1)
        sock.bind((source, 0))
    except OSError as error:
        sock.close()
        detail = f"{address}:{port}: nothing can be sent from {source} ({os.strerror(error.errno or 0).lower()})"
        raise ProxyError(Reason.CONNECT_FAILED, detail) from None


async def _finish(connection: Connection, seconds: float) -> Connection:
    """Wait until a connect that was begun succeeds. If it fails, close the connection and raise ProxyError."""
    connection.limit(seconds, Reason.CONNECT_TIMEOUT)
    try:
        await connection.wait_writable()
        code = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise ProxyError(Reason.CONNECT_FAILED, f"{connection.peer}: {os.strerror(code).lower()}")
    except DeadlineExceeded as error:
        connection.close()
        if error.reason is not Reason.CONNECT_TIMEOUT:
            raise
        raise ProxyError(error.reason, f"{connection.peer}: no answer within {seconds:.3g} s") from None
    except ConnectionClosed as error:
        connection.close()
        raise ProxyError(Reason.CONNECT_FAILED, f"{connection.peer}: {error.detail}") from None
    except BaseException:  # a cancellation above all: nothing else refers to this socket
        connection.close()
        raise
    connection.deadline = NEVER
    return connection


async def _race(
    first: Connection, others: Sequence[str], port: int, source: str, deadline: float, registry: set[Connection]
) -> Connection:
    """Race the addresses: start the next when the one before failed, or after ATTEMPT_DELAY. The first success wins."""
    won: list[Connection] = []
    failures: list[ProxyError] = []

    async def attempt(begun: Connection | None, address: str, failed: trio.Event) -> None:
        try:
            if begun is None:
                sock, connected = _begin(address, port, source)
                begun = Connection(sock, str(Endpoint(address, port)), registry)
                if connected:
                    return win(begun)
            win(await _finish(begun, deadline - monotonic()))
        except ProxyError as error:
            failures.append(error)
            failed.set()

    def win(connection: Connection) -> None:
        if won:
            connection.close()
        else:
            won.append(connection)
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for index, address in enumerate(["", *others]):
                if monotonic() >= deadline:
                    break
                failed = trio.Event()
                nursery.start_soon(attempt, None if index else first, address, failed)
                with trio.move_on_after(ATTEMPT_DELAY):
                    await failed.wait()
    except BaseException:
        for connection in (first, *won):
            connection.close()
        raise
    if won:
        return won[0]
    silent = [failure for failure in failures if failure.reason is not Reason.CONNECT_FAILED]
    raise (silent or failures)[-1]


def _refused(address: str, port: int, code: int) -> ProxyError:
    if code in _EXHAUSTED:
        detail = f"{address}:{port}: this proxy has no descriptor or memory left for a connection ({os.strerror(code)})"
    elif code == errno.EADDRNOTAVAIL:
        detail = f"{address}:{port}: this proxy has no local port left for a connection"
    else:
        detail = f"{address}:{port}: {os.strerror(code).lower()}"
    return ProxyError(Reason.CONNECT_FAILED, detail)
