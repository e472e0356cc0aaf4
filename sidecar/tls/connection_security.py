"""The security of a connection, as the acceptor determined it. Separate from ``acceptor``, which imports OpenSSL: code
that handles connections must not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from certs.verify import Peer
    from sidecar.net.connection import Connection
    from sidecar.net.graceful_drain import DrainState


class ConnectionSecurity(msgspec.Struct, frozen=True):
    """The security of a connection, and the protocol inside.

    ``inside`` is "http" or "tcp" if its ALPN names that, "auto" if detection has to decide. ``peer``, its form for
    the app (``xfcc``) and ``leaving`` are None, or b"", for plaintext and for TLS that is not the mesh's; ``words``
    describe for people how it is secured. ``silent``: plaintext is allowed and the client has sent nothing yet, so its
    first bytes may still begin a handshake of the mesh: peek at them before anything is read.
    """

    inside: str = "auto"
    peer: Peer | None = None
    xfcc: bytes = b""
    leaving: DrainState | None = None
    words: str = ""
    silent: bool = False

    @property
    def principal(self) -> str:
        """The peer's SPIFFE id; empty for an unauthenticated source."""
        return "" if self.peer is None else str(self.peer.spiffe_id)


AS_IT_CAME: Final = ConnectionSecurity()
SILENT: Final = ConnectionSecurity(silent=True)


class Acceptor(Protocol):
    """See ``tls.acceptor``."""

    async def accept(self, connection: Connection, host: str, port: int) -> tuple[Connection, ConnectionSecurity]: ...
