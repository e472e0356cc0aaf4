"""What stands in a DestinationRule and in a BackendTrafficPolicy, judged: every problem, each with its path. Pure.

Called by ``field_rules`` for documents, and for what the control plane sends by the parts that take no document. The
rules are those of Istio's ``ValidateDestinationRule``; the bounds of a budget by ratio are Linkerd's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sidecar.durations import duration
from sidecar.resources.destination_rule import (
    BackendRetry,
    RetryBudget,
    RetryRatioBudget,
    Subset,
    TrafficPolicy,
)
from sidecar.resources.kinds import BackendTrafficPolicy, DestinationRule, Metadata
from sidecar.resources.names import NOT_A_LABEL, check_labels, is_label
from sidecar.resources.route_hosts import host_problem
from sidecar.resources.validation import Path, Problem, shown
from sidecar.resources.virtual_service_rules import check_export_to

Found = Iterator[Problem]

MOST_RATIO: Final = 1000.0  # Linkerd's bounds
LEAST_TTL: Final = 1.0
MOST_TTL: Final = 60.0


def check_destination_rule(metadata: Metadata, spec: DestinationRule) -> Found:
    """All that is wrong with a document; paths are from its root."""
    at: Path = ("spec",)
    yield from check_destination(spec.host, spec.traffic_policy, spec.subsets, at)
    yield from check_export_to(spec.export_to, metadata.namespace, (*at, "exportTo"))
    if spec.workload_selector is not None:
        yield from check_labels(spec.workload_selector.match_labels, (*at, "workloadSelector", "matchLabels"))
        if any(name not in (".", metadata.namespace) for name in spec.export_to):
            why = "goes beyond the own namespace, whose workloads workloadSelector selects; leave one of them out"
            yield Problem((*at, "exportTo"), why)


def check_destination(host: str, policy: TrafficPolicy | None, subsets: Sequence[Subset], at: Path) -> Found:
    """All that is wrong with what a DestinationRule, which is at ``at``, says of a host."""
    if why := host_problem(host):
        yield Problem((*at, "host"), why)
    yield from _policy(policy, (*at, "trafficPolicy"))
    names: dict[str, int] = {}
    for index, subset in enumerate(subsets):
        where: Path = (*at, "subsets", index)
        if not is_label(subset.name):
            yield Problem((*where, "name"), f"{shown(subset.name)} {NOT_A_LABEL}")
        elif names.setdefault(subset.name, index) != index:
            yield Problem((*where, "name"), f"{subset.name} is the name of subsets[{names[subset.name]}] already")
        yield from check_labels(subset.labels, (*where, "labels"))
        yield from _policy(subset.traffic_policy, (*where, "trafficPolicy"))


def check_backend_traffic_policy(metadata: Metadata, spec: BackendTrafficPolicy) -> Found:
    """All that is wrong with a document; paths are from its root."""
    at: Path = ("spec",)
    yield from check_backend(spec.host, spec.retry_budget, spec.retry, at)
    yield from check_export_to(spec.export_to, metadata.namespace, (*at, "exportTo"))


def check_backend(host: str, budget: RetryRatioBudget | None, retry: BackendRetry, at: Path) -> Found:
    """All that is wrong with what a BackendTrafficPolicy, which is at ``at``, says of a host."""
    if why := host_problem(host):
        yield Problem((*at, "host"), why)
    if budget is None and not retry.non_idempotent_routes:
        yield Problem(at, "says nothing of the host; add retryBudget or retry")
    if budget is not None:
        where: Path = (*at, "retryBudget")
        if not 0 <= budget.retry_ratio <= MOST_RATIO:
            yield Problem((*where, "retryRatio"), f"{budget.retry_ratio!r} is not from 0 to {MOST_RATIO:g}")
        yield from _ttl(budget.ttl, (*where, "ttl"))
    seen: set[str] = set()
    for index, name in enumerate(retry.non_idempotent_routes):
        place: Path = (*at, "retry", "nonIdempotentRoutes", index)
        if not name:
            yield Problem(place, "is empty; write the name of a route, http[].name")
        elif name in seen:
            yield Problem(place, f"{shown(name)} stands here twice")
        seen.add(name)


def _policy(policy: TrafficPolicy | None, at: Path) -> Found:
    if policy is None:
        return
    if policy.load_balancer is None and policy.retry_budget is None and not policy.port_level_settings:
        yield Problem(at, "has no field; add loadBalancer, retryBudget or portLevelSettings")
    yield from _budget(policy.retry_budget, (*at, "retryBudget"))
    ports: set[int] = set()
    for index, each in enumerate(policy.port_level_settings):
        where: Path = (*at, "portLevelSettings", index)
        if each.load_balancer is None:
            yield Problem(where, "says nothing of the port; add loadBalancer")
        if each.port.number in ports:
            yield Problem((*where, "port", "number"), f"{each.port.number} is there already")
        ports.add(each.port.number)


def _budget(budget: RetryBudget | None, at: Path) -> Found:
    if budget is not None and budget.percent is not None and not 0 <= budget.percent <= 100:
        yield Problem((*at, "percent"), f"{budget.percent!r} is not from 0 to 100")


def _ttl(text: str, at: Path) -> Found:
    try:
        seconds = duration(text)
    except ValueError as error:
        yield Problem(at, f"{error}; write for example 10s")
        return
    if not LEAST_TTL <= seconds <= MOST_TTL:
        yield Problem(at, f"{shown(text)} is not from {LEAST_TTL:g}s to {MOST_TTL:g}s")
