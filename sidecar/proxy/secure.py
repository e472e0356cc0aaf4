"""Connections within the mesh: dialed, secured, and judged before a byte of the app's goes out.

Called by ``mesh``. The server's SPIFFE id is held against those that may serve the service; a failed handshake never
falls back to plaintext.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from certs.spiffe import SpiffeId
from sidecar.errors import ProxyError, Reason
from sidecar.identity import Generation, Identity
from sidecar.net.channel import Channel, ChannelClosed
from sidecar.net.dial import dial
from sidecar.net.tls import HANDSHAKE_SECONDS, HandshakeFailed, secure_client
from sidecar.resources.snapshot import Endpoint, Snapshot


class Outcomes(Protocol):
    """Where handshakes are counted by how they ended."""

    def note(self, outcome: str, group: str) -> None: ...


class Secure:
    """What dials the mesh: our identity, and where the outcomes are counted. One per process."""

    def __init__(self, identity: Identity, outcomes: Outcomes, channels: set[Channel]) -> None:
        self.identity = identity
        self._outcomes = outcomes
        self._channels = channels

    async def dial(
        self, endpoint: Endpoint, expected: frozenset[SpiffeId], sni: bytes, offer: Sequence[bytes], seconds: float
    ) -> Channel:
        """A secured connection to ``endpoint``, at the first of its addresses that answers, whose server is one of
        ``expected``; ``seconds`` for it to connect.

        Raises ProxyError: what ``net.dial`` raises, NO_IDENTITY, UPSTREAM_HANDSHAKE, UPSTREAM_IDENTITY.
        """
        generation = self.identity.require()
        channel = await dial(endpoint.addresses, endpoint.port, timeout=seconds, registry=self._channels)
        try:
            await self._secure(channel, generation, expected, sni, offer)
        except BaseException:
            channel.reset()
            raise
        return channel

    async def _secure(
        self,
        channel: Channel,
        generation: Generation,
        expected: frozenset[SpiffeId],
        sni: bytes,
        offer: Sequence[bytes],
    ) -> None:
        judge = self.identity.judge(generation, expected)
        try:
            secured = await secure_client(
                channel, generation.client(), judge, sni=sni, alpn=offer, seconds=HANDSHAKE_SECONDS
            )
        except HandshakeFailed as failed:
            self._outcomes.note(failed.rule, "")
            raise
        except ChannelClosed as gone:
            self._outcomes.note("closed", "")
            detail = f"{channel.peer}: closed in the handshake: {gone.detail}"
            raise ProxyError(Reason.UPSTREAM_HANDSHAKE, detail) from None
        self._outcomes.note("ok", secured.group)
        assert secured.peer is not None
        ends = min(secured.peer.not_after, generation.credentials.not_after)
        channel.secured = msgspec.structs.replace(secured, ends=ends, generation=generation.number)


class Mesh(Protocol):
    """What this proxy knows of its mesh."""

    secure: Secure

    @property
    def snapshot(self) -> Snapshot:
        """The one of this moment."""
        ...
