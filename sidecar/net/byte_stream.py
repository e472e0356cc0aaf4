"""The interface of the byte stream under a connection, and the result of a TLS handshake.

Two classes implement ``ByteStream``: ``socket.socket``, non-blocking, and ``tls_socket.TlsSocket``, which a handshake
makes (``tls.handshake``). Both raise what a socket raises, so ``connection.Connection`` waits, times out and closes in
the same way over either. This module must not import OpenSSL: that takes 10 MB, and a proxy without an identity does
not load it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from certs.verify import Peer


class ByteStream(Protocol):
    """A connected stream that never blocks. Each method behaves as that of ``socket.socket``: it raises BlockingIOError
    if it would have to wait, and another OSError if the connection is gone."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Return what has come; b"" at the peer's orderly end. With MSG_PEEK it stays there for the next ``recv``."""
        ...

    def send(self, data: bytes | memoryview, /) -> int:
        """Send bytes, and return how many were taken. After BlockingIOError, offer the same bytes again; more bytes may
        follow them. Over TLS they may be sealed already."""
        ...

    def shutdown(self, how: int, /) -> None:
        """Half close after what was sent (SHUT_WR), or cut both directions at once (SHUT_RDWR)."""
        ...

    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None: ...

    def getsockopt(self, level: int, option: int, /) -> int: ...

    def getsockname(self) -> tuple[str, int]: ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class Sealed(ByteStream, Protocol):
    """A byte stream that decrypts what the kernel holds, and so may hold bytes that no poll reports."""

    def take_unread(self) -> bytes:
        """Return, and forget, what a peek has decrypted and no ``recv`` has taken."""
        ...

    def holds_unread(self) -> bool:
        """Return whether a peek has left something, or a part of a record is held."""
        ...


class Secured(msgspec.Struct, frozen=True):
    """The result of a handshake.

    ``peer`` is None only if the context allowed a missing certificate; ``alpn`` and ``sni`` are b"" if there is none.
    ``ends`` is when the first of both sides' certificates expires, in seconds since the epoch (0: not known);
    ``generation`` is the caller's own count.
    """

    peer: Peer | None
    alpn: bytes
    sni: bytes
    group: str
    version: str
    ends: float = 0.0
    generation: int = 0
