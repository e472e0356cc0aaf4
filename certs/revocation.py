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
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtensionOID

from certs import path
from certs.bundle import Bundle
from certs.errors import IdentityError, Refusal
from certs.facts import Facts, good_signature, read
from certs.pem import as_bytes
from certs.rules import judge_authorities, judge_dates

LIST_BYTES: Final = 4 * 1024 * 1024  # about 60,000 numbers
CLOCK_LEEWAY: Final = 300.0  # s that the authority's clock may be ahead of ours

_UNDERSTOOD: Final = frozenset({ExtensionOID.CRL_NUMBER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER})


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One authority's list. Times in seconds since the epoch.

    ``issuer_key`` is the SHA-256 of its public key (SubjectPublicKeyInfo), ``serials`` what it has revoked.
    """

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
        others = tuple(each for each in self.lists if each.issuer_key != newer.issuer_key)
        for each in self.lists:
            if each.issuer_key == newer.issuer_key and newer.number < each.number:
                raise IdentityError(Refusal.OLDER_LIST, f"list {newer.number}, and {each.number} is in use")
        return Revocations((*others, newer))

    def revokes(self, issuer_key: bytes, serial: int) -> bool:
        """Whether the authority with this key has taken this number back."""
        return any(each.issuer_key == issuer_key and serial in each.serials for each in self.lists)

    def overdue(self, now: float) -> bool:
        """Whether one of them is."""
        return any(each.overdue(now) for each in self.lists)


def read_crl(data: str | bytes, chain: Sequence[x509.Certificate], bundle: Bundle, now: float) -> RevocationList:
    """A list (one PEM block), signed by one of ``chain`` or by a root of ``bundle``.

    ``chain`` goes from an issuing certificate towards the root, as it is presented behind leaves. The signing one must
    have cRLSign, and lead to a root of the bundle as a peer's issuer would.

    Raises IdentityError: BAD_LIST (unreadable, too large, without number or next update, from the future, with critical
    extensions that we don't know: delta and partial lists), WEAK_SIGNATURE, BAD_SIGNATURE, UNKNOWN_AUTHORITY,
    NOT_AN_AUTHORITY (among others: no cRLSign), EXPIRED and the like for its authority.
    """
    crl = _load(as_bytes(data, LIST_BYTES, Refusal.BAD_LIST))
    authorities = _authorities(crl, chain, bundle)
    judge_authorities(authorities, bundle.trust_domain)
    judge_dates(authorities, now)
    signer = authorities[0]
    if signer.usage is None or not signer.usage.crl_sign:
        raise IdentityError(Refusal.NOT_AN_AUTHORITY, "a list whose signer has no cRLSign")
    found = _entries(crl, signer)
    if found.this_update > now + CLOCK_LEEWAY:
        raise IdentityError(Refusal.BAD_LIST, "a list from the future")
    return found


def _load(data: bytes) -> x509.CertificateRevocationList:
    if data.count(b"-----BEGIN") != 1:
        raise IdentityError(Refusal.BAD_LIST, "not exactly one PEM block")
    try:
        crl = x509.load_pem_x509_crl(data)
        strong = good_signature(crl.signature_algorithm_oid, crl.signature_hash_algorithm)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise _unreadable() from None
    if not strong:
        raise IdentityError(Refusal.WEAK_SIGNATURE, "a list that is not signed by ECDSA or RSA over SHA-2")
    return crl


def _authorities(crl: x509.CertificateRevocationList, chain: Sequence[x509.Certificate], bundle: Bundle) -> list[Facts]:
    """The signer, its issuer, ... to the root. Namesakes that have not signed it are passed over."""
    named = False
    for anchor in bundle.anchors.values():
        if anchor.subject == crl.issuer:
            named = True
            if _signed(crl, anchor):
                return [anchor]
    for place, certificate in enumerate(chain):
        facts = read(certificate)
        if facts.good_key and facts.subject == crl.issuer:
            named = True
            if _signed(crl, facts):
                return path.build(facts, chain[place + 1 :], bundle)
    if named:
        raise IdentityError(Refusal.BAD_SIGNATURE, "a list that its issuer has not signed")
    raise IdentityError(Refusal.UNKNOWN_AUTHORITY, "a list whose issuer is neither in the bundle nor in the chain")


def _signed(crl: x509.CertificateRevocationList, signer: Facts) -> bool:
    try:
        return crl.is_signature_valid(signer.certificate.public_key())  # type: ignore[arg-type]  # good_key says so
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _entries(crl: x509.CertificateRevocationList, signer: Facts) -> RevocationList:
    try:
        extensions = crl.extensions
        number = extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        critical = any(each.critical and each.oid not in _UNDERSTOOD for each in extensions)
        serials = set()
        for entry in crl:
            serials.add(entry.serial_number)
            critical = critical or any(each.critical for each in entry.extensions)
        this_update, next_update = crl.last_update_utc, crl.next_update_utc
    except (ValueError, TypeError, x509.DuplicateExtension, x509.ExtensionNotFound, x509.UnsupportedGeneralNameType):
        raise _unreadable() from None
    if critical:
        raise IdentityError(Refusal.BAD_LIST, "a list with critical extensions that we don't know")
    if next_update is None:
        raise IdentityError(Refusal.BAD_LIST, "a list that does not say when the next one comes")
    return RevocationList(signer.key_id, number, this_update.timestamp(), next_update.timestamp(), frozenset(serials))


def _unreadable() -> IdentityError:
    return IdentityError(Refusal.BAD_LIST, "no revocation list with a number that can be read")
