"""What a port speaks, from what its service says of it: the field's words, and what they mean to this proxy. Pure.

Source: Kubernetes' ``appProtocol`` and Istio's protocol selection (port names ``<protocol>[-<suffix>]``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, Literal

Protocol = Literal["http", "http2", "tcp", "auto"]

WORDS: Final[dict[str, Protocol]] = {
    "http": "http",
    "http2": "http2",
    "grpc": "http2",
    "grpc-web": "http2",
    "https": "tcp",
    "tls": "tcp",
    "tcp": "tcp",
    "mongo": "tcp",
    "mysql": "tcp",
    "redis": "tcp",
}
STRICTNESS: Final[dict[Protocol, int]] = {"http": 0, "auto": 1, "http2": 2, "tcp": 3}
"""From the protocol that takes the least to the one that takes any bytes. ``http2`` is ``auto`` that also takes
HTTP/2, whose bytes are relayed as they are."""

MEANINGS: Final[dict[Protocol, str]] = {
    "http": "HTTP alone; x-forwarded-client-cert is written by this proxy",
    "auto": (
        "HTTP or opaque bytes, by their beginning; x-forwarded-client-cert is written by this proxy in HTTP, "
        "and means nothing in opaque bytes"
    ),
    "http2": (
        "HTTP/2 is relayed as opaque bytes, since it is not served yet: x-forwarded-client-cert in it is the caller's "
        "own, and means nothing; it is written by this proxy in HTTP/1.1"
    ),
    "tcp": "opaque bytes; x-forwarded-client-cert in them is the caller's own, and means nothing",
}
"""What a port of each protocol takes, for people."""

OPAQUE_PORTS: Final = frozenset({25, 53, 587, 3306, 5432, 6379, 27017})  # the server speaks first there, or no HTTP


def protocol_of(port: int, name: str, app_protocol: str) -> Protocol:
    """By ``appProtocol``, one of WORDS, where there is one (else it is empty); by the port's name; by its number."""
    if app_protocol:
        return WORDS[app_protocol]
    for word in sorted(WORDS, key=len, reverse=True):
        if name == word or name.startswith(word + "-"):
            return WORDS[word]
    return "tcp" if port in OPAQUE_PORTS else "auto"


def strictest(protocols: Iterable[Protocol]) -> Protocol:
    """Return the protocol that takes the least of these; ``auto`` for none."""
    return min(protocols, key=STRICTNESS.__getitem__, default="auto")


def of_one_port(protocols: Collection[Protocol]) -> Protocol:
    """Return what a port of the app takes to which service ports of these protocols lead; ``auto`` for none.

    The strictest counts, since the app can't tell by which one a request came. But where one is ``tcp`` its callers
    send opaque bytes, and so ``http`` becomes ``auto``: they are taken, and HTTP among them is served as HTTP.
    """
    found = strictest(protocols)
    return "auto" if found == "http" and "tcp" in protocols else found


def protocol_in_force(told: Protocol, declared: Protocol | None) -> Protocol:
    """Return what a port of the app takes, from ``--protocol`` and from the documents of its services.

    ``auto`` from the command line says nothing, and neither do ``auto`` and None from documents. Where both say
    something, the stricter one counts.
    """
    if declared is None or declared == "auto":
        return told
    return declared if told == "auto" else strictest((told, declared))
