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
from sidecar.resources.kinds import ROOT_NAMESPACE, Service, ServiceEntry
from sidecar.resources.mesh_documents import Mesh

_POLICIES: Final = ("AuthorizationPolicy", "RateLimitPolicy")


@dataclass(slots=True)
class Affected:
    """``namespaces`` and ``identities``: whose scope may have changed (``everybody``: all). ``pieces``: keys of
    services, entries and policies; ``selecting``: namespaces whose entries may have other endpoints."""

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
