"""Who may serve which service, by the documents that there are. Pure.

Who calls it: ``control.registry.api`` before anything is registered, and ``control.registry.reconciler`` when a
document has changed. Who may serve is said by the service's own document alone: service accounts of its namespace, or
whole SPIFFE ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from certs.spiffe import SpiffeId
from sidecar.resources.documents import Document
from sidecar.resources.documents import Key as DocumentKey
from sidecar.resources.kinds import Service

Key = tuple[str, str]  # (namespace, name)


def document_of(documents: Mapping[DocumentKey, Document], key: Key) -> Document | None:
    """The document of a service."""
    return documents.get(("Service", *key))


def service_of(documents: Mapping[DocumentKey, Document], key: Key) -> Service | None:
    """What it says."""
    document = document_of(documents, key)
    return document.spec if document is not None and isinstance(document.spec, Service) else None


def services(documents: Mapping[DocumentKey, Document]) -> Iterable[Key]:
    """Every service that there is, by namespace and name."""
    return sorted((namespace, name) for kind, namespace, name in documents if kind == "Service")


def may_serve(service: Service, namespace: str, identity: SpiffeId, trust_domain: str) -> bool:
    """Whether a workload may. Only accounts of the service's namespace, in the mesh's own trust domain, go by name."""
    workload = identity.workload() if identity.trust_domain == trust_domain else None
    by_account = workload is not None and workload[0] == namespace and workload[1] in service.service_accounts
    return by_account or str(identity) in service.subject_alt_names
