"""Addresses that stand for a service, where its document names none: which one is free. Pure.

Who calls it: ``control.registry.reconciler``. Where an app's calls are captured its service is known by the address
that was dialed: it has to be one per service, and no other service's. Each service gets a number, and by it one address
of each family: in 240.240.0.0/16, where Istio's automatic allocation has them too (RFC 1112 reserves it), and in
2001:2::/48 (RFC 5180; never routed). The number is looked for from a place that the service's name gives, so that one
that was deleted and made again mostly gets back what callers still hold; and a number that was freed goes to no other
service for KEPT_SECONDS, since a connection to it would reach the wrong one.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from sidecar.addresses import parse_ip

V4: Final = ipaddress.IPv4Network("240.240.0.0/16")
V6: Final = ipaddress.IPv6Network("2001:2::/48")
FIRST: Final = 1  # never 240.240.0.0 or 240.240.255.255: some systems take these for a network and a broadcast
LAST: Final = 0xFFFE
KEPT_SECONDS: Final = 3600.0  # resolvers and apps that keep an address for longer than its ttl rarely do so for longer

Key = tuple[str, str]


class Virtual(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The addresses that stand for a service, as the store has them."""

    v4: str
    v6: str


class Freed(msgspec.Struct, frozen=True):
    """Whose a number was, and until when it is kept for it."""

    owner: Key
    until: float


def addresses(number: int) -> Virtual:
    """The addresses that a number stands for."""
    return Virtual(str(V4[number]), str(V6[number]))


def number_of(address: str) -> int | None:
    """The inverse, for either family; None for an address that is no number's."""
    found = parse_ip(address)
    for network in (V4, V6):
        if found is not None and found in network:
            number = int(found) - int(network.network_address)
            return number if FIRST <= number <= LAST else None
    return None


def free(key: Key, taken: Collection[int], freed: Mapping[int, Freed], now: float) -> int | None:
    """A number for this service that nobody has; None where there is none. ``now`` in seconds of any clock."""
    span = LAST - FIRST + 1
    start = int.from_bytes(hashlib.sha256("/".join(key).encode()).digest()[:8], "big") % span
    for step in range(span):
        number = FIRST + (start + step) % span
        if number in taken:
            continue
        kept = freed.get(number)
        if kept is None or kept.owner == key or kept.until <= now:
            return number
    return None
