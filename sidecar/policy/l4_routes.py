"""The TCP and TLS routes of a VirtualService, compiled: which rule a connection follows. Pure.

Called by ``policy.virtual_hosts``, and then for each opaque connection by the proxy. The first match of which all
conditions hold decides. TCP matches are found by their port, TLS matches by their names.

Source: Istio's reference of VirtualService ("TCPRoute", "TLSRoute").
"""

from __future__ import annotations

import ipaddress
from collections.abc import Generator, Sequence
from typing import Final

import msgspec

from sidecar.addresses import parse_ip
from sidecar.policy.route_conditions import Caller
from sidecar.policy.traffic_split import Split
from sidecar.resources.virtual_service import (
    L4MatchAttributes,
    RouteDestination,
    TCPRoute,
    TLSMatchAttributes,
    TLSRoute,
    VirtualServiceSpec,
)

_PER_STEP: Final = 32
_SUBNETS_PER_STEP: Final = 16  # an address takes longer to parse

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


class L4Rule(msgspec.Struct, frozen=True, gc=False):
    """A rule by its number in the document; ``split`` chooses one of ``destinations``."""

    number: int
    spec: TCPRoute | TLSRoute
    split: Split

    @property
    def destinations(self) -> Sequence[RouteDestination]:
        """The destinations, in the order of the document."""
        return self.spec.route


class _Candidate(msgspec.Struct, frozen=True, gc=False):
    """A match by its place in the document. ``networks`` None: any address; ``port`` None: any."""

    order: int
    rule: L4Rule
    port: int | None
    networks: Sequence[Network] | None

    def holds(self, address: Ip | None, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.networks is None:
            return True
        return address is not None and any(address in network for network in self.networks)


def _first(lists: Sequence[Sequence[_Candidate]], address: str, port: int) -> L4Rule | None:
    """Return the rule of the first candidate that holds; each list is in order."""
    ip = parse_ip(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    best: _Candidate | None = None
    for candidates in lists:
        for candidate in candidates:
            if best is not None and candidate.order >= best.order:
                break
            if candidate.holds(ip, port):
                best = candidate
                break
    return None if best is None else best.rule


class L4Routes:
    """The TCP and TLS routes of one VirtualService. Made by :func:`compile_l4_routes`."""

    __slots__ = ("_by_name", "_by_port", "_tcp_ports", "_tls_ports", "_under")

    def __init__(self) -> None:
        self._by_port: dict[int | None, list[_Candidate]] = {}
        self._by_name: dict[bytes, list[_Candidate]] = {}
        self._under: dict[bytes, list[_Candidate]] = {}  # by what a name ends with, from its dot on
        self._tcp_ports: set[int | None] = set()  # with None in it: any
        self._tls_ports: set[int | None] = set()

    def first_tcp(self, address: str, port: int) -> L4Rule | None:
        """Return the rule for a connection to an original address and port; None if there is none for it."""
        by_port = self._by_port
        return _first([by_port.get(port, ()), by_port.get(None, ())], address, port)

    def first_tls(self, sni: bytes, address: str, port: int) -> L4Rule | None:
        """Return the rule for a TLS connection by its server name, original address and port; None if there is none
        for it."""
        name = sni.lower()
        lists: list[Sequence[_Candidate]] = [self._by_name.get(name, ())]
        if self._under:
            dot = name.find(b".", 1)
            while dot >= 0:
                lists.append(self._under.get(name[dot:], ()))
                dot = name.find(b".", dot + 1)
            lists.append(self._under.get(b"", ()))
        return _first(lists, address, port)

    def serves_tcp(self, port: int) -> bool:
        """Return whether a connection to this port can match a TCP route at all."""
        return port in self._tcp_ports or None in self._tcp_ports

    def serves_tls(self, port: int) -> bool:
        """Return whether a connection to this port can match a TLS route at all."""
        return port in self._tls_ports or None in self._tls_ports

    def compile(self, spec: VirtualServiceSpec, caller: Caller) -> Generator[None, None, None]:
        """Compile all rules. For :func:`compile_l4_routes`."""
        order = 0
        for number, tcp in enumerate(spec.tcp):
            rule = L4Rule(number, tcp, _split(tcp))
            for match in tcp.match or (L4MatchAttributes(),):
                order += 1
                if not caller.excluded_l4(match):
                    candidate = yield from _compile_match(order, rule, match)
                    self._tcp_ports.add(match.port)
                    self._by_port.setdefault(match.port, []).append(candidate)
                if not order % _PER_STEP:
                    yield
        for number, tls in enumerate(spec.tls):
            rule = L4Rule(number, tls, _split(tls))
            for by_name in tls.match:
                order += 1
                if not caller.excluded_l4(by_name):
                    candidate = yield from _compile_match(order, rule, by_name)
                    self._tls_ports.add(by_name.port)
                    yield from self._add_names(candidate, by_name.sni_hosts)
                if not order % _PER_STEP:
                    yield

    def _add_names(self, candidate: _Candidate, names: Sequence[str]) -> Generator[None, None, None]:
        for number, name in enumerate(names, 1):
            text = name.lower().encode()
            table, key = (self._under, text[1:]) if text.startswith(b"*") else (self._by_name, text)
            table.setdefault(key, []).append(candidate)
            if not number % _PER_STEP:
                yield


def _split(spec: TCPRoute | TLSRoute) -> Split:
    return Split([each.weight for each in spec.route])


def _compile_match(
    order: int, rule: L4Rule, match: L4MatchAttributes | TLSMatchAttributes
) -> Generator[None, None, _Candidate]:
    if not match.destination_subnets:
        return _Candidate(order, rule, match.port, None)
    networks: list[Network] = []
    for number, text in enumerate(match.destination_subnets, 1):
        try:
            networks.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            continue  # such a document is refused
        if not number % _SUBNETS_PER_STEP:
            yield
    return _Candidate(order, rule, match.port, networks)


def compile_l4_routes(spec: VirtualServiceSpec, caller: Caller) -> Generator[None, None, L4Routes]:
    """Compile the TCP and TLS routes of a VirtualService for the connections of one proxy; yield after every few
    matches."""
    routes = L4Routes()
    yield from routes.compile(spec, caller)
    return routes
