"""What a certificate says, read once and without judgement, within bounds on its size.

`cryptography` reads lazily and raises whatever it meets when it meets it; here everything that a rule will look at is
read at once, and whatever can't be read is IdentityError(UNREADABLE). The rules (``certs.rules``) then look at plain
values. Facts follow from a certificate's bytes alone, so they may be remembered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID

from certs.errors import IdentityError, Refusal

CERTIFICATE_BYTES: Final = 16 * 1024  # ours have about 500; OpenSSL takes 100 KiB for a whole chain
RSA_BITS: Final = range(2048, 8192 + 1)  # more only costs us time

Raw = bytes | x509.Certificate

_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_SHA2: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_SIGNATURES: Final = frozenset(
    {
        SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.ECDSA_WITH_SHA512,
        SignatureAlgorithmOID.RSA_WITH_SHA256,
        SignatureAlgorithmOID.RSA_WITH_SHA384,
        SignatureAlgorithmOID.RSA_WITH_SHA512,
        SignatureAlgorithmOID.RSASSA_PSS,
    }
)
_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    }
)
_BOTH_SIDES: Final = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}

E = TypeVar("E", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class Usage:
    """The keyUsage bits that a rule looks at."""

    digital_signature: bool
    cert_sign: bool
    crl_sign: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """A certificate's parts. Times in seconds since the epoch.

    ``both_sides`` is extendedKeyUsage: whether it lists clientAuth and serverAuth; None where there is none.
    ``good_key`` and ``good_signature`` are about kind and size. ``key_id`` is the SHA-256 of its public key, ``text``
    its subject as RFC 4514 has it.
    """

    certificate: x509.Certificate
    digest: bytes
    key_id: bytes
    subject: x509.Name
    issuer: x509.Name
    text: str
    serial: int
    not_before: float
    not_after: float
    uris: tuple[str, ...]
    authority: bool
    path_length: int | None
    usage: Usage | None
    both_sides: bool | None
    constraints: x509.NameConstraints | None
    understood: bool
    good_key: bool
    good_signature: bool


def read(raw: Raw) -> Facts:
    """The facts of a certificate (DER, or parsed). Raises IdentityError(UNREADABLE)."""
    if isinstance(raw, bytes) and len(raw) > CERTIFICATE_BYTES:
        raise _too_large()
    try:
        certificate = x509.load_der_x509_certificate(raw) if isinstance(raw, bytes) else raw
        if not isinstance(raw, bytes) and len(certificate.tbs_certificate_bytes) > CERTIFICATE_BYTES:
            raise _too_large()
        return _read(certificate)
    except (
        ValueError,
        TypeError,
        KeyError,  # the library's, before 50, for a string in a name whose tag is none that it knows
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
        CryptographyDeprecationWarning,  # where warnings are errors: a peer's bytes are no crash
    ):
        raise IdentityError(Refusal.UNREADABLE, "a certificate that can't be read as X.509") from None


def digest_of(raw: Raw) -> bytes:
    """The SHA-256 of the certificate's DER."""
    if isinstance(raw, bytes):
        digest = hashes.Hash(hashes.SHA256())
        digest.update(raw)
        return digest.finalize()
    return raw.fingerprint(hashes.SHA256())


def key_id_of(certificate: x509.Certificate) -> bytes:
    """The SHA-256 of its SubjectPublicKeyInfo."""
    return digest_of(certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _read(certificate: x509.Certificate) -> Facts:
    if certificate.serial_number <= 0:  # RFC 5280 section 4.1.2.2; the library only warns
        raise IdentityError(Refusal.UNREADABLE, "a certificate without a positive serial number")
    encoded, signature = certificate.public_bytes(Encoding.DER), certificate.signature
    if encoded[-len(signature) - 1]:  # the signature's bit string has unused bits, which nothing covers
        raise IdentityError(Refusal.UNREADABLE, "a certificate whose signature is not whole octets")
    extensions = certificate.extensions
    names = _find(extensions, x509.SubjectAlternativeName)
    basic = _find(extensions, x509.BasicConstraints)
    usage = _find(extensions, x509.KeyUsage)
    purposes = _find(extensions, x509.ExtendedKeyUsage)
    return Facts(
        certificate=certificate,
        digest=digest_of(certificate),
        key_id=key_id_of(certificate),
        subject=certificate.subject,
        issuer=certificate.issuer,
        text=certificate.subject.rfc4514_string(),
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        uris=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) if names else (),
        authority=bool(basic and basic.ca),
        path_length=basic.path_length if basic else None,
        usage=Usage(usage.digital_signature, usage.key_cert_sign, usage.crl_sign) if usage else None,
        both_sides=None if purposes is None else set(purposes) >= _BOTH_SIDES,
        constraints=_find(extensions, x509.NameConstraints),
        understood=_understood(extensions),
        good_key=good_key(certificate.public_key()),
        good_signature=good_signature(certificate.signature_algorithm_oid, certificate.signature_hash_algorithm),
    )


def good_key(key: object) -> bool:
    """Whether a key of this kind and size may sign: ECDSA on a NIST curve, RSA of 2048 bits or more."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, _CURVES)
    return isinstance(key, rsa.RSAPublicKey) and key.key_size in RSA_BITS


def good_signature(algorithm: x509.ObjectIdentifier, digest: hashes.HashAlgorithm | None) -> bool:
    """Whether the signature is ECDSA or RSA over SHA-2."""
    return algorithm in _SIGNATURES and isinstance(digest, _SHA2)


def _understood(extensions: Iterable[x509.Extension[x509.ExtensionType]]) -> bool:
    return all(extension.oid in _UNDERSTOOD for extension in extensions if extension.critical)


def _find(extensions: x509.Extensions, kind: type[E]) -> E | None:
    for extension in extensions:
        if isinstance(extension.value, kind):
            return extension.value
    return None


def _too_large() -> IdentityError:
    return IdentityError(Refusal.UNREADABLE, f"a certificate of more than {CERTIFICATE_BYTES} bytes")
