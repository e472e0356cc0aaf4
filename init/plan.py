"""What the flags ask for -> the table that does it. Pure; ``init.cli`` calls it.

Theory of operation
-------------------

Two chains of the nat hooks see the first packet of every connection.

``prerouting`` sees what comes from outside. Whatever goes to a captured port is redirected to the sidecar's inbound
listener, which learns the original destination from connection tracking. The sidecar's own ports that others may ask
(15020, 15021) are left alone, and so is 15000, where nobody listens for others.

``output`` sees what is sent from here, by the app and by the sidecar alike, so its order is what keeps the sidecar from
being led to itself:

1. The reserved port, at an address of the pod: to outbound, whoever asks. The sidecar dials it to see that the table is
   still there; all that follows would let it pass.
2. From 127.0.0.6 or ::6 over lo: the sidecar's inbound, on its way to the app. Left alone.
3. The sidecar to an address of this pod: the app called its own service. Judged as if it came from outside (``own``).
4. Whatever else the sidecar sends: left alone. Here it can't loop.
5. Excluded interfaces, and ports excluded for a user: left alone.
6. Names: to the sidecar's DNS, if that is asked for.
7. Over lo, or to loopback: the app to itself. Left alone.
8. What the remaining flags say, ports before networks.

Names travel in datagrams, and a datagram has no connection whose end would be seen. When the app's query and the
sidecar's own to the same resolver happened to use the same source port, connection tracking would take the second for
one more packet of the first, and send the sidecar its own question. So the app's side is tracked in a zone of its own
(``zones``, before connection tracking looks).

Where IPv6 is not captured, ``refused_in`` and ``refused_out`` drop each IPv6 connection that the two nat chains would
have captured: the same rules, with another verdict, earlier. Nothing passes by unseen.

Both nat chains stand a little before the usual priority of destination NAT: a container runtime that redirects the
names of its own resolver (Docker's 127.0.0.11) would else decide first.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from init.rules import (
    Address,
    Chain,
    Drop,
    Family,
    Interface,
    Jump,
    LocalDestination,
    Match,
    Network,
    Owner,
    Plan,
    Port,
    Protocol,
    Range,
    Redirect,
    Return,
    Rule,
    State,
    Verdict,
    Zone,
)
from sidecar import ports

NAT = -110
BEFORE_NAT = -150
BEFORE_TRACKING = -300
DNS_ZONE = 1
NEVER_CAPTURED: tuple[Range, ...] = ((ports.ADMIN, ports.ADMIN), (ports.SCRAPE, ports.SCRAPE + 1))
LOOPBACK: tuple[Network, Network] = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))
FROM_INBOUND: tuple[Network, Network] = (ipaddress.IPv4Network("127.0.0.6/32"), ipaddress.IPv6Network("::6/128"))
TCP, UDP = Protocol("tcp"), Protocol("udp")
DNS_PORT = Port(((53, 53),), "dns")
OVER_LO = Interface(("lo",), "lo")
FROM_OUTSIDE = Interface(("lo",), "lo", incoming=True, negate=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the flags say, and what was found in the namespace. ``None`` for ports or CIDRs means all of them."""

    outbound_port: int = ports.OUTBOUND
    inbound_port: int = ports.INBOUND
    proxy_uid: tuple[int, ...] = (1337,)
    proxy_gid: tuple[int, ...] = (1337,)
    inbound_ports: tuple[Range, ...] | None = None
    exclude_inbound_ports: tuple[Range, ...] = ()
    outbound_cidrs: tuple[Network, ...] | None = None
    exclude_outbound_cidrs: tuple[Network, ...] = ()
    outbound_ports: tuple[Range, ...] = ()
    exclude_outbound_ports: tuple[Range, ...] = ()
    exclude_uid_ports: tuple[tuple[int, tuple[Range, ...]], ...] = ()
    exclude_interfaces: tuple[str, ...] = ()
    redirect_dns: bool = False
    capture_all_dns: bool = False
    drop_invalid: bool = False
    ipv6: bool = True  # captured; else dropped
    resolvers: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...] = ()


_Capture = Callable[[int], Verdict]
"""What happens to a connection that is captured, given the port of the listener that it is for."""


def plan(wanted: Wanted) -> Plan:
    """The table for what is wanted; the same for the same flags, in whatever order their lists were written."""
    chains = [
        Chain("prerouting", _prerouting(wanted, Redirect), "nat", "prerouting", NAT),
        Chain("output", _output(wanted, Redirect, "own"), "nat", "output", NAT),
        Chain("own", _own(wanted, Redirect)),
    ]
    if wanted.redirect_dns or wanted.capture_all_dns:
        chains.append(Chain("zones", _zones(wanted), "filter", "output", BEFORE_TRACKING))
    if wanted.drop_invalid:
        rule = Rule((FROM_OUTSIDE, State("invalid")), Drop(), "of no connection")
        chains.append(Chain("invalid", (rule,), "filter", "prerouting", BEFORE_NAT))
    if not wanted.ipv6:
        chains += _refusals(wanted)
    return Plan(tuple(chains), wanted.ipv6)


def _refusals(wanted: Wanted) -> Iterator[Chain]:
    """The chains that drop each IPv6 connection that would have been captured."""

    def refuse(_port: int) -> Verdict:
        return Drop()

    new = (Family(6), State("new"))
    # A filter chain also sees what comes over lo; that was judged when it was sent.
    first = Rule((FROM_OUTSIDE, *new), Jump("refused_prerouting"), "IPv6 connections from outside")
    yield Chain("refused_in", (first,), "filter", "prerouting", BEFORE_NAT)
    first = Rule(new, Jump("refused_output"), "IPv6 connections from here")
    yield Chain("refused_out", (first,), "filter", "output", BEFORE_NAT)
    yield Chain("refused_prerouting", _prerouting(wanted, refuse))
    yield Chain("refused_output", _output(wanted, refuse, "refused_own"))
    yield Chain("refused_own", _own(wanted, refuse))


def _prerouting(wanted: Wanted, capture: _Capture) -> tuple[Rule, ...]:
    return (*_excluded_interfaces(wanted, incoming=True), *_inbound(wanted, capture))


def _own(wanted: Wanted, capture: _Capture) -> tuple[Rule, ...]:
    """For what the sidecar sends to an address of the pod."""
    return (*_loopback("loopback is the app's own"), *_inbound(wanted, capture))


def _inbound(wanted: Wanted, capture: _Capture) -> Iterator[Rule]:
    excluded = merged((*NEVER_CAPTURED, *wanted.exclude_inbound_ports))
    yield Rule((TCP, Port(excluded, "excluded_inbound_ports")), Return(), "excluded inbound ports")
    if wanted.inbound_ports is None:
        yield Rule((TCP,), capture(wanted.inbound_port), "to inbound: all ports")
    elif wanted.inbound_ports:
        captured = (TCP, Port(merged(wanted.inbound_ports), "inbound_ports"))
        yield Rule(captured, capture(wanted.inbound_port), "to inbound: the ports chosen")


def _output(wanted: Wanted, capture: _Capture, own: str) -> tuple[Rule, ...]:
    redirected = capture is Redirect
    drift: Verdict = Redirect(wanted.outbound_port) if redirected else Return()
    probe = (TCP, Port(((ports.DRIFT, ports.DRIFT),), "drift"))
    rules = [
        Rule(
            (*probe, Address((net,), "loopback", negate=True), LocalDestination()),
            drift,
            "the sidecar looks for these rules",
        )
        for net in LOOPBACK
    ]
    rules += [
        Rule((OVER_LO, Address((net,), "from_inbound", source=True)), Return(), "inbound to the app")
        for net in FROM_INBOUND
    ]
    rules += [Rule((OVER_LO, owner), Jump(own), "the sidecar to this pod") for owner in _proxy(wanted)]
    rules += [Rule((owner,), Return(), "the sidecar's own") for owner in _proxy(wanted)]
    rules += _left_alone(wanted)
    rules += _names(wanted, capture)
    rules += [Rule((OVER_LO,), Return(), "the app to this pod")]
    rules += _loopback("loopback")
    rules += _outbound(wanted, capture)
    return tuple(rules)


def _proxy(wanted: Wanted) -> Iterator[Owner]:
    if wanted.proxy_uid:
        yield Owner(tuple(sorted(set(wanted.proxy_uid))), "proxy_uids")
    if wanted.proxy_gid:
        yield Owner(tuple(sorted(set(wanted.proxy_gid))), "proxy_gids", group=True)


def _loopback(comment: str) -> Iterator[Rule]:
    for net in LOOPBACK:
        yield Rule((Address((net,), "loopback"),), Return(), comment)


def _excluded_interfaces(wanted: Wanted, incoming: bool) -> Iterator[Rule]:
    if wanted.exclude_interfaces:
        names = tuple(sorted(set(wanted.exclude_interfaces)))
        yield Rule((Interface(names, "excluded_interfaces", incoming=incoming),), Return(), "excluded interfaces")


def _left_alone(wanted: Wanted) -> Iterator[Rule]:
    """What is excluded from everything, names as well."""
    yield from _excluded_interfaces(wanted, incoming=False)
    by_user: dict[int, tuple[Range, ...]] = {}
    for uid, ranges in wanted.exclude_uid_ports:
        by_user[uid] = (*by_user.get(uid, ()), *ranges)
    for uid, ranges in sorted(by_user.items()):
        for protocol in (TCP, UDP) if _asks_names(wanted) else (TCP,):
            matches = (protocol, Owner((uid,), "user"), Port(merged(ranges), f"excluded_ports_of_{uid}"))
            yield Rule(matches, Return(), f"ports excluded for user {uid}")


def _asks_names(wanted: Wanted) -> bool:
    return wanted.redirect_dns or wanted.capture_all_dns


def _questions(wanted: Wanted) -> Iterator[tuple[Match, ...]]:
    """What matches a query of the app, to the resolvers or to anybody."""
    if wanted.capture_all_dns:
        yield from ((protocol, DNS_PORT) for protocol in (UDP, TCP))
    elif wanted.redirect_dns:
        for nets in by_family(ipaddress.ip_network(address) for address in wanted.resolvers):
            yield from ((protocol, DNS_PORT, Address(nets, "resolvers")) for protocol in (UDP, TCP))


def _names(wanted: Wanted, capture: _Capture) -> Iterator[Rule]:
    comment = "names: all queries" if wanted.capture_all_dns else "names: queries to the resolvers"
    for matches in _questions(wanted):
        yield Rule(matches, capture(ports.DNS), comment)


def _zones(wanted: Wanted) -> tuple[Rule, ...]:
    zone, port = Zone(DNS_ZONE), ((ports.DNS, ports.DNS),)
    rules = [Rule((protocol, OVER_LO, Port(port, "dns", source=True)), zone, "answers") for protocol in (UDP, TCP)]
    rules += [Rule((protocol, OVER_LO, Port(port, "dns")), zone, "asked without redirect") for protocol in (UDP, TCP)]
    rules += [Rule((owner,), Return(), "the sidecar's own queries") for owner in _proxy(wanted)]
    rules += _left_alone(wanted)
    rules += [Rule(matches, zone, "the app's queries") for matches in _questions(wanted)]
    return tuple(rules)


def _outbound(wanted: Wanted, capture: _Capture) -> Iterator[Rule]:
    verdict = capture(wanted.outbound_port)
    if wanted.exclude_outbound_ports:
        excluded = Port(merged(wanted.exclude_outbound_ports), "excluded_outbound_ports")
        yield Rule((TCP, excluded), Return(), "excluded outbound ports")
    if wanted.outbound_ports:
        chosen = Port(merged(wanted.outbound_ports), "outbound_ports")
        yield Rule((TCP, chosen), verdict, "to outbound: the ports chosen")
    for nets in by_family(wanted.exclude_outbound_cidrs):
        yield Rule((Address(nets, "excluded_outbound_cidrs"),), Return(), "excluded outbound networks")
    if wanted.outbound_cidrs is None:
        yield Rule((TCP,), verdict, "to outbound: all networks")
    else:
        for nets in by_family(wanted.outbound_cidrs):
            yield Rule((TCP, Address(nets, "outbound_cidrs")), verdict, "to outbound: the networks chosen")


def merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same ports in the fewest ranges, in order: what the kernel's interval sets ask for."""
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


def by_family(networks: Iterable[Network]) -> Iterator[tuple[Network, ...]]:
    """The same addresses in the fewest networks, in order, IPv4 and then IPv6; a family that has none is left out."""
    given = list(networks)
    four = ipaddress.collapse_addresses(net for net in given if isinstance(net, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(net for net in given if isinstance(net, ipaddress.IPv6Network))
    yield from (nets for nets in (tuple(four), tuple(six)) if nets)
