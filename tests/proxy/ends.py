"""Connected TCP sockets, a sweeper and a count of descriptors: what the tests of dialing and relaying share."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import monotonic

import trio

from sidecar.net.connection import Connection


@asynccontextmanager
async def sweeping(registry: set[Connection]) -> AsyncIterator[None]:
    """Expires what is overdue, as the product's sweeper does, while the block runs."""

    async def sweep() -> None:
        while True:
            await trio.sleep(0.02)
            for connection in list(registry):
                if connection.deadline < monotonic():
                    connection.expire(connection.overdue_as)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweep)
        yield
        nursery.cancel_scope.cancel()


def tcp_pair(*, small: bool = False) -> tuple[trio.SocketStream, socket.socket]:
    """The two ends of a connection: the test's, and a non-blocking one for the product. ``small``: small buffers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if small:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    if small:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    theirs.setblocking(False)
    ours.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(theirs)), ours


def descriptors() -> list[str]:
    """What every open descriptor of this process leads to, but epolls, of which trio and the switchboard keep one."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the listing's own
            continue
        if target != "anon_inode:[eventpoll]":
            found.append(target)
    return sorted(found)


@contextmanager
def full_listener(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port whose accept queue is full: the kernel drops every SYN to it, as a black hole does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection((host, port)):
            yield port


def reset(stream: trio.SocketStream) -> None:
    """Closes the test's end with RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    stream.socket.close()
