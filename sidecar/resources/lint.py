"""What is legal between documents, and yet most likely a mistake. Pure.

Who calls it: ``sidecarctl check`` and ``apply``, which show it, and ``sidecar --config``, which logs it. Nothing is
refused for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from sidecar.addresses import parse_ip
from sidecar.resources.authorization_lint import lint_policies, services_of
from sidecar.resources.backend_lint import lint_backends
from sidecar.resources.conflicts import Finding
from sidecar.resources.documents import Document, Key
from sidecar.resources.kinds import (
    KINDS,
    ROOT_NAMESPACE,
    PeerAuthentication,
    Service,
    ServiceEntry,
    Sidecar,
    WorkloadEntry,
)
from sidecar.resources.mesh_documents import Mesh
from sidecar.resources.rate_limit_lint import lint_limits
from sidecar.resources.routing_lint import lint_routes
from sidecar.resources.validation import Path, shown
from sidecar.resources.visibility import asked, matches, selector_of

_SELECTOR: Mapping[str, Path] = {
    "PeerAuthentication": ("spec", "selector"),
    "AuthorizationPolicy": ("spec", "selector"),
    "RateLimitPolicy": ("spec", "selector"),
    "Sidecar": ("spec", "workloadSelector"),
    "ServiceEntry": ("spec", "workloadSelector"),
}


def lint(mesh: Mesh, changed: Collection[Key] | None = None) -> list[Finding]:
    """All that is odd in the mesh; or only with these documents, which costs what they do, not what the mesh does."""
    chosen: dict[str, list[Document]] = {kind: [] for kind in KINDS}
    every = mesh.documents() if changed is None else map(mesh.get, dict.fromkeys(changed))
    documents = [each for each in every if each is not None]
    for document in sorted(documents, key=lambda each: each.key):
        chosen[document.kind].append(document)
    return [
        *_selectors(mesh, [each for kind in _SELECTOR for each in chosen[kind]]),
        *_ranks(mesh, [*chosen["PeerAuthentication"], *chosen["Sidecar"]]),
        *_ports(mesh, chosen["PeerAuthentication"]),
        *lint_policies(mesh, chosen["AuthorizationPolicy"]),
        *lint_limits(mesh, chosen["RateLimitPolicy"]),
        *lint_routes(mesh, chosen["VirtualService"]),
        *lint_backends(mesh, [*chosen["DestinationRule"], *chosen["BackendTrafficPolicy"]]),
        *_egress(mesh, chosen["Sidecar"]),
        *_hosts(mesh, chosen["ServiceEntry"]),
        *_workload_entries(mesh, chosen["WorkloadEntry"]),
    ]


def _selectors(mesh: Mesh, documents: list[Document]) -> Iterator[Finding]:
    """Selectors that match nobody."""
    for document in documents:
        wanted, namespace = selector_of(document), document.metadata.namespace
        path = _SELECTOR[document.kind]
        if not wanted:
            continue
        if document.kind == "ServiceEntry":
            if not any(matches(wanted, [labels]) for _, labels in _workloads(mesh, namespace)):
                yield Finding(document.key, path, f"matches no WorkloadEntry of namespace {namespace}")
        elif document.kind in ("AuthorizationPolicy", "RateLimitPolicy") and namespace == ROOT_NAMESPACE:
            if not services_of(mesh, document):
                why = "matches no service of the mesh: workloads have the labels of the services they serve"
                yield Finding(document.key, path, why)
        elif not any(matches(wanted, [each.metadata.labels]) for each in mesh.in_namespace("Service", namespace)):
            why = f"matches no service of namespace {namespace}: workloads have the labels of the services they serve"
            yield Finding(document.key, path, why)


def _ranks(mesh: Mesh, documents: list[Document]) -> Iterator[Finding]:
    """Documents that are for the same workloads: only the first by name counts."""
    first: dict[tuple[str, str], dict[tuple[tuple[str, str], ...], Document]] = {}
    for document in documents:
        namespace, wanted = document.metadata.namespace, selector_of(document)
        if (document.kind, namespace) not in first:
            those = mesh.in_namespace(document.kind, namespace)  # by name: the first one stays
            first[document.kind, namespace] = {_labels(each): each for each in reversed(those)}
        known = first[document.kind, namespace][_labels(document)]
        if known is not document:
            where = "these workloads" if wanted else f"all of namespace {namespace}"
            if not wanted and namespace == ROOT_NAMESPACE:
                where = "the whole mesh"
            why = f"{known.metadata.name} is for {where} as well, and counts, since its name comes first"
            yield Finding(document.key, _SELECTOR[document.kind] if wanted else ("metadata", "name"), why)


def _labels(document: Document) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(selector_of(document).items()))


def _ports(mesh: Mesh, documents: list[Document]) -> Iterator[Finding]:
    """Ports with a mode of their own that no selected service has."""
    for document in documents:
        spec = document.spec
        assert isinstance(spec, PeerAuthentication)
        if not spec.port_level_mtls:
            continue
        here = mesh.in_namespace("Service", document.metadata.namespace)
        chosen = [each.spec for each in here if matches(selector_of(document), [each.metadata.labels])]
        if not chosen:
            continue  # told above
        ports = {port for each in chosen if isinstance(each, Service) for port in _reached(each)}
        for number in spec.port_level_mtls:
            if number not in ports:
                yield Finding(
                    document.key, ("spec", "portLevelMtls", number), "is no port that callers of these services reach"
                )


def _reached(service: Service) -> Iterator[int]:
    for port in service.ports:
        yield port.target_port or port.port
        yield port.port
        for endpoint in service.endpoints:
            yield endpoint.ports.get(port.name) or endpoint.port or port.port


def _egress(mesh: Mesh, documents: list[Document]) -> Iterator[Finding]:
    """Hosts of a Sidecar that bring nothing."""
    for document in documents:
        assert isinstance(document.spec, Sidecar)
        namespace = document.metadata.namespace
        for number, egress in enumerate(document.spec.egress):
            for index, text in enumerate(egress.hosts):
                path: Path = ("spec", "egress", number, "hosts", index)
                where, _, host = text.partition("/")
                if where == "~" or (host == "*" and where in (".", "*")):
                    continue
                if namespace == ROOT_NAMESPACE and where == ".":
                    continue  # it means another namespace for each proxy
                found = [place for table in (mesh.services, mesh.entries) for place in asked(table, text, namespace)]
                if not found:
                    hint = "" if "." in host or host == "*" else f"; a service's name is {mesh.host_of(('NS', host))}"
                    yield Finding(document.key, path, f"{shown(text)} matches no service and no service entry{hint}")
                elif not any(
                    table.may_see(namespace, place)
                    for table in (mesh.services, mesh.entries)
                    for place in asked(table, text, namespace)
                ):
                    yield Finding(document.key, path, f"{shown(text)} is not exported to namespace {namespace}")


def _hosts(mesh: Mesh, documents: list[Document]) -> Iterator[Finding]:
    """Hosts of entries that something else stands in front of."""
    entries = mesh.of("ServiceEntry")
    for document in documents:
        place, spec = document.key[1:], document.spec
        assert isinstance(spec, ServiceEntry)
        for index, host in enumerate(spec.hosts):
            path: Path = ("spec", "hosts", index)
            others = [each for each in mesh.entries.named(host) if each[0] != place[0] and each < place]
            for port in spec.ports:
                known = next((each for each in sorted(others) if _has(entries[each], port.number)), None)
                if known is not None:
                    why = f"{host}, port {port.number}, is ServiceEntry {known[0]}/{known[1]}'s as well; who sees both"
                    yield Finding(document.key, path, f"{why} takes that of the own namespace, then the first by name")


def _has(document: Document, port: int) -> bool:
    return isinstance(document.spec, ServiceEntry) and any(each.number == port for each in document.spec.ports)


def _workload_entries(mesh: Mesh, documents: list[Document]) -> Iterator[Finding]:
    """Workload entries that nobody selects, or that can't be dialed by who does."""
    for document in documents:
        spec = document.spec
        assert isinstance(spec, WorkloadEntry)
        here = (each.spec for each in mesh.in_namespace("ServiceEntry", document.metadata.namespace))
        selecting = [
            each
            for each in here
            if isinstance(each, ServiceEntry)
            and each.workload_selector is not None
            and matches(each.workload_selector.labels, [spec.labels])
        ]
        if not selecting:
            yield Finding(document.key, ("spec", "labels"), "are selected by no ServiceEntry of its namespace")
        elif parse_ip(spec.address) is None and any(each.resolution == "STATIC" for each in selecting):
            why = f"{shown(spec.address)} is a name, which an entry with resolution STATIC leaves out"
            yield Finding(document.key, ("spec", "address"), why)


def _workloads(mesh: Mesh, namespace: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    for document in mesh.in_namespace("WorkloadEntry", namespace):
        if isinstance(document.spec, WorkloadEntry):
            yield document.metadata.name, document.spec.labels
