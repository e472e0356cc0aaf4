"""Where an endpoint may say that it is. Pure.

Who calls it: ``control.registry.calls``. **An address is the observed peer's**, since whoever registers another's would
have calls sent there: in vain, as callers check who answers, but sent. So another one needs an operator's word: a token
of the same workload that names networks. Loopback means another machine to everybody who reads it, and is taken only
from who calls over loopback, and so is on the same one: there it is the port that tells workloads apart, and every
loopback address is as good as another.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from control.problems import Invalid
from sidecar import values
from sidecar.addresses import parse_ip

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NETWORKS: Final = 32  # that one token allows
_NOBODYS: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # RFC 1122 3.2.1.3: this network
        "240.0.0.0/4",  # RFC 1112 section 4, reserved; in it are our virtual addresses, and the broadcast
        "2001:2::/48",  # RFC 5180; our virtual addresses
    )
)


def observed(peer: str) -> Address | None:
    """The address that a call came from; None where there is none (a socket of this machine)."""
    return parse_ip(peer)


def networks(texts: Iterable[str]) -> tuple[str, ...]:
    """What a token is to allow, in canonical form; Invalid where these are no networks."""
    found: dict[str, None] = {}
    for text in texts:
        try:
            (network,) = values.networks(text)
        except ValueError as error:
            why = str(error) if "," not in text and text != "none" else f"{text[:63]!r} is not one network"
            raise Invalid(f"addresses: {why}; write for example 10.0.0.0/8") from None
        found[str(network)] = None
    if len(found) > NETWORKS:
        raise Invalid(f"addresses: more than {NETWORKS} networks")
    return tuple(found)


def address_of(wanted: str, peer: str) -> Address:
    """The address of a registration that says ``wanted`` (empty: where the call came from); Invalid where nobody may
    have it. Whether this one may is for :func:`is_own` and :func:`is_allowed`."""
    seen = observed(peer)
    found = parse_ip(wanted) if wanted else seen
    if found is None:
        if wanted:
            raise Invalid(f"address: {wanted[:63]!r} is not an IP address")
        raise Invalid("address: the call does not show where it comes from; say it")
    why = _why_not(found)
    if why:
        raise Invalid(f"address: {found} {why}")
    if found.is_loopback and not (seen and seen.is_loopback):
        raise Invalid(f"address: {found} is a loopback address, and this call came from another machine")
    return found


def is_own(address: Address, peer: str) -> bool:
    """Whether a call that came from there needs nobody's word for this address."""
    seen = observed(peer)
    return seen is not None and (address == seen or (address.is_loopback and seen.is_loopback))


def is_allowed(address: Address, texts: Iterable[str]) -> bool:
    """Whether it is in one of these networks."""
    return any(address in ipaddress.ip_network(text) for text in texts)


def _why_not(address: Address) -> str:
    if address.is_unspecified or any(address in network for network in _NOBODYS):
        return "is nobody's address"
    if address.is_multicast:
        return "is a multicast address"
    if address.is_link_local:
        return "is a link-local address, which means something else on every link; give the workload another"
    return ""
