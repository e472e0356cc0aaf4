"""The x-forwarded-client-cert element that tells the app who called: Envoy's form, made by us alone."""

from __future__ import annotations

from certs.spiffe import SpiffeId

HEADER = b"x-forwarded-client-cert"


def element(by: SpiffeId, fingerprint: str, subject: str, uri: SpiffeId) -> str:
    """``By=...;Hash=...;Subject="...";URI=...``: ``by`` is who serves, the rest is the peer's.

    ``subject`` as RFC 4514 text, whatever the peer's authority let it say; it can't leave its quotes.
    """
    raise NotImplementedError
