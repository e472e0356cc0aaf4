"""Requests for a certificate: CTL-1 as far as the request decides it."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from certs import keys
from certs.errors import IdentityError, Refusal
from certs.request import new_request, read_request
from certs.spiffe import parse
from tests.unit.certs.forge import BOTH, UNKNOWN, key, subject, usage

WEB = parse("spiffe://cluster.local/ns/default/sa/web")


def names(*found: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(found)


OWN = x509.UniformResourceIdentifier(str(WEB))
OTHER = x509.UniformResourceIdentifier("spiffe://cluster.local/ns/default/sa/admin")


def request(*extensions: x509.ExtensionType, of: str = "leaf", name: str = "", digest: str = "SHA256") -> str:
    builder = x509.CertificateSigningRequestBuilder(subject(name))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key(of), getattr(hashes, digest)()).public_bytes(Encoding.PEM).decode()


def refused(pem: str | bytes) -> Refusal:
    with pytest.raises(IdentityError) as caught:
        read_request(pem, WEB)
    return caught.value.reason


def test_our_own_request_is_read() -> None:
    own = keys.new_key()
    assert read_request(new_request(own, WEB), WEB) == own.public_key()
    assert read_request(new_request(own, WEB).encode(), WEB) == own.public_key()


@pytest.mark.parametrize(
    "pem",
    [
        request(),
        request(name="spiffe://cluster.local/ns/default/sa/admin"),  # a subject says nothing
        request(names(OWN), x509.BasicConstraints(False, None), usage("digital_signature")),
        request(names(OWN), x509.ExtendedKeyUsage(BOTH)),
        request(of="p384"),
    ],
)
def test_what_a_request_may_say(pem: str) -> None:
    assert read_request(pem, WEB) in (key("leaf").public_key(), key("p384").public_key())


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        (request(names(OTHER)), Refusal.WRONG_IDENTITY),
        (request(names(OWN, OTHER)), Refusal.WRONG_IDENTITY),
        (request(names(x509.UniformResourceIdentifier(f"{WEB}/"))), Refusal.WRONG_IDENTITY),
        (request(names(OWN, OWN)), Refusal.ASKS_FOR_MORE),
        (request(names(OWN, x509.DNSName("web"))), Refusal.ASKS_FOR_MORE),
        (request(names(x509.DNSName("web"))), Refusal.ASKS_FOR_MORE),
        (request(names(OWN), x509.BasicConstraints(True, None)), Refusal.ASKS_FOR_AUTHORITY),
        (request(names(OWN), usage("key_cert_sign")), Refusal.ASKS_FOR_AUTHORITY),
        (request(names(OWN), usage("crl_sign")), Refusal.ASKS_FOR_AUTHORITY),
        (request(names(OWN), UNKNOWN), Refusal.ASKS_FOR_MORE),
        (request(of="rsa2048"), Refusal.BAD_KEY),
        (request(of="p224"), Refusal.BAD_KEY),
        (request(digest="SHA224"), Refusal.WEAK_SIGNATURE),
        ("", Refusal.BAD_REQUEST),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", Refusal.BAD_REQUEST),
        (request() + request(), Refusal.BAD_REQUEST),
        (request() + " " * 17_000, Refusal.BAD_REQUEST),
        ("\udcff" + request()[1:], Refusal.BAD_REQUEST),
    ],
)
def test_ctl_1_what_is_refused(pem: str, reason: Refusal) -> None:
    assert refused(pem) is reason


def test_ctl_1_a_request_that_its_key_has_not_signed() -> None:
    der = bytearray(x509.load_pem_x509_csr(request(names(OWN)).encode()).public_bytes(Encoding.DER))
    der[der.index(b"/sa/web") + 4] ^= 1  # after the signature
    pem = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    assert refused(pem) is Refusal.BAD_SIGNATURE
