"""What a rule is: the values that a plan is made of. Pure.

Who uses it: ``init.plan`` makes them, ``init.netlink`` turns them into messages for the kernel, ``init.render`` into
words. A rule is a list of matches, all of which must hold, and a verdict. A match on several values, or on a range,
becomes a named set of the table, whose name the match carries; a match on one value is a plain comparison.

Another way to intercept (TPROXY) would be one more verdict here, and its expression in ``init.netlink``.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

TABLE = "sidecar"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Range = tuple[int, int]  # both ends are in it


@dataclass(frozen=True, slots=True)
class Protocol:
    """The transport is this one: "tcp" or "udp"."""

    name: str


@dataclass(frozen=True, slots=True)
class Family:
    """The packet is IPv4 (4) or IPv6 (6)."""

    version: int


@dataclass(frozen=True, slots=True)
class Port:
    """The port, of the destination or the source, is in one of the ranges."""

    ranges: tuple[Range, ...]
    label: str
    source: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """The address, of the destination or the source, is in one of the networks, which are all of one family."""

    networks: tuple[Network, ...]
    label: str
    source: bool = False
    negate: bool = False  # only with one network: it is of that family, and not in the network

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.networks[0].version


@dataclass(frozen=True, slots=True)
class Owner:
    """The socket belongs to one of these users, or of these groups."""

    ids: tuple[int, ...]
    label: str
    group: bool = False


@dataclass(frozen=True, slots=True)
class Interface:
    """The packet came in by, or goes out by, one of these interfaces."""

    names: tuple[str, ...]
    label: str
    incoming: bool = False
    negate: bool = False  # only with one name


@dataclass(frozen=True, slots=True)
class LocalDestination:
    """The destination is an address of this namespace."""


@dataclass(frozen=True, slots=True)
class State:
    """What connection tracking says of the packet: "new" or "invalid"."""

    word: str


Match = Protocol | Family | Port | Address | Owner | Interface | LocalDestination | State


@dataclass(frozen=True, slots=True)
class Return:
    """Left alone by this chain."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Never sent on."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Sent to this port of the namespace itself."""

    port: int


@dataclass(frozen=True, slots=True)
class Jump:
    """Judged by another chain; if that leaves it alone, by what follows here."""

    chain: str


@dataclass(frozen=True, slots=True)
class Zone:
    """Tracked in a zone of its own; the chain goes on."""

    number: int


Verdict = Return | Drop | Redirect | Jump | Zone


@dataclass(frozen=True, slots=True)
class Rule:
    """All matches hold -> the verdict. The comment says why, to whoever reads the table."""

    matches: tuple[Match, ...]
    verdict: Verdict
    comment: str


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in their order. With a hook the kernel asks it; without one only a Jump leads here."""

    name: str
    rules: tuple[Rule, ...]
    type: str = ""  # "nat" or "filter", where there is a hook
    hook: str = ""  # "prerouting" or "output"
    priority: int = 0


@dataclass(frozen=True, slots=True)
class NamedSet:
    """Values that a match looks up: "port", "ipv4", "ipv6", "user", "group" or "interface"."""

    name: str
    kind: str
    ports: tuple[Range, ...] = ()
    networks: tuple[Network, ...] = ()
    ids: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole table. ``ipv6`` says that IPv6 is captured, for which ::6 has to be an address of lo."""

    chains: tuple[Chain, ...]
    ipv6: bool

    @property
    def sets(self) -> tuple[NamedSet, ...]:
        """The sets that the rules look up, each once, in the order of their first use."""
        found: dict[str, NamedSet] = {}
        for chain in self.chains:
            for rule in chain.rules:
                for match in rule.matches:
                    looked_up = set_of(match)
                    if looked_up is not None:
                        found.setdefault(looked_up.name, looked_up)
        return tuple(found.values())


def set_of(match: Match) -> NamedSet | None:
    """The set that a match looks up; None where a comparison says the same."""
    if isinstance(match, Port) and not _is_one(match.ranges):
        return NamedSet(match.label, "port", ports=match.ranges)
    if isinstance(match, Address) and (len(match.networks) > 1 or match.networks[0].prefixlen % 8):
        return NamedSet(f"{match.label}_v{match.version}", f"ipv{match.version}", networks=match.networks)
    if isinstance(match, Owner) and len(match.ids) > 1:
        return NamedSet(match.label, "group" if match.group else "user", ids=match.ids)
    if isinstance(match, Interface) and len(match.names) > 1:
        return NamedSet(match.label, "interface", names=match.names)
    return None


def _is_one(ranges: tuple[Range, ...]) -> bool:
    return len(ranges) == 1 and ranges[0][0] == ranges[0][1]
