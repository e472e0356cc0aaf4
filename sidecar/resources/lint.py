"""What is legal between documents, and yet most likely a mistake. Pure.

Who calls it: ``sidecarctl check`` and ``apply``, which show it, and ``sidecar --config``, which logs it. Nothing is
refused for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sidecar.addresses import parse_ip
from sidecar.resources.claims import Finding
from sidecar.resources.documents import Document
from sidecar.resources.kinds import ROOT_NAMESPACE, PeerAuthentication, Service, ServiceEntry, Sidecar, WorkloadEntry
from sidecar.resources.mesh import Mesh, Place
from sidecar.resources.scope import asked, matches, selector_of
from sidecar.resources.shape import Path, shown

_SELECTOR: Mapping[str, Path] = {
    "PeerAuthentication": ("spec", "selector"),
    "Sidecar": ("spec", "workloadSelector"),
    "ServiceEntry": ("spec", "workloadSelector"),
}


def lint(mesh: Mesh) -> list[Finding]:
    """All that is odd."""
    return [
        *_selectors(mesh),
        *_ranks(mesh),
        *_ports(mesh),
        *_egress(mesh),
        *_hosts(mesh),
        *_workload_entries(mesh),
    ]


def _selectors(mesh: Mesh) -> Iterator[Finding]:
    """Selectors that match nobody."""
    for document in _of(mesh, *_SELECTOR):
        wanted, namespace = selector_of(document), document.metadata.namespace
        path = _SELECTOR[document.kind]
        if not wanted:
            continue
        if document.kind == "ServiceEntry":
            if not any(matches(wanted, [labels]) for _, labels in _workloads(mesh, namespace)):
                yield Finding(document.key, path, f"matches no WorkloadEntry of namespace {namespace}")
        elif not any(matches(wanted, [each.metadata.labels]) for each in mesh.in_namespace("Service", namespace)):
            why = f"matches no service of namespace {namespace}: workloads have the labels of the services they serve"
            yield Finding(document.key, path, why)


def _ranks(mesh: Mesh) -> Iterator[Finding]:
    """Documents that are for the same workloads: only the first by name counts."""
    first: dict[tuple[object, ...], Document] = {}
    for document in sorted(_of(mesh, "PeerAuthentication", "Sidecar"), key=lambda each: each.key):
        wanted = selector_of(document)
        known = first.setdefault((document.kind, document.metadata.namespace, *sorted(wanted.items())), document)
        if known is not document:
            where = "these workloads" if wanted else f"all of namespace {document.metadata.namespace}"
            if not wanted and document.metadata.namespace == ROOT_NAMESPACE:
                where = "the whole mesh"
            why = f"{known.metadata.name} is for {where} as well, and counts, since its name comes first"
            yield Finding(document.key, _SELECTOR[document.kind] if wanted else ("metadata", "name"), why)


def _ports(mesh: Mesh) -> Iterator[Finding]:
    """Ports with a mode of their own that no selected service has."""
    for document in _of(mesh, "PeerAuthentication"):
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


def _egress(mesh: Mesh) -> Iterator[Finding]:
    """Hosts of a Sidecar that bring nothing."""
    for document in _of(mesh, "Sidecar"):
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


def _hosts(mesh: Mesh) -> Iterator[Finding]:
    """Hosts of entries that something else stands in front of."""
    services = mesh.of("Service")
    first: dict[tuple[str, int], Place] = {}
    for place, document in sorted(mesh.of("ServiceEntry").items()):
        assert isinstance(document.spec, ServiceEntry)
        for index, host in enumerate(document.spec.hosts):
            path: Path = ("spec", "hosts", index)
            service = _service_named(mesh, host)
            if service in services:
                yield Finding(
                    document.key, path, f"{host} is the service {service[1]} of namespace {service[0]}, which is called"
                )
            for port in document.spec.ports:
                known = first.setdefault((host, port.number), place)
                if known[0] != place[0]:
                    why = f"{host}, port {port.number}, is ServiceEntry {known[0]}/{known[1]}'s as well; who sees both"
                    yield Finding(document.key, path, f"{why} takes that of the own namespace, then the first by name")


def _service_named(mesh: Mesh, host: str) -> Place:
    """Where the service would be that a host names in full, ``name.namespace.svc`` or ``name.namespace``."""
    name, _, rest = host.partition(".")
    namespace = rest.removesuffix(f".{mesh.trust_domain}").removesuffix(".svc")
    return namespace, name


def _workload_entries(mesh: Mesh) -> Iterator[Finding]:
    """Workload entries that nobody selects, or that can't be dialed by who does."""
    chosen: dict[str, list[ServiceEntry]] = {}
    for place, document in mesh.of("ServiceEntry").items():
        if isinstance(document.spec, ServiceEntry) and selector_of(document):
            chosen.setdefault(place[0], []).append(document.spec)
    for document in _of(mesh, "WorkloadEntry"):
        spec = document.spec
        assert isinstance(spec, WorkloadEntry)
        selecting = [
            each
            for each in chosen.get(document.metadata.namespace, [])
            if each.workload_selector is not None and matches(each.workload_selector.labels, [spec.labels])
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


def _of(mesh: Mesh, *kinds: str) -> Iterator[Document]:
    for kind in kinds:
        yield from mesh.of(kind).values()
