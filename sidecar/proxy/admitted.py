"""What the gate found out about a connection, for whoever serves it; apart from the gate, which imports OpenSSL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from sidecar.net.channel import ChannelClosed

if TYPE_CHECKING:
    from certs.verify import Peer
    from sidecar.net.channel import Channel
    from sidecar.proxy.client import DrainState


class Admitted(msgspec.Struct, frozen=True):
    """How a connection goes on. ``inside``: "http" or "tcp" where its ALPN says so, "auto" where that has to be found
    out. ``peer``, its form for the app (``xfcc``) and ``leaving`` are None, or b"", for plaintext and for TLS that is
    not ours; ``words`` say for people how it is secured."""

    inside: str = "auto"
    peer: Peer | None = None
    xfcc: bytes = b""
    leaving: DrainState | None = None
    words: str = ""
    guarded: bool = False  # it was silent; what it says first is looked at before it is read

    @property
    def principal(self) -> str:
        """The peer's SPIFFE id; empty for an unauthenticated source."""
        return "" if self.peer is None else str(self.peer.spiffe_id)


AS_IT_CAME: Final = Admitted()
SILENT: Final = Admitted(guarded=True)


class TlsWaiting(ChannelClosed):
    """A client that was silent has begun a TLS handshake after all; nothing of it has been read."""

    def __init__(self) -> None:
        super().__init__("a TLS handshake began after a silence")


class Guard(Protocol):
    """In the place of a silent client's socket; see ``proxy.gate``."""

    def let_go(self) -> None: ...


def let_go(channel: Channel) -> None:
    """Whose server spoke first is no TLS client: its bytes are not looked at any more."""
    guard: Guard | None = channel.sock if hasattr(channel.sock, "let_go") else None
    if guard is not None:
        guard.let_go()


class Gate(Protocol):
    """See ``proxy.gate``."""

    async def admit(self, channel: Channel, host: str, port: int) -> Admitted: ...

    async def admit_late(self, channel: Channel, host: str, port: int) -> Admitted: ...
