"""Certificates as text: what is sent, stored and shown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.errors import IdentityError, Refusal

PEM_BYTES: Final = 1024 * 1024
CERTIFICATES: Final = 64  # of one text; a bundle in the middle of a rotation has two

_BEGIN: Final = re.compile(rb"^-----BEGIN ([^\r\n]*?)-----", re.MULTILINE)


def to_pem(certificates: Iterable[x509.Certificate]) -> str:
    """The certificates in their order, a block each."""
    return "".join(certificate.public_bytes(Encoding.PEM).decode("ascii") for certificate in certificates)


def from_pem(text: str | bytes) -> tuple[x509.Certificate, ...]:
    """All certificates of the text, in its order; none where it has none.

    Raises IdentityError(UNREADABLE): too large, a block that is no X.509 certificate (a private key among them too,
    which has no place beside what is handed out).
    """
    data = as_bytes(text, PEM_BYTES, Refusal.UNREADABLE)
    kinds = _BEGIN.findall(data)
    if any(kind != b"CERTIFICATE" for kind in kinds):
        key = any(b"PRIVATE KEY" in kind for kind in kinds)
        what = "a private key" if key else "something else"
        raise IdentityError(Refusal.UNREADABLE, f"{what} among the certificates; give certificates alone")
    if len(kinds) > CERTIFICATES:
        raise IdentityError(Refusal.UNREADABLE, f"more than {CERTIFICATES} certificates")
    if not kinds:
        return ()
    try:
        found = x509.load_pem_x509_certificates(data)
    except (ValueError, x509.InvalidVersion):
        raise IdentityError(Refusal.UNREADABLE, "a PEM block that can't be read as an X.509 certificate") from None
    if len(found) != len(kinds):
        raise IdentityError(Refusal.UNREADABLE, "a PEM block that is cut short")
    return tuple(found)


def as_bytes(text: str | bytes, most: int, reason: Refusal) -> bytes:
    """The text as bytes. Raises IdentityError(reason) above ``most`` bytes."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    if len(data) > most:
        raise IdentityError(reason, f"more than {most} bytes of PEM")
    return data
