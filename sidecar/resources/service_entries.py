"""A service entry as it was written -> its rows in the tables, or all that does not hold together. Pure.

Who calls it: ``incremental_compile``. An entry's hosts have no sidecar, and are spoken to in plaintext since an
operator says so here; an entry becomes :class:`EntryPort` and never a port of a service. Where both have a claim the
service is asked for first. What two entries both claim is the first one's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from sidecar.addresses import Address, parse_ip
from sidecar.resources.protocols import WORDS, protocol_of
from sidecar.resources.proxy_config import EntrySpec
from sidecar.resources.schema import EndpointSpec, PortSpec
from sidecar.resources.services import check_ports, dialed
from sidecar.resources.snapshot import Entry, EntryPort
from sidecar.resources.snapshot_builder import A_STEP, SnapshotBuilder
from sidecar.resources.validation import Path, shown

_WORD: Final = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_WORD}(?:\.{_WORD})*", re.ASCII)
_NAME_CHARS: Final = 253

NO_LABELS: Final[tuple[tuple[str, str], ...]] = ()


class Spot(NamedTuple):
    """Where a port of an entry is dialed, and what its endpoint says beside that."""

    address: Address
    labels: tuple[tuple[str, str], ...]
    weight: int


class Spots(NamedTuple):
    """All of a port, as ``EntryPort`` has them."""

    places: tuple[Address, ...] = ()
    labels: tuple[tuple[tuple[str, str], ...], ...] = ()
    weights: tuple[int, ...] = ()


Places = dict[int, dict[tuple[str, int], Spot]]  # by the entry's port, each once


def add_entry(
    tables: SnapshotBuilder, spec: EntrySpec, endpoints: Iterable[tuple[int, EndpointSpec]], path: Path
) -> Iterator[None]:
    """Adds the entry with these endpoints (each with its index; ``spec.endpoints`` is not looked at), in steps."""
    key = spec.namespace, spec.name
    if key in tables.entries:
        tables.wrong(path, f"{spec.name} in namespace {spec.namespace} is defined already")
    check_ports(tables, spec.ports, (*path, "ports"))
    hosts = list(_hosts(tables, spec.hosts, (*path, "hosts")))
    addresses = tables.addresses(spec.addresses, (*path, "addresses"))
    places: Places = {port.port: {} for port in spec.ports}
    yield from _places(tables, spec, endpoints, places, path)
    spots = {number: _spots(list(found.values())) for number, found in places.items()}
    ports: list[EntryPort] = []
    for host in hosts:
        for port in spec.ports:
            ports.append(_port(spec, host, port, spots[port.port], addresses))
            tables.hosts.setdefault(host.encode(), {}).setdefault(port.port, ports[-1])
            for address in addresses:
                tables.entry_targets.setdefault((address, port.port), ports[-1])
            if len(ports) % A_STEP == 0:
                yield
    tables.entries[key] = Entry(spec.name, spec.namespace, tuple(ports))


def _hosts(tables: SnapshotBuilder, texts: list[str], path: Path) -> Iterator[str]:
    if not texts:
        tables.wrong(path, "there are none; an entry has one or more")
    for index, text in enumerate(texts):
        host = text.lower().removesuffix(".")
        name = host.removeprefix("*.")
        if parse_ip(name) is not None:
            tables.wrong((*path, index), f"{shown(text)} is an address; write it in addresses, and a name here")
        elif not _is_name(name):
            tables.wrong((*path, index), f"{shown(text)} is not a DNS name, with or without *. in front")
        else:
            yield host


def _spots(found: list[Spot]) -> Spots:
    return Spots(
        tuple([each.address for each in found]),
        tuple([each.labels for each in found]) if any(each.labels for each in found) else (),
        tuple([each.weight for each in found]) if any(each.weight != 1 for each in found) else (),
    )


def _port(spec: EntrySpec, host: str, port: PortSpec, spots: Spots, addresses: tuple[str, ...]) -> EntryPort:
    return EntryPort(
        host=host,
        port=port.port,
        name=port.name,
        protocol=protocol_of(port.port, port.name, port.app_protocol if port.app_protocol in WORDS else ""),
        resolution=spec.resolution,
        target=port.target_port or port.port,
        places=spots.places,
        addresses=addresses,
        namespace=spec.namespace,
        place_labels=spots.labels,
        place_weights=spots.weights,
    )


def _places(
    tables: SnapshotBuilder, spec: EntrySpec, endpoints: Iterable[tuple[int, EndpointSpec]], places: Places, path: Path
) -> Iterator[None]:
    """Fills ``places``; a step ends after so many."""
    done = 0
    for index, each in endpoints:
        at = (*path, "endpoints", index, "address")
        if spec.resolution == "NONE":
            tables.wrong((*path, "endpoints"), "are dialed with resolution STATIC or DNS alone, and this is NONE")
            return
        host = each.address.lower().removesuffix(".")
        if spec.resolution != "DNS" or not _is_name(host) or parse_ip(host) is not None:
            host = tables.address(each.address, at)
        labels = tuple(sorted(each.labels.items())) if each.labels else NO_LABELS
        for port in spec.ports if host else ():
            number = dialed(each, port)
            places[port.port].setdefault((host, number), Spot(Address(host, number), labels, each.weight))
            done += 1
            if done % A_STEP == 0:
                yield


def _is_name(text: str) -> bool:
    """Whether it may be a name; what ends in a number would be taken for an address by many."""
    return len(text) <= _NAME_CHARS and _NAME.fullmatch(text) is not None and not text.rpartition(".")[2].isdigit()
