"""The two ways into the API, and what is believed of each. Pure but for the ASGI call itself.

Who calls it: ``control.serve``, which puts one of these in front of the API for each listener.

**The socket** lies in a directory that only this user can enter; behind it stands our own inbound, which terminated
mTLS on 15012 and says who the peer is: ``x-forwarded-client-cert``, one field with one element, as ``certs.xfcc`` makes
it. **The plain port** is for loopback, and anyone there can write any header: every field that only a mesh may set is
taken out, underscore twins too, and a caller is whatever its token says. What the API itself looks at is the ``Peer``
that is made here, never a header.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from certs import spiffe
from certs.errors import IdentityError
from certs.spiffe import SpiffeId

PEER: Final = "sidecar.peer"  # the key in the scope under which the API finds it

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

_XFCC: Final = b"x-forwarded-client-cert"
_ELEMENT: Final = re.compile(
    r'By=(spiffe://[^;,="]{1,2048});Hash=([0-9a-f]{64});Subject="(?:[^"\\]|\\.)*";URI=(spiffe://[^;,="]{1,2048})',
    re.ASCII,
)
_MESH_ONLY: Final = (b"x-forwarded-", b"x-envoy-", b"x-sidecar-", b"x-request-id", b"forwarded")
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9-]{1,64}")


class BadPeer(Exception):
    """What stands in front of the socket said something that it never says."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the door. ``identity`` and ``fingerprint`` (SHA-256 of its certificate, hex) only where mTLS proved it.

    ``bad``: why what was said of it can't be taken; such a peer gets nothing.
    """

    address: str
    identity: SpiffeId | None = None
    fingerprint: str = ""
    request_id: str = ""
    bad: str = ""


class PlainDoor:
    """In front of the API on loopback."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await _refuse(scope, send)
        client = scope.get("client")
        scope["headers"] = stripped(scope["headers"])
        scope[PEER] = Peer(str(client[0]) if client else "unknown")
        await self._app(scope, receive, send)


class SocketDoor:
    """In front of the API on the socket. ``own`` is the control plane's id, which the inbound before it names too."""

    def __init__(self, app: App, own: SpiffeId) -> None:
        self._app = app
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await _refuse(scope, send)
        scope[PEER] = told(scope["headers"], self._own)
        scope["headers"] = stripped(scope["headers"])
        await self._app(scope, receive, send)


def stripped(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Without what only a mesh may say."""
    return [(name, value) for name, value in headers if not name.lower().replace(b"_", b"-").startswith(_MESH_ONLY)]


def told(headers: Headers, own: SpiffeId) -> Peer:
    """What our inbound says of its peer; without a client certificate it says nothing, and a token is needed."""
    fields: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        fields.setdefault(name.lower(), []).append(value)
    address = fields.get(b"x-forwarded-for", [b""])[-1].rpartition(b",")[2].strip().decode("latin-1")
    request_id = fields.get(b"x-request-id", [b""])[0]
    peer = Peer(
        address if address.isprintable() and address else "socket",
        request_id=request_id.decode() if _REQUEST_ID.fullmatch(request_id) else "",
    )
    elements = fields.get(_XFCC, [])
    if not elements:
        return peer
    try:
        identity, fingerprint = _element(elements, own)
    except (BadPeer, IdentityError) as error:
        return Peer(peer.address, request_id=peer.request_id, bad=str(error))
    return Peer(peer.address, identity, fingerprint, peer.request_id)


def _element(elements: list[bytes], own: SpiffeId) -> tuple[SpiffeId, str]:
    found = _ELEMENT.fullmatch(elements[0].decode("latin-1"))
    if len(elements) != 1 or found is None:
        raise BadPeer("x-forwarded-client-cert is not one element as our inbound writes it")
    if found[1] != str(own):
        raise BadPeer("x-forwarded-client-cert was made by somebody else")
    return spiffe.parse(found[3]), found[2]


async def _refuse(scope: Scope, send: Send) -> None:
    """WebSockets are not served; the server wants to be told so."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
