"""Revocation lists: what an authority has taken back.

A list is read and its signature checked once, when it comes; a handshake only looks a number up. It is known by the
key that signed it, not by the issuer's name: two authorities may share a name (an old root and a new one), and the
serial numbers of one say nothing about the other.

**A list that is overdue** (its next update has passed) **goes on being used.** Dropping it would set the revoked free;
refusing everybody would make the control plane's outage everyone's. So the proxy keeps the last one, says so in its
log and in a metric, and the short life of leaves bounds the harm. Unreadable or older lists are refused by whoever
reads them, and the last one stays likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509

from certs.bundle import Bundle


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One authority's list. ``issuer_key`` is the SHA-256 of its public key (SubjectPublicKeyInfo), ``serials`` are
    what it has revoked; times in seconds since the epoch."""

    issuer_key: bytes
    number: int
    this_update: float
    next_update: float
    serials: frozenset[int]

    def overdue(self, now: float) -> bool:
        """Whether a newer one should be there. It is used all the same; warn."""
        return now > self.next_update


@dataclass(frozen=True, slots=True)
class Revocations:
    """The lists of all authorities. The empty one revokes nothing."""

    lists: tuple[RevocationList, ...] = ()

    def replaced(self, newer: RevocationList) -> Revocations:
        """These, with this list in place of its authority's. Raises IdentityError(OLDER_LIST): a lower number."""
        raise NotImplementedError

    def revokes(self, issuer_key: bytes, serial: int) -> bool:
        """Whether the authority with this key has taken this number back."""
        raise NotImplementedError

    def overdue(self, now: float) -> bool:
        """Whether one of them is."""
        raise NotImplementedError


def read_crl(data: str | bytes, chain: Sequence[x509.Certificate], bundle: Bundle, now: float) -> RevocationList:
    """A list (PEM) and the ``chain`` of its authority, from the signing certificate up; a root of the bundle needs none.

    The signing certificate is found among ``chain`` and the roots of ``bundle``, must have cRLSign, and must lead to a
    root of the bundle as a peer's would.

    Raises IdentityError: BAD_LIST (unreadable, too large, without number or next update, from the future, with critical
    extensions that we don't know: delta and partial lists), UNKNOWN_AUTHORITY, BAD_SIGNATURE, WEAK_SIGNATURE,
    NOT_AN_AUTHORITY, EXPIRED and the like for its authority.
    """
    raise NotImplementedError
