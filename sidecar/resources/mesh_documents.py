"""All documents of a mesh as one immutable value, and the tables by which ``visibility`` finds what a proxy is to see.
Pure.

Who makes it: the control plane, anew with each change, and ``sidecar --config``. A change copies one dict of references
and forgets the tables of that kind alone; a table is made when it is first asked for. So one change among ten thousand
documents costs a millisecond or two, and a table of ten thousand services some 20 ms, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, cast

from certs.errors import IdentityError
from certs.spiffe import parse
from sidecar.resources.documents import Document, Key
from sidecar.resources.kinds import (
    KINDS,
    BackendTrafficPolicy,
    DestinationRule,
    Service,
    ServiceEntry,
    VirtualService,
)
from sidecar.resources.route_hosts import full_host
from sidecar.resources.route_tables import EntryHosts, RouteTable

T = TypeVar("T")
Place = tuple[str, str]  # namespace, name
Places = dict[str, list[Place]]

_NONE: Final[Mapping[Place, Document]] = {}


class Mesh:
    """The documents, one of each kind, namespace and name: of several the last one given. Nobody changes it."""

    __slots__ = ("_before", "_kinds", "_remembered", "_tables", "trust_domain")

    def __init__(self, documents: Iterable[Document] = (), trust_domain: str = "cluster.local") -> None:
        self.trust_domain = trust_domain
        self._tables: dict[tuple[frozenset[str], str], object] = {}  # by the kinds that it is made of, and its name
        self._remembered: dict[str, Any] = {}
        self._before: tuple[dict[str, Any], list[Document], list[Document]] = (
            {},
            [],
            [],
        )  # its tables, what went, what came
        self._kinds: dict[str, dict[Place, Document]] = {kind: {} for kind in KINDS}
        for document in documents:
            kind, namespace, name = document.key
            self._kinds[kind][namespace, name] = document

    def of(self, kind: str) -> Mapping[Place, Document]:
        """The documents of a kind, by namespace and name."""
        return self._kinds.get(kind, _NONE)

    def get(self, key: Key) -> Document | None:
        """One document."""
        return self.of(key[0]).get(key[1:])

    def documents(self) -> Iterable[Document]:
        """All of them, kind by kind."""
        return (document for found in self._kinds.values() for document in found.values())

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    def changed(self, documents: Iterable[Document] = (), gone: Iterable[Key] = ()) -> Mesh:
        """This mesh with those instead of what they replace, and without ``gone``."""
        mesh = Mesh(trust_domain=self.trust_domain)
        mesh._kinds = dict(self._kinds)
        touched: set[str] = set()
        went: list[Document] = []
        came: dict[Key, Document] = {}

        def open_for(kind: str) -> dict[Place, Document]:
            if kind not in touched:
                touched.add(kind)
                mesh._kinds[kind] = dict(mesh.of(kind))
            return mesh._kinds[kind]

        for kind, namespace, name in gone:
            old = open_for(kind).pop((namespace, name), None)
            went += [] if old is None else [old]
        for document in documents:
            found = open_for(document.kind)
            old = found.get(document.key[1:])
            went += [] if old is None or document.key in came else [old]
            found[document.key[1:]] = came[document.key] = document
        mesh._tables = {key: table for key, table in self._tables.items() if key[0].isdisjoint(touched)}
        mesh._before = self._remembered, went, list(came.values())
        return mesh

    def with_(self, document: Document) -> Mesh:
        """This mesh with one document more, or another in its place."""
        return self.changed([document])

    def without(self, key: Key) -> Mesh:
        """This mesh without that document."""
        return self.changed(gone=[key])

    def host_of(self, place: Place) -> str:
        """The full name of the service."""
        return f"{place[1]}.{place[0]}.svc.{self.trust_domain}"

    # -- tables ------------------------------------------------------------------------------------------------------

    @property
    def services(self) -> Exports:
        """Services, by who may see them."""
        return self._table("Service", "exports", lambda: Exports(self.of("Service"), self._hosts_of_service))

    @property
    def entries(self) -> Exports:
        """Service entries, by who may see them."""
        return self._table("ServiceEntry", "exports", lambda: Exports(self.of("ServiceEntry"), _hosts_of_entry))

    @property
    def serving(self) -> Mapping[Place, list[Place]]:
        """The services that a workload may serve, by its namespace and service account."""
        return self._table("Service", "serving", self._serving)

    def in_namespace(self, kind: str, namespace: str) -> list[Document]:
        """The documents of a kind in a namespace, by name."""
        table = self._table(kind, "namespaces", lambda: _by_namespace(self.of(kind)))
        return table.get(namespace, [])

    @property
    def virtual_services(self) -> RouteTable:
        """VirtualServices by the services and entries that their hosts name."""
        return self._route_table("VirtualService", own_namespace=False)

    @property
    def destination_rules(self) -> RouteTable:
        """DestinationRules by what their host names in their namespace; those of ROOT_NAMESPACE: in any."""
        return self._route_table("DestinationRule", own_namespace=True)

    @property
    def backend_policies(self) -> RouteTable:
        """BackendTrafficPolicies, likewise."""
        return self._route_table("BackendTrafficPolicy", own_namespace=True)

    @property
    def entry_hosts(self) -> EntryHosts:
        """Service entries by their hosts."""
        return self._table("ServiceEntry", "hosts", lambda: EntryHosts(self.entries.hosts, self.entries.wild))

    def route_hosts(self, document: Document) -> list[str]:
        """The full names of the hosts that a VirtualService, DestinationRule or BackendTrafficPolicy is for."""
        spec = document.spec
        assert isinstance(spec, VirtualService | DestinationRule | BackendTrafficPolicy)
        hosts = spec.hosts if isinstance(spec, VirtualService) else [spec.host]
        return [full_host(host, document.metadata.namespace, self.trust_domain) for host in hosts]

    def remembered(
        self, name: str, make: Callable[[], T], update: Callable[[T, list[Document], list[Document]], T]
    ) -> T:
        """A table of another room's that is made once, and after a change from the one before: ``update`` gets that,
        what went and what came."""
        if name not in self._remembered:
            before, went, came = self._before
            self._remembered[name] = update(before[name], went, came) if name in before else make()
        return cast(T, self._remembered[name])

    def _table(self, kind: str, name: str, make: Callable[[], T], *more: str) -> T:
        """The table of this name, made of this kind (and of ``more``)."""
        key = frozenset((kind, *more)), name
        found = self._tables.get(key)
        if found is None:
            found = self._tables[key] = make()
        return cast(T, found)  # each name has one type

    def _route_table(self, kind: str, *, own_namespace: bool) -> RouteTable:
        def make() -> RouteTable:
            documents = self.of(kind)
            return RouteTable(
                documents, self.route_hosts, self.entry_hosts, self.trust_domain, own_namespace=own_namespace
            )

        return self._table(kind, "routes", make, "ServiceEntry")

    def _hosts_of_service(self, document: Document) -> list[str]:
        return [self.host_of(document.key[1:])]

    def _serving(self) -> Mapping[Place, list[Place]]:
        found: dict[Place, list[Place]] = {}
        for place, document in self.of("Service").items():
            assert isinstance(document.spec, Service)
            accounts = {(place[0], account) for account in document.spec.service_accounts}
            for text in document.spec.subject_alt_names:
                try:
                    identity = parse(text)
                except IdentityError:
                    continue
                workload = identity.workload() if identity.trust_domain == self.trust_domain else None
                accounts.update([workload] if workload is not None else [])
            for account in accounts:
                found.setdefault(account, []).append(place)
        return found


class Exports:
    """Documents with ``exportTo``, by who may see them. ``by_namespace`` is where they are, ``public`` those for
    everybody, ``given`` those for a namespace by its name; ``hosts`` are without wildcards, ``wild`` the others,
    without ``*``."""

    __slots__ = ("_bounds", "by_namespace", "given", "hosts", "public", "wild")

    def __init__(self, documents: Mapping[Place, Document], hosts_of: Callable[[Document], list[str]]) -> None:
        self.by_namespace: Places = {}
        self.public: list[Place] = []
        self.given: Places = {}
        self.hosts: Places = {}
        self.wild: Places = {}
        self._bounds: dict[Place, frozenset[str]] = {}
        for place, document in documents.items():
            assert isinstance(document.spec, Service | ServiceEntry)
            self.by_namespace.setdefault(place[0], []).append(place)
            for host in hosts_of(document):
                (self.wild if host.startswith("*") else self.hosts).setdefault(host.lstrip("*"), []).append(place)
            if document.spec.export_to:
                names = frozenset(place[0] if name == "." else name for name in document.spec.export_to)
                self._bounds[place] = names
                if "*" in names:
                    self.public.append(place)
                for name in names:
                    self.given.setdefault(name, []).append(place)

    def named(self, host: str) -> list[Place]:
        """The documents that have this very host, with its wildcard if it has one."""
        return (self.wild if host.startswith("*") else self.hosts).get(host.lstrip("*"), [])

    def may_see(self, namespace: str, place: Place) -> bool:
        """Whether ``exportTo`` lets proxies of this namespace see it, should they ask."""
        bounds = self._bounds.get(place)
        return bounds is None or "*" in bounds or namespace in bounds


def _hosts_of_entry(document: Document) -> list[str]:
    assert isinstance(document.spec, ServiceEntry)
    return document.spec.hosts


def _by_namespace(documents: Mapping[Place, Document]) -> dict[str, list[Document]]:
    found: dict[str, list[Document]] = {}
    for (namespace, _), document in sorted(documents.items()):
        found.setdefault(namespace, []).append(document)
    return found
