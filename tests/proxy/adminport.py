"""A port of the admin server over real sockets, and a client of h11 that asks it.

The peer's address is what the test says it is, so that another machine can be played from this one.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import h11
import trio

from sidecar.addresses import Address
from sidecar.admin.context import AdminContext, Listening
from sidecar.admin.server import serve_admin
from sidecar.net.connection import Connection
from sidecar.telemetry.memory import MemoryGuard
from sidecar.telemetry.telemetry import Telemetry

Serve = Callable[[Connection, AdminContext], Awaitable[None]]
GET = b"GET %b HTTP/1.1\r\nHost: localhost:15000\r\n%b\r\n"


@dataclass
class Process:
    """Stands for the process that is administered."""

    state: str = "live"
    quits: int = 0
    connections: set[Connection] = field(default_factory=set)
    telemetry: Telemetry = field(default_factory=Telemetry)
    listeners: list[Listening] = field(default_factory=lambda: [Listening("inbound", Address("::", 15006))])

    def quit(self) -> None:
        self.quits += 1
        self.state = "draining"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


class Port:
    """A listening port that serves ``serve``; ``open`` connects to it as ``peer``."""

    def __init__(self, nursery: trio.Nursery, serve: Serve, process: Process, more: dict[str, Any]) -> None:
        self._nursery = nursery
        self._serve = serve
        self.process = process
        self.context = AdminContext(
            telemetry=process.telemetry,
            lifecycle=process,
            listeners=process.listeners,
            quit=process.quit,
            started=0.0,
            memory=MemoryGuard(0),
            connections=process.connections,
            **more,
        )
        self.served: list[Connection] = []

    async def open(self, peer: str = "127.0.0.1:40000") -> trio.SocketStream:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            stream = await trio.open_tcp_stream("127.0.0.1", listener.getsockname()[1])
            accepted, _ = listener.accept()
        accepted.setblocking(False)
        connection = Connection(accepted, peer, self.process.connections)
        self.served.append(connection)
        self._nursery.start_soon(self._serve, connection, self.context)
        return stream

    async def ask(self, request: bytes, peer: str = "127.0.0.1:40000") -> Reply:
        """The first reply to these bytes, on a connection of their own."""
        async with await self.open(peer) as stream:
            await stream.send_all(request)
            return await read_reply(stream, h11.Connection(h11.CLIENT), request)


async def read_reply(stream: trio.SocketStream, client: h11.Connection, request: bytes) -> Reply:
    method = "HEAD" if request.startswith(b"HEAD ") else "GET"
    client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    status, headers, body = 0, {}, b""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            assert isinstance(event, h11.EndOfMessage)
            return Reply(status, headers, body)


@contextlib.asynccontextmanager
async def port(serve: Serve = serve_admin, *, state: str = "live", **more: Any) -> AsyncGenerator[Port]:
    """``more`` are further fields of the AdminContext."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            yield Port(nursery, serve, Process(state), more)
            nursery.cancel_scope.cancel()


def get(path: str, more: bytes = b"") -> bytes:
    return GET % (path.encode(), more)
