"""What DestinationRules and BackendTrafficPolicies say of a destination: found by host, port and subset. Pure.

Called by ``upstream.clusters`` when a cluster is made or its Snapshot changes. Rules of the caller's namespace go
before those of the service's, and these before those of the root namespace; within a namespace the most specific host
counts, and the rules for one host are merged as Istio does: the first traffic policy, and the subsets of all.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from sidecar.policy.balance import Balancing, balancing
from sidecar.policy.retry_budget import RetryBudget, compile_budget
from sidecar.resources.destination_rule import (
    BackendTrafficPolicySpec,
    DestinationRuleSpec,
    RetryRatioBudget,
    Subset,
    TrafficPolicy,
)
from sidecar.resources.destination_rule import RetryBudget as RetryBudgetSpec
from sidecar.resources.kinds import ROOT_NAMESPACE

_PER_STEP: Final = 64
Labels = Mapping[str, str]


class Backend(msgspec.Struct, frozen=True):
    """How a cluster is called. ``passthrough``: a captured call goes to the very endpoint that was dialed. ``labels``
    are those of the subset's endpoints, empty for all of them; ``sources`` name the documents, for people. ``budget``
    and ``ratio`` None: the defaults.
    """

    balancing: Balancing = "LEAST_REQUEST"
    passthrough: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    budget: RetryBudgetSpec | None = None
    ratio: RetryRatioBudget | None = None
    non_idempotent: frozenset[str] = frozenset()
    sources: tuple[str, ...] = ()

    def make_budget(self) -> RetryBudget:
        """Return a fresh budget for the retries of a cluster."""
        return compile_budget(self.ratio or self.budget)


DEFAULT: Final = Backend()


class _Merged(msgspec.Struct, gc=False):
    """The rules of one namespace for one host, merged: the first policy, and the subsets of all."""

    policy: TrafficPolicy | None = None
    subsets: dict[str, Subset] = {}
    sources: list[str] = []

    def add(self, rule: DestinationRuleSpec) -> None:
        """Add the next one."""
        if self.policy is None:
            self.policy = rule.traffic_policy
        for each in rule.subsets:
            self.subsets.setdefault(each.name, each)
        self.sources.append(f"DestinationRule {rule.title}")


class Backends:
    """All rules that one proxy sees. ``namespace`` is its own."""

    __slots__ = ("_namespace", "_policies", "_rules")

    def __init__(
        self,
        namespace: str,
        rules: Sequence[DestinationRuleSpec] = (),
        policies: Sequence[BackendTrafficPolicySpec] = (),
    ) -> None:
        self._namespace = namespace
        self._rules: dict[str, dict[str, _Merged]] = {}
        self._policies: dict[str, dict[str, BackendTrafficPolicySpec]] = {}
        for _ in self.fill(rules, policies):
            pass

    def fill(
        self, rules: Sequence[DestinationRuleSpec], policies: Sequence[BackendTrafficPolicySpec]
    ) -> Generator[None, None, None]:
        """Add these, which come in the order in which they count; yield after every few."""
        for number, rule in enumerate(rules, 1):
            hosts = self._rules.setdefault(rule.namespace, {})
            known = hosts.get(rule.host)
            if known is None:
                known = hosts[rule.host] = _Merged()
            known.add(rule)
            if not number % _PER_STEP:
                yield
        for number, policy in enumerate(policies, 1):
            self._policies.setdefault(policy.namespace, {}).setdefault(policy.host, policy)
            if not number % _PER_STEP:
                yield

    def of(self, host: str, port: int, subset: str = "", namespace: str = "") -> Backend | None:
        """Return how ``host`` is called at ``port``; ``namespace`` is that of its service or entry. None: it has no
        such subset."""
        rule = next(self._found(self._rules, host, namespace), None)
        policy = next(self._found(self._policies, host, namespace), None)
        if rule is None and policy is None:
            return None if subset else DEFAULT
        chosen = None if rule is None else rule.subsets.get(subset)
        if subset and chosen is None:
            return None
        whole = None if rule is None else rule.policy
        own = None if chosen is None else chosen.traffic_policy
        simple = _simple(whole, own, port)
        sources = () if rule is None else tuple(rule.sources)
        return Backend(
            balancing(simple),
            simple == "PASSTHROUGH",
            () if chosen is None else tuple(sorted(chosen.labels.items())),
            next((each.retry_budget for each in (own, whole) if each is not None and each.retry_budget), None),
            None if policy is None else policy.retry_budget,
            frozenset() if policy is None else frozenset(policy.retry.non_idempotent_routes),
            sources if policy is None else (*sources, f"BackendTrafficPolicy {policy.title}"),
        )

    def _found(self, table: Mapping[str, Mapping[str, M]], host: str, namespace: str) -> Iterator[M]:
        for where in dict.fromkeys((self._namespace, namespace, ROOT_NAMESPACE)):
            hosts = table.get(where)
            if hosts:
                for name in _names(host):
                    if name in hosts:
                        yield hosts[name]
                        break


M = TypeVar("M")


def _names(host: str) -> Iterator[str]:
    """Yield the host and the wildcards that cover it, the most specific first."""
    yield host
    below = host.removeprefix("*.")
    while "." in below:
        below = below.partition(".")[2]
        yield f"*.{below}"
    yield "*"


def _simple(whole: TrafficPolicy | None, own: TrafficPolicy | None, port: int) -> str:
    """Return the balancing of a port: its own settings, then those of the subset, then those of the destination."""
    for policy in (own, whole):
        for each in () if policy is None else policy.port_level_settings:
            if each.port.number == port:
                return "" if each.load_balancer is None else each.load_balancer.simple
    for policy in (own, whole):
        if policy is not None and policy.load_balancer is not None:
            return policy.load_balancer.simple
    return ""
