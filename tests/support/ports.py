"""Ports for what has to be told a number: an app that is not there, a program of others that can't take any port.

A port that was found by bind and let go is anybody's: the kernel may give it to the next process that asks for any,
the proxy under test among them. So it is kept for as long as it is meant.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """A TCP port that the kernel gives to nobody else while the block lasts, at no address.

    Nobody listens on it: who connects is refused. Who is told the number may bind it and listen, with SO_REUSEADDR as
    every server has it; the holder never listens, so no connection is lost to it.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("0.0.0.0", 0))
        port: int = holder.getsockname()[1]
        yield port
