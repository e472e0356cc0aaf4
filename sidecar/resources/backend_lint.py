"""What is legal in a DestinationRule or a BackendTrafficPolicy, and yet most likely not what was meant. Pure. Called by
``lint``."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.resources.conflicts import Finding
from sidecar.resources.destination_rule import TrafficPolicy
from sidecar.resources.documents import Document, Key
from sidecar.resources.kinds import BackendTrafficPolicy, DestinationRule, Service, VirtualService
from sidecar.resources.mesh_documents import Mesh
from sidecar.resources.route_hosts import ANY, full_host
from sidecar.resources.routing_index import about, named
from sidecar.resources.routing_lint import both_seen, odd_exports, odd_host
from sidecar.resources.validation import Path, shown
from sidecar.resources.visibility import matches

Odd = Iterator[tuple[Path, str]]


def lint_backends(mesh: Mesh, documents: list[Document]) -> Iterator[Finding]:
    """All that is odd in these DestinationRules and BackendTrafficPolicies."""
    batch = {document.key for document in documents}
    for document in documents:
        spec = document.spec
        assert isinstance(spec, DestinationRule | BackendTrafficPolicy)
        full = full_host(spec.host, document.metadata.namespace, mesh.trust_domain)
        own = _rule(mesh, document, spec, full) if isinstance(spec, DestinationRule) else _policy(mesh, spec, full)
        for where, why in (
            *_host(mesh, spec.host, document.metadata.namespace, full),
            *odd_exports(mesh, spec.export_to),
            *own,
            *_others(mesh, document, full, batch),
        ):
            yield Finding(document.key, ("spec", *where), why)


def _host(mesh: Mesh, host: str, namespace: str, full: str) -> Odd:
    if full.startswith("*."):
        tables = (mesh.services.hosts, mesh.entries.hosts)
        if not any(name.endswith(full[1:]) for table in tables for name in table) and not mesh.entries.named(full):
            yield ("host",), f"{shown(host)} covers no service and no host of a ServiceEntry"
    elif full != ANY and (why := odd_host(mesh, host, namespace)):
        yield ("host",), why


def _rule(mesh: Mesh, document: Document, spec: DestinationRule, full: str) -> Odd:
    namespace, selector = document.metadata.namespace, spec.workload_selector
    here = [each.metadata.labels for each in mesh.in_namespace("Service", namespace)] if selector is not None else []
    if selector is not None and selector.match_labels and not matches(selector.match_labels, here):
        why = f"matches no service of namespace {namespace}: workloads have the labels of the services they serve"
        yield ("workloadSelector",), why
    found, _ = named(mesh, full)
    if found is None or not isinstance(found.spec, Service):
        return
    for where, policy in _policies(spec):
        balancers = [(where, policy.load_balancer)]
        for index, port in enumerate(policy.port_level_settings):
            balancers.append(((*where, "portLevelSettings", index), port.load_balancer))
        for at, balancer in balancers:
            if balancer is not None and balancer.simple == "PASSTHROUGH":
                why = "PASSTHROUGH goes where the app was going, and a service's virtual address leads nowhere"
                yield (*at, "loadBalancer", "simple"), why


def _policies(spec: DestinationRule) -> Iterator[tuple[Path, TrafficPolicy]]:
    if spec.traffic_policy is not None:
        yield ("trafficPolicy",), spec.traffic_policy
    for index, subset in enumerate(spec.subsets):
        if subset.traffic_policy is not None:
            yield ("subsets", index, "trafficPolicy"), subset.traffic_policy


def _policy(mesh: Mesh, spec: BackendTrafficPolicy, full: str) -> Odd:
    names = {
        route.name
        for document in about(mesh, "destination", full).values()
        if isinstance(document.spec, VirtualService)
        for route in document.spec.http
    }
    for index, name in enumerate(spec.retry.non_idempotent_routes):
        if name not in names:
            why = f"{shown(name)} is the name of no route of a VirtualService that leads to {full}"
            yield ("retry", "nonIdempotentRoutes", index), why


def _others(mesh: Mesh, document: Document, full: str, batch: set[Key]) -> Odd:
    """Other documents for the same host: a second one of a namespace, and a budget in the other form."""
    own = _budget_of(document)
    others = {**about(mesh, "rule", full), **about(mesh, "policy", full)}
    for other in (others[key] for key in sorted(others)):
        if other.key == document.key or (other.key in batch and other.key > document.key):
            continue  # of two in a batch the later one is noted
        if own is not None and _budget_of(other) is not None and other.kind != document.kind:
            if both_seen(document, other):
                yield own, f"{other.title} has a retryBudget for {full} as well; write one of them"
        elif other.kind == document.kind and other.metadata.namespace == document.metadata.namespace:
            yield from _second(document, other, full)


def _second(document: Document, other: Document, full: str) -> Odd:
    mine, theirs = document.spec, other.spec
    if not isinstance(mine, DestinationRule) or not isinstance(theirs, DestinationRule):
        yield ("host",), f"{other.title} is for {full} as well; one of them counts, so write one"
        return
    if mine.workload_selector != theirs.workload_selector:
        return
    if mine.traffic_policy is not None and theirs.traffic_policy is not None:
        yield ("trafficPolicy",), f"{other.title} has one for {full} as well; one of them counts, so write one"
    names = {subset.name for subset in theirs.subsets}
    for index, subset in enumerate(mine.subsets):
        if subset.name in names:
            yield ("subsets", index, "name"), f"{subset.name} is a subset in {other.title} as well; one of them counts"


def _budget_of(document: Document) -> Path | None:
    """Where a document has a retry budget; None if it has none."""
    spec = document.spec
    if isinstance(spec, BackendTrafficPolicy):
        return ("retryBudget",) if spec.retry_budget is not None else None
    assert isinstance(spec, DestinationRule)
    return next(((*at, "retryBudget") for at, each in _policies(spec) if each.retry_budget is not None), None)
