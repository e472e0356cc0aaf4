"""What the API reads and writes, as frozen values. Pure.

Who uses it: ``control.api``. Whatever comes in is taken whole or not at all: a member that is not known is an error.
Times go out as RFC 3339 in UTC, durations come in as they are written on the command line ("24h").
"""

from __future__ import annotations

import time
from typing import TypeVar

import msgspec

from control.problems import Invalid
from sidecar import value_parsers

_T = TypeVar("_T")


class CertificateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/certificates."""

    csr: str


class RevocationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """POST /v1/revocations: one of the two."""

    serial: str = ""
    spiffe_id: str = ""


class RotationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """POST /v1/ca:rotate."""

    deadline: str = "1h"
    void_tokens: bool = False


class TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """POST /v1/tokens."""

    role: str = "workload"
    namespace: str = ""
    service_account: str = ""
    ttl: str = "24h"
    single_use: bool = False
    addresses: tuple[str, ...] = ()


class Certificate(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to a certificate request."""

    chain: str
    bundle: str
    bundle_version: str
    expires: str


class Bundle(msgspec.Struct, frozen=True, rename="camel"):
    """The roots that are trusted."""

    trust_domain: str
    version: str
    bundle: str


class List(msgspec.Struct, frozen=True):
    """One authority's list of what it took back."""

    crl: str
    chain: str


class Lists(msgspec.Struct, frozen=True):
    """The lists of all authorities."""

    version: str
    lists: list[List]


class TokenShown(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A token as operators see it; ``token`` is there once, when it is made."""

    id: str
    role: str
    created: str
    created_by: str
    expires: str
    namespace: str = ""
    service_account: str = ""
    single_use: bool = False
    addresses: tuple[str, ...] = ()
    token: str = ""


class RevocationShown(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A revocation as operators see it."""

    id: str
    at: str
    by: str
    serial: str = ""
    spiffe_id: str = ""


class TokenList(msgspec.Struct, frozen=True, omit_defaults=True, rename={"more": "continue"}):
    """A page of tokens, the oldest first. ``continue`` asks for the next one."""

    tokens: list[TokenShown]
    more: str = ""


class RevocationList(msgspec.Struct, frozen=True, omit_defaults=True, rename={"more": "continue"}):
    """A page of revocations, likewise."""

    revocations: list[RevocationShown]
    more: str = ""


class RootShown(msgspec.Struct, frozen=True, omit_defaults=True):
    """A root as operators see it. ``until``: when its phase ends at the latest; ``pin``: SHA-256 of its public key, in
    hex, as tokens have it."""

    id: str
    phase: str
    since: str
    expires: str
    pin: str
    until: str = ""


class Ca(msgspec.Struct, frozen=True, rename="camel"):
    """How far the authority is. ``unconfirmed``: the identities that a rotation waits for."""

    trust_domain: str
    bundle_version: str
    roots: list[RootShown]
    unconfirmed: list[str]


def read(body: bytes, kind: type[_T]) -> _T:
    """The body as one of these; Invalid where it is not."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the body is not what this call takes: {error}") from None


def seconds(text: str, member: str) -> float:
    """A duration, above zero; Invalid where it is none."""
    try:
        return value_parsers.positive_duration(text)
    except ValueError as error:
        raise Invalid(f"{member}: {error}; write for example 24h") from None


def moment(when: float) -> str:
    """RFC 3339, rounded down to a second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
