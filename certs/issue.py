"""What an authority signs: its own certificates, leaves, and the list of what it takes back.

All times are seconds since the epoch; certificates have whole seconds, and ends are rounded down. Serial numbers come
from ``keys.new_serial`` and are arguments, so that the caller can write down what it is about to issue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from certs.keys import PrivateKey, PublicKey
from certs.spiffe import SpiffeId

BACKDATE: Final = 300.0  # s, for clocks that are behind ours (mesh contract)


@dataclass(frozen=True, slots=True)
class Issuer:
    """An authority that can sign. ``chain``: its own certificate first, then its issuers, the root last.

    Its own certificate is the root where the chain has one element. ``repr`` never shows the key.
    """

    chain: tuple[x509.Certificate, ...]
    key: PrivateKey

    @property
    def certificate(self) -> x509.Certificate:
        """Its own certificate."""
        return self.chain[0]

    @property
    def root(self) -> x509.Certificate:
        """The certificate that bundles hold."""
        return self.chain[-1]

    @property
    def intermediates(self) -> tuple[x509.Certificate, ...]:
        """What a leaf's holder presents behind the leaf: the chain without the root."""
        return self.chain[:-1]

    @property
    def not_after(self) -> float:
        """When the first certificate of its chain ends."""
        raise NotImplementedError


def open_issuer(chain: Iterable[x509.Certificate], key: PrivateKey, now: float) -> Issuer:
    """An authority that was brought or stored. ``chain`` from its own certificate to the root, in order.

    Raises IdentityError with a sentence that fits a command line's error: NO_CERTIFICATE, BAD_KEY (the key is not the
    first certificate's), NOT_AN_AUTHORITY, BAD_SIGNATURE, UNKNOWN_AUTHORITY (the last one is not self-signed),
    EXPIRED, NOT_YET_VALID, PATH_LENGTH and what else is wrong with one of them.
    """
    raise NotImplementedError


def new_root(trust_domain: str, key: PrivateKey, serial: int, now: float, lifetime: float) -> Issuer:
    """A new root, which is its own issuer: path length 1, the trust domain's id as URI SAN."""
    raise NotImplementedError


def new_intermediate(root: Issuer, key: PrivateKey, serial: int, now: float, lifetime: float) -> Issuer:
    """An authority under ``root`` that issues leaves alone (path length 0), in the same trust domain.

    It never outlives the root. Raises IdentityError(EXPIRED, PATH_LENGTH).
    """
    raise NotImplementedError


def leaf(
    issuer: Issuer, public_key: PublicKey, spiffe_id: SpiffeId, serial: int, now: float, ttl: float
) -> x509.Certificate:
    """A workload's certificate, or the control plane's own.

    Empty subject; critical: SAN (the one URI), basicConstraints (CA false), keyUsage (digitalSignature);
    extendedKeyUsage of both sides, and key identifiers. It begins BACKDATE before now and ends after ``ttl``, and never
    before the issuer's beginning or after its end.

    Raises IdentityError: EXPIRED (the issuer has ended), BAD_KEY (the issuer's own key), BAD_SPIFFE_ID (an id without
    a path), UNKNOWN_TRUST_DOMAIN (the issuer's certificate names another trust domain).
    """
    raise NotImplementedError


def crl(issuer: Issuer, revoked: Mapping[int, float], now: float, number: int, next_update: float) -> str:
    """The issuer's revocation list in PEM: ``revoked`` is serial number -> when it was revoked.

    ``number`` only rises; a reader refuses a lower one. ``next_update`` is when the reader shall begin to complain that
    there is none newer.
    """
    raise NotImplementedError
