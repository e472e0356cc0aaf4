"""What stands in the fields of one document, judged. Pure.

Who calls it: ``documents``. A Service is judged by ``compile`` itself, as every proxy will; the rules of the others are
here, and are Istio's validation where it has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from sidecar.addresses import parse_ip
from sidecar.resources.authorization_rules import check_policy
from sidecar.resources.compile import compile_mesh
from sidecar.resources.destination_rule_rules import check_backend_traffic_policy, check_destination_rule
from sidecar.resources.kinds import (
    AuthorizationPolicy,
    BackendTrafficPolicy,
    DestinationRule,
    EntryPort,
    Metadata,
    PeerAuthentication,
    RateLimitPolicy,
    Service,
    ServiceEntry,
    Sidecar,
    Spec,
    VirtualService,
    WorkloadEntry,
)
from sidecar.resources.names import NOT_A_LABEL, check_characters, check_labels, is_host, is_key, is_label, is_subdomain
from sidecar.resources.protocols import WORDS
from sidecar.resources.rate_limit_rules import check_limits
from sidecar.resources.schema import MeshFile, ServiceSpec
from sidecar.resources.snapshot import Node, Version
from sidecar.resources.validation import Path, Problem, shown
from sidecar.resources.virtual_addresses import is_virtual
from sidecar.resources.virtual_service_rules import check_virtual_service

Found = Iterator[Problem]

ANNOTATIONS_BYTES: Final = 256 << 10  # Kubernetes' bound on all of them


def check(kind: str, metadata: Metadata, spec: Spec) -> list[Problem]:
    """All that is wrong with what a document says; paths are from its root."""
    if isinstance(spec, _FREE_TEXT):
        try:
            msgspec.json.encode(spec)  # at once; only then look for where it is
        except UnicodeEncodeError:
            return [*_metadata(kind, metadata), *check_characters(spec, ("spec",))]
    return [*_metadata(kind, metadata), *_CHECKS[type(spec)](metadata, spec)]


def _metadata(kind: str, metadata: Metadata) -> Found:
    at: Path = ("metadata",)
    if kind == "Service":
        pass  # both names by ``compile``
    else:
        if not is_subdomain(metadata.name):
            yield Problem((*at, "name"), f"{shown(metadata.name)} is no name: DNS labels joined by dots, at most 253")
        if not is_label(metadata.namespace):
            yield Problem((*at, "namespace"), f"{shown(metadata.namespace)} {NOT_A_LABEL}")
    yield from check_labels(metadata.labels, (*at, "labels"))
    size = 0
    for key, text in metadata.annotations.items():
        if not is_key(key):
            yield Problem((*at, "annotations", key), f"{shown(key)} is no key of an annotation")
        size += len(key) + len(text.encode("utf-8", "replace"))
        yield from check_characters(text, (*at, "annotations", key))
    if size > ANNOTATIONS_BYTES:
        yield Problem((*at, "annotations"), f"are longer than {ANNOTATIONS_BYTES >> 10} KiB")


def _service(metadata: Metadata, spec: Service) -> Found:
    _, problems = compile_mesh(MeshFile(services=[service_of(metadata, spec)]), Node(), version=Version())
    for each in problems:
        path = each.path[2:]  # from services[0]
        yield Problem(("metadata" if path[:1] in (("name",), ("namespace",)) else "spec", *path), each.why)
    yield from _virtual(spec.addresses)
    for index, endpoint in enumerate(spec.endpoints):
        yield from check_labels(endpoint.labels, ("spec", "endpoints", index, "labels"))
    yield from _export_to(spec.export_to)


def service_of(metadata: Metadata, spec: Service) -> ServiceSpec:
    """The service as the proxy knows it, with the endpoints of the document alone."""
    return ServiceSpec(
        name=metadata.name,
        namespace=metadata.namespace,
        ports=spec.ports,
        service_accounts=spec.service_accounts,
        subject_alt_names=spec.subject_alt_names,
        addresses=spec.addresses,
        endpoints=spec.endpoints,
    )


def _peer_authentication(metadata: Metadata, spec: PeerAuthentication) -> Found:
    yield from check_labels(spec.selector.match_labels, ("spec", "selector", "matchLabels"))
    if spec.port_level_mtls and not spec.selector.match_labels:
        yield Problem(("spec", "portLevelMtls"), "needs a selector: ports are those of a workload; add matchLabels")


def _authorization_policy(metadata: Metadata, spec: AuthorizationPolicy) -> Found:
    yield from check_labels(spec.selector.match_labels, ("spec", "selector", "matchLabels"))
    yield from check_policy(metadata, spec)


def _rate_limit_policy(metadata: Metadata, spec: RateLimitPolicy) -> Found:
    yield from check_labels(spec.selector.match_labels, ("spec", "selector", "matchLabels"))
    yield from check_limits(spec.limits, metadata.namespace, ("spec", "limits"), spec.direction)


# -- hosts without a sidecar ------------------------------------------------------------------------------------------


def _service_entry(metadata: Metadata, spec: ServiceEntry) -> Found:
    yield from _hosts(spec)
    yield from _addresses(spec.addresses)
    yield from _ports(spec.ports)
    yield from _export_to(spec.export_to)
    yield from _where(spec)
    names = {port.name for port in spec.ports}
    seen: set[tuple[object, ...]] = set()
    for index, each in enumerate(spec.endpoints):
        at: Path = ("spec", "endpoints", index)
        yield from _address(each.address, (*at, "address"), named=spec.resolution == "DNS")
        yield from check_labels(each.labels, (*at, "labels"))
        for name in each.ports:
            if name not in names:
                yield Problem((*at, "ports", name), "is not the name of a port of this entry")
        place = each.address, *sorted(each.ports.items())
        if place in seen:
            yield Problem(at, f"{shown(each.address)} stands here twice")
        seen.add(place)
    if spec.workload_selector is not None:
        yield from _selected(spec.workload_selector.labels, ("spec", "workloadSelector", "labels"))


def _hosts(spec: ServiceEntry) -> Found:
    at: Path = ("spec", "hosts")
    if not spec.hosts:
        yield Problem(at, "there are none; an entry has one or more")
    seen: set[str] = set()
    for index, host in enumerate(spec.hosts):
        wild = host.startswith("*.")
        if parse_ip(host) is not None:
            yield Problem((*at, index), f"{host} is an address; write it in addresses, and a name here")
        elif not is_host(host.removeprefix("*.")):
            yield Problem((*at, index), f"{shown(host)} is no host: a name in lower case, or *. and a name")
        elif wild and spec.resolution == "DNS" and not spec.endpoints:
            yield Problem((*at, index), f"{host} can't be looked up; list endpoints, or write resolution: NONE")
        if host in seen:
            yield Problem((*at, index), f"{shown(host)} stands here twice")
        seen.add(host)


def _virtual(addresses: list[str]) -> Found:
    """Addresses that will be given to others."""
    for index, text in enumerate(addresses):
        if is_virtual(str(parse_ip(text))):
            why = f"{shown(text)} is of the range that virtual addresses are of; choose another"
            yield Problem(("spec", "addresses", index), why)


def _addresses(addresses: list[str]) -> Found:
    yield from _virtual(addresses)
    seen: set[str] = set()
    for index, text in enumerate(addresses):
        at: Path = ("spec", "addresses", index)
        if "/" in text and parse_ip(text.partition("/")[0]) is not None:
            yield Problem(at, f"{shown(text)} is a range, which is not supported yet; list addresses")
            continue
        yield from _address(text, at)
        canonical = str(parse_ip(text))
        if canonical in seen and canonical != "None":
            yield Problem(at, f"{canonical} stands here twice")
        seen.add(canonical)


def _ports(ports: list[EntryPort]) -> Found:
    at: Path = ("spec", "ports")
    if not ports:
        yield Problem(at, "there are none; an entry has one or more")
    seen: set[str | int] = set()
    for index, port in enumerate(ports):
        if not is_label(port.name):
            yield Problem((*at, index, "name"), f"{shown(port.name)} {NOT_A_LABEL}")
        if port.protocol and port.protocol.lower() not in WORDS:
            words = ", ".join(word.upper() for word in WORDS)
            yield Problem((*at, index, "protocol"), f"{shown(port.protocol)} is not one of {words}")
        for field, each in (("number", port.number), ("name", port.name)):
            if each in seen:
                yield Problem((*at, index, field), f"{shown(each)} is there already")
            seen.add(each)


def _where(spec: ServiceEntry) -> Found:
    """Whether resolution and what there is to go to fit."""
    told = bool(spec.endpoints) or spec.workload_selector is not None
    if spec.endpoints and spec.workload_selector is not None:
        yield Problem(("spec", "workloadSelector"), "and endpoints can't be together; one of them is enough")
    if spec.resolution == "NONE" and told:
        yield Problem(("spec", "resolution"), "NONE goes where the app was going; with endpoints it is STATIC or DNS")
    if spec.resolution == "STATIC" and not told:
        yield Problem(("spec", "resolution"), "STATIC has nowhere to go; add endpoints or workloadSelector")


def _workload_entry(metadata: Metadata, spec: WorkloadEntry) -> Found:
    yield from _address(spec.address, ("spec", "address"), named=True)
    yield from check_labels(spec.labels, ("spec", "labels"))
    for name in spec.ports:
        if not is_label(name):
            yield Problem(("spec", "ports", name), f"{shown(name)} {NOT_A_LABEL}")


def _address(text: str, path: Path, *, named: bool = False) -> Found:
    found = parse_ip(text)
    if text.startswith("unix://"):
        yield Problem(path, "a unix socket is not supported yet; write an IP address")
    elif found is None:
        if not named:
            yield Problem(path, f"{shown(text)} is not an IP address")
        elif not is_host(text):
            yield Problem(path, f"{shown(text)} is neither an IP address nor a host name in lower case")
    elif found.is_unspecified or found.is_multicast:
        yield Problem(path, f"{found} is nobody's address")


# -- who sees what ----------------------------------------------------------------------------------------------------


def _sidecar(metadata: Metadata, spec: Sidecar) -> Found:
    if spec.workload_selector is not None:
        yield from _selected(spec.workload_selector.labels, ("spec", "workloadSelector", "labels"))
    for number, egress in enumerate(spec.egress):
        at: Path = ("spec", "egress", number, "hosts")
        if not egress.hosts:
            yield Problem(at, "there are none; for no host at all write ~/*")
        for index, text in enumerate(egress.hosts):
            namespace, slash, host = text.partition("/")
            if not slash:
                yield Problem((*at, index), f"{shown(text)} is not NAMESPACE/HOST; for the own namespace write ./HOST")
            elif namespace not in (".", "*", "~") and not is_label(namespace):
                yield Problem((*at, index), f"{shown(namespace)} is no namespace; a name, or one of . * ~")
            elif host != "*" and not is_host(host.removeprefix("*.")):
                yield Problem((*at, index), f"{shown(host)} is no host: a name in lower case, *. and a name, or *")


def _export_to(names: list[str]) -> Found:
    for index, name in enumerate(names):
        if name not in (".", "*", "~") and not is_label(name):
            yield Problem(("spec", "exportTo", index), f"{shown(name)} is no namespace; a name, or one of . * ~")


def _selected(labels: Mapping[str, str], path: Path) -> Found:
    if not labels:
        yield Problem(path, "there are none; leave out workloadSelector to mean all")
    yield from check_labels(labels, path)


_FREE_TEXT: Final = (VirtualService, DestinationRule, BackendTrafficPolicy)  # fields that take any text
_CHECKS: Final[dict[type, Callable[[Metadata, Any], Found]]] = {
    Service: _service,
    PeerAuthentication: _peer_authentication,
    AuthorizationPolicy: _authorization_policy,
    RateLimitPolicy: _rate_limit_policy,
    VirtualService: check_virtual_service,
    DestinationRule: check_destination_rule,
    BackendTrafficPolicy: check_backend_traffic_policy,
    ServiceEntry: _service_entry,
    WorkloadEntry: _workload_entry,
    Sidecar: _sidecar,
}
