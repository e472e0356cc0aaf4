"""Who is calling: the peer at the door and the token that it shows -> a caller with one role, or a refusal.

Who calls it: ``control.middleware``, before anything else is looked at. In order: what the door says must hold
together; a token that is shown decides alone (a bad one is refused even where the certificate is good); else the
certificate does; else the caller has no identity. An identity that is revoked, or whose certificate is, counts as none,
however it came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from certs import spiffe
from certs.errors import IdentityError
from certs.spiffe import SpiffeId
from control import token_store
from control.api_trust import Peer
from control.issued_certificates import Ledger
from control.kubernetes_tokens import Reviewer
from control.problems import unauthenticated
from control.routes import Role
from control.token_store import StoredToken, TokenStore

TOKEN_CHARS: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who proved who it is.

    ``name`` stands in the audit log and is what limits count by; ``key`` tells replicas of one identity apart where
    their certificates do. ``identity`` is there for workloads, and for them alone.
    """

    role: Role
    name: str
    key: str
    identity: SpiffeId | None = None
    held: StoredToken | None = None


class Callers:
    """Knows everyone. ``reviewer`` judges Kubernetes' tokens, where they are taken at all."""

    def __init__(
        self,
        tokens: TokenStore,
        ledger: Ledger,
        control_id: SpiffeId,
        reviewer: Reviewer | None,
        clock: Callable[[], float],
    ) -> None:
        self._tokens = tokens
        self._ledger = ledger
        self._control_id = control_id
        self._reviewer = reviewer
        self._clock = clock

    async def identify(self, peer: Peer, authorization: list[str]) -> Caller:
        """The caller, or Refused. ``authorization`` are the fields of that name."""
        if peer.bad:
            raise unauthenticated(peer.bad)
        caller = await self._by_token(authorization, peer.address) if authorization else self._by_certificate(peer)
        if caller.identity is not None:
            self._check(caller.identity)
        return caller

    async def _by_token(self, authorization: list[str], address: str) -> Caller:
        scheme, _, text = authorization[0].partition(" ")
        if len(authorization) != 1 or scheme.lower() != "bearer" or not 0 < len(text) <= TOKEN_CHARS:
            raise unauthenticated("authorization is not one bearer token")
        if token_store.looks_like_ours(text):
            held = await self._tokens.check(text, self._clock())
            name = f"token:{held.token.id}"
            return Caller(held.role, name, name, held.spiffe_id(self._control_id.trust_domain), held)
        if self._reviewer is None:
            raise unauthenticated("not a token of ours, and no others are taken")
        namespace, account = await self._reviewer.review(text, self._clock(), address)
        identity = self._workload(namespace, account)
        return Caller(Role.WORKLOAD, str(identity), str(identity), identity)

    def _by_certificate(self, peer: Peer) -> Caller:
        if peer.identity is None:
            raise unauthenticated("neither a token nor a certificate")
        if self._ledger.revoked_certificate(peer.fingerprint):
            raise unauthenticated("its certificate is revoked")
        if peer.identity.workload() is None:
            raise unauthenticated("its certificate is not a workload's")
        return Caller(Role.WORKLOAD, str(peer.identity), peer.fingerprint, peer.identity)

    def _workload(self, namespace: str, account: str) -> SpiffeId:
        try:
            return spiffe.workload(self._control_id.trust_domain, namespace, account)
        except IdentityError as error:
            raise unauthenticated(str(error)) from None

    def _check(self, identity: SpiffeId) -> None:
        if identity.trust_domain != self._control_id.trust_domain:
            raise unauthenticated("it is of another trust domain")
        if identity == self._control_id:
            raise unauthenticated("the control plane's own identity is no workload's")
        if self._ledger.blocked(identity):
            raise unauthenticated("its identity is revoked")
