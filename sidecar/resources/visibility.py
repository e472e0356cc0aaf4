"""What a proxy is to see of a mesh, by who it is: services, entries, what its callers bring, whom else its app may
call. Pure.

Who calls it: the control plane for each identity, ``sidecar --config`` for its own. Rules:

- Without a Sidecar document a proxy sees what is in its own namespace, and of others what is exported to it or to
  ``*``. A Sidecar document says itself what is seen, by ``egress.hosts``. ``exportTo``, where it is written, bounds
  both. The services that a proxy may serve are always seen.
- PeerAuthentication and Sidecar: a workload's own (by selector) before the namespace's, before the mesh's (without a
  selector, in ROOT_NAMESPACE). What one leaves unsaid is taken from the next; of several of one rank the first by name
  counts.
- AuthorizationPolicy, RateLimitPolicy: all apply together, whatever their rank. Those of the workload's namespace and
  of ROOT_NAMESPACE without a selector, and those with one that matches; one in ROOT_NAMESPACE selects workloads of any
  namespace.
- VirtualService, DestinationRule, BackendTrafficPolicy: see ``route_visibility``.
- A workload's labels are those of a service of its namespace whose ``serviceAccounts`` list its account: a selector has
  to match one of them whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from certs.spiffe import SpiffeId
from sidecar.addresses import parse_ip
from sidecar.resources.authorization import PolicySpec
from sidecar.resources.authorization_rules import policy_of
from sidecar.resources.destination_rule import BackendTrafficPolicySpec, DestinationRuleSpec
from sidecar.resources.documents import Document
from sidecar.resources.field_rules import service_of
from sidecar.resources.kinds import (
    ROOT_NAMESPACE,
    AuthorizationPolicy,
    BackendTrafficPolicy,
    DestinationRule,
    Egress,
    PeerAuthentication,
    RateLimitPolicy,
    Service,
    ServiceEntry,
    Sidecar,
    VirtualService,
    WorkloadEntry,
)
from sidecar.resources.mesh_documents import Exports, Mesh, Place
from sidecar.resources.proxy_config import EntrySpec, ProxyConfig, RegisteredSpec, ResolvedService, told
from sidecar.resources.rate_limit_rules import limit_policy_of
from sidecar.resources.rate_limits import LimitPolicySpec
from sidecar.resources.route_scope import backend_policy_of, destination_rule_of, virtual_service_of
from sidecar.resources.route_tables import Seen
from sidecar.resources.route_visibility import backend_policies, destination_rules, virtual_services
from sidecar.resources.schema import EndpointSpec, MutualTls, PeerAuthenticationSpec, PortSpec
from sidecar.resources.snapshot import SCHEMA, Policy
from sidecar.resources.virtual_service import VirtualServiceSpec

Labels = Mapping[str, str]


class Visibility(msgspec.Struct, frozen=True):
    """What an identity is to see, by documents alone. ``services`` and ``entries`` are (namespace, name),
    sorted; of entries those of the own namespace first, since the first one counts where two have the same host.
    ``authorization`` and ``rate_limits``: those of ROOT_NAMESPACE first, then by namespace and name. The last three are
    (namespace, name) in the order in which they count."""

    services: tuple[Place, ...]
    entries: tuple[Place, ...]
    peer_authentication: PeerAuthenticationSpec
    outbound_policy: Policy | None
    authorization: tuple[PolicySpec, ...] = ()
    rate_limits: tuple[LimitPolicySpec, ...] = ()
    virtual_services: tuple[Place, ...] = ()
    destination_rules: tuple[Place, ...] = ()
    backend_policies: tuple[Place, ...] = ()
    labels: tuple[Labels, ...] = ()  # of the workload: those of each of its services


def scope_of(mesh: Mesh, namespace: str, service_account: str, more: Iterable[Labels] = ()) -> Visibility:
    """What a proxy of this namespace and service account is to see. ``more``: labels that selectors look at beside
    those of its services."""
    own = mesh.serving.get((namespace, service_account), [])
    labels = [*labels_of(mesh, namespace, service_account), *more]
    sidecars = [each.spec for each in _ranked(mesh, "Sidecar", namespace, labels)]
    egress: list[Egress] = next((each.egress for each in sidecars if isinstance(each, Sidecar) and each.egress), [])
    policies = (each.outbound_traffic_policy for each in sidecars if isinstance(each, Sidecar))
    policy = next((each.mode for each in policies if each is not None), None)
    services, entries = (
        set(_asked(table, egress, namespace) if egress else _default(table, namespace))
        for table in (mesh.services, mesh.entries)
    )
    seen = Seen(services.union(own), entries)
    return Visibility(
        tuple(sorted(seen.services)),
        tuple(sorted(entries, key=lambda place: (place[0] != namespace, place))),
        _peer_authentication(_ranked(mesh, "PeerAuthentication", namespace, labels)),
        policy,
        tuple(policy_spec(mesh, place) for place in _policies(mesh, "AuthorizationPolicy", namespace, labels)),
        tuple(limit_policy_spec(mesh, place) for place in _policies(mesh, "RateLimitPolicy", namespace, labels)),
        virtual_services(mesh, namespace, seen, bounded=bool(egress)),
        destination_rules(mesh, namespace, seen, labels),
        backend_policies(mesh, namespace, seen),
        tuple(labels),
    )


def labels_of(mesh: Mesh, namespace: str, service_account: str) -> list[Labels]:
    """The labels of a workload that count for selectors: a mapping for each service of its namespace that it may
    serve."""
    services = mesh.of("Service")
    own = mesh.serving.get((namespace, service_account), [])
    return [services[place].metadata.labels for place in own if place[0] == namespace]


def service_spec(
    mesh: Mesh, place: Place, endpoints: Iterable[EndpointSpec] = (), virtual: tuple[str, ...] = ()
) -> ResolvedService:
    """A service with the endpoints of its document, those registered, and where it names no addresses the virtual ones.
    Of a registered endpoint, addresses at which there is one already are left out. Raises KeyError where there is no
    such document."""
    document = mesh.of("Service")[place]
    assert isinstance(document.spec, Service)
    spec = service_of(document.metadata, document.spec)
    found = list(spec.endpoints)
    taken = {_where(each.address, each, port) for each in found for port in spec.ports}
    for each in endpoints:
        addresses = each.addresses if isinstance(each, RegisteredSpec) else [each.address]
        free = []
        for address in addresses:
            places = {_where(address, each, port) for port in spec.ports}
            if not places & taken:
                taken |= places
                free.append(address)
        if free == addresses:
            found.append(each)
        elif free:
            found.append(msgspec.structs.replace(each, address=free[0], also_at=free[1:]))
    return told(spec, found, spec.addresses or list(virtual))


def entry_spec(mesh: Mesh, place: Place, virtual: tuple[str, ...] = ()) -> EntrySpec:
    """A service entry with the WorkloadEntries that it selects. Raises KeyError where there is no such document."""
    document = mesh.of("ServiceEntry")[place]
    spec = document.spec
    assert isinstance(spec, ServiceEntry)
    endpoints = [
        EndpointSpec(address=each.address, ports=each.ports, labels=each.labels, weight=each.weight)
        for each in spec.endpoints
    ]
    if spec.workload_selector is not None:
        endpoints.extend(_selected(mesh, place[0], spec))
    return EntrySpec(
        name=place[1],
        namespace=place[0],
        hosts=spec.hosts,
        ports=[
            PortSpec(port=each.number, name=each.name, app_protocol=each.protocol.lower(), target_port=each.target_port)
            for each in spec.ports
        ],
        addresses=spec.addresses or list(virtual),
        resolution=spec.resolution,
        endpoints=endpoints,
    )


def policy_spec(mesh: Mesh, place: Place) -> PolicySpec:
    """A policy as proxies are told it. Raises KeyError where there is no such document."""
    document = mesh.of("AuthorizationPolicy")[place]
    assert isinstance(document.spec, AuthorizationPolicy)
    return policy_of(document.metadata, document.spec)


def limit_policy_spec(mesh: Mesh, place: Place) -> LimitPolicySpec:
    """A RateLimitPolicy as proxies are told it. Likewise."""
    document = mesh.of("RateLimitPolicy")[place]
    assert isinstance(document.spec, RateLimitPolicy)
    return limit_policy_of(document.metadata, document.spec)


def virtual_service_spec(mesh: Mesh, place: Place) -> VirtualServiceSpec:
    """A VirtualService as proxies are told it. Likewise."""
    document = mesh.of("VirtualService")[place]
    assert isinstance(document.spec, VirtualService)
    return virtual_service_of(document.metadata, document.spec, mesh.trust_domain)


def destination_rule_spec(mesh: Mesh, place: Place) -> DestinationRuleSpec:
    """A DestinationRule as proxies are told it. Likewise."""
    document = mesh.of("DestinationRule")[place]
    assert isinstance(document.spec, DestinationRule)
    return destination_rule_of(document.metadata, document.spec, mesh.trust_domain)


def backend_policy_spec(mesh: Mesh, place: Place) -> BackendTrafficPolicySpec:
    """A BackendTrafficPolicy as proxies are told it. Likewise."""
    document = mesh.of("BackendTrafficPolicy")[place]
    assert isinstance(document.spec, BackendTrafficPolicy)
    return backend_policy_of(document.metadata, document.spec, mesh.trust_domain)


def scoped_mesh(
    mesh: Mesh,
    identity: SpiffeId,
    endpoints_of: Callable[[Place], Iterable[EndpointSpec]] = lambda place: (),
    virtual_of: Callable[[Place], tuple[str, ...]] = lambda place: (),
    *,
    version: str,
    issued: float,
    labels: Iterable[Labels] = (),
) -> ProxyConfig:
    """All that the proxy with this identity obeys, ``labels`` as in :func:`scope_of`. Raises ValueError where it is no
    workload's."""
    workload = identity.workload()
    if workload is None:
        raise ValueError(f"{identity} is no workload")
    scope = scope_of(mesh, *workload, labels)
    return ProxyConfig(
        schema=SCHEMA,
        version=version,
        proxy=str(identity),
        issued=issued,
        trust_domain=mesh.trust_domain,
        services=[service_spec(mesh, place, endpoints_of(place), virtual_of(place)) for place in scope.services],
        service_entries=[entry_spec(mesh, place) for place in scope.entries],
        peer_authentication=scope.peer_authentication,
        outbound_policy=scope.outbound_policy,
        authorization=list(scope.authorization),
        rate_limits=list(scope.rate_limits),
        virtual_services=[virtual_service_spec(mesh, place) for place in scope.virtual_services],
        destination_rules=[destination_rule_spec(mesh, place) for place in scope.destination_rules],
        backend_traffic_policies=[backend_policy_spec(mesh, place) for place in scope.backend_policies],
        workload_labels=list(map(dict, scope.labels)) if scope.virtual_services and any(scope.labels) else [],
    )


# -- precedence -------------------------------------------------------------------------------------------------------


def matches(wanted: Labels, labels: Iterable[Labels]) -> bool:
    """Whether a selector's labels are all in one of these."""
    return any(wanted.items() <= each.items() for each in labels)


def selector_of(document: Document) -> Labels:
    """The labels that the document selects workloads by; empty: it selects none in particular."""
    spec = document.spec
    if isinstance(spec, PeerAuthentication | AuthorizationPolicy | RateLimitPolicy):
        return spec.selector.match_labels
    if isinstance(spec, Sidecar | ServiceEntry) and spec.workload_selector is not None:
        return spec.workload_selector.labels
    return {}


def _ranked(mesh: Mesh, kind: str, namespace: str, labels: list[Labels]) -> list[Document]:
    """The documents of a kind that are for this workload, the nearest first: one of each rank at most."""
    here = mesh.in_namespace(kind, namespace)
    root = [] if namespace == ROOT_NAMESPACE else mesh.in_namespace(kind, ROOT_NAMESPACE)
    ranks = (
        (each for each in here if selector_of(each) and matches(selector_of(each), labels)),
        (each for each in here if not selector_of(each)),
        (each for each in root if not selector_of(each)),
    )
    return [found for rank in ranks for found in [next(rank, None)] if found is not None]


def _peer_authentication(ranked: list[Document]) -> PeerAuthenticationSpec:
    specs = [each.spec for each in ranked if isinstance(each.spec, PeerAuthentication)]
    mode = next((each.mtls for each in specs if each.mtls.mode != "UNSET"), MutualTls())
    ports = specs[0].port_level_mtls if specs else {}
    return PeerAuthenticationSpec(mode, {port: each for port, each in ports.items() if each.mode != "UNSET"})


def applies(policy: Document, namespace: str, labels: Iterable[Labels]) -> bool:
    """Return whether a policy, which may be in ROOT_NAMESPACE, applies to a workload with these labels in this
    namespace."""
    wanted = selector_of(policy)
    return policy.metadata.namespace in (namespace, ROOT_NAMESPACE) and (not wanted or matches(wanted, labels))


def _policies(mesh: Mesh, kind: str, namespace: str, labels: list[Labels]) -> Iterator[Place]:
    """All policies of a kind that apply to this workload; each namespace's by name."""
    for each in dict.fromkeys((ROOT_NAMESPACE, namespace)):
        for document in mesh.in_namespace(kind, each):
            if applies(document, namespace, labels):
                yield document.key[1:]


# -- who sees what ----------------------------------------------------------------------------------------------------


def _default(table: Exports, namespace: str) -> Iterator[Place]:
    yield from (place for place in table.by_namespace.get(namespace, []) if table.may_see(namespace, place))
    yield from table.public
    yield from table.given.get(namespace, [])


def _asked(table: Exports, egress: list[Egress], namespace: str) -> Iterator[Place]:
    for text in dict.fromkeys(host for each in egress for host in each.hosts):
        yield from (place for place in asked(table, text, namespace) if table.may_see(namespace, place))


def asked(table: Exports, text: str, namespace: str) -> Iterable[Place]:
    """What a host of ``egress.hosts`` means for a proxy of this namespace, whether it may see it or not."""
    where, _, host = text.partition("/")
    where = namespace if where == "." else where
    if where == "~":
        return ()
    if host == "*":
        found = table.by_namespace.values() if where == "*" else [table.by_namespace.get(where, [])]
        return (place for places in found for place in places)
    return (place for place in _of_host(table, host) if where in ("*", place[0]))


def _of_host(table: Exports, host: str) -> Iterator[Place]:
    if not host.startswith("*"):
        yield from table.hosts.get(host, [])
        yield from (place for wild, places in table.wild.items() if host.endswith(wild) for place in places)
        return
    suffix = host.lstrip("*")
    for name, places in table.hosts.items():
        if name.endswith(suffix):
            yield from places
    for wild, places in table.wild.items():
        if wild.endswith(suffix) or suffix.endswith(wild):
            yield from places


# -- endpoints --------------------------------------------------------------------------------------------------------


def _where(address: str, each: EndpointSpec, port: PortSpec) -> tuple[str, int, int]:
    """Where a port of a service is dialed at this address of an endpoint."""
    dialed = each.ports.get(port.name) or each.port or port.target_port or port.port
    return str(parse_ip(address) or address), port.port, dialed


def _selected(mesh: Mesh, namespace: str, entry: ServiceEntry) -> Iterator[EndpointSpec]:
    """The WorkloadEntries that the entry selects; under STATIC those with an IP address."""
    assert entry.workload_selector is not None
    names = {port.name for port in entry.ports}
    seen: set[tuple[object, ...]] = set()
    for document in mesh.in_namespace("WorkloadEntry", namespace):
        spec = document.spec
        assert isinstance(spec, WorkloadEntry)
        if not matches(entry.workload_selector.labels, [spec.labels]):
            continue
        if entry.resolution == "STATIC" and parse_ip(spec.address) is None:
            continue
        ports = {name: port for name, port in spec.ports.items() if name in names}
        place = spec.address, *sorted(ports.items())
        if place not in seen:
            seen.add(place)
            yield EndpointSpec(address=spec.address, ports=ports, labels=spec.labels, weight=spec.weight)
