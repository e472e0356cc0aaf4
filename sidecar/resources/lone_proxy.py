"""What documents mean to a proxy without a control plane, which has no identity: policies, service entries, and the
routes to these. Pure.

Called by ``document_files`` for ``sidecar --config`` without ``--control``. Without a certificate there is no mutual
TLS, and services can't be called, so a route to one leads nowhere, and the kinds that are about services have no
effect. One that closes something is refused: it must not look as if it were in force. Selectors look at the labels of
the command line, beside those of services in the documents that list the proxy's account.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from sidecar.resources.conflicts import Finding
from sidecar.resources.lint import lint
from sidecar.resources.mesh_documents import Mesh
from sidecar.resources.snapshot import Node
from sidecar.resources.validation import shown
from sidecar.resources.visibility import Visibility, applies, labels_of, selector_of

_POLICIES: Final = ("AuthorizationPolicy", "RateLimitPolicy")
_CALLS: Final = (  # a Sidecar's egress hosts bound what is seen of service entries
    "VirtualService", "DestinationRule", "BackendTrafficPolicy", "ServiceEntry", "WorkloadEntry", "Sidecar",
)  # fmt: skip


def unenforceable(scope: Visibility) -> list[str]:
    """Return why a proxy without an identity can't obey what documents say to it."""
    found = []
    modes = (scope.peer_authentication.mtls, *scope.peer_authentication.port_level_mtls.values())
    if any(each.mode == "STRICT" for each in modes):
        found.append("a PeerAuthentication says STRICT, which needs a certificate; add --control URL, or leave it out")
    if scope.outbound_policy == "REGISTRY_ONLY":
        found.append(
            "a Sidecar says REGISTRY_ONLY, which is read from documents only with --control; write --outbound-policy "
            "REGISTRY_ONLY instead"
        )
    return found


def odd_alone(mesh: Mesh, me: Node, labels: Mapping[str, str]) -> Iterator[Finding]:
    """What is odd in the documents. A selector is held against this proxy, since no other proxy reads them."""
    for finding in lint(mesh):
        if finding.key[0] not in _POLICIES or finding.path != ("spec", "selector"):
            yield finding
    every = [*labels_of(mesh, me.namespace, me.service_account), labels]
    found = (document for kind in _POLICIES for _, document in sorted(mesh.of(kind).items()))
    for document in found:
        if not applies(document, me.namespace, every):
            if selector_of(document):
                told = ",".join(f"{key}={value}" for key, value in labels.items()) or "none"
                why = f"does not match --workload-labels {shown(told)} in namespace {me.namespace}"
                yield Finding(document.key, ("spec", "selector"), f"{why}: the policy does not apply here")
            else:
                why = f"is not {me.namespace}, which --namespace names: the policy does not apply here"
                yield Finding(document.key, ("metadata", "namespace"), why)


def notes_alone(mesh: Mesh, scope: Visibility) -> Iterator[str]:
    """What is odd about these documents as a whole."""
    kinds = {document.kind for document in mesh.documents()}
    others = sorted(kinds - {*_POLICIES, *_CALLS})
    if others:
        verb = "has" if len(others) == 1 else "have"
        why = "services can't be called without a certificate"
        yield f"without --control {' and '.join(others)} {verb} no effect: {why}"
    if not scope.authorization and not scope.rate_limits and (kinds & {*_POLICIES} or not kinds & {*_CALLS}):
        yield f"no {' or '.join(_POLICIES)} applies to this proxy, so every call is allowed"
