"""The limits of a RateLimitPolicy, as frozen structs: what documents, the wire and the engine share. Pure.

The kind is ours (``sidecar/v1``): Istio has no API for limits. ``kinds`` has the document, ``proxy_config`` the form in
which the control plane sends it, ``policy.ratelimit`` and ``policy.ratelimit_match`` what is compiled from it.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

Direction = Literal["INBOUND", "OUTBOUND"]
LimitMode = Literal["ENFORCE", "SHADOW"]
Algorithm = Literal["token-bucket", "sliding-window"]

SLOWEST_BYTES: Final = 4096  # per second: a head of 32 KiB still arrives within its time limit
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
Bytes = Annotated[int, msgspec.Meta(ge=SLOWEST_BYTES, le=1_000_000_000_000)]
Keys = Annotated[int, msgspec.Meta(ge=1, le=100_000)]  # looking at more in one go would hold others up
Bits = Annotated[int, msgspec.Meta(ge=1, le=128)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"):
    """A mapping whose every field is known."""


class RequestRate(_Part, frozen=True):
    """So many requests in each period ``per``; ``burst``: how many at once, by default ``requests``."""

    requests: Count
    per: str
    burst: Count | None = None


class LimitMatch(_Part, frozen=True):
    """The requests that a limit is about. All fields that are given must match; of each, one value must."""

    methods: list[str] = []
    paths: list[str] = []
    hosts: list[str] = []
    headers: dict[str, list[str]] = {}
    sources: list[str] = []


class LimitOverride(_Part, frozen=True):
    """Another rate for one source: ``TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT``, ``NAMESPACE/ACCOUNT``, ``ACCOUNT`` or a
    CIDR. ``per`` is the limit's own if it is left out."""

    source: str
    requests: Count
    per: str = ""
    burst: Count | None = None


class ConnectionLimit(_Part, frozen=True):
    """Connections open at a time, and accepted in a second."""

    max: Count | None = None
    per_second: Count | None = None


class ByteRate(_Part, frozen=True):
    """Bytes in a second, of all connections of a key together. They are slowed down to it, and never closed."""

    received: Bytes | None = None
    sent: Bytes | None = None


class RateLimit(_Part, frozen=True):
    """One limit: a bucket for each combination of the values of ``key``; without a key, one for all."""

    name: str
    key: list[str] = []
    match: LimitMatch | None = None
    rate: RequestRate | None = None
    algorithm: Algorithm = "token-bucket"
    overrides: list[LimitOverride] = []
    total: RequestRate | None = None
    fair_share: bool = False
    connections: ConnectionLimit | None = None
    bytes_per_second: ByteRate | None = None
    prefix_length: Bits = 64
    max_keys: Keys = 100_000


class LimitPolicySpec(_Part, frozen=True):
    """A policy that holds at one proxy."""

    name: str
    namespace: str
    limits: list[RateLimit]
    direction: Direction = "INBOUND"
    mode: LimitMode = "ENFORCE"
    x_rate_limit_headers: bool = False

    @property
    def title(self) -> str:
        """``NAMESPACE/NAME``, as records and refusals name it."""
        return f"{self.namespace}/{self.name}"
