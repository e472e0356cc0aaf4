"""DNS messages on a TCP connection: each behind its length in two bytes (RFC 1035 section 4.2.2).

Who calls it: ``dns.server`` for clients, ``dns.upstream`` for resolvers.
"""

from __future__ import annotations

import socket

import trio


class MessageStream:
    """Takes the socket over: connected, non-blocking; ``close`` closes it. One reader and one writer at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._held = bytearray()

    async def receive(self) -> bytes | None:
        """The next message; None at the end, also where that comes in the middle of one. Raises
        trio.BrokenResourceError. Cancelling it loses nothing."""
        held = self._held
        while len(held) < 2 or len(held) < 2 + int.from_bytes(held[:2], "big"):
            data = await self._stream.receive_some()
            if not data:
                return None
            held += data
        end = 2 + int.from_bytes(held[:2], "big")
        message = bytes(held[2:end])
        del held[:end]
        return message

    async def send(self, message: bytes) -> None:
        """In one write. Raises trio.BrokenResourceError; when it is cancelled the stream is of no use any more."""
        await self._stream.send_all(len(message).to_bytes(2, "big") + message)

    def close(self) -> None:
        """At once; safe to call twice."""
        self._stream.socket.close()
