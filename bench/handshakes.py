"""The scenarios `handshake` and `mtls-idle`: clients with certificates at the app's sidecar.

Called by the scenarios' table. The client is the same for all proxies, and has the other core: pyOpenSSL on blocking
sockets, with whole handshakes each time.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from OpenSSL import SSL

from bench import load
from bench.hops import GROUP
from bench.pair import callee
from bench.processes import BenchError
from bench.turn import Figures, Turn
from certs.keys import key_from_pem
from certs.pem import from_pem
from sidecar.tls.contexts import client_context
from tests.support.papers import Papers

_AT_ONCE = 4
_IDLE = 1000
_TIMEOUT = struct.pack("ll", 10, 0)  # a socket's own, since one of Python's would make it non-blocking
_ALPN = [b"istio-http/1.1"]


def handshake(turn: Turn) -> Figures:
    """Connect, shake hands, say goodbye, and wait until the proxy has done so too; over and over, some at a time."""
    with callee(turn) as running:
        context = _context(running.client)
        _handshakes(context, running.inbound.port, 0.5)
        before = running.inbound.cpu_seconds()
        began = time.monotonic()
        took = _handshakes(context, running.inbound.port, turn.seconds)
        spent, seconds = running.inbound.cpu_seconds() - before, time.monotonic() - began
        return {
            "handshake_us": spent / len(took) * 1e6,
            "p50_ms": statistics.median(took) * 1e3,
            "p99_ms": statistics.quantiles(took, n=100)[98] * 1e3,
            "per_second": len(took) / seconds,
            "rss_mb": running.inbound.rss_bytes() / 1e6,
        }


def mtls_idle(turn: Turn) -> Figures:
    """What 1,000 secured connections that made a request each add to the memory of a proxy that has warmed up."""
    with callee(turn) as running:
        context, port = _context(running.client), running.inbound.port
        _handshakes(context, port, 1.0)
        with _idle_connections(context, port, 50):
            before = running.inbound.rss_bytes()
            with _idle_connections(context, port, _IDLE):
                # Let deferred work (a sweep, a log's flush, an allocator's trim) be done.
                time.sleep(1.0)
                after = running.inbound.rss_bytes()
        return {"idle_kb": (after - before) / _IDLE / 1e3, "rss_mb": after / 1e6}


def _context(papers: Papers) -> SSL.Context:
    return client_context(
        from_pem(papers.chain.read_bytes()), key_from_pem(papers.key.read_bytes()), from_pem(papers.roots.read_bytes())
    )


def _handshakes(context: SSL.Context, port: int, seconds: float) -> list[float]:
    """The seconds that each took."""
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        each = pool.map(lambda _: _handshakes_until(context, port, until), range(_AT_ONCE))
        return [took for worker in each for took in worker]


def _handshakes_until(context: SSL.Context, port: int, until: float) -> list[float]:
    took = []
    while (began := time.monotonic()) < until:
        with _secured(context, port) as connection:
            connection.shutdown()
            # The proxy's goodbye says that it took our certificate, and is through with it.
            _expect_end(connection)
        took.append(time.monotonic() - began)
    return took


@contextlib.contextmanager
def _secured(context: SSL.Context, port: int) -> Iterator[SSL.Connection]:
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.settimeout(None)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else the goodbye waits for an acknowledgement
        connection = SSL.Connection(context, plain)
        connection.set_alpn_protos(_ALPN)
        connection.set_connect_state()
        try:
            connection.do_handshake()
            if connection.get_group_name() != GROUP:
                raise BenchError(f"key agreement by {connection.get_group_name()}, and not by {GROUP}")
            yield connection
        except SSL.Error as error:
            raise BenchError(f"TLS: {error!r}") from None


def _expect_end(connection: SSL.Connection) -> None:
    try:
        data = connection.recv(4096)
    except SSL.ZeroReturnError:
        return
    raise BenchError(f"not the end: {data!r}")


@contextlib.contextmanager
def _idle_connections(context: SSL.Context, port: int, count: int) -> Iterator[None]:
    """Open connections that each make one request and then idle, until the block ends."""
    with contextlib.ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(_secured(context, port))
            connection.sendall(load.GET % b"/idle/%d" % number)
            seen = b""
            while not seen.endswith(b"of the app\n"):
                seen += connection.recv(4096)
        yield
