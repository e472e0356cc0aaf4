"""Where an endpoint may say that it is. Pure.

Who calls it: ``control.registry.endpoints``. **An address is proven by a call from it**, since a workload that
registers another's would have calls sent there: in vain, as callers check who answers, but sent. An endpoint has
several, of both families, and proves each by a call of its own. One that it can't prove needs an operator's word: a
token of the same workload that names networks, or ``--workload-networks``. Loopback means another machine to everybody
who reads it, and is taken only from who calls over loopback, and so is on the same one: there it is the port that tells
workloads apart, and every loopback address is as good as another.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from control.problems import Invalid
from sidecar import value_parsers
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
            (network,) = value_parsers.networks(text)
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


class RefusedAddress(msgspec.Struct, frozen=True):
    """An address at which the endpoint is not registered, and why."""

    address: str
    why: str


class Placed(msgspec.Struct, frozen=True):
    """Where an endpoint is: its addresses, those of them that its process has proven, and what was refused."""

    addresses: tuple[str, ...]
    proven: tuple[str, ...]
    refused: tuple[RefusedAddress, ...] = ()


def placed(wanted: str, further: Sequence[str], peer: str, proven: Collection[str], allowed: Sequence[str]) -> Placed:
    """The addresses of a registration: ``wanted``, on which it insists (empty: none), and of ``further`` those that it
    may have; if there is none, where the call came from. ``proven`` are addresses from which this process has called
    before, ``allowed`` the networks that an operator allows.

    Raises Invalid if ``wanted``, or where the call came from, can't be its address."""
    found: dict[str, bool] = {}  # whether it is proven
    refused: dict[str, str] = {}
    if wanted:
        address = address_of(wanted, peer)
        if not _may(address, peer, proven, allowed):
            raise Invalid(
                f"address: this call does not come from {address}, and no token of this workload allows it; leave it"
                " out, or have a token made whose addresses have it, or name its network in --workload-networks",
                403,
            )
        found[str(address)] = is_own(address, peer) or str(address) in proven
    for text in further:
        try:
            address = address_of(text, peer)
        except Invalid as invalid:
            refused[text[:63]] = invalid.detail.removeprefix("address: ")
            continue
        if _may(address, peer, proven, allowed):
            found[str(address)] = is_own(address, peer) or str(address) in proven
        else:
            refused[str(address)] = (
                "no call came from there, and neither a token's addresses nor --workload-networks have it"
            )
    if not found:
        found[str(address_of("", peer))] = True
    return Placed(
        tuple(found),
        tuple(address for address, own in found.items() if own),
        tuple(RefusedAddress(address, why) for address, why in refused.items()),
    )


def is_proven(text: str, peer: str, proven: Collection[str]) -> bool:
    """Whether this address needs no operator's word, as far as can be seen before it is judged."""
    address = parse_ip(text)
    return address is not None and (is_own(address, peer) or str(address) in proven)


def _may(address: Address, peer: str, proven: Collection[str], allowed: Sequence[str]) -> bool:
    return is_own(address, peer) or str(address) in proven or is_allowed(address, allowed)


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
