"""Certificates of peers that lie, for handshakes of today: what ``forge`` makes, as papers, and what each is refused
for.

The honest chain is root, intermediate and leaf of ``cluster.local``; each fault is one change to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import time

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.papers import Papers
from tests.unit.certs.forge import DAY, LEAF, MIDDLE, ROOT, UNKNOWN, Spec, key, make, self_signed

_NOW = time()
_TODAY = {"begin": _NOW - 600, "end": _NOW + DAY}
CALLER = LEAF.but(uris=("spiffe://cluster.local/ns/shop/sa/caller",), **_TODAY)
WEB = LEAF.but(uris=("spiffe://cluster.local/ns/shop/sa/web",), **_TODAY)
_MIDDLE = MIDDLE.but(**_TODAY)
_ROOT = ROOT.but(**_TODAY)
_STRANGE_ROOT = _ROOT.but(key="strange root")

Chain = Callable[[Spec], list[x509.Certificate]]


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def roots_file(directory: Path) -> Path:
    path = directory / "forged-root.pem"
    path.write_bytes(pem(self_signed(_ROOT)))
    return path


def papers(directory: Path, name: str, spec: Spec, chain: list[x509.Certificate]) -> Papers:
    """A chain and its leaf's key as files."""
    stem = directory / name
    secret, shown = stem.with_suffix(".key"), stem.with_suffix(".pem")
    secret.write_bytes(key(spec.key).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    shown.write_bytes(pem(*chain))
    return Papers(spec.uris[0] if spec.uris else "", secret, shown, roots_file(directory))


def honest(leaf: Spec) -> list[x509.Certificate]:
    return [make(leaf, _MIDDLE), make(_MIDDLE, _ROOT)]


@dataclass(frozen=True)
class Fault:
    """``leaf`` changes the honest leaf, ``chain`` how it is signed; ``rules`` are the words that it may be refused
    with."""

    id: str
    name: str
    rules: tuple[str, ...]
    leaf: Callable[[Spec], Spec] = lambda spec: spec
    chain: Chain = honest

    def __str__(self) -> str:
        return f"{self.id}-{self.name}"


def _by_another(leaf: Spec) -> list[x509.Certificate]:
    return [make(leaf, _MIDDLE), make(_MIDDLE, _STRANGE_ROOT)]


def _ids(*ids: str) -> Callable[[Spec], Spec]:
    return lambda spec: spec.but(uris=ids)


def _usage(*bits: str) -> Callable[[Spec], Spec]:
    return lambda spec: spec.but(usage=bits)


def _purpose(one: x509.ObjectIdentifier) -> Callable[[Spec], Spec]:
    return lambda spec: spec.but(purposes=(one,))


_ANY = ("unknown_authority", "bad_signature")
_ID = ("bad_spiffe_id", "uri_sans")
_DOMAIN_256 = "a" * 256

FAULTS: list[Fault] = [
    Fault("TLS-2", "self-signed", _ANY, chain=lambda leaf: [self_signed(leaf)]),
    Fault("TLS-2", "other CA", _ANY, chain=_by_another),
    Fault("TLS-2", "no intermediate", _ANY, chain=lambda leaf: [make(leaf, _MIDDLE)]),
    Fault("TLS-2", "expired", ("expired",), lambda spec: spec.but(begin=_NOW - DAY, end=_NOW - 60)),
    Fault("TLS-2", "not yet valid", ("not_yet_valid",), lambda spec: spec.but(begin=_NOW + 3600)),
    Fault(
        "TLS-2", "wrong signature", _ANY, chain=lambda leaf: [make(leaf, _MIDDLE, "someone"), make(_MIDDLE, _ROOT)]
    ),
    Fault("TLS-2", "unknown critical extension", ("unknown_critical",), lambda spec: spec.but(more=((UNKNOWN, True),))),
    Fault("TLS-2", "a leaf as issuer", ("not_an_authority", *_ANY), chain=lambda leaf: [
        make(leaf.but(serial=9), leaf.but(name="leaf", key="leaf")), make(leaf.but(name="leaf"), _MIDDLE),
        make(_MIDDLE, _ROOT),
    ]),
    Fault("TLS-3", "no URI", ("uri_sans",), _ids()),
    Fault("TLS-3", "two URIs", ("uri_sans",), lambda spec: spec.but(uris=(*spec.uris, "spiffe://cluster.local/ns/x/sa/y"))),
    Fault("TLS-3", "the same URI twice", ("uri_sans",), lambda spec: spec.but(uris=spec.uris * 2)),
    Fault("TLS-4", "scheme in capitals", _ID, _ids("Spiffe://cluster.local/ns/shop/sa/web")),
    Fault("TLS-4", "domain in capitals", (*_ID, "unknown_trust_domain"), _ids("spiffe://Cluster.local/ns/shop/sa/web")),
    Fault("TLS-4", "port", _ID, _ids("spiffe://cluster.local:80/ns/shop/sa/web")),
    Fault("TLS-4", "userinfo", _ID, _ids("spiffe://me@cluster.local/ns/shop/sa/web")),
    Fault("TLS-4", "two slashes", _ID, _ids("spiffe://cluster.local/ns//sa/web")),
    Fault("TLS-4", "one dot", _ID, _ids("spiffe://cluster.local/ns/./sa/web")),
    Fault("TLS-4", "two dots", _ID, _ids("spiffe://cluster.local/ns/../sa/web")),
    Fault("TLS-4", "slash at the end", _ID, _ids("spiffe://cluster.local/ns/shop/sa/web/")),
    Fault("TLS-4", "percent", _ID, _ids("spiffe://cluster.local/ns/shop/sa/%77eb")),
    Fault("TLS-4", "query", _ID, _ids("spiffe://cluster.local/ns/shop/sa/web?a=b")),
    Fault("TLS-4", "fragment", _ID, _ids("spiffe://cluster.local/ns/shop/sa/web#a")),
    Fault("TLS-4", "too long", _ID, _ids("spiffe://cluster.local/ns/shop/sa/" + "w" * 2048)),
    Fault("TLS-4", "domain too long", (*_ID, "unknown_trust_domain"), _ids(f"spiffe://{_DOMAIN_256}/ns/shop/sa/web")),
    Fault("TLS-5", "CA", ("not_a_leaf",), lambda spec: spec.but(ca=True)),
    Fault("TLS-5", "keyCertSign", ("not_a_leaf", "bad_key_usage"), _usage("digital_signature", "key_cert_sign")),
    Fault("TLS-5", "cRLSign", ("not_a_leaf", "bad_key_usage"), _usage("digital_signature", "crl_sign")),
    Fault("TLS-5", "no key usage", ("bad_key_usage",), lambda spec: spec.but(usage=None)),
    Fault("TLS-5", "no digitalSignature", ("bad_key_usage",), _usage("key_agreement")),
    Fault("TLS-5", "client only", ("bad_extended_key_usage",), _purpose(ExtendedKeyUsageOID.CLIENT_AUTH)),
    Fault("TLS-5", "server only", ("bad_extended_key_usage",), _purpose(ExtendedKeyUsageOID.SERVER_AUTH)),
    Fault("TLS-6", "domain of another root", ("unknown_authority", "unknown_trust_domain"), _ids("spiffe://other.example/ns/shop/sa/web")),
    Fault("TLS-8", "domain that nobody knows", ("unknown_trust_domain",), _ids("spiffe://nowhere.example/ns/shop/sa/web")),
]  # fmt: skip
