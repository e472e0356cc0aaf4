"""What a change of a document concerns: whose scope may be another one, and what must be encoded anew. Pure.

Who calls it: ``control.distribution.push``, with the mesh of the last round and that of this one. It may name
too many, which costs time; never too few, which would leave a proxy with what no longer holds. So for whatever is not
plainly narrower, the answer is everybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from sidecar.resources.documents import Document, Key
from sidecar.resources.kinds import (
    ROOT_NAMESPACE,
    BackendTrafficPolicy,
    DestinationRule,
    Service,
    ServiceEntry,
    VirtualService,
)
from sidecar.resources.mesh_documents import Mesh
from sidecar.resources.route_scope import of_the_mesh
from sidecar.resources.route_tables import ALL, namespace_covered, service_named

_POLICIES: Final = ("AuthorizationPolicy", "RateLimitPolicy")
_ROUTES: Final = ("VirtualService", "DestinationRule", "BackendTrafficPolicy")


@dataclass(slots=True)
class Affected:
    """``namespaces`` and ``identities``: whose scope may have changed (``everybody``: all). ``pieces``: keys of
    services, entries, policies and routes; ``selecting``: namespaces whose entries may have other endpoints."""

    everybody: bool = False
    namespaces: set[str] = field(default_factory=set)
    accounts: set[tuple[str, str]] = field(default_factory=set)  # namespace and service account
    identities: set[str] = field(default_factory=set)  # whole SPIFFE ids
    pieces: set[Key] = field(default_factory=set)
    selecting: set[str] = field(default_factory=set)


def affected(keys: Iterable[Key], before: Mesh, after: Mesh) -> Affected:
    """What all of these changes together concern."""
    found = Affected()
    asking = {namespace for mesh in (before, after) for namespace, _ in mesh.of("Sidecar")}
    for key in keys:
        if key[0] in _ROUTES:
            found.pieces.add(key)
            versions = [(each, mesh) for mesh in (before, after) if (each := mesh.get(key)) is not None]
            if len(versions) == 1 or len({_called_by(each) for each, _ in versions}) > 1:
                for each, mesh in versions:
                    _add_callers(found, each, mesh, asking)
        else:
            _add(found, key, before.get(key), after.get(key), asking)
    return found


def _add(found: Affected, key: Key, before: Document | None, after: Document | None, asking: set[str]) -> None:
    kind, namespace, _ = key
    if kind == "WorkloadEntry":
        found.selecting.add(namespace)
    elif kind in ("PeerAuthentication", "Sidecar", *_POLICIES):
        if namespace == ROOT_NAMESPACE:
            found.everybody = True
        found.namespaces.add(namespace)
        if kind in _POLICIES:
            found.pieces.add(key)
    else:
        found.pieces.add(key)
        versions = [each for each in (before, after) if each is not None]
        for each in versions:
            _add_servers(found, each, before, after)
        if len(versions) == 1 or len({_seen_by(each) for each in versions}) > 1:
            for each in versions:
                _add_seers(found, each, asking)


def _seen_by(document: Document) -> tuple[object, ...]:
    """What decides who sees a service or an entry."""
    spec = document.spec
    hosts = spec.hosts if isinstance(spec, ServiceEntry) else ()
    exported = spec.export_to if isinstance(spec, Service | ServiceEntry) else ()
    return tuple(exported), tuple(hosts)


def _add_servers(found: Affected, document: Document, before: Document | None, after: Document | None) -> None:
    """Who may serve it sees it, and is selected by its labels."""
    if not isinstance(document.spec, Service) or _servers(before) == _servers(after):
        return
    namespace = document.metadata.namespace
    found.accounts |= {(namespace, account) for account in document.spec.service_accounts}
    found.identities |= set(document.spec.subject_alt_names)


def _servers(document: Document | None) -> object:
    if document is None or not isinstance(document.spec, Service):
        return None
    return document.metadata.labels, document.spec.service_accounts, document.spec.subject_alt_names


def _add_seers(found: Affected, document: Document, asking: set[str]) -> None:
    """Who may see it, where that is another set than before. ``asking``: namespaces with Sidecar documents."""
    own, spec = document.metadata.namespace, document.spec
    exported = spec.export_to if isinstance(spec, Service | ServiceEntry) else []
    found.namespaces.add(own)
    if "*" in exported or (not exported and ROOT_NAMESPACE in asking):
        found.everybody = True
    elif exported:
        found.namespaces |= {own if each == "." else each for each in exported}
    else:
        found.namespaces |= asking


# -- routes, and what is said of destinations --------------------------------------------------------------------------


def _called_by(document: Document) -> tuple[object, ...]:
    """What decides who sees a VirtualService, DestinationRule or BackendTrafficPolicy, and in which order."""
    spec = document.spec
    if isinstance(spec, VirtualService):
        return document.created, tuple(spec.export_to), tuple(spec.hosts), of_the_mesh(spec)
    assert isinstance(spec, DestinationRule | BackendTrafficPolicy)
    return document.created, tuple(spec.export_to), spec.host, _selector(spec)


def _selector(spec: DestinationRule | BackendTrafficPolicy) -> tuple[tuple[str, str], ...]:
    chosen = spec.workload_selector if isinstance(spec, DestinationRule) else None
    return () if chosen is None else tuple(sorted(chosen.match_labels.items()))


def _add_callers(found: Affected, document: Document, mesh: Mesh, asking: set[str]) -> None:
    """Who may see one: its own namespace, those it is exported to, or who sees what its hosts name."""
    own, spec = document.metadata.namespace, document.spec
    assert isinstance(spec, VirtualService | DestinationRule | BackendTrafficPolicy)
    found.namespaces.add(own)
    if spec.export_to and "*" not in spec.export_to:
        found.namespaces |= {own if each == "." else each for each in spec.export_to}
    elif isinstance(spec, VirtualService):
        if spec.export_to:
            found.everybody = True
        else:
            _add_seers_of(found, document, mesh, asking, None)
    elif not _selector(spec):  # with one it is for its own namespace alone
        _add_seers_of(found, document, mesh, asking, None if own == ROOT_NAMESPACE else own)


def _add_seers_of(found: Affected, document: Document, mesh: Mesh, asking: set[str], bound: str | None) -> None:
    """Who may see what its hosts name; of one namespace alone, where it is bound to that."""
    places: list[tuple[str, str, str]] = []
    for host in mesh.route_hosts(document):
        service = service_named(host, mesh.trust_domain)
        places += [] if service is None else [("Service", *service)]
        namespace = namespace_covered(host, mesh.trust_domain)
        if namespace == ALL and bound is None:
            found.everybody = True
            return
        if namespace is not None:
            places += (("Service", *place) for place in mesh.services.by_namespace.get(bound or namespace, ()))
        places += (("ServiceEntry", *place) for place in mesh.entry_hosts.meant(host))
    for key in places:
        named = mesh.get(key) if bound in (None, key[1]) else None
        if named is not None:
            _add_seers(found, named, asking)
            _add_servers(found, named, None, named)
