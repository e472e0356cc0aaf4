"""Requests, responses and local replies as the proxy handles them, whatever protocol carries them.

Codecs construct them, with every rule on a message enforced (``head`` for HTTP/1), and write them. The code between two
codecs reads them. Pure.

Source: RFC 9110, which defines these messages for all versions of HTTP.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from sidecar.http import headers
from sidecar.http.headers import Field

Body: TypeAlias = int
"""The length of a message's body: its bytes, EMPTY, or UNKNOWN. Only EMPTY is false."""

EMPTY: Final[Body] = 0
UNKNOWN: Final[Body] = -1  # the framing marks its end: chunks, a frame with END_STREAM, or the connection's end


class Request(msgspec.Struct, frozen=True, gc=False):
    """A request that may be judged.

    ``authority`` is host and optional port as sent (b"" only for HTTP/1.0 without Host); ``target`` the origin form to
    forward, ``*``, or the authority for CONNECT; ``fields`` those that may be forwarded, in order and spelling, without
    hop-by-hop fields; ``known`` the value of each field whose name has a meaning here (``headers``), repeated fields
    joined by ", ". ``absolute``: the target was sent in absolute form; ``sent`` is the target as it came. ``protocol``
    lists the protocols that the client offers to switch to (HTTP/1.1's Upgrade; ``:protocol`` of RFC 8441); b"" for
    none.
    """

    method: bytes
    target: bytes
    authority: bytes
    fields: list[Field]
    known: dict[bytes, bytes]
    body: Body
    absolute: bool = False
    protocol: bytes = b""
    sent: bytes = b""

    @property
    def takes_trailers(self) -> bool:
        """Whether the client sent ``TE: trailers``."""
        return b"trailers" in headers.tokens(self.known.get(headers.TE, b""))

    @property
    def expects_continue(self) -> bool:
        """Whether the client may hold its body back until it sees 100 (RFC 9110 section 10.1.1)."""
        return self.known.get(headers.EXPECT, b"").lower() == b"100-continue"


class Response(msgspec.Struct, frozen=True, gc=False):
    """The head of an answer, and the length of its body; ``fields`` and ``known`` as in ``Request``.

    A status below 200 is an interim answer, except 101: the upstream switches to another protocol. (HTTP/2 uses 200 for
    that; its codec returns 101.)
    """

    status: int
    fields: list[Field]
    known: dict[bytes, bytes]
    body: Body


class LocalReply(msgspec.Struct, frozen=True, gc=False):
    """A complete answer made by this proxy. The codec adds the framing of the body."""

    status: int
    fields: list[Field]
    body: bytes
