"""What is legal in an AuthorizationPolicy, and yet most likely not what was meant. Pure.

Called by ``lint``. Most of it is about opaque bytes: a rule with HTTP fields can't match them, so that an ALLOW rule
never lets them pass, and a DENY rule refuses them all, since bytes that evade the detection of HTTP would evade it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sidecar.resources.authorization import Operation, Rule
from sidecar.resources.conflicts import Finding
from sidecar.resources.documents import Document
from sidecar.resources.kinds import ROOT_NAMESPACE, AuthorizationPolicy, Service
from sidecar.resources.mesh_documents import Mesh
from sidecar.resources.protocols import protocol_of
from sidecar.resources.validation import Path, shown
from sidecar.resources.visibility import matches, selector_of

OWN: Final = "cluster.local"  # in a policy: the mesh's own trust domain, whatever its name
_HEADERS: Final = "request.headers["


def lint_policies(mesh: Mesh, documents: list[Document]) -> Iterator[Finding]:
    """All that is odd in these policies."""
    for document in documents:
        spec = document.spec
        assert isinstance(spec, AuthorizationPolicy)
        if not spec.rules and spec.action != "ALLOW":
            why = f"has none, so this {spec.action} policy never matches; for everything write rules: [{{}}]"
            yield Finding(document.key, ("spec", "rules"), why)
        for index, rule in enumerate(spec.rules):
            path: Path = ("spec", "rules", index)
            why = _opaque(mesh, document, spec.action, rule)
            if why:
                yield Finding(document.key, path, why)
            for where, text in _principals(rule, path):
                why = _foreign(text, mesh.trust_domain)
                if why:
                    yield Finding(document.key, where, why)


def services_of(mesh: Mesh, policy: Document) -> list[Document]:
    """The services at whose workloads this policy applies."""
    namespace, wanted = policy.metadata.namespace, selector_of(policy)
    found = mesh.of("Service").values() if namespace == ROOT_NAMESPACE else mesh.in_namespace("Service", namespace)
    return [each for each in found if not wanted or matches(wanted, [each.metadata.labels])]


def _opaque(mesh: Mesh, policy: Document, action: str, rule: Rule) -> str:
    """What this rule does to opaque bytes, where it has HTTP fields and a service has a port for those."""
    operations = [each.operation for each in rule.to or []]
    conditional = any(each.key.startswith(_HEADERS) for each in rule.when or [])
    http = [each for each in operations if conditional or _is_http(each)] if operations else [Operation()] * conditional
    if action == "AUDIT" or not http:
        return ""
    for service in services_of(mesh, policy):
        assert isinstance(service.spec, Service)
        for port in service.spec.ports:
            if protocol_of(port.port, port.name, port.app_protocol) != "tcp":
                continue
            number = port.target_port or port.port
            # An ALLOW rule with one operation of L4 fields alone still lets opaque bytes pass.
            if action == "ALLOW" and any(each not in http and _is_at(each, number) for each in operations):
                continue
            if any(_is_at(each, number) for each in http):
                does = "never allows opaque bytes there" if action == "ALLOW" else "denies all opaque bytes there"
                where = f"{service.metadata.namespace}/{service.metadata.name}"
                return f"has HTTP fields, and service {where} has the tcp port {port.port}: it {does}"
    return ""


def _is_http(operation: Operation) -> bool:
    return bool(
        operation.hosts or operation.not_hosts or operation.methods or operation.not_methods
        or operation.paths or operation.not_paths
    )  # fmt: skip


def _is_at(operation: Operation, port: int) -> bool:
    """Whether an operation is about this port, as far as it names ports."""
    return (not operation.ports or str(port) in operation.ports) and str(port) not in operation.not_ports


def _principals(rule: Rule, path: Path) -> Iterator[tuple[Path, str]]:
    for number, each in enumerate(rule.from_ or []):
        at: Path = (*path, "from", number, "source")
        for field, texts in (("principals", each.source.principals), ("notPrincipals", each.source.not_principals)):
            for index, text in enumerate(texts):
                yield (*at, field, index), text
    for number, condition in enumerate(rule.when or []):
        if condition.key == "source.principal":
            at = (*path, "when", number)
            for field, texts in (("values", condition.values), ("notValues", condition.not_values)):
                for index, text in enumerate(texts):
                    yield (*at, field, index), text


def _foreign(text: str, trust_domain: str) -> str:
    """Return why this principal allows no caller of this mesh; empty if it can."""
    if text.startswith("spiffe://"):
        return f"{shown(text)} allows no caller: principals are written without spiffe://"
    domain, slash, _ = text.partition("/ns/")
    if not slash or "*" in domain or domain in (OWN, trust_domain):
        return ""
    own = "" if trust_domain == OWN else f", or {OWN} for the same"
    return f"{shown(text)} is of another trust domain, and matches no caller; the mesh's is {trust_domain}{own}"
