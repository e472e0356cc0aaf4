"""Accepting when descriptors have run out, and closing meanwhile."""

from __future__ import annotations

import errno
import socket

import pytest
import trio

from sidecar.addresses import ClientAddr
from sidecar.net.listener import Listener
from sidecar.telemetry.metrics import Counters


class Exhausted(Listener):
    """A process without a descriptor left for what it should accept; ``tried`` is set when it finds out."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        super().__init__(name, sock)
        self.tried = trio.Event()

    def _accept_some(self, *_: object) -> int:
        self.tried.set()
        raise OSError(errno.EMFILE, "too many open files")


def _nobody(_: socket.socket, __: ClientAddr) -> None:
    raise AssertionError("nothing can be accepted")


async def test_a_listener_that_closes_while_descriptors_are_short_ends_quietly() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    listener = Exhausted("inbound", sock)
    counters = Counters()
    with socket.create_connection(sock.getsockname()), trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.accept, counters, _nobody)
            await listener.tried.wait()
            listener.close_losslessly(counters, _nobody)
    assert sock.fileno() == -1


async def test_no_new_connection_begins_and_none_that_is_complete_is_lost() -> None:
    """A SYN that comes after ``refuse_new`` is dropped; what was connected before can speak, and is taken."""
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    listener = Listener("inbound", sock)
    taken: list[socket.socket] = []
    with socket.create_connection(sock.getsockname()) as before, socket.socket() as after:
        listener.refuse_new()
        before.sendall(b"hello")
        after.settimeout(0.2)
        with pytest.raises(TimeoutError):
            after.connect(sock.getsockname())
        listener.close_losslessly(Counters(), lambda connection, _: taken.append(connection))
        (connection,) = taken
        with connection:
            connection.setblocking(True)
            connection.settimeout(5)
            assert connection.recv(100) == b"hello"
