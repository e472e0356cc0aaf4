"""What an authority signs: its own certificates, leaves, and the list of what it takes back.

All times are seconds since the epoch; certificates have whole seconds, and ends are rounded down. Serial numbers come
from ``keys.new_serial`` and are arguments, so that the caller can write down what it is about to issue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs import pem
from certs.errors import IdentityError, Refusal
from certs.facts import Facts, read
from certs.keys import PrivateKey, PublicKey
from certs.path import check_signed
from certs.rules import judge_authorities, judge_dates
from certs.spiffe import SCHEME, SpiffeId, parse

BACKDATE: Final = 300.0  # s, for clocks that are behind ours (mesh contract)

_NOBODY: Final = x509.Name([])
_PURPOSES: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])


@dataclass(frozen=True, slots=True)
class Issuer:
    """An authority that can sign. ``chain``: its own certificate first, then its issuers, the root last.

    Its own certificate is the root where the chain has one element. ``repr`` never shows the key.
    """

    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False)

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
    def not_before(self) -> float:
        """When the last certificate of its chain begins."""
        return max(each.not_valid_before_utc.timestamp() for each in self.chain)

    @property
    def not_after(self) -> float:
        """When the first certificate of its chain ends."""
        return min(each.not_valid_after_utc.timestamp() for each in self.chain)

    def to_pem(self) -> str:
        """The chain, a block each; the key is not in it."""
        return pem.to_pem(self.chain)


def open_issuer(
    chain: Iterable[x509.Certificate], key: PrivateKey, now: float, *, trust_domain: str | None = None
) -> Issuer:
    """An authority that was brought or stored. ``chain`` from its own certificate to the root, in order.

    ``trust_domain``: the one in which it shall issue. None takes it for the one that its certificate names.

    Raises IdentityError with a sentence that fits a command line's error: NO_CERTIFICATE, BAD_KEY (the key is not the
    first certificate's), NOT_AN_AUTHORITY, BAD_SIGNATURE, UNKNOWN_AUTHORITY (the last one is not self-signed),
    EXPIRED, NOT_YET_VALID, PATH_LENGTH, NAME_CONSTRAINTS, UNKNOWN_TRUST_DOMAIN (it is another domain's), and what else
    is wrong with one of them.
    """
    path = [read(certificate) for certificate in chain]
    if not path:
        raise IdentityError(Refusal.NO_CERTIFICATE, "no certificate of the authority")
    if path[0].certificate.public_key() != key.public_key():
        raise IdentityError(Refusal.BAD_KEY, "the key is not that of the authority's first certificate")
    named = _domain_of(path[0])
    domain = trust_domain or (named.trust_domain if named else "")
    judge_authorities(path, domain)
    for child, issuer in pairwise(path):
        check_signed(child, issuer)
    if path[-1].subject != path[-1].issuer:
        raise IdentityError(Refusal.UNKNOWN_AUTHORITY, "the last certificate is no root; add its issuers, in order")
    check_signed(path[-1], path[-1])
    judge_dates(path, now)
    if trust_domain is not None:
        _check_domain(path[0], trust_domain)
    if path[0].usage is None or not path[0].usage.crl_sign:
        raise IdentityError(
            Refusal.NOT_AN_AUTHORITY, "the authority's certificate has no cRLSign, and could not revoke"
        )
    return Issuer(tuple(facts.certificate for facts in path), key)


def new_root(trust_domain: str, key: PrivateKey, serial: int, now: float, lifetime: float) -> Issuer:
    """A new root, which is its own issuer: path length 1, the trust domain's id as URI SAN.

    It begins BACKDATE before now. Its name has a part of its key's digest, so that two roots never share one.
    """
    name = _name("root", key)
    builder = _builder(name, name, key.public_key(), serial, now - BACKDATE, now + lifetime)
    builder = _as_authority(builder, SpiffeId(trust_domain), key.public_key(), path_length=1)
    return Issuer((builder.sign(key, hashes.SHA256()),), key)


def new_intermediate(root: Issuer, key: PrivateKey, serial: int, now: float, lifetime: float) -> Issuer:
    """An authority under ``root`` that issues leaves alone (path length 0), in the same trust domain.

    It never outlives the root. Raises IdentityError: EXPIRED, PATH_LENGTH (``root`` may have no authority below it),
    UNKNOWN_TRUST_DOMAIN (a root that names none).
    """
    facts = read(root.certificate)
    if facts.path_length == 0:
        raise IdentityError(Refusal.PATH_LENGTH, "this authority may have no other below it")
    spiffe_id = _domain_of(facts)
    if spiffe_id is None:
        raise IdentityError(Refusal.UNKNOWN_TRUST_DOMAIN, "an authority that names no trust domain")
    begin, end = _span(root, now, lifetime)
    builder = _builder(_name("issuer", key), root.certificate.subject, key.public_key(), serial, begin, end)
    builder = _as_authority(builder, spiffe_id, root.key.public_key(), path_length=0)
    return Issuer((builder.sign(root.key, hashes.SHA256()), *root.chain), key)


def leaf(
    issuer: Issuer, public_key: PublicKey, spiffe_id: SpiffeId, serial: int, now: float, ttl: float
) -> x509.Certificate:
    """A workload's certificate, or the control plane's own.

    Empty subject; critical: SAN (the one URI), basicConstraints (CA false), keyUsage (digitalSignature);
    extendedKeyUsage of both sides, and key identifiers. It begins BACKDATE before now and ends after ``ttl``, and never
    before the issuer's beginning or after its end.

    Raises IdentityError: EXPIRED (the issuer has ended), NOT_YET_VALID (it has not begun), BAD_KEY (the issuer's own
    key), BAD_SPIFFE_ID (an id without a path), UNKNOWN_TRUST_DOMAIN (the issuer's certificate names another one).
    """
    if not spiffe_id.path:
        raise IdentityError(Refusal.BAD_SPIFFE_ID, "a leaf's id has a path")
    if public_key == issuer.key.public_key():
        raise IdentityError(Refusal.BAD_KEY, "a leaf with its issuer's own key")
    _check_domain(read(issuer.certificate), spiffe_id.trust_domain)
    begin, end = _span(issuer, now, ttl)
    name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))])
    builder = _builder(_NOBODY, issuer.certificate.subject, public_key, serial, begin, end)
    builder = (
        builder.add_extension(name, critical=True)  # critical where the subject is empty (RFC 5280 section 4.2.1.6)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(_PURPOSES, critical=False)
        .add_extension(_authority_key(issuer), critical=False)
    )
    return builder.sign(issuer.key, hashes.SHA256())


def crl(issuer: Issuer, revoked: Mapping[int, float], now: float, number: int, next_update: float) -> str:
    """The issuer's revocation list in PEM: ``revoked`` is serial number -> when it was revoked.

    ``number`` only rises; a reader refuses a lower one. ``next_update`` is when the reader shall begin to complain that
    there is none newer. A number stays on the list until its certificate has expired.
    """
    entries = [
        x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_date(when)).build()
        for serial, when in revoked.items()
    ]
    builder = (  # given as a list: added one by one, each would copy those before it
        x509.CertificateRevocationListBuilder(revoked_certificates=entries)
        .issuer_name(issuer.certificate.subject)
        .last_update(_date(now))
        .next_update(_date(next_update))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_key(issuer), critical=False)
    )
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode("ascii")


def _span(issuer: Issuer, now: float, lifetime: float) -> tuple[float, float]:
    if now >= issuer.not_after:
        raise IdentityError(Refusal.EXPIRED, "the authority's own certificate has expired")
    if now < issuer.not_before:
        raise IdentityError(Refusal.NOT_YET_VALID, "the authority's own certificate is not valid yet")
    return max(now - BACKDATE, issuer.not_before), min(now + lifetime, issuer.not_after)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, serial: int, begin: float, end: float
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(issuer, subject, key, serial, _date(begin), _date(end)).add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key), critical=False
    )


def _as_authority(
    builder: x509.CertificateBuilder, spiffe_id: SpiffeId, issuer_key: PublicKey, *, path_length: int
) -> x509.CertificateBuilder:
    name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))])
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(name, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    """By the identifier that the issuer's certificate has, which a brought one may have made in its own way."""
    try:
        own = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _domain_of(authority: Facts) -> SpiffeId | None:
    return next((parse(uri) for uri in authority.uris if uri.startswith(SCHEME)), None)


def _check_domain(authority: Facts, trust_domain: str) -> None:
    """An authority that names a trust domain issues in no other; a brought one may name none."""
    own = _domain_of(authority)
    if own is not None and own.trust_domain != trust_domain:
        raise IdentityError(
            Refusal.UNKNOWN_TRUST_DOMAIN, f"the authority is that of {own.trust_domain}, not of {trust_domain}"
        )


def _name(what: str, key: PrivateKey) -> x509.Name:
    """The trust domain is in the SAN: a name's parts end at 64 characters."""
    digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"mesh {what} {digest[:16]}")])


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
