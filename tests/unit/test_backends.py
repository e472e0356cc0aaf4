"""What DestinationRules and BackendTrafficPolicies say of a destination: whose rule counts, and how they are merged."""

from __future__ import annotations

import pytest

from sidecar.policy.backends import DEFAULT, Backends
from sidecar.policy.retry_budget import ConcurrencyBudget, RatioBudget
from sidecar.resources.destination_rule import (
    BackendRetry,
    BackendTrafficPolicySpec,
    DestinationRuleSpec,
    LoadBalancerSettings,
    PortTrafficPolicy,
    RetryBudget,
    RetryRatioBudget,
    Subset,
    TrafficPolicy,
)
from sidecar.resources.virtual_service import PortSelector

WEB = "web.shop.svc.cluster.local"


def balanced(word: str, **more: object) -> TrafficPolicy:
    return TrafficPolicy(load_balancer=LoadBalancerSettings(word), **more)  # type: ignore[arg-type]


def rule(
    namespace: str, host: str = WEB, policy: TrafficPolicy | None = None, *subsets: Subset, name: str = "r"
) -> DestinationRuleSpec:
    return DestinationRuleSpec(name, namespace, host, policy, list(subsets))


def test_without_documents_a_destination_has_the_defaults_and_no_subset() -> None:
    found = Backends("caller")
    assert found.of(WEB, 80) is DEFAULT
    assert found.of(WEB, 80, "v1") is None
    assert DEFAULT.make_budget() == ConcurrencyBudget(20, 3)


def test_the_callers_namespace_counts_before_the_services_and_that_before_the_root() -> None:
    rules = [
        rule("caller", policy=balanced("RANDOM")),
        rule("shop", policy=balanced("ROUND_ROBIN")),
        rule("sidecar-system", policy=balanced("RANDOM")),
    ]
    for left, word in (
        (rules, "RANDOM"),
        (rules[1:], "ROUND_ROBIN"),
        (rules[2:], "RANDOM"),
        ([], "LEAST_REQUEST"),
    ):
        found = Backends("caller", left).of(WEB, 80, "", "shop")
        assert found is not None and found.balancing == word
    # a rule of a namespace that is neither is not about this call
    other = Backends("caller", [rule("elsewhere", policy=balanced("RANDOM"))]).of(WEB, 80, "", "shop")
    assert other == DEFAULT


def test_the_most_specific_host_counts_within_a_namespace() -> None:
    rules = [
        rule("caller", "*", balanced("RANDOM")),
        rule("caller", "*.shop.svc.cluster.local", balanced("ROUND_ROBIN")),
    ]
    backends = Backends("caller", rules)
    assert backends.of(WEB, 80).balancing == "ROUND_ROBIN"  # type: ignore[union-attr]
    assert backends.of("api.example.com", 443).balancing == "RANDOM"  # type: ignore[union-attr]
    exact = Backends("caller", [*rules, rule("caller", WEB, balanced("PASSTHROUGH"))])
    assert exact.of(WEB, 80).passthrough  # type: ignore[union-attr]
    # a wildcard of the caller's namespace counts before the very host in the service's
    nearer = Backends("caller", [rules[0], rule("shop", WEB, balanced("PASSTHROUGH"))])
    assert nearer.of(WEB, 80, "", "shop").balancing == "RANDOM"  # type: ignore[union-attr]


def test_rules_for_one_host_are_merged() -> None:
    """As Istio does: the first traffic policy, and subsets whose names are new."""
    backends = Backends(
        "shop",
        [
            rule("shop", WEB, None, Subset("v1", {"version": "1"}), name="a"),
            rule(
                "shop",
                WEB,
                balanced("RANDOM"),
                Subset("v1", {"version": "x"}),
                Subset("v2", {"version": "2"}),
                name="b",
            ),
            rule("shop", WEB, balanced("ROUND_ROBIN"), name="c"),
        ],
    )
    one, two = backends.of(WEB, 80, "v1"), backends.of(WEB, 80, "v2")
    assert one is not None and one.labels == (("version", "1"),) and one.balancing == "RANDOM"
    assert two is not None and two.labels == (("version", "2"),)
    assert one.sources == tuple(f"DestinationRule shop/{name}" for name in "abc")
    assert backends.of(WEB, 80, "v3") is None


@pytest.mark.parametrize(
    ("port", "subset", "word"),
    [
        (80, "", "RANDOM"),
        (443, "", "ROUND_ROBIN"),
        (80, "v1", "LEAST_REQUEST"),
        (8080, "v1", "LEAST_REQUEST"),
        (80, "v2", "RANDOM"),
    ],
)
def test_a_ports_settings_count_before_the_subsets_and_these_before_the_destinations(
    port: int, subset: str, word: str
) -> None:
    def at(number: int, simple: str | None) -> PortTrafficPolicy:
        settings = None if simple is None else LoadBalancerSettings(simple)  # type: ignore[arg-type]
        return PortTrafficPolicy(PortSelector(number), settings)

    whole = balanced("RANDOM", port_level_settings=[at(443, "ROUND_ROBIN")])
    own = balanced("PASSTHROUGH", port_level_settings=[at(8080, None)])
    found = Backends("shop", [rule("shop", WEB, whole, Subset("v1", {}, own), Subset("v2"))]).of(WEB, port, subset)
    assert found is not None and found.balancing == word and found.passthrough is (subset == "v1" and port == 80)


def test_budgets_and_routes_that_may_be_repeated() -> None:
    rules = [
        rule(
            "shop",
            WEB,
            TrafficPolicy(retry_budget=RetryBudget(percent=50.0)),
            Subset("v1", {}, TrafficPolicy(retry_budget=RetryBudget(min_retry_concurrency=9))),
        )
    ]
    policies = [BackendTrafficPolicySpec("p", "shop", WEB, RetryRatioBudget(0.1, 5, "3s"), BackendRetry(["pay"]))]
    alone = Backends("shop", rules)
    assert alone.of(WEB, 80).make_budget() == ConcurrencyBudget(50, 3)  # type: ignore[union-attr]
    assert alone.of(WEB, 80, "v1").make_budget() == ConcurrencyBudget(20, 9)  # type: ignore[union-attr]
    both = Backends("shop", rules, policies).of(WEB, 80)
    assert both is not None and both.make_budget() == RatioBudget(0.1, 5, 3.0)
    assert both.non_idempotent == {"pay"} and both.sources[-1] == "BackendTrafficPolicy shop/p"
