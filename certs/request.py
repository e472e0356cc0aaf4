"""Requests for a certificate (PKCS #10): made by a workload, read by the authority.

A request proves that its sender has the key, and says nothing else that counts: who the sender is comes from its token
or its certificate. What it asks for beyond its own id is refused rather than dropped, since it shows a mistake or an
attack (CA:true, other names).
"""

from __future__ import annotations

from typing import Final

from certs.keys import PrivateKey, PublicKey
from certs.spiffe import SpiffeId

REQUEST_BYTES: Final = 16 * 1024


def new_request(key: PrivateKey, spiffe_id: SpiffeId) -> str:
    """A request in PEM: empty subject, the id as the only URI SAN."""
    raise NotImplementedError


def read_request(pem: str | bytes, expected: SpiffeId) -> PublicKey:
    """The key that a certificate for ``expected`` may be issued for.

    ``expected`` is what the caller has proven to be. The request may name no id, or this one alone. Its subject is
    ignored: leaves have none.

    Raises IdentityError: BAD_REQUEST (unreadable, too large, more than one), BAD_SIGNATURE (not signed with its own
    key), BAD_KEY (neither P-256 nor P-384), WRONG_IDENTITY (another id), ASKS_FOR_AUTHORITY (CA:true, keyCertSign,
    cRLSign), ASKS_FOR_MORE (other names or extensions).
    """
    raise NotImplementedError
