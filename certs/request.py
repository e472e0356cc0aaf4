"""Requests for a certificate (PKCS #10): made by a workload, read by the authority.

A request proves that its sender has the key, and says nothing else that counts: who the sender is comes from its token
or its certificate. What it asks for beyond its own id is refused rather than dropped, since it shows a mistake or an
attack (CA:true, other names).
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from certs.errors import IdentityError, Refusal
from certs.facts import good_signature
from certs.keys import PrivateKey, PublicKey, check_public_key
from certs.pem import as_bytes
from certs.spiffe import SpiffeId

REQUEST_BYTES: Final = 16 * 1024

_BEGIN: Final = b"-----BEGIN"
_HARMLESS: Final = (x509.ExtendedKeyUsage, x509.SubjectKeyIdentifier)  # never copied, and usual


def new_request(key: PrivateKey, spiffe_id: SpiffeId) -> str:
    """A request in PEM: empty subject, the id as the only URI SAN."""
    name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))])
    builder = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(name, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode("ascii")


def read_request(pem: str | bytes, expected: SpiffeId) -> PublicKey:
    """The key that a certificate for ``expected`` may be issued for.

    ``expected`` is what the caller has proven to be. The request may name no id, or this one alone. Its subject is
    ignored: leaves have none.

    Raises IdentityError: BAD_REQUEST (unreadable, too large, more than one), BAD_SIGNATURE (not signed with its own
    key), WEAK_SIGNATURE, BAD_KEY (neither P-256 nor P-384), WRONG_IDENTITY (another id), ASKS_FOR_AUTHORITY (CA:true,
    keyCertSign, cRLSign), ASKS_FOR_MORE (other names or extensions).
    """
    data = as_bytes(pem, REQUEST_BYTES, Refusal.BAD_REQUEST)
    if data.count(_BEGIN) != 1:
        raise IdentityError(Refusal.BAD_REQUEST, "not exactly one PEM block")
    try:
        request = x509.load_pem_x509_csr(data)
        key, extensions, signed = request.public_key(), request.extensions, request.is_signature_valid
        strong = good_signature(request.signature_algorithm_oid, request.signature_hash_algorithm)
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ):
        raise IdentityError(Refusal.BAD_REQUEST, "no certificate request that can be read") from None
    allowed = check_public_key(key)
    if not signed:
        raise IdentityError(Refusal.BAD_SIGNATURE, "a request that its own key has not signed")
    if not strong:
        raise IdentityError(Refusal.WEAK_SIGNATURE, "a request that is not signed over SHA-2")
    for extension in extensions:
        _judge_extension(extension.value, expected)
    return allowed


def _judge_extension(asked: x509.ExtensionType, expected: SpiffeId) -> None:
    match asked:
        case x509.SubjectAlternativeName():
            _judge_names(list(asked), expected)
        case x509.BasicConstraints():
            if asked.ca:
                raise IdentityError(Refusal.ASKS_FOR_AUTHORITY, "a request for CA true")
        case x509.KeyUsage():
            if asked.key_cert_sign or asked.crl_sign:
                raise IdentityError(Refusal.ASKS_FOR_AUTHORITY, "a request for keyCertSign or cRLSign")
        case _:
            if not isinstance(asked, _HARMLESS):
                raise IdentityError(Refusal.ASKS_FOR_MORE, f"a request for the extension {asked.oid.dotted_string}")


def _judge_names(names: list[x509.GeneralName], expected: SpiffeId) -> None:
    uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    if any(uri != str(expected) for uri in uris):
        raise IdentityError(Refusal.WRONG_IDENTITY, f"a request for another identity than {expected}")
    if len(names) != 1 or len(uris) != 1:
        raise IdentityError(Refusal.ASKS_FOR_MORE, "a request for names beyond its own id")
