"""Lines share the switchboard: one that always has more to carry than there is time for holds up nobody."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from time import monotonic

import trio

from sidecar.net.relay_reactor import SLICE, ReactorEntry, RelayReactor


class Heavy(ReactorEntry):
    """Always ready, and each time it takes longer than all lines together may."""

    __slots__ = ()

    def carry(self) -> bool:
        until = monotonic() + 2 * SLICE
        while monotonic() < until:
            pass
        return True


class Light(ReactorEntry):
    """Takes what came, and is done."""

    __slots__ = ("sock",)

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.sock = sock

    def carry(self) -> bool:
        return not self.sock.recv(100)


async def test_whoever_was_not_carried_is_first_afterwards() -> None:
    board = RelayReactor.current()
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(4)]
        for near, far in pairs:
            stack.enter_context(near)
            stack.enter_context(far)
            far.send(b"x")
        (heavy, _), *others = pairs
        async with trio.open_nursery() as nursery:
            nursery.start_soon(board.carry, heavy.fileno(), Heavy())
            await trio.lowlevel.checkpoint()
            with trio.fail_after(30):
                async with trio.open_nursery() as light:
                    for near, _ in others:
                        light.start_soon(board.carry, near.fileno(), Light(near))
            nursery.cancel_scope.cancel()
