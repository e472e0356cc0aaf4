"""What was written and "who am I" -> a Snapshot, or everything that does not hold together. Pure.

Who calls it: ``load``. Each rule is a line that says what is wrong, and what to do where that is not plain. Rules of
identity are those of ``certs.spiffe``; who may serve a service is said by the service, and never by an endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from certs import spiffe
from certs.errors import IdentityError
from certs.spiffe import SpiffeId
from sidecar.addresses import parse_ip
from sidecar.resources.protocols import WORDS, protocol_of
from sidecar.resources.schema import EndpointSpec, MeshFile, MutualTls, PeerAuthenticationSpec, PortSpec, ServiceSpec
from sidecar.resources.shape import Path, Problem, shown
from sidecar.resources.snapshot import (
    SCHEMA,
    Endpoint,
    Me,
    Mode,
    Reach,
    Service,
    ServicePort,
    Snapshot,
    Source,
    Version,
    effective,
)
from sidecar.resources.sni import LABEL

_LABEL: Final = re.compile(LABEL, re.ASCII)
_NOT_A_LABEL: Final = "is not a DNS label (a-z, 0-9 and inner hyphens, at most 63)"


def compile_mesh(
    mesh: MeshFile, me: Me, *, version: Version, source: Source = "file"
) -> tuple[Snapshot | None, list[Problem]]:
    """The Snapshot for ``me``, or None and all that is wrong."""
    work = _Work(mesh, me)
    problems = list(dict.fromkeys(work.problems))  # an endpoint is looked at for each port of its service
    return (None, problems) if problems else (work.snapshot(version, source), [])


class _Work:
    """The tables of a Snapshot in the making, and what was found wrong on the way."""

    def __init__(self, mesh: MeshFile, me: Me) -> None:
        self.problems: list[Problem] = []
        self._me = me
        self._trust_domain = mesh.trust_domain
        self._services: dict[tuple[str, str], Service] = {}
        self._targets: dict[tuple[str, int], ServicePort] = {}
        self._reaches: dict[tuple[str, int], Reach] = {}
        self._default, self._modes = _modes(mesh.peer_authentication, me)
        if mesh.schema.partition(".")[0] != SCHEMA.partition(".")[0]:
            self._wrong(("schema",), f"{shown(mesh.schema)} is not known; this sidecar reads {SCHEMA}")
        try:
            spiffe.check_trust_domain(mesh.trust_domain)
        except IdentityError as error:
            self._wrong(("trustDomain",), f"{shown(mesh.trust_domain)}: {error.detail}")
            return  # every identity would be wrong as well
        for index, spec in enumerate(mesh.services):
            self._service(spec, ("services", index))

    def snapshot(self, version: Version, source: Source) -> Snapshot:
        """What the work came to."""
        names: dict[bytes, Service] = {}
        for (namespace, name), service in self._services.items():
            if namespace == self._me.namespace:
                names[name.encode()] = service
            qualified = f"{name}.{namespace}"
            names[qualified.encode()] = service
            names[f"{qualified}.svc".encode()] = service
            names[f"{qualified}.svc.{self._trust_domain}".encode()] = service
        return Snapshot(
            source=source,
            version=version,
            me=self._me,
            trust_domain=self._trust_domain,
            services=self._services,
            default_mode=self._default,
            modes=self._modes,
            names=names,
            targets=self._targets,
        )

    def _wrong(self, path: Path, why: str) -> None:
        self.problems.append(Problem(path, why))

    # -- a service ---------------------------------------------------------------------------------------------------

    def _service(self, spec: ServiceSpec, path: Path) -> None:
        for field, text in (("name", spec.name), ("namespace", spec.namespace)):
            if not _LABEL.fullmatch(text):
                self._wrong((*path, field), f"{shown(text)} {_NOT_A_LABEL}")
        key = spec.namespace, spec.name
        if key in self._services:
            self._wrong(path, f"{spec.name} in namespace {spec.namespace} is defined already")
        identities = frozenset(self._identities(spec, path))
        addresses = tuple(self._addresses(spec.addresses, (*path, "addresses")))
        self._check_ports(spec, (*path, "ports"))
        endpoints = self._endpoints(spec, (*path, "endpoints"))
        ports = {
            port.port: ServicePort(
                service=spec.name,
                namespace=spec.namespace,
                port=port.port,
                name=port.name,
                protocol=protocol_of(port.port, port.name, port.app_protocol if port.app_protocol in WORDS else ""),
                endpoints=tuple(endpoints.get(port.port, {}).values()),
                identities=identities,
                trust_domain=self._trust_domain,
            )
            for port in spec.ports
        }
        self._services[key] = Service(spec.name, spec.namespace, ports, identities, addresses)
        for address in addresses:
            for number, port in ports.items():
                self._target(address, number, port, (*path, "addresses"))
        for number, port in ports.items():
            for index, endpoint in endpoints.get(number, {}).items():
                at = (*path, "endpoints", index)
                self._reach(endpoint, at)
                if endpoint.mode == "captured":
                    self._target(endpoint.address, endpoint.port, port, at)

    def _identities(self, spec: ServiceSpec, path: Path) -> Iterable[SpiffeId]:
        if not spec.service_accounts and not spec.subject_alt_names:
            self._wrong(path, "nobody may serve it; list service accounts in serviceAccounts")
        for index, account in enumerate(spec.service_accounts):
            if not _LABEL.fullmatch(spec.namespace):
                break  # named above
            try:
                yield spiffe.workload(self._trust_domain, spec.namespace, account)
            except IdentityError as error:
                self._wrong((*path, "serviceAccounts", index), f"{shown(account)}: {error.detail}")
        for index, text in enumerate(spec.subject_alt_names):
            try:
                found = spiffe.parse(text)
            except IdentityError as error:
                self._wrong((*path, "subjectAltNames", index), f"{shown(text)}: {error.detail}")
                continue
            if not found.path:
                self._wrong((*path, "subjectAltNames", index), f"{shown(text)} is a trust domain, and no workload")
            yield found

    def _addresses(self, texts: Iterable[str], path: Path) -> Iterable[str]:
        seen: set[str] = set()
        for index, text in enumerate(texts):
            address = self._address(text, (*path, index))
            if not address:
                continue
            if address in seen:
                self._wrong((*path, index), f"{address} stands here twice")
            seen.add(address)
            yield address

    def _address(self, text: str, path: Path) -> str:
        """The address in canonical form; empty where it is none."""
        found = parse_ip(text)
        if found is None:
            self._wrong(path, f"{shown(text)} is not an IP address; names are not supported yet")
        elif found.is_unspecified or found.is_multicast:
            self._wrong(path, f"{found} is nobody's address")
        else:
            return str(found)
        return ""

    def _check_ports(self, spec: ServiceSpec, path: Path) -> None:
        if not spec.ports:
            self._wrong(path, "there are none; a service has one or more")
        numbers: set[int] = set()
        names: set[str] = set()
        for index, port in enumerate(spec.ports):
            at = (*path, index)
            if port.port in numbers:
                self._wrong((*at, "port"), f"{port.port} is there already")
            if port.name and not _LABEL.fullmatch(port.name):
                self._wrong((*at, "name"), f"{shown(port.name)} {_NOT_A_LABEL}")
            if port.name in names:
                self._wrong((*at, "name"), f"{port.name} is there already")
            if not port.name and len(spec.ports) > 1:
                self._wrong(at, "name is missing; where there are several ports each has one")
            if port.app_protocol and port.app_protocol not in WORDS:
                self._wrong((*at, "appProtocol"), f"{shown(port.app_protocol)} is not one of {', '.join(WORDS)}")
            numbers.add(port.port)
            names.update([port.name] if port.name else [])

    # -- its endpoints -----------------------------------------------------------------------------------------------

    def _endpoints(self, spec: ServiceSpec, path: Path) -> dict[int, dict[int, Endpoint]]:
        """Endpoints by the service's port, and by where they stand in the file."""
        found: dict[int, dict[int, Endpoint]] = {port.port: {} for port in spec.ports}
        places: dict[int, set[tuple[str, int]]] = {port.port: set() for port in spec.ports}
        for index, each in enumerate(spec.endpoints):
            at = (*path, index)
            address = self._address(each.address, (*at, "address"))
            labels = tuple(sorted(each.labels.items()))
            self._check_endpoint(spec, each, at)
            for port in {port.port: port for port in spec.ports}.values():  # each number once
                number = _dialed(each, port)
                if (address, number) in places[port.port]:
                    self._wrong(at, f"{address}, port {number}, is an endpoint of this service already")
                places[port.port].add((address, number))
                if address:
                    found[port.port][index] = Endpoint(address, number, each.mode, labels)
        return found

    def _check_endpoint(self, spec: ServiceSpec, each: EndpointSpec, at: Path) -> None:
        names = {port.name for port in spec.ports if port.name}
        for name in each.ports:
            if name not in names:
                self._wrong((*at, "ports", name), "is not the name of a port of this service")
        if each.port is not None and each.ports:
            self._wrong(at, "has both port and ports; one of them is enough")
        if each.mode == "direct":
            if each.port is None and not (names and names <= set(each.ports)):
                self._wrong(at, "is direct, and does not say at which port its sidecar listens; add port")
        elif each.port is not None and len(spec.ports) > 1:
            self._wrong((*at, "port"), "is one for several ports of the service; say ports, by their names")

    def _reach(self, endpoint: Endpoint, path: Path) -> None:
        """One place is not both an app's port and a sidecar's."""
        known = self._reaches.setdefault((endpoint.address, endpoint.port), endpoint.mode)
        if known != endpoint.mode:
            self._wrong(
                path, f"{endpoint.address}, port {endpoint.port}, is {known} elsewhere and {endpoint.mode} here"
            )

    def _target(self, address: str, number: int, port: ServicePort, path: Path) -> None:
        """This address and port stand for this service port. Several services may share an endpoint, if the same may
        serve them: else nobody could say who is expected there."""
        known = self._targets.setdefault((address, number), port)
        if known is not port and known.identities != port.identities:
            self._wrong(path, f"{address}, port {number}, is {known} as well, which others may serve")


def _dialed(endpoint: EndpointSpec, port: PortSpec) -> int:
    return endpoint.ports.get(port.name) or endpoint.port or port.target_port or port.port


def _modes(spec: PeerAuthenticationSpec, me: Me) -> tuple[Mode, dict[int, Mode]]:
    """The mode of every port, and of those that have one of their own."""
    default = _mode(spec.mtls)
    modes = {port: effective(me.mtls, _mode(each) or default) for port, each in spec.port_level_mtls.items()}
    return effective(me.mtls, default), modes


def _mode(mtls: MutualTls) -> Mode | None:
    return None if mtls.mode == "UNSET" else Mode(mtls.mode)
