"""Who a peer is.

Two ways in, which judge by the same rules and differ in who checked the signatures:

- :func:`verify_handshake` after a TLS handshake, with the chain that OpenSSL *verified* (never the one that the peer
  presented). It repeats every rule but the signatures.
- :func:`verify_peer` for everything else (a certificate in a request or a file): the chain as presented, signatures
  included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509

from certs.bundle import Bundles
from certs.revocation import Revocations
from certs.spiffe import SpiffeId

Presented = Sequence[bytes | x509.Certificate]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who was verified, and by what. Times in seconds since the epoch, fingerprints SHA-256 in lower-case hex."""

    spiffe_id: SpiffeId
    fingerprint: str  # of the leaf
    subject: str  # RFC 4514; empty for leaves of our own authority
    serial: int
    not_after: float  # the earliest end in its chain: the connection ends before it
    root: str  # fingerprint
    path: tuple[tuple[bytes, int], ...]  # (issuer's key as in RevocationList, serial) of each but the root


class Memory:
    """What accepted certificates say, kept for the next handshake: a bounded memory of the last ``size`` of them.

    It keeps what follows from a certificate's bytes alone (its parts, who signed it); dates, revocation, bundle and
    who is expected are judged anew each time. Only what was accepted enters it, so that nobody can flush it without a
    good certificate. Not for two threads at once.
    """

    def __init__(self, size: int = 1024) -> None:
        raise NotImplementedError


def verify_peer(
    chain: Presented,
    bundles: Bundles,
    crls: Revocations,
    now: float,
    *,
    expected: frozenset[SpiffeId] | None,
    memory: Memory | None = None,
) -> Peer:
    """The peer whose leaf is first in ``chain``, each certificate followed by its issuer; roots are found in the bundle.

    ``expected`` None takes anyone of a trusted domain; an empty set takes nobody. Raises IdentityError with what is
    wrong, in this order: the leaf's own form, its trust domain, signatures, authorities, dates, revocation, expected.
    """
    raise NotImplementedError


def verify_handshake(
    verified: Presented,
    bundles: Bundles,
    crls: Revocations,
    now: float,
    *,
    expected: frozenset[SpiffeId] | None,
    memory: Memory | None = None,
) -> Peer:
    """As :func:`verify_peer`, for the chain that OpenSSL verified in this handshake: leaf first, root last.

    ``Connection.get_verified_chain(as_cryptography=True)``; None there means close. The root must be in the bundle of
    the leaf's own trust domain (a Context has one store for all domains). Signatures are not checked again.
    """
    raise NotImplementedError


def leaf_rules(certificate: bytes | x509.Certificate) -> SpiffeId:
    """The id of a certificate that may be a leaf: its form alone, no dates, no chain. For our own, before it is used.

    Raises IdentityError: UNREADABLE, URI_SANS, BAD_SPIFFE_ID, NOT_A_LEAF, BAD_KEY_USAGE, BAD_EXTENDED_KEY_USAGE,
    UNKNOWN_CRITICAL, BAD_KEY, WEAK_SIGNATURE.
    """
    raise NotImplementedError


def recheck(peer: Peer, bundles: Bundles, crls: Revocations, now: float) -> None:
    """Whether a peer that was verified earlier still is one: for open connections when a list, a bundle or time changes.

    Raises IdentityError: EXPIRED, REVOKED, UNKNOWN_TRUST_DOMAIN, UNKNOWN_AUTHORITY (its root is no longer trusted).
    """
    raise NotImplementedError


def check_own(chain: Presented, public_key: object, expected: SpiffeId, bundles: Bundles, now: float) -> Peer:
    """A certificate that the authority has answered us with (TLS-16): for ``expected``, for our key, good now.

    Raises IdentityError as :func:`verify_peer`, BAD_KEY (not for ``public_key``), NO_CERTIFICATE (an empty chain).
    """
    raise NotImplementedError
