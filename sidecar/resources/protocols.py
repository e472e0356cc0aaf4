"""What a port speaks, from what its service says of it: the field's words, and what they mean to this proxy. Pure.

Source: Kubernetes' ``appProtocol`` and Istio's protocol selection (port names ``<protocol>[-<suffix>]``).
"""

from __future__ import annotations

from typing import Final

from sidecar.resources.snapshot import Protocol

# HTTP/2 is relayed as it is: its ports are looked at, so that HTTP/1.1 there is served as such.
WORDS: Final[dict[str, Protocol]] = {
    "http": "http",
    "http2": "auto",
    "grpc": "auto",
    "grpc-web": "auto",
    "https": "tcp",
    "tls": "tcp",
    "tcp": "tcp",
    "mongo": "tcp",
    "mysql": "tcp",
    "redis": "tcp",
}
OPAQUE_PORTS: Final = frozenset({25, 53, 587, 3306, 5432, 6379, 27017})  # the server speaks first there, or no HTTP


def protocol_of(port: int, name: str, app_protocol: str) -> Protocol:
    """By ``appProtocol``, one of WORDS, where there is one (else it is empty); by the port's name; by its number."""
    if app_protocol:
        return WORDS[app_protocol]
    for word in sorted(WORDS, key=len, reverse=True):
        if name == word or name.startswith(word + "-"):
            return WORDS[word]
    return "tcp" if port in OPAQUE_PORTS else "auto"
