"""VirtualService, DestinationRule and BackendTrafficPolicy as written -> as one proxy is told them. Pure.

Who calls it: ``visibility``, for each that a proxy sees. Hosts become full names, since a name without a dot means a
service of the document's namespace, which a proxy of another one could not know. What is meant for gateways alone is
left out: a match whose ``gateways`` are without ``mesh``, and a rule all of whose matches are such. A rule that had no
``match`` takes everything, so it must not become one by losing its matches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TypeVar

from msgspec.structs import replace

from sidecar.resources.destination_rule import BackendTrafficPolicySpec, DestinationRuleSpec
from sidecar.resources.kinds import BackendTrafficPolicy, DestinationRule, Metadata, VirtualService
from sidecar.resources.route_hosts import full_host
from sidecar.resources.virtual_service import (
    MESH,
    Destination,
    HTTPMatchRequest,
    HTTPRoute,
    L4MatchAttributes,
    RouteDestination,
    TCPRoute,
    TLSMatchAttributes,
    TLSRoute,
    VirtualServiceSpec,
)

M = TypeVar("M", HTTPMatchRequest, L4MatchAttributes, TLSMatchAttributes)
Full = Callable[[Destination], Destination]


def of_the_mesh(spec: VirtualService) -> bool:
    """Return whether it has a rule for sidecars, and not for gateways alone. Without one it has no effect here, and
    must not stand before another for its hosts."""
    named = _named(spec)
    for rule in chain[HTTPRoute | TCPRoute | TLSRoute](spec.http, spec.tcp, spec.tls):
        if not rule.match:
            if named:
                return True
        elif any(MESH in match.gateways if match.gateways else named for match in rule.match):
            return True
    return False


def virtual_service_of(metadata: Metadata, spec: VirtualService, trust_domain: str) -> VirtualServiceSpec:
    """The VirtualService as proxies are told it."""
    namespace, named = metadata.namespace, _named(spec)

    def full(destination: Destination) -> Destination:
        host = full_host(destination.host, namespace, trust_domain)
        return destination if host == destination.host else replace(destination, host=host)

    return VirtualServiceSpec(
        name=metadata.name,
        namespace=namespace,
        hosts=[full_host(host, namespace, trust_domain) for host in spec.hosts],
        http=[_http(rule, matches, full) for rule, matches in _kept(spec.http, named)],
        tcp=[_tcp(rule, matches, full) for rule, matches in _kept(spec.tcp, named)],
        tls=[_tls(rule, matches, full) for rule, matches in _kept(spec.tls, named)],
    )


def destination_rule_of(metadata: Metadata, spec: DestinationRule, trust_domain: str) -> DestinationRuleSpec:
    """The DestinationRule as proxies are told it."""
    return DestinationRuleSpec(
        name=metadata.name,
        namespace=metadata.namespace,
        host=full_host(spec.host, metadata.namespace, trust_domain),
        traffic_policy=spec.traffic_policy,
        subsets=spec.subsets,
    )


def backend_policy_of(metadata: Metadata, spec: BackendTrafficPolicy, trust_domain: str) -> BackendTrafficPolicySpec:
    """The BackendTrafficPolicy as proxies are told it."""
    return BackendTrafficPolicySpec(
        name=metadata.name,
        namespace=metadata.namespace,
        host=full_host(spec.host, metadata.namespace, trust_domain),
        retry_budget=spec.retry_budget,
        retry=spec.retry,
    )


R = TypeVar("R", HTTPRoute, TCPRoute, TLSRoute)


def _named(spec: VirtualService) -> bool:
    """Whether matches that name no gateways are for sidecars."""
    return not spec.gateways or MESH in spec.gateways


def _kept(rules: Iterable[R], named: bool) -> Iterator[tuple[R, list[int]]]:
    """The rules that are for sidecars, each with the indexes of its matches that are."""
    for rule in rules:
        matches = [n for n, each in enumerate(rule.match) if (MESH in each.gateways if each.gateways else named)]
        if matches or (named and not rule.match):
            yield rule, matches


def _matches(matches: list[M], kept: list[int]) -> list[M]:
    if len(kept) == len(matches) and not any(each.gateways for each in matches):
        return matches
    return [_for_sidecars(matches[number]) for number in kept]


def _for_sidecars(match: M) -> M:
    """The match as sidecars get it. In HTTP, ``gateways`` stand in place of what it says of the caller, as in Istio."""
    if match.gateways and isinstance(match, HTTPMatchRequest):
        return replace(match, gateways=[], source_labels={}, source_namespace="")
    return replace(match, gateways=[])


def _http(rule: HTTPRoute, kept: list[int], full: Full) -> HTTPRoute:
    return replace(
        rule,
        match=_matches(rule.match, kept),
        route=[replace(each, destination=full(each.destination)) for each in rule.route],
        mirror=None if rule.mirror is None else full(rule.mirror),
        mirrors=[replace(each, destination=full(each.destination)) for each in rule.mirrors],
    )


def _tcp(rule: TCPRoute, kept: list[int], full: Full) -> TCPRoute:
    return replace(rule, match=_matches(rule.match, kept), route=_l4(rule.route, full))


def _tls(rule: TLSRoute, kept: list[int], full: Full) -> TLSRoute:
    return replace(rule, match=_matches(rule.match, kept), route=_l4(rule.route, full))


def _l4(route: list[RouteDestination], full: Full) -> list[RouteDestination]:
    return [replace(each, destination=full(each.destination)) for each in route]
