"""The two ways in which an endpoint is reached. They have nothing in common, so that neither can become the other."""

from __future__ import annotations

import msgspec

from certs.spiffe import SpiffeId


class Mtls(msgspec.Struct, frozen=True):
    """Mutual TLS with one of ``identities``, under the server name ``sni``."""

    identities: frozenset[SpiffeId]
    sni: bytes


class Plaintext(msgspec.Struct, frozen=True):
    """Bytes as the app sends them. ``called`` is what leads there, for people."""

    called: str
