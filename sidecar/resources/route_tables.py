"""VirtualServices, DestinationRules and BackendTrafficPolicies by what their hosts name, age and ``exportTo``. Pure.

Who makes a table: ``mesh_documents``, once for all documents of a kind, so that ten thousand of them cost a proxy what
those cost that it sees: a look at what it sees by itself, and a sort of numbers. Who asks it: ``route_visibility``;
and for what a host names, the control plane's ``invalidation``.

A host means a service by its full name, a service entry by one of its hosts, and with ``*`` in front all whose names
end so. A host below an entry's ``*.NAME`` means that entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from functools import cached_property
from itertools import chain
from typing import Final, TypeVar

from sidecar.resources.documents import Document
from sidecar.resources.kinds import ROOT_NAMESPACE, BackendTrafficPolicy, DestinationRule, VirtualService
from sidecar.resources.route_scope import of_the_mesh

K = TypeVar("K")
Place = tuple[str, str]  # namespace, name
Places = dict[str, list[Place]]
Rank = int  # of a document in its table, by age

ALL: Final = ""  # stands for the namespace of services of any


class Seen:
    """The services and entries that a proxy sees, as (namespace, name)."""

    def __init__(self, services: Set[Place], entries: Set[Place]) -> None:
        self.services = services
        self.entries = entries

    @cached_property
    def namespaces(self) -> set[str]:
        """Those of the services, and ALL if there is one."""
        found = {place[0] for place in self.services}
        return found | {ALL} if found else found


class RouteTable:
    """Documents of one kind, each by its rank: ``places`` are they by age, the oldest first, and by namespace and name
    where they are of one age. ``by_namespace`` and ``exported`` (by the namespaces of ``exportTo``, where it is
    written) have ranks, as has ``selecting``: those for chosen workloads alone. What is for gateways alone is left out.
    """

    __slots__ = ("_bounds", "_entries", "_namespaces", "_services", "by_namespace", "exported", "places", "selecting")

    def __init__(
        self,
        documents: Mapping[Place, Document],
        hosts_of: Callable[[Document], Iterable[str]],
        entries: EntryHosts,
        trust_domain: str,
        *,
        own_namespace: bool,
    ) -> None:
        """``own_namespace``: a document means only what is in its own namespace, unless it is of ROOT_NAMESPACE."""
        self._services: dict[Place, list[Rank]] = {}
        self._namespaces: dict[str, list[Rank]] = {}
        self._entries: dict[Place, list[Rank]] = {}
        self._bounds: dict[Rank, frozenset[str]] = {}
        self.places: list[Place] = []
        self.by_namespace: dict[str, list[Rank]] = {}
        self.exported: dict[str, list[Rank]] = {}
        self.selecting: set[Rank] = set()
        for _, place in sorted((document.created, place) for place, document in documents.items()):
            document = documents[place]
            spec = document.spec
            assert isinstance(spec, VirtualService | DestinationRule | BackendTrafficPolicy)
            if isinstance(spec, VirtualService) and not of_the_mesh(spec):
                continue
            rank = len(self.places)
            self.places.append(place)
            self.by_namespace.setdefault(place[0], []).append(rank)
            if spec.export_to:
                self._export(rank, place[0], spec.export_to)
            if isinstance(spec, DestinationRule) and spec.workload_selector is not None:
                self.selecting.add(rank)
                continue  # it means nothing to callers of other namespaces
            bound = place[0] if own_namespace and place[0] != ROOT_NAMESPACE else None
            for host in hosts_of(document):
                self._add(rank, bound, host, entries, trust_domain)

    def meaning(self, seen: Seen) -> set[Rank]:
        """The documents that mean something of this."""
        found = set(_all(self._services, seen.services))
        found.update(_all(self._entries, seen.entries))
        if self._namespaces:
            found.update(_all(self._namespaces, seen.namespaces))
        return found

    def permitted(self, ranks: Iterable[Rank], namespace: str) -> list[Place]:
        """Those of these that ``exportTo`` lets a proxy of this namespace see, the oldest first."""
        places, bounds = self.places, self._bounds
        if bounds:
            ranks = (each for each in ranks if each not in bounds or namespace in bounds[each])
        return [places[each] for each in sorted(ranks)]

    def _export(self, rank: Rank, namespace: str, names: list[str]) -> None:
        meant = frozenset(namespace if name == "." else name for name in names)
        for name in meant:
            self.exported.setdefault(name, []).append(rank)
        if "*" not in meant:
            self._bounds[rank] = meant

    def _add(self, rank: Rank, bound: str | None, host: str, entries: EntryHosts, trust_domain: str) -> None:
        service = service_named(host, trust_domain)
        if service is not None and bound in (None, service[0]):
            self._services.setdefault(service, []).append(rank)
        namespace = namespace_covered(host, trust_domain)
        if namespace is not None and (bound is None or namespace in (ALL, bound)):
            self._namespaces.setdefault(bound or namespace, []).append(rank)
        if not entries.none:
            for entry in entries.meant(host):
                if bound in (None, entry[0]):
                    self._entries.setdefault(entry, []).append(rank)


class EntryHosts:
    """Service entries by their hosts: ``exact`` without wildcards, ``wild`` the others, without ``*``."""

    __slots__ = ("exact", "wild")

    def __init__(self, exact: Places, wild: Places) -> None:
        self.exact = exact
        self.wild = wild

    @property
    def none(self) -> bool:
        """Whether there is no entry at all."""
        return not self.exact and not self.wild

    def meant(self, host: str) -> Iterator[Place]:
        """The entries that a host means; one may come twice."""
        if not host.startswith("*"):
            yield from self.exact.get(host, ())
            yield from self._above(host)
            return
        end = host.lstrip("*")
        yield from self._above(end)
        for hosts in (self.exact, self.wild):
            for name, places in hosts.items():
                if name.endswith(end):
                    yield from places

    def _above(self, name: str) -> Iterator[Place]:
        """Entries whose wildcard has this name below it."""
        at = name.find(".", 1) if name.startswith(".") else name.find(".")
        while at >= 0:
            yield from self.wild.get(name[at:], ())
            at = name.find(".", at + 1)


def _all(table: Mapping[K, list[Rank]], keys: Set[K]) -> Iterator[Rank]:
    """What a table has under these keys; it is walked by the shorter of the two."""
    return chain.from_iterable(map(table.__getitem__, table.keys() & keys))


def service_named(host: str, trust_domain: str) -> Place | None:
    """The service that this would be the full name of; None for what is no such name."""
    whole = f".svc.{trust_domain}"
    if not host.endswith(whole) or host.startswith("*"):
        return None
    name, dot, namespace = host.removesuffix(whole).partition(".")
    return (namespace, name) if dot and "." not in namespace else None


def namespace_covered(host: str, trust_domain: str) -> str | None:
    """The namespace whose services a host with ``*`` in front may mean; ALL: those of any; None: it means no service.
    If the wildcard is a part of a label (``*-v2.shop.svc...``) this is more than it means, never less."""
    if not host.startswith("*"):
        return None
    end, whole = host.lstrip("*"), f".svc.{trust_domain}"
    if whole.endswith(end):
        return ALL
    if not end.endswith(whole):
        return None
    _, dot, namespace = end.removesuffix(whole).partition(".")
    if not dot:
        return ALL  # a part of the namespace's own name
    return namespace if "." not in namespace else None
