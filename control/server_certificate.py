"""The control plane's own certificate, for the port of sidecars: issued by the authority behind it. Part of the
composition root, as it imports the proxy's identity, and that OpenSSL.

Who calls it: ``control.tls_front``. The chain ends with the root, by which a client that has nothing but a token knows
us. It is made anew at half of its life, and at once when another root issues or the bundle has changed: tokens that are
made from then on name the new root. Every renewal has a new key, which never leaves the memory. What is revoked comes
from the authority as well, and is refused in the handshake, or cut.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from certs import keys, pem
from certs.bundle import Bundle, Bundles
from certs.errors import IdentityError
from certs.revocation import Revocations, read_crl
from control.certificate_authority import RETRY_SECONDS, Authority
from control.store import StoreFailed
from sidecar.identity import Credentials, Identity

SOONEST_SECONDS: Final = 0.5  # where little is left, as when the authority's own certificate ends
_log = logging.getLogger(__name__)


class ServerCertificate:
    """Keeps ``identity`` supplied: with our own certificate, the bundle, and what is revoked."""

    def __init__(self, authority: Authority, identity: Identity, clock: Callable[[], float]) -> None:
        self._authority = authority
        self._identity = identity
        self._clock = clock
        self._issuer: object = None
        self._roots = ""
        self._renew_at = 0.0
        self._lists: object = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            changed = self._authority.lists.changed
            try:
                await self._look()
                due = self._renew_at
            except (StoreFailed, IdentityError, OSError) as error:  # also: the authority's own certificate has ended
                _log.error("--tls-listen: no new certificate, tried again in %g s: %s", RETRY_SECONDS, error)
                due = self._clock() + RETRY_SECONDS
            with trio.move_on_after(max(0.0, due - self._clock())):
                await changed.wait()

    async def _look(self) -> None:
        authority = self._authority
        other = authority.issuer is not self._issuer or authority.bundle.value != self._roots
        if other or self._clock() >= self._renew_at:
            await self.renew()
        if authority.lists.value is not self._lists:
            self._take_lists()

    async def renew(self) -> None:
        """A new key and a certificate for it. Raises what the store raises; the old one serves until it ends."""
        authority, key, issuer = self._authority, keys.new_key(), self._authority.issuer
        granted = await authority.issue_own(key.public_key())
        bundle = Bundle.from_pem(authority.control_id.trust_domain, granted.roots)
        now = self._clock()
        self._issuer, self._roots = issuer, granted.roots
        self._renew_at = now + max(SOONEST_SECONDS, (granted.expires - now) / 2)
        self._identity.install(
            Credentials(
                authority.control_id, pem.from_pem(granted.chain), key, Bundles.of(bundle), granted.expires,
                self._renew_at,
            )
        )  # fmt: skip

    def _take_lists(self) -> None:
        authority = self._authority
        signed = self._lists = authority.lists.value
        bundle = Bundle.from_pem(authority.control_id.trust_domain, authority.bundle.value)
        try:
            found = [read_crl(each.crl, pem.from_pem(each.chain), bundle, self._clock()) for each in signed]
        except IdentityError as error:
            _log.error("the authority's own list can't be taken here: %s; the last ones stay", error.detail)
            return
        self._identity.revoke(Revocations(tuple(found)))
