"""The routes of requests and bytes to a destination that has a VirtualService: the first rule that matches decides.

Made by ``route_table`` for each Snapshot that has such documents. A rule leads only to destinations of that Snapshot.
A ``Route`` is made when a target of a rule is first drawn, and kept: the next request of the rule finds it in one
look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import random
from typing import Any, Final, Protocol

import msgspec

from sidecar.addresses import Address
from sidecar.errors import ProxyError, Reason
from sidecar.http.message import Request
from sidecar.policy.http_routes import HttpRule, VirtualHost
from sidecar.policy.retry import RetryPolicy, compile_retry
from sidecar.policy.route_actions import Mirror, RouteAction, Target
from sidecar.policy.route_question import RouteQuestion
from sidecar.policy.routing import Routing
from sidecar.proxy.deadlines import Deadlines, Limits
from sidecar.proxy.route import ChosenRule, Route
from sidecar.proxy.routed_request import forwards, serve_by_rule
from sidecar.resources.snapshot import EntryPort, ServicePort, Snapshot
from sidecar.resources.virtual_service import HTTPMatchRequest

_UNKNOWN_PORT: Final = 80
_MOST: Final = 65_536  # routes that are kept: those of 10,000 rules, with a few targets and ports each


class Destinations(Protocol):
    """How routes to a port of a service or an entry are made. See ``route_table``."""

    def of_service(self, port: ServicePort, called: Address, subset: str = "") -> Route: ...

    def of_entry(self, port: EntryPort, called: Address, subset: str = "", *, chosen: bool = False) -> Route: ...

    def non_idempotent(self, port: ServicePort | EntryPort, subset: str) -> frozenset[str]: ...


class VirtualRoutes:
    """See the module. ``routing`` is what was compiled of the documents of ``snapshot``."""

    def __init__(
        self,
        destinations: Destinations,
        routing: Routing,
        snapshot: Snapshot,
        deadlines: Deadlines,
        draw: Callable[[], float] = random,
    ) -> None:
        self._destinations = destinations
        self._hosts = routing.hosts
        self._snapshot = snapshot
        self._deadlines = deadlines
        self._draw = draw
        self._covering: dict[str, bool] = {}  # by wildcard
        self._made: dict[tuple[int, int, int], Route] = {}

    @property
    def made(self) -> Iterable[Route]:
        """The routes that were made so far."""
        return self._made.values()

    def find(self, host: str, port: int) -> VirtualHost | None:
        """Return the VirtualService whose HTTP routes count for a full name in lower case, without a dot at its end, or
        for an address; None if there is none."""
        return self._hosts.find(host.encode("ascii", "replace"), port)

    def find_unknown(self, host: str, port: int) -> VirtualHost | None:
        """Return the one for such a name that is no service or entry. As in Istio, a wildcard that covers any that is
        known is for those alone; a VirtualService for a name that is not known counts at port 80."""
        found = self.find(host, port) if port == _UNKNOWN_PORT else None
        if found is None or host in found.spec.hosts:
            return found
        covering = [each for each in found.spec.hosts if each.startswith("*") and host.endswith(each[1:])]
        return None if any(map(self._covers, covering)) else found

    def _covers(self, wildcard: str) -> bool:
        """Return whether a service or an entry has a name that ends like this."""
        known = self._covering.get(wildcard)
        if known is None:
            ending, snapshot = wildcard.removeprefix("*"), self._snapshot
            names = (port.host for each in snapshot.services.values() for port in each.ports.values())
            known = any(name.endswith(ending) for name in names)
            known = known or any(name.decode().endswith(ending) for name in snapshot.hosts)
            self._covering[wildcard] = known
        return known

    def not_used(self, host: str) -> list[str]:
        """Return the titles of VirtualServices for a host that do not count, since another one comes first."""
        return [each.title for each in self._hosts.shadowed if each.host == host]

    def of_request(self, base: Route, virtual: VirtualHost, request: Request) -> Route:
        """Return the route of a request to the destination of ``base``, which has this VirtualService. Raises
        ProxyError: NO_ROUTE if no rule matches, NO_CLUSTER if the rule leads to a destination that is not there."""
        port = base.called.port
        found = virtual.first(RouteQuestion(request.method, request.target, request.authority, request.fields, port))
        if found is None:
            raise ProxyError(Reason.NO_ROUTE, f"no rule of VirtualService {virtual.title} matches the request")
        split = found[0].action.split
        number = 0 if split is None else split.only
        if split is not None and number < 0:
            number = split.choose(self._draw())
        key = (id(found), number, port)  # it lives as long as the Snapshot, and so does this table
        known = self._made.get(key)
        if known is not None:
            return known
        rule, match = found
        action = rule.action
        if split is None:  # the proxy itself answers, so nothing has to be allowed
            chosen = _chosen(virtual, rule, match, action)
            return msgspec.structs.replace(base, virtual=None, rule=chosen, allowed=True)
        made = self.to_target(base, virtual, rule, match, number)
        if len(self._made) < _MOST and _is_the_same_for_all(made, base):
            self._made[key] = made
        return made

    def to_target(
        self, base: Route, virtual: VirtualHost, rule: HttpRule, match: HTTPMatchRequest | None, number: int
    ) -> Route:
        """Return the route to one target of a rule. Raises ProxyError(NO_CLUSTER)."""
        action = rule.action
        target = action.targets[number]
        port = self._port(target.host, target.port, base)
        route = self._route(port, target.host, target.subset, base)
        named = bool(rule.name) and rule.name in self._destinations.non_idempotent(port, target.subset)
        chosen = _chosen(virtual, rule, match, action, target, self._mirrors(action, base))
        return msgspec.structs.replace(
            route, rule=chosen, retry=self._retry(action, named), limits=self._limits(action), subset=target.subset
        )

    def has_tls(self, host: str, port: int) -> bool:
        """Return whether there are TLS routes to a host and port."""
        return self._hosts.find_tls(host.encode("ascii", "replace"), port) is not None

    def of_bytes(self, base: Route, address: str, sni: bytes) -> Route:
        """Return the route of opaque bytes to the destination of ``base``: by the TLS rules if they begin with a
        ClientHello that has this SNI, otherwise by the TCP rules; ``base`` itself if no rule matches. Raises
        ProxyError(NO_CLUSTER)."""
        host, port = base.host.encode("ascii", "replace"), base.called.port
        tls = self._hosts.find_tls(host, port) if sni else None
        found = None if tls is None else tls.first_tls(sni, address, port)
        if found is None:
            tcp = self._hosts.find_tcp(host, port)
            found = None if tcp is None else tcp.first_tcp(address, port)
        if found is None:
            return base
        where = found.destinations[found.split.choose(self._draw())].destination
        known = self._port(where.host, 0 if where.port is None else where.port.number, base)
        route = self._route(known, where.host, where.subset, base)
        return msgspec.structs.replace(route, subset=where.subset)

    def _mirrors(self, action: RouteAction, base: Route) -> tuple[tuple[float, Route], ...]:
        """Return the mirrors that lead somewhere. One that does not never fails the request that it would copy."""
        found = []
        for mirror in action.mirrors:
            try:
                found.append((mirror.share, self._to_mirror(mirror, base)))
            except ProxyError:
                continue
        return tuple(found)

    def _to_mirror(self, mirror: Mirror, base: Route) -> Route:
        return self._route(self._port(mirror.host, mirror.port, base), mirror.host, mirror.subset, base)

    def _port(self, host: str, number: int, base: Route) -> ServicePort | EntryPort:
        """Return the port of a destination: the one that is named, its only one, or the one that was called."""
        snapshot = self._snapshot
        service = snapshot.by_name(host)
        if service is not None:
            ports = service.ports
            found = ports.get(number or (next(iter(ports)) if len(ports) == 1 else base.called.port))
            if found is not None:
                return found
        else:
            entries = snapshot.hosts.get(host.encode("ascii", "replace"), {})
            wanted = number or (next(iter(entries)) if len(entries) == 1 else base.called.port)
            entry = entries.get(wanted) or snapshot.entry_by_authority(host, wanted)
            if entry is not None:
                return entry
        port = f"port {number}" if number else "that port"
        what = f"has no {port}" if service is not None else "is no service or entry that this proxy sees"
        raise ProxyError(Reason.NO_CLUSTER, f"the route leads to {host}, which {what}")

    def _route(self, port: ServicePort | EntryPort, host: str, subset: str, base: Route) -> Route:
        """Return the route to a port of the destination ``host``. If the app called that very port, and it has no
        address, then the one that was called counts, with what allowed it; otherwise the host is looked up."""
        if isinstance(port, ServicePort):
            return self._destinations.of_service(port, Address(port.host, port.port), subset)
        if port.resolution == "NONE" and base.kind == "entry" and (host.startswith("*") or base.shown == str(port)):
            return self._destinations.of_entry(port, base.called, subset, chosen=base.chosen)
        return self._destinations.of_entry(port, Address(host, port.port), subset)

    def _retry(self, action: RouteAction, non_idempotent: bool) -> RetryPolicy:
        return compile_retry(action.retries, repeatable=non_idempotent)

    def _limits(self, action: RouteAction) -> Limits | None:
        per_try = action.per_try or action.timeout
        if not per_try:
            return None
        return Limits(self._deadlines, action.timeout or float("inf"), per_try)


def _is_the_same_for_all(made: Route, base: Route) -> bool:
    """Return whether a rule's route, with its mirrors, is the same whatever address was called."""
    mirrors = () if made.rule is None else made.rule.mirrors
    return all(each.called is not base.called for each in (made, *[mirror for _, mirror in mirrors]))


def question(request: Request, port: int) -> RouteQuestion:
    """Return what rules judge a request by."""
    return RouteQuestion(request.method, request.target, request.authority, request.fields, port)


def _chosen(
    virtual: VirtualHost,
    rule: HttpRule,
    match: HTTPMatchRequest | None,
    action: RouteAction,
    target: Target | None = None,
    mirrors: tuple[tuple[float, Any], ...] = (),
) -> ChosenRule:
    title = f"{virtual.title}/{rule.name or f'http[{rule.number}]'}"
    return ChosenRule(
        None if forwards(action, target, mirrors) else serve_by_rule,
        title,
        action,
        match,
        target,
        mirrors,
        virtual.fields,
    )
