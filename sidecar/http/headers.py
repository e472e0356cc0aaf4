"""The header names that have a meaning to a proxy, and which may leave it: hop-by-hop, identity, forwarding headers.

``head`` calls :func:`meaning` for every name once; ``proxy.exchange`` and its two sides look up what to forward.
Spelling does not count: case is folded, and an underscore is taken for a hyphen, since applications that see CGI-like
variables can't distinguish ``x_forwarded_for`` from ``x-forwarded-for``. Pure.

Sources: RFC 9110 sections 6.5.1, 7.6.1; Envoy's and Istio's header sanitising; Linkerd's l5d headers.
"""

from __future__ import annotations

import re
from typing import Final

Field = tuple[bytes, bytes]  # name as sent, value without white space around it

HOST: Final = b"host"
CONTENT_LENGTH: Final = b"content-length"
TRANSFER_ENCODING: Final = b"transfer-encoding"
CONNECTION: Final = b"connection"
KEEP_ALIVE: Final = b"keep-alive"
UPGRADE: Final = b"upgrade"
TE: Final = b"te"
EXPECT: Final = b"expect"
USER_AGENT: Final = b"user-agent"
REQUEST_ID: Final = b"x-request-id"
FORWARDED_FOR: Final = b"x-forwarded-for"
FORWARDED_PROTO: Final = b"x-forwarded-proto"
VIA: Final = b"via"
EXPECTED_TIMEOUT: Final = b"x-envoy-expected-rq-timeout-ms"  # what is left of the time of a request
ATTEMPT_COUNT: Final = b"x-envoy-attempt-count"
FIRST_ATTEMPT: Final = (ATTEMPT_COUNT, b"1")
MESH_ONLY: Final = b"(mesh only)"  # stands for every name that only this proxy may set
FROM_MESH: Final = b"(from the mesh)"  # and for those that a mesh peer may send
TWIN: Final = b"(underscore twin)"  # of a name that frames or routes a message: never forwarded
PLAIN: Final = b""

# For one hop only. Host is rebuilt from the authority; Content-Length is kept if it frames the body.
HOP_BY_HOP: Final = frozenset(
    {
        HOST,
        TRANSFER_ENCODING,
        CONNECTION,
        KEEP_ALIVE,
        UPGRADE,
        TE,
        TWIN,
        b"proxy-connection",
        b"proxy-authorization",  # for the proxy that it was sent to, not for its upstream
        b"trailer",
        b"http2-settings",
    }
)
# Claims of a caller about the callers before it.
FORWARDING: Final = frozenset(
    {
        FORWARDED_FOR,
        FORWARDED_PROTO,
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-real-ip",
        b"forwarded",
    }
)
_KEPT_AND_READ: Final = frozenset({CONTENT_LENGTH, EXPECT, USER_AGENT, REQUEST_ID, VIA})
_MEANT: Final = HOP_BY_HOP | FORWARDING | _KEPT_AND_READ
_MESH_PREFIXES: Final = (b"x-envoy-", b"l5d-", b"x-source-", b"x-istio-", b"x-sidecar-")
_FROM_MESH: Final = frozenset({b"x-envoy-upstream-rq-timeout-ms", EXPECTED_TIMEOUT, ATTEMPT_COUNT})
_MESH_NAMES: Final = frozenset({b"x-forwarded-client-cert", b"x-b3-flags-internal"})
_FRAMING_TWINS: Final = HOP_BY_HOP | {CONTENT_LENGTH, EXPECT}

# Never allowed in trailers (RFC 9110 section 6.5.1: framing, routing, authentication, content).
_NOT_IN_TRAILERS: Final = (
    _MEANT
    | {MESH_ONLY, FROM_MESH}
    | frozenset(
        {
            b"authorization",
            b"proxy-authorization",
            b"www-authenticate",
            b"proxy-authenticate",
            b"cookie",
            b"set-cookie",
            b"content-encoding",
            b"content-type",
            b"content-range",
            b"max-forwards",
            b"cache-control",
            b"range",
            b"age",
            b"date",
            b"expires",
            b"location",
            b"retry-after",
            b"vary",
            b"warning",
        }
    )
)
# A Connection field can't remove these: they frame or name the message.
_NOT_NOMINATED: Final = frozenset({CONTENT_LENGTH, HOST, REQUEST_ID})

# In the name of a field or a parameter whose value no page may show.
_SECRET_WORDS: Final = (b"auth", b"cookie", b"token", b"key", b"secret", b"session", b"password", b"credential")

_KNOWN_SPELLINGS: Final = 4096  # bound of the memo below: a peer chooses the names
SPELLINGS: dict[bytes, bytes] = {}


def meaning(name: bytes) -> bytes:
    """Return the meaning of a field's name, as sent: its lower-case form, MESH_ONLY, FROM_MESH, TWIN, or PLAIN for all
    other names."""
    found = SPELLINGS.get(name)
    if found is None:
        found = _meaning(name)
        if len(SPELLINGS) < _KNOWN_SPELLINGS and len(name) <= 64:
            SPELLINGS[name] = found
    return found


def _meaning(name: bytes) -> bytes:
    lower = name.lower()
    hyphened = lower.replace(b"_", b"-")
    if lower in _FROM_MESH:
        return FROM_MESH
    if hyphened in _MESH_NAMES or hyphened.startswith(_MESH_PREFIXES):
        return MESH_ONLY
    if hyphened in FORWARDING:
        return hyphened
    if lower in _MEANT:
        return lower
    if hyphened in _FRAMING_TWINS:
        return TWIN
    return PLAIN


def may_be_secret(name: bytes) -> bool:
    """Return whether a field or a parameter of this name may hold a secret."""
    plain = name.lower().replace(b"_", b"-")
    return any(word in plain for word in _SECRET_WORDS)


def without(fields: list[Field], removed: frozenset[bytes]) -> list[Field]:
    """Return the fields whose meaning is not among ``removed``, in their order."""
    return [field for field in fields if meaning(field[0]) not in removed]


def without_nominated(fields: list[Field], connection: bytes) -> list[Field]:
    """Return the fields that a Connection field's value does not name as hop-by-hop (RFC 9110 section 7.6.1)."""
    named = set(tokens(connection)) - _NOT_NOMINATED
    return [field for field in fields if field[0].lower() not in named]


def trailers_allowed(fields: list[Field]) -> list[Field]:
    """Return the trailers that may be forwarded: none that frames, routes, authenticates or speaks for the mesh."""
    return [
        field
        for field in fields
        if meaning(field[0]) not in _NOT_IN_TRAILERS and field[0].lower().replace(b"_", b"-") not in _NOT_IN_TRAILERS
    ]


_TOKENS = re.compile(rb"[^\s,]+")
_KNOWN_LISTS: Final = 256  # bound of the memo below: a peer chooses its keys, too
_LISTS: dict[bytes, tuple[bytes, ...]] = {}


def tokens(value: bytes) -> tuple[bytes, ...]:
    """Return the members of a comma-separated list of tokens, in lower case."""
    found = _LISTS.get(value)
    if found is None:
        found = tuple([member.lower() for member in _TOKENS.findall(value)])
        if len(_LISTS) < _KNOWN_LISTS and len(value) <= 64:
            _LISTS[value] = found
    return found
