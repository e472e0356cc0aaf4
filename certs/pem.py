"""Certificates as text: what is sent, stored and shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.errors import IdentityError, Refusal

PEM_BYTES: Final = 1024 * 1024


def to_pem(certificates: Iterable[x509.Certificate]) -> str:
    """The certificates in their order, a block each."""
    return "".join(certificate.public_bytes(Encoding.PEM).decode("ascii") for certificate in certificates)


def from_pem(text: str | bytes) -> tuple[x509.Certificate, ...]:
    """All certificates of the text, in its order; none where it has none.

    Raises IdentityError(UNREADABLE): too large, a block that is no X.509 certificate (a private key among them too,
    which has no place beside what is handed out).
    """
    raise NotImplementedError
