"""Who this proxy is, now: its certificate, whom it trusts, and the TLS contexts made of both.

Who calls it: ``feed`` installs what it was given; ``tls.acceptor`` (inbound) and ``upstream.mtls`` (outbound) take
contexts and judgements from it; ``admin`` shows it. One per process, made by ``mesh_runtime`` where an identity was
asked for.

Theory of operation. Credentials never change; a renewal or a new bundle makes a new *generation*, with new contexts,
since a context that was used can't be changed. New connections use the newest generation at once. Connections of an
older one are told to end (``CredentialEpoch.leaving``: each reply says ``connection: close``, pools let theirs go), and
those whose peer is no longer good, or whose certificate has ended, are cut by ``recheck``. The old certificate serves
until it ends; then nothing is served: fail closed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from time import time
from typing import Final

import msgspec
from cryptography import x509
from OpenSSL import SSL

from certs.bundle import Bundles
from certs.errors import IdentityError, Refusal
from certs.keys import PrivateKey
from certs.memory import Memory
from certs.revocation import Revocations
from certs.spiffe import SpiffeId
from certs.verify import Peer, recheck, verify_handshake
from sidecar.errors import CUTS, IDENTITY_CUTS, ProxyError, Reason
from sidecar.net.byte_stream import Secured
from sidecar.net.connection import Connection
from sidecar.net.graceful_drain import DrainState
from sidecar.tls.contexts import client_context, server_context

ALPN_HTTP1: Final = b"istio-http/1.1"
ALPN_DETECT: Final = b"istio"
ALPN_OPAQUE: Final = b"sidecar-tcp"
# What an inbound listener serves. HTTP/2 is not served yet, so ``istio-h2`` is passed over for the ``istio`` behind it.
SERVED: Final = (ALPN_HTTP1, ALPN_DETECT, ALPN_OPAQUE, b"http/1.1")
MEMORY: Final = 512  # certificates
_OURS_OF_THEN: Final = "this proxy's certificate with which the connection began"
_CUT_AS: Final = {  # what ``certs.verify.recheck`` may refuse
    Refusal.REVOKED: Reason.REVOKED,
    Refusal.EXPIRED: Reason.CERTIFICATE_EXPIRED,
    Refusal.UNKNOWN_AUTHORITY: Reason.ROOT_WITHDRAWN,
    Refusal.UNKNOWN_TRUST_DOMAIN: Reason.ROOT_WITHDRAWN,
}
_log = logging.getLogger(__name__)


class Credentials(msgspec.Struct, frozen=True):
    """What an authority gave us, and whom to trust. ``chain`` is leaf first, without the root; times in seconds since
    the epoch, ``renew_at`` for people. The key is never shown, written or sent."""

    spiffe_id: SpiffeId
    chain: tuple[x509.Certificate, ...]
    key: PrivateKey
    bundles: Bundles
    not_after: float
    renew_at: float = 0.0

    def __repr__(self) -> str:
        return f"Credentials({self.spiffe_id}, until {self.not_after:.0f})"


class CredentialEpoch:
    """Credentials in use, with their contexts. ``leaving.active``: there is a newer one."""

    __slots__ = ("_client", "_server", "credentials", "leaving", "number")

    def __init__(self, number: int, credentials: Credentials) -> None:
        self.number = number
        self.credentials = credentials
        self.leaving = DrainState()
        self._server: dict[bool, SSL.Context] = {}
        self._client: SSL.Context | None = None

    def server(self, *, certificate_needed: bool = True) -> SSL.Context:
        """For those who connect to us. Where a certificate may be missing, only HTTP/1.1: no port of the mesh."""
        context = self._server.get(certificate_needed)
        if context is None:
            ours = self.credentials
            served = SERVED if certificate_needed else (b"http/1.1",)
            context = self._server[certificate_needed] = server_context(
                ours.chain, ours.key, self._roots(), served, certificate_needed=certificate_needed
            )
        return context

    def client(self) -> SSL.Context:
        """For those whom we call."""
        if self._client is None:
            ours = self.credentials
            self._client = client_context(ours.chain, ours.key, self._roots())
        return self._client

    def _roots(self) -> Sequence[x509.Certificate]:
        return [root for bundle in self.credentials.bundles for root in bundle.roots]


class Identity:
    """``connections`` are all connections of the process; ``clock`` the wall clock."""

    def __init__(self, connections: Iterable[Connection], clock: Callable[[], float] = time) -> None:
        self.generation: CredentialEpoch | None = None
        self.revocations = Revocations()
        self.renewals = 0  # certificates taken, the first among them
        self.cut = dict.fromkeys(IDENTITY_CUTS, 0)  # connections ended by a bad certificate
        self._connections = connections
        self._clock = clock
        self._memory = Memory(MEMORY)
        self._draining = False
        self._followers: list[Callable[[CredentialEpoch], None]] = []

    # -- fed ---------------------------------------------------------------------------------------------------------

    def install(self, credentials: Credentials) -> None:
        """From now on these; the contexts of what was before serve connections that are there."""
        before = self.generation
        self.generation = CredentialEpoch(before.number + 1 if before else 1, credentials)
        self.generation.leaving.active = self._draining
        self.renewals += 1
        if before is not None:
            before.leaving.active = True
            if before.credentials.bundles != credentials.bundles:
                self.recheck()
        for follower in self._followers:
            follower(self.generation)

    def revoke(self, revocations: Revocations) -> None:
        """From now on these are refused, and cut where they are connected."""
        self.revocations = revocations
        self.recheck()

    def follow(self, follower: Callable[[CredentialEpoch], None]) -> None:
        """Called with each new generation: pools let the connections of older ones go."""
        self._followers.append(follower)

    def drain(self) -> None:
        """The process ends: secured connections are told as others are."""
        self._draining = True
        if self.generation is not None:
            self.generation.leaving.active = True

    # -- asked -------------------------------------------------------------------------------------------------------

    @property
    def spiffe_id(self) -> SpiffeId | None:
        """Who we are; None before the first certificate."""
        return None if self.generation is None else self.generation.credentials.spiffe_id

    def require(self) -> CredentialEpoch:
        """What to use for a new connection. Raises ProxyError(NO_IDENTITY) where there is none, or it has ended."""
        generation = self.generation
        if generation is None:
            raise ProxyError(Reason.NO_IDENTITY, "this proxy has no certificate yet")
        if self._clock() >= generation.credentials.not_after:
            raise ProxyError(Reason.NO_IDENTITY, "this proxy's certificate has ended, and no new one has come")
        return generation

    def judge(
        self, generation: CredentialEpoch, expected: frozenset[SpiffeId] | None
    ) -> Callable[[Sequence[x509.Certificate]], Peer]:
        """What makes a Peer of a chain that OpenSSL verified: see ``certs.verify.verify_handshake``."""

        def judge(chain: Sequence[x509.Certificate]) -> Peer:
            return verify_handshake(
                chain,
                generation.credentials.bundles,
                self.revocations,
                self._clock(),
                expected=expected,
                memory=self._memory,
            )

        return judge

    # -- looked after ------------------------------------------------------------------------------------------------

    def recheck(self) -> None:
        """Ends connections whose peer is no longer good, or that our own certificate no longer carries. Called once a
        second, and whenever a list or a bundle has come."""
        generation = self.generation
        if generation is None:
            return
        now = self._clock()
        for connection in list(self._connections):
            if connection.secured is None or connection.overdue in CUTS:
                continue  # in plaintext; or cut before, and not given up yet
            found = self._fault(connection.secured, generation, now)
            if found is not None:
                self._cut(connection, *found)

    def _fault(self, secured: Secured, generation: CredentialEpoch, now: float) -> tuple[Reason, str] | None:
        """Why a connection may not go on: for machines and for people; None where it may."""
        if now >= generation.credentials.not_after:
            return Reason.CERTIFICATE_EXPIRED, "this proxy's own certificate has expired, and no new one has come"
        peer = secured.peer
        if peer is not None:
            try:
                recheck(peer, generation.credentials.bundles, self.revocations, now)
            except IdentityError as refused:
                return _CUT_AS[refused.reason], refused.detail
        if 0.0 < secured.ends <= now:
            whose = "the peer's certificate" if peer is not None and peer.not_after <= now else _OURS_OF_THEN
            return Reason.CERTIFICATE_EXPIRED, f"{whose} has expired"
        return None

    def _cut(self, connection: Connection, reason: Reason, why: str) -> None:
        self.cut[reason] += 1
        _log.warning("%s: cut: %s", connection.peer, why)
        connection.cut(reason, why)
