"""Connections within the mesh: dialed, secured, and judged before a byte of the app's goes out.

Called by the clusters of services. The server's SPIFFE id is compared with those that may serve the service; a failed
handshake never falls back to plaintext.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from sidecar.errors import ProxyError, Reason
from sidecar.identity import ALPN_DETECT, ALPN_HTTP1, ALPN_OPAQUE, CredentialEpoch, Identity
from sidecar.net.connection import Connection, ConnectionClosed
from sidecar.net.dial import dial
from sidecar.resources.snapshot import Endpoint, Snapshot
from sidecar.tls.handshake import HANDSHAKE_SECONDS, HandshakeFailed, Ours, secure_client
from sidecar.upstream.transport import Mtls

HTTP_OFFER: Final = (ALPN_HTTP1, ALPN_DETECT, b"http/1.1")
OPAQUE_OFFER: Final = (ALPN_OPAQUE, ALPN_DETECT)


class Outcomes(Protocol):
    """The counters of handshakes, by outcome."""

    def note(self, outcome: str, group: str) -> None: ...


class MtlsConnector:
    """The dialer of the mesh, with our identity and the counters of outcomes. One per process."""

    def __init__(self, identity: Identity, outcomes: Outcomes, connections: set[Connection]) -> None:
        self.identity = identity
        self._outcomes = outcomes
        self._connections = connections

    async def connect(self, endpoint: Endpoint, transport: Mtls, seconds: float, *, opaque: bool) -> Connection:
        """Return a secured connection to ``endpoint``, at the first of its addresses that answers. Connecting may take
        ``seconds``. The ALPN announces requests or ``opaque`` bytes.

        Raises ProxyError: what ``net.dial`` raises, NO_IDENTITY, UPSTREAM_HANDSHAKE, UPSTREAM_IDENTITY.
        """
        generation = self.identity.require()
        connection = await dial(endpoint.addresses, endpoint.port, timeout=seconds, registry=self._connections)
        try:
            return await self._secure(connection, generation, transport, OPAQUE_OFFER if opaque else HTTP_OFFER)
        except BaseException:
            connection.reset()
            raise

    async def _secure(
        self, connection: Connection, generation: CredentialEpoch, transport: Mtls, offer: Sequence[bytes]
    ) -> Connection:
        judge = self.identity.judge(generation, transport.identities)
        ours = Ours(generation.credentials.not_after, generation.number)
        try:
            connection = await secure_client(
                connection,
                generation.client(),
                judge,
                sni=transport.sni,
                alpn=offer,
                seconds=HANDSHAKE_SECONDS,
                ours=ours,
            )
        except HandshakeFailed as failed:
            self._outcomes.note(failed.rule, "")
            raise
        except ConnectionClosed as gone:
            self._outcomes.note("closed", "")
            detail = f"{connection.peer}: closed in the handshake: {gone.detail}"
            raise ProxyError(Reason.UPSTREAM_HANDSHAKE, detail) from None
        assert connection.secured is not None
        self._outcomes.note("ok", connection.secured.group)
        return connection


class Mesh(Protocol):
    """This proxy's view of its mesh."""

    connector: MtlsConnector

    @property
    def snapshot(self) -> Snapshot:
        """The current Snapshot."""
        ...
