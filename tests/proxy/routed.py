"""A proxy in this process for one route: real sockets on both sides, real deadlines, and a cluster of several apps.

``App`` is an app as a script: what it does with each request is a function of the request. It counts what reached it by
the id that each request carries, also of requests that it never answers.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from sidecar.addresses import Address
from sidecar.errors import Reason
from sidecar.http.h1.server import H1ServerConnection
from sidecar.http.message import Request
from sidecar.http.timeouts import Timeouts
from sidecar.net.connection import Connection
from sidecar.net.connection_pool import Limits as PoolLimits
from sidecar.net.dial import dial
from sidecar.net.resolve import Resolver
from sidecar.net.splice_pipes import Pipes
from sidecar.net.timers import Sweeper
from sidecar.policy.authorize import Asked, Permit, allow_all, authorize_outbound
from sidecar.policy.retry import DEFAULT, RetryPolicy
from sidecar.proxy.cluster_client import ClusterClient
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.deadlines import Limits
from sidecar.proxy.header_sanitizer import HeaderSanitizer
from sidecar.proxy.pipeline import RunningRequest, serve_request
from sidecar.proxy.request_loop import serve_http
from sidecar.proxy.route import Route
from sidecar.resources.snapshot import NOTHING, Snapshot
from sidecar.telemetry.memory import MemoryGuard
from sidecar.telemetry.record import Record
from sidecar.telemetry.telemetry import Telemetry
from sidecar.upstream.cluster import Cluster, Terms

NAME = "outbound|80||web"
STREAM_IDLE = 30.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_RST = b"\x01\0\0\0\0\0\0\0"
Answer = Callable[[trio.SocketStream, bytes], Awaitable[bool]]
"""Answers one request, whose head it gets; False ends the connection, with RST if ``reset`` was called."""


def says(*pieces: bytes, again: bool = True) -> Answer:
    """Send these bytes; then take the next request, or (not ``again``) close."""

    async def answer(stream: trio.SocketStream, head: bytes) -> bool:
        for piece in pieces:
            await stream.send_all(piece)
        return again

    return answer


def status(code: int, fields: bytes = b"", body: bytes = b"no") -> bytes:
    """An answer with this status."""
    return b"HTTP/1.1 %d Status\r\nContent-Length: %d\r\n%b\r\n%b" % (code, len(body), fields, body)


async def leaves(stream: trio.SocketStream, head: bytes) -> bool:
    """Reset the connection in place of an answer."""
    reset_at_close(stream)
    return False


async def hangs(stream: trio.SocketStream, head: bytes) -> bool:
    """Never answer."""
    while await stream.receive_some(65_536):
        pass
    return False


def reset_at_close(stream: trio.SocketStream) -> None:
    """Let the next close be a reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)


async def until(true: Callable[[], bool]) -> None:
    """Look until it is so."""
    with trio.fail_after(10):
        while not true():  # noqa: ASYNC110  # the proxy has no events for tests
            await trio.sleep(0.005)


class App:
    """An app on a port of 127.0.0.1, or one that is ``down``: its port refuses. ``heads`` are the requests that it
    got, ``answers`` what it does with each of them in turn; the last one is for all that follow."""

    def __init__(self, *answers: Answer, down: bool = False) -> None:
        self.answers = list(answers) or [says(OK)]
        self.heads: list[bytes] = []
        self.down = down
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        if down:
            self._listener.close()

    @property
    def place(self) -> Address:
        return Address("127.0.0.1", self.port)

    async def serve(self) -> None:
        """Serve until cancelled."""
        if self.down:
            return
        self._listener.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listener))
        await trio.serve_listeners(self._connected, [listener])

    async def _connected(self, stream: trio.SocketStream) -> None:
        try:
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    more = await stream.receive_some(65_536)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                size = int(field(head, b"content-length") or 0)
                while len(data) < size:
                    data += await stream.receive_some(65_536)
                data = data[size:]
                self.heads.append(head)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if not await answer(stream, head):
                    return
        except trio.BrokenResourceError:
            return
        finally:
            stream.socket.close()


def field(head: bytes, name: bytes) -> bytes:
    """The value of a field of a head; empty without one."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return b""


class _Routing:
    """Leads every request along one route."""

    rejudged = False

    def __init__(self, proxy: Routed) -> None:
        self._proxy = proxy
        self.sanitizer = HeaderSanitizer(proxy.context, appends_caller=False)

    def current(self) -> Snapshot:
        return NOTHING

    def route(self, snapshot: Snapshot, request: Request) -> Route:
        return self._proxy.route

    def asked(self, wanted: RunningRequest) -> Asked:
        return Asked("outbound", "", "127.0.0.1", NAME, "HTTP")

    async def authorize(self, snapshot: Snapshot, route: Route, wanted: RunningRequest) -> Permit:
        return authorize_outbound(allow_all, self.asked(wanted), None, destination_is_own=False)


class Routed:
    """A proxy whose one route leads to ``apps``, with this policy and these limits."""

    def __init__(
        self, apps: Sequence[App], retry: RetryPolicy = DEFAULT, *, total: float = 0.0, per_try: float = 0.0
    ) -> None:
        timeouts, telemetry = Timeouts(5.0, 60.0, STREAM_IDLE, 1, 30.0, 0), Telemetry("off", "/dev/null")
        guard = MemoryGuard(0)
        self.context = ProxyContext(timeouts, 5.0, 60.0, 1024, 1024, (), False, telemetry, guard, Resolver(), Pipes())
        next_on = frozenset({Reason.CONNECT_FAILED, Reason.CONNECT_TIMEOUT})
        terms = Terms(NAME, "web:80", PoolLimits(1024, 1024, 5.0, 60.0), 5.0, next_on)
        self.cluster: Cluster[Address] = Cluster(
            terms, self._dial, telemetry.counters, places=[app.place for app in apps]
        )
        limits = None
        if total or per_try:
            limits = Limits(self.context.deadlines, total or float("inf"), per_try or float("inf"))
        client = ClusterClient(self.cluster, None, "web:80", STREAM_IDLE)
        called = Address("web", 80)
        self.route = Route("service", self.cluster, client, None, called, "web:80", retry=retry, limits=limits)
        self.apps = apps
        self.port = 0

    async def _dial(self, place: Address, seconds: float) -> Connection:
        return await dial([place.host], place.port, timeout=seconds, registry=self.context.connections)

    @property
    def records(self) -> list[Record]:
        """What was recorded, oldest first."""
        return self.context.telemetry.history.newest_first()[::-1]

    async def _serve(self, stream: trio.SocketStream) -> None:
        raw = stream.socket.detach()
        sock = socket.socket(fileno=raw)
        sock.setblocking(False)
        connection = Connection(sock, "127.0.0.1:9", self.context.connections)
        served = H1ServerConnection(connection, b"", self.context.timeouts, "127.0.0.1", trusted=False)
        await serve_http(served, "outbound", partial(serve_request, _Routing(self), self.context), self.context)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Routed]:
        """Serve while the block runs; afterwards nothing may be left in progress."""
        context = self.context
        async with trio.open_nursery() as nursery:
            for app in self.apps:
                nursery.start_soon(app.serve)
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            self.port = listener.socket.getsockname()[1]
            nursery.start_soon(partial(trio.serve_listeners, self._serve, [listener]))
            nursery.start_soon(Sweeper(context.connections, [context.deadlines.sweep]).run)
            yield self
            await until(lambda: not context.telemetry.counters.requests_active)
            assert (self.cluster.load.requests, self.cluster.load.retries, len(context.deadlines)) == (0, 0, 0)
            nursery.cancel_scope.cancel()
        self.cluster.close()
        for connection in list(context.connections):
            connection.close()

    async def ask(
        self, method: bytes = b"GET", *fields: bytes, body: bytes = b"", seconds: float = 30.0
    ) -> tuple[int, bytes]:
        """Send one request on a connection of its own; return the status of the reply, and all of it."""
        length = b"Content-Length: %d" % len(body) if body or method not in (b"GET", b"HEAD", b"DELETE") else b""
        lines = [b"%b / HTTP/1.1" % method, b"Host: web", b"Connection: close", *fields, *([length] if length else [])]
        with trio.fail_after(seconds):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                await stream.send_all(b"\r\n".join(lines) + b"\r\n\r\n" + body)
                reply = b""
                try:
                    async for data in stream:
                        reply += data
                except trio.BrokenResourceError:
                    pass
        return int(reply[9:12] or 0), reply
