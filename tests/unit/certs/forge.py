"""Certificates with any fault that a test asks for: what our own authority would never sign."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = 1_800_000_000.0
DAY = 86_400.0
BOTH = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")


@cache
def key(name: str) -> Any:
    """A key for each name, made once: by its first word P-256, or what the word says."""
    match name.split()[0]:
        case "rsa1024":
            return rsa.generate_private_key(65537, 1024)
        case "rsa2048":
            return rsa.generate_private_key(65537, 2048)
        case "p224":
            return ec.generate_private_key(ec.SECP224R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case _:
            return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Spec:
    """A certificate to be made. ``usage`` are the keyUsage bits that are set; None leaves the extension out."""

    name: str
    key: str
    uris: tuple[str, ...] = ()
    ca: bool | None = False
    path_length: int | None = None
    usage: tuple[str, ...] | None = ("digital_signature",)
    purposes: tuple[x509.ObjectIdentifier, ...] | None = BOTH
    begin: float = NOW - 300
    end: float = NOW + DAY
    more: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    digest: hashes.SHA224 | hashes.SHA256 = field(default_factory=hashes.SHA256)
    serial: int = 0

    def but(self, **changes: Any) -> Spec:
        return replace(self, **changes)


LEAF = Spec("", "leaf", ("spiffe://cluster.local/ns/default/sa/web",), serial=3)
AUTHORITY = ("key_cert_sign", "crl_sign")
MIDDLE = Spec("middle", "middle", ("spiffe://cluster.local",), True, 0, AUTHORITY, None, serial=2)
ROOT = Spec("root", "root", ("spiffe://cluster.local",), True, 1, AUTHORITY, None, serial=1)


def subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])


def make(spec: Spec, issuer: Spec, signer: str | None = None) -> x509.Certificate:
    """The certificate, signed with the issuer's key, or with the one of the name ``signer``."""
    builder = x509.CertificateBuilder(
        issuer_name=subject(issuer.name),
        subject_name=subject(spec.name),
        public_key=key(spec.key).public_key(),
        serial_number=spec.serial or x509.random_serial_number(),
        not_valid_before=datetime.fromtimestamp(spec.begin, UTC),
        not_valid_after=datetime.fromtimestamp(spec.end, UTC),
    )
    if spec.uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in spec.uris])
        builder = builder.add_extension(names, critical=not spec.name)
    if spec.ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(spec.ca, spec.path_length), critical=True)
    if spec.usage is not None:
        builder = builder.add_extension(usage(*spec.usage), critical=True)
    if spec.purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(spec.purposes), critical=False)
    for extension, critical in spec.more:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key(signer or issuer.key), spec.digest)


def usage(*bits: str) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in bits for name in names})


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def self_signed(spec: Spec) -> x509.Certificate:
    return make(spec, spec)
