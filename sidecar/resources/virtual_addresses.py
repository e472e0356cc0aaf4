"""Addresses that stand for services, where there is no control plane to keep them. Pure.

Who calls it: whoever makes a mesh of documents alone. The ranges are those that Istio takes, which nobody routes:
240.240.0.0/16 is of IPv4's class E, and 2001:2::/48 is for benchmarks (RFC 5180). A captured connection to such an
address has the service for its original destination; on a wire none is ever seen.

A service's place comes from a hash of its name, so it is the same in every proxy that knows these services, and stays
when others come and go, but for the few that meet at one place: of these the first by name has it, and the others have
the next that is free.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address
from typing import Final

FIRST: Final = 1  # 240.240.0.0 and 240.240.255.255 look like a network's own to some
LAST: Final = 0xFFFE

_V4: Final = int(IPv4Address("240.240.0.0"))
_V6: Final = int(IPv6Address("2001:2::"))


def virtual_addresses(
    services: Iterable[tuple[str, str]], taken: Collection[str] = ()
) -> dict[tuple[str, str], tuple[str, str]]:
    """An IPv4 and an IPv6 address for each (namespace, name), both with the same number at the end, none of which is
    among ``taken`` (in canonical form). Services for which nothing is left, beyond 65,534, are not in it."""
    given: dict[tuple[str, str], tuple[str, str]] = {}
    used: set[int] = set()
    places = LAST - FIRST + 1
    for key in sorted(set(services)):
        if len(used) >= places:
            break
        start = int.from_bytes(sha256("/".join(key).encode("utf-8", "replace")).digest()[:8], "big")
        for step in range(places):
            number = FIRST + (start + step) % places
            if number in used:
                continue
            used.add(number)
            pair = str(IPv4Address(_V4 + number)), str(IPv6Address(_V6 + number))
            if pair[0] not in taken and pair[1] not in taken:
                given[key] = pair
                break
    return given


def is_virtual(address: str) -> bool:
    """Whether this address, in canonical form, is of one of the ranges."""
    return address.startswith(("240.240.", "2001:2::", "2001:2:0:"))
