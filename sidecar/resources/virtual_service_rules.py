"""What stands in a VirtualService, judged: every problem, each with its path. Pure.

Called by ``field_rules`` for documents (:func:`check_virtual_service`), and :func:`check_routes` for what the control
plane sends: a proxy takes no route that it can't follow. The rules are those of Istio's ``ValidateVirtualService``.
Routes for gateways are not supported yet: a document whose ``gateways`` leave out ``mesh`` would have no effect at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sidecar.addresses import parse_ip
from sidecar.resources.http_route_rules import check_route
from sidecar.resources.kinds import Metadata, VirtualService
from sidecar.resources.names import is_label
from sidecar.resources.route_destinations import check_destinations
from sidecar.resources.route_hosts import ANY, covering, host_problem
from sidecar.resources.route_match_rules import check_gateways, check_l4_match
from sidecar.resources.validation import Path, Problem, shown
from sidecar.resources.virtual_service import MESH, HTTPRoute, RouteDestination, TCPRoute, TLSRoute

Found = Iterator[Problem]


def check_virtual_service(metadata: Metadata, spec: VirtualService) -> Found:
    """All that is wrong with a document; paths are from its root."""
    at: Path = ("spec",)
    if not spec.hosts:
        why = "is missing: a VirtualService without hosts is a delegate, which is not supported yet; write one or more"
        yield Problem((*at, "hosts"), why)
    yield from check_gateways(spec.gateways, (*at, "gateways"))
    if spec.gateways and MESH not in spec.gateways:
        yield Problem((*at, "gateways"), f"without {MESH}: gateways are not supported yet; add {MESH}, or leave it out")
    else:
        yield from _hosts(spec.hosts, (*at, "hosts"))
        yield from _server_names(spec, (*at, "tls"))
    yield from check_routes(spec.http, spec.tcp, spec.tls, at)
    yield from check_export_to(spec.export_to, metadata.namespace, (*at, "exportTo"))


def check_routes(http: Sequence[HTTPRoute], tcp: Sequence[TCPRoute], tls: Sequence[TLSRoute], at: Path) -> Found:
    """All that is wrong with the routes of a VirtualService, which is at ``at``."""
    if not http and not tcp and not tls:
        yield Problem(at, "has no route; add http, tcp or tls")
    for index, route in enumerate(http):
        yield from check_route(route, (*at, "http", index))
    for index, each in enumerate(tls):
        yield from check_tls_route(each, (*at, "tls", index))
    for index, opaque in enumerate(tcp):
        yield from check_tcp_route(opaque, (*at, "tcp", index))


def check_tls_route(route: TLSRoute, at: Path) -> Found:
    """All that is wrong with a TLS route, which is at ``at``."""
    if not route.match:
        yield Problem((*at, "match"), "is empty; a tls route has one match or more, with sniHosts")
    for number, name in enumerate(route.match):
        yield from check_l4_match(name, (*at, "match", number))
        if not name.sni_hosts:
            yield Problem((*at, "match", number, "sniHosts"), "is empty; write one server name or more")
    yield from _destinations(route.route, (*at, "route"))


def check_tcp_route(route: TCPRoute, at: Path) -> Found:
    """All that is wrong with a TCP route, which is at ``at``."""
    for number, match in enumerate(route.match):
        yield from check_l4_match(match, (*at, "match", number))
    yield from _destinations(route.route, (*at, "route"))


def check_export_to(names: Sequence[str], namespace: str, at: Path) -> Found:
    """All that is wrong with the namespaces that may see a document of ``namespace``, as in Istio."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        meant = namespace if name == "." else name
        if name not in (".", "*") and not is_label(name):
            yield Problem((*at, index), f"{shown(name)} is no namespace; a name, or one of . *")
        elif meant in seen:
            yield Problem((*at, index), f"{shown(name)} stands here twice")
        seen.add(meant)
    if "*" in seen and len(names) > 1:
        yield Problem(at, "has * beside others; * alone is all namespaces")


def _hosts(hosts: Sequence[str], at: Path) -> Found:
    good: list[tuple[int, str]] = []
    for index, host in enumerate(hosts):
        if host == ANY:
            yield Problem((*at, index), f"* is for gateways alone; a VirtualService of {MESH} names its hosts")
        elif parse_ip(host) is None and (why := host_problem(host)):
            yield Problem((*at, index), why)
        else:
            good.append((index, host))
    exact: dict[str, int] = {}
    for index, host in good:
        if exact.setdefault(host.lower(), index) != index:
            yield Problem((*at, index), f"{shown(host)} stands here twice")
    for name, index in exact.items():
        wide = next((each for each in covering(name) if each != name and each in exact), None)
        if wide is not None:
            yield Problem((*at, index), f"{shown(name)} is covered by {shown(wide)}, which stands here as well")


def _server_names(spec: VirtualService, at: Path) -> Found:
    """Server names that are none, or of no host of the document. An address is noted by ``routing_lint``."""
    hosts = {host.lower() for host in spec.hosts}
    for number, route in enumerate(spec.tls):
        for count, match in enumerate(route.match):
            for index, name in enumerate(match.sni_hosts):
                why = "" if parse_ip(name) is not None else host_problem(name)
                if not why and parse_ip(name) is None and hosts.isdisjoint(covering(name)):
                    why = f"{shown(name)} is not one of the VirtualService's hosts, nor covered by one"
                if why:
                    yield Problem((*at, number, "match", count, "sniHosts", index), why)


def _destinations(routes: Sequence[RouteDestination], at: Path) -> Found:
    if not routes:
        yield Problem(at, "is missing; write one destination or more")
    yield from check_destinations(routes, at)
