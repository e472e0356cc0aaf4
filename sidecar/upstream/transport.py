"""The two ways to reach an endpoint. They have nothing in common, so that neither can become the other."""

from __future__ import annotations

import msgspec

from certs.spiffe import SpiffeId


class Mtls(msgspec.Struct, frozen=True):
    """Mutual TLS with one of ``identities``, under the server name ``sni``."""

    identities: frozenset[SpiffeId]
    sni: bytes


class Plaintext(msgspec.Struct, frozen=True):
    """Bytes as the app sends them. ``called`` names the destination, for people."""

    called: str
