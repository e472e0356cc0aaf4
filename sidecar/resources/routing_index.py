"""Routing documents by what they are about, for ``routing_lint`` and ``backend_lint``. Pure.

One table, made once for a mesh and kept up with each change: so a note on one document among ten thousand costs what
that document does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from sidecar.resources.destination_rule import Subset
from sidecar.resources.documents import Document, Key
from sidecar.resources.kinds import (
    KINDS,
    BackendTrafficPolicy,
    DestinationRule,
    Service,
    ServiceEntry,
    VirtualService,
)
from sidecar.resources.mesh_documents import Mesh
from sidecar.resources.route_hosts import covering, full_host
from sidecar.resources.virtual_service import (
    Destination,
    HTTPRoute,
    HTTPRouteDestination,
    RouteDestination,
    TCPRoute,
    TLSRoute,
)

What = Literal["routes", "destination", "rule", "policy", "label"]
About = tuple[What, str]
Table = Mapping[About, Mapping[Key, Document]]


def about(mesh: Mesh, what: What, text: str) -> Mapping[Key, Document]:
    """The documents about this: VirtualServices that route calls to a full host (``routes``) or lead to it
    (``destination``), DestinationRules (``rule``) and BackendTrafficPolicies (``policy``) with it as their host, and
    services with a label, ``KEY=VALUE``."""
    return _table(mesh).get((what, text), {})


def subsets_of(mesh: Mesh, host: str) -> Iterator[Subset]:
    """All subsets that any DestinationRule has for a full host, whoever may see it."""
    for name in covering(host):
        for document in about(mesh, "rule", name).values():
            assert isinstance(document.spec, DestinationRule)
            yield from document.spec.subsets


def named(mesh: Mesh, host: str) -> tuple[Document | None, str]:
    """Return the service or service entry that a full host is a name of, None if there is none, and its full name:
    ``web.shop`` and ``web.shop.svc`` are names of a service, too."""
    services = mesh.of("Service")
    for place in mesh.services.named(host):
        return services[place], host
    for name in covering(host):
        for place in mesh.entries.named(name):
            return mesh.of("ServiceEntry")[place], host
    name, _, namespace = host.removesuffix(".svc").partition(".")
    if (namespace, name) in services:
        return services[namespace, name], mesh.host_of((namespace, name))
    return None, host


def ports_of(document: Document) -> set[int]:
    """The ports by which callers know a service or service entry."""
    if isinstance(document.spec, Service):
        return {port.port for port in document.spec.ports}
    assert isinstance(document.spec, ServiceEntry)
    return {port.number for port in document.spec.ports}


def destinations_of(spec: VirtualService) -> Iterator[Destination]:
    """All that its routes lead to."""
    routes: list[HTTPRoute | TCPRoute | TLSRoute] = [*spec.http, *spec.tcp, *spec.tls]
    for route in routes:
        destinations: Sequence[HTTPRouteDestination | RouteDestination] = route.route
        yield from (each.destination for each in destinations)


def is_namespace(mesh: Mesh, name: str) -> bool:
    """Return whether a document is in this namespace."""
    return any(mesh.in_namespace(kind, name) for kind in KINDS)


def _table(mesh: Mesh) -> Table:
    domain = mesh.trust_domain
    return mesh.remembered(
        "routing",
        lambda: _updated({}, (), mesh.documents(), domain),
        lambda old, gone, new: _updated(old, gone, new, domain),
    )


def _updated(old: Table, gone: Iterable[Document], new: Iterable[Document], trust_domain: str) -> Table:
    table = dict(old)
    opened: dict[About, dict[Key, Document]] = {}
    for documents, keep in ((gone, False), (new, True)):
        for document in documents:
            for key in _of(document, trust_domain):
                if key not in opened:
                    table[key] = opened[key] = dict(table.get(key, {}))
                if keep:
                    opened[key][document.key] = document
                else:
                    opened[key].pop(document.key, None)
    return table


def _of(document: Document, trust_domain: str) -> Iterator[About]:
    spec, namespace = document.spec, document.metadata.namespace
    if isinstance(spec, VirtualService):
        yield from (("routes", full_host(host, namespace, trust_domain)) for host in spec.hosts)
        for destination in destinations_of(spec):
            yield "destination", full_host(destination.host, namespace, trust_domain)
    elif isinstance(spec, DestinationRule):
        yield "rule", full_host(spec.host, namespace, trust_domain)
    elif isinstance(spec, BackendTrafficPolicy):
        yield "policy", full_host(spec.host, namespace, trust_domain)
    elif isinstance(spec, Service):
        yield from (("label", f"{key}={text}") for key, text in document.metadata.labels.items())
