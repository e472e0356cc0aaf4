"""A service as it was written -> its rows in the tables, or all that does not hold together. Pure.

Who calls it: ``compile`` and ``incremental_compile``. Each rule is a line that says what is wrong, and what to do where
that is not plain. Rules of identity are those of ``certs.spiffe``; who may serve a service is said by the service, and
never by an endpoint. A service that no identity may serve never becomes a :class:`ServicePort`: there is nothing that
could be dialed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from typing import Final, NamedTuple

from certs import spiffe
from certs.errors import IdentityError
from certs.spiffe import SpiffeId
from sidecar.resources.protocols import WORDS, protocol_of
from sidecar.resources.proxy_config import RegisteredSpec
from sidecar.resources.schema import EndpointSpec, PortSpec, ServiceSpec
from sidecar.resources.snapshot import Endpoint, Service, ServicePort
from sidecar.resources.snapshot_builder import A_STEP, SnapshotBuilder
from sidecar.resources.validation import Path, shown

Place = tuple[str, int]


class Row(NamedTuple):
    """An endpoint at one port: its number in the list, since when it is there, and whether it is called."""

    number: int
    since: float
    endpoint: Endpoint
    called: bool


Rows = dict[Place, Row]  # under each of its addresses, and where it is dialed
Found = dict[int, Rows]  # by port

WRITTEN: Final = inf  # when an endpoint came that a document has: no registration is later
NO_LABELS: Final[tuple[tuple[str, str], ...]] = ()


def add_service(
    tables: SnapshotBuilder, spec: ServiceSpec, endpoints: Iterable[tuple[int, EndpointSpec]], path: Path
) -> Iterator[None]:
    """Adds the service with these endpoints (each with its index; ``spec.endpoints`` is not looked at), in steps."""
    named = tables.label(spec.name, (*path, "name")) & tables.label(spec.namespace, (*path, "namespace"))
    key = spec.namespace, spec.name
    if key in tables.services:
        tables.wrong(path, f"{spec.name} in namespace {spec.namespace} is defined already")
    identities = frozenset(_identities(tables, spec, path) if named else ())
    addresses = tables.addresses(spec.addresses, (*path, "addresses"))
    check_ports(tables, spec.ports, (*path, "ports"))
    found: Found = {port.port: {} for port in spec.ports}
    yield from _endpoints(tables, spec, endpoints, found, (*path, "endpoints"))
    if not (named and identities):
        return
    ports: dict[int, ServicePort] = {}
    for each in spec.ports:
        ports[each.port] = _port(tables, spec, each, found[each.port], identities)
        if len(found[each.port]) > A_STEP:
            yield
    tables.services[key] = Service(spec.name, spec.namespace, ports, identities, addresses)
    for address in addresses:
        for number, port in ports.items():
            _target(tables, address, number, port, (*path, "addresses"), documented=True)
    done = 0
    for number, port in ports.items():
        for place, row in found[number].items():
            if row.endpoint.mode == "captured":
                _target(tables, *place, port, (*path, "endpoints", row.number), since=row.since)
            else:
                tables.share(place, tables.direct.setdefault(place, port), port)
            done += 1
            if done % (A_STEP * 4) == 0:
                yield


def check_ports(tables: SnapshotBuilder, ports: list[PortSpec], path: Path) -> None:
    """Ports of a service or an entry."""
    if not ports:
        tables.wrong(path, "there are none; a service has one or more")
    numbers: set[int] = set()
    names: set[str] = set()
    for index, port in enumerate(ports):
        at = (*path, index)
        if port.port in numbers:
            tables.wrong((*at, "port"), f"{port.port} is there already")
        if port.name:
            tables.label(port.name, (*at, "name"))
        if port.name in names:
            tables.wrong((*at, "name"), f"{port.name} is there already")
        if not port.name and len(ports) > 1:
            tables.wrong(at, "name is missing; where there are several ports each has one")
        if port.app_protocol and port.app_protocol not in WORDS:
            tables.wrong((*at, "appProtocol"), f"{shown(port.app_protocol)} is not one of {', '.join(WORDS)}")
        numbers.add(port.port)
        names.update([port.name] if port.name else [])


def check_endpoint(tables: SnapshotBuilder, ports: list[PortSpec], each: EndpointSpec, at: Path) -> None:
    """What an endpoint says of the ports."""
    names = {port.name for port in ports if port.name}
    for name in each.ports:
        if name not in names:
            tables.wrong((*at, "ports", name), "is not the name of a port of this service")
    if each.port is not None and each.ports:
        tables.wrong(at, "has both port and ports; one of them is enough")
    if each.mode == "direct":
        if each.port is None and not (names and names <= set(each.ports)):
            tables.wrong(at, "is direct, and does not say at which port its sidecar listens; add port")
    elif each.port is not None and len(ports) > 1:
        tables.wrong((*at, "port"), "is one for several ports of the service; say ports, by their names")


def dialed(endpoint: EndpointSpec, port: PortSpec) -> int:
    """Where this endpoint is dialed for that port."""
    return endpoint.ports.get(port.name) or endpoint.port or port.target_port or port.port


def _port(
    tables: SnapshotBuilder,
    spec: ServiceSpec,
    port: PortSpec,
    found: Rows,
    identities: frozenset[SpiffeId],
) -> ServicePort:
    return ServicePort(
        service=spec.name,
        namespace=spec.namespace,
        port=port.port,
        name=port.name,
        protocol=protocol_of(port.port, port.name, port.app_protocol if port.app_protocol in WORDS else ""),
        endpoints=tuple(
            [row.endpoint for (address, _), row in found.items() if row.called and row.endpoint.address == address]
        ),
        identities=identities,
        trust_domain=tables.trust_domain,
        target=port.target_port or port.port,
    )


def _identities(tables: SnapshotBuilder, spec: ServiceSpec, path: Path) -> Iterator[SpiffeId]:
    if not spec.service_accounts and not spec.subject_alt_names:
        tables.wrong(path, "nobody may serve it; list service accounts in serviceAccounts")
    for index, account in enumerate(spec.service_accounts):
        try:
            yield spiffe.workload(tables.trust_domain, spec.namespace, account)
        except IdentityError as error:
            tables.wrong((*path, "serviceAccounts", index), f"{shown(account)}: {error.detail}")
    for index, text in enumerate(spec.subject_alt_names):
        at = (*path, "subjectAltNames", index)
        try:
            found = spiffe.parse(text)
        except IdentityError as error:
            tables.wrong(at, f"{shown(text)}: {error.detail}")
            continue
        if found.path:
            yield found
        else:
            tables.wrong(at, f"{shown(text)} is a trust domain, and no workload")


def _endpoints(
    tables: SnapshotBuilder, spec: ServiceSpec, endpoints: Iterable[tuple[int, EndpointSpec]], found: Found, path: Path
) -> Iterator[None]:
    """Fills ``found``; a step ends after so many."""
    ports = list({port.port: port for port in spec.ports}.values())  # each number once
    strict, done = tables.strict, 0
    for index, each in endpoints:
        at = (*path, index)
        if strict:
            check_endpoint(tables, spec.ports, each, at)
        addresses = [tables.address(each.address, (*at, "address"))]
        since, called = WRITTEN, True
        if isinstance(each, RegisteredSpec):
            since, called = each.since or WRITTEN, not each.unwell
            if each.also_at:
                addresses += [tables.address(text, (*at, "alsoAt", n)) for n, text in enumerate(each.also_at)]
        labels = tuple(sorted(each.labels.items())) if each.labels else NO_LABELS
        for port in ports:
            if each.mode == "direct" and not strict and not (each.port or each.ports.get(port.name)):
                continue  # it registered before its service had this port
            number, rows = dialed(each, port), found[port.port]
            free = [address for address in addresses if address and (address, number) not in rows]
            if free:
                endpoint = Endpoint(free[0], number, each.mode, labels, tuple(free[1:]), each.weight)
                row = Row(index, since, endpoint, called)
                rows.update(((address, number), row) for address in free)
                if strict:
                    _reach(tables, (free[0], number), each, at)
            elif strict and addresses[0]:
                tables.wrong(at, f"{addresses[0]}, port {number}, is an endpoint of this service already")
            done += 1
            if done % A_STEP == 0:
                yield


def _reach(tables: SnapshotBuilder, place: Place, each: EndpointSpec, path: Path) -> None:
    """One place is not both an app's port and a sidecar's."""
    known = tables.reaches.setdefault(place, each.mode)
    if known != each.mode:
        tables.wrong(path, f"{place[0]}, port {place[1]}, is {known} elsewhere and {each.mode} here")


def _target(
    tables: SnapshotBuilder,
    address: str,
    number: int,
    port: ServicePort,
    path: Path,
    *,
    since: float = WRITTEN,
    documented: bool = False,
) -> None:
    """This address and port stand for this service port. Several services may share an endpoint, if the same may
    serve them: else nobody could say who is expected there, and the first one stands. Where endpoints register
    themselves an address may have changed hands, which must not refuse all the rest: of those whom others may serve the
    latest stands, and whoever answers there shows who it is. But what a document has is later than any, and an
    address that a service's document names (``documented``) is taken from it by no endpoint of another."""
    place = address, number
    known = tables.targets.setdefault(place, port)
    tables.share(place, known, port)
    if known is port or tables.strict:
        if known.identities != port.identities:
            tables.wrong(path, f"{address}, port {number}, is {known} as well, which others may serve")
        if not tables.strict:
            tables.since[place] = max(since, tables.since.get(place, 0.0))
    elif place not in tables.documented and since > tables.since[place]:
        tables.since[place] = since
        if known.identities != port.identities:
            tables.targets[place] = port
    if documented:
        if place not in tables.documented:
            tables.targets[place] = port
        tables.documented.add(place)
