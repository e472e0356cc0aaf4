"""What one identity is told, and its form on the wire: ``ProxyConfig`` as JSON, of pieces that are encoded already.
Pure.

Who calls it: ``control.distribution.push`` makes contents and compares them, ``api`` sends them. It says what a
``ProxyConfig`` that is encoded whole would say (a test holds it to that), but a service is encoded once per change and
not once per proxy.

**Schema.** ``1.4``. Within a major, a minor may add members that a proxy can do without, and they are
left out for a proxy that asks for an older minor: proxies refuse what they don't know. Whatever must be enforced by all
is another major. A proxy names the newest minor that it knows, and gets the older of its and ours. ``1.1`` has
endpoints with several addresses (``alsoAt``), and those that are unwell. For 1.0 each address is an endpoint, which
leaves none of them in plaintext, and the unwell are left out. ``1.4`` has weights of endpoints (``weight``); for an
older proxy they are left out, and it calls all alike.

``1.2`` has ``authorization`` and ``1.3`` ``rateLimits``, which a proxy can't do without: one that does not know them
would let every caller pass. ``1.4`` has ``virtualServices``, ``destinationRules`` and ``backendTrafficPolicies``:
without them a proxy would send requests elsewhere than the documents say. So they are never left out for an older
proxy. Where any applies to that proxy, its strict decoder refuses the whole Snapshot, the last good one stays in force,
and its refusal is told; where none do, the members are not sent, and it goes on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from sidecar.resources.proxy_config import EntrySpec, ResolvedService
from sidecar.resources.visibility import Visibility

SCHEMA: Final = (1, 4)  # of ``sidecar.resources.snapshot``, in numbers
PART_BYTES: Final = 64 * 1024
_ALSO_AT: Final = b'"alsoAt":['
_UNWELL: Final = b'"unwell":true'
_WEIGHT: Final = b'"weight":'
_SCHEMA: Final = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})", re.ASCII)


class Content(msgspec.Struct, frozen=True):
    """What an identity is told, but for version and time. All but ``rules`` are pieces, encoded, in their order."""

    services: tuple[bytes, ...] = ()
    entries: tuple[bytes, ...] = ()
    rules: bytes = b""
    policies: tuple[bytes, ...] = ()
    limits: tuple[bytes, ...] = ()
    virtual_services: tuple[bytes, ...] = ()
    destination_rules: tuple[bytes, ...] = ()
    backend_policies: tuple[bytes, ...] = ()


class Snapshot(msgspec.Struct, frozen=True):
    """A content as it was published. ``proxy`` is the SPIFFE id, ``issued`` in seconds since the epoch."""

    proxy: str
    trust_domain: str
    issued: float
    content: Content

    def length(self, version: str, schema: tuple[int, int] = SCHEMA) -> int:
        """How many bytes ``parts`` has in all."""
        content = self.content
        commas = max(0, len(content.services) - 1) + max(0, len(content.entries) - 1)
        pieces = sum(len(_as_of(schema, each)) for each in content.services)
        pieces += sum(len(_entry_as_of(schema, each)) for each in content.entries)
        tail = sum(map(len, self._tail()))
        return len(self._head(version, schema)) + len(_BETWEEN) + tail + commas + pieces

    def parts(self, version: str, schema: tuple[int, int] = SCHEMA) -> Iterator[bytes]:
        """The body, in parts of about PART_BYTES."""
        gathered = bytearray(self._head(version, schema))
        for piece in self._pieces(schema):
            gathered += piece
            if len(gathered) >= PART_BYTES:
                yield bytes(gathered)
                gathered.clear()
        yield bytes(gathered)

    def _head(self, version: str, schema: tuple[int, int]) -> bytes:
        major, minor = schema
        known = {
            "schema": f"{major}.{minor}",
            "version": version,
            "proxy": self.proxy,
            "issued": self.issued,
            "trustDomain": self.trust_domain,
        }
        return msgspec.json.encode(known)[:-1] + b',"services":['

    def _pieces(self, schema: tuple[int, int]) -> Iterator[bytes]:
        yield from _separated(_as_of(schema, each) for each in self.content.services)
        yield _BETWEEN
        yield from _separated(_entry_as_of(schema, each) for each in self.content.entries)
        yield from self._tail()

    def _tail(self) -> Iterator[bytes]:
        yield b"],"
        yield self.content.rules
        content = self.content
        for name, pieces in (
            (b"authorization", content.policies),
            (b"rateLimits", content.limits),
            (b"virtualServices", content.virtual_services),
            (b"destinationRules", content.destination_rules),
            (b"backendTrafficPolicies", content.backend_policies),
        ):
            if pieces:  # for a proxy of any schema: see the module
                yield b',"%b":[' % name
                yield from _separated(pieces)
                yield b"]"
        yield b"}"


_BETWEEN: Final = b'],"serviceEntries":['


def rules_of(scope: Visibility) -> bytes:
    """What an identity obeys beside what it sees. Its labels are sent only where routes may ask for them, so that a
    proxy that knows no routes is not sent what it does not know."""
    encode = msgspec.json.encode
    found = b'"peerAuthentication":%b,"outboundPolicy":%b' % (
        encode(scope.peer_authentication), encode(scope.outbound_policy),
    )  # fmt: skip
    if scope.virtual_services and any(scope.labels):
        found += b',"workloadLabels":' + encode(scope.labels)
    return found


def schema_for(asked: str) -> tuple[int, int]:
    """In which schema a proxy is answered that asks for this one; ValueError where we don't speak its major."""
    found = _SCHEMA.fullmatch(asked)
    if found is None:
        raise ValueError("a schema is written MAJOR.MINOR")
    major, minor = int(found[1]), int(found[2])
    if major != SCHEMA[0]:
        raise ValueError(
            f"this control plane speaks {SCHEMA[0]}.{SCHEMA[1]}, and no {major}; run neighbouring releases of the two"
        )
    return major, min(minor, SCHEMA[1])


def _as_of(schema: tuple[int, int], piece: bytes) -> bytes:
    """A service in the form of this schema. Few proxies ask for an older one, and few services differ in it."""
    replace = msgspec.structs.replace
    if schema < (1, 4) and _WEIGHT in piece:
        service = msgspec.json.decode(piece, type=ResolvedService)
        unweighted = [replace(each, weight=1) for each in service.endpoints]
        piece = msgspec.json.encode(replace(service, endpoints=unweighted))
    if schema >= (1, 1) or (_ALSO_AT not in piece and _UNWELL not in piece):
        return piece
    service = msgspec.json.decode(piece, type=ResolvedService)
    endpoints = [
        replace(each, address=address, also_at=[])
        for each in service.endpoints
        if not each.unwell
        for address in each.addresses
    ]
    return msgspec.json.encode(replace(service, endpoints=endpoints))


def _entry_as_of(schema: tuple[int, int], piece: bytes) -> bytes:
    """A service entry, likewise."""
    if schema >= (1, 4) or _WEIGHT not in piece:
        return piece
    entry = msgspec.json.decode(piece, type=EntrySpec)
    unweighted = [msgspec.structs.replace(each, weight=1) for each in entry.endpoints]
    return msgspec.json.encode(msgspec.structs.replace(entry, endpoints=unweighted))


def _separated(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for number, piece in enumerate(pieces):
        if number:
            yield b","
        yield piece
