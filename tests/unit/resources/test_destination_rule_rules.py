"""What stands in a DestinationRule and a BackendTrafficPolicy is judged whole, each problem with its place."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.resources.documents import parse

BUDGET = {"retryRatio": 0.2}


def problems(kind: str, spec: dict[str, Any]) -> list[str]:
    version = "sidecar/v1" if kind == "BackendTrafficPolicy" else "networking.istio.io/v1"
    metadata = {"name": "p", "namespace": "shop"}
    value = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": {"host": "web", **spec}}
    return [str(each).removeprefix("spec.") for each in parse(value)[1]]


def policy(**fields: Any) -> dict[str, Any]:
    return {"trafficPolicy": fields}


def port(**fields: Any) -> dict[str, Any]:
    return policy(portLevelSettings=[{"port": {"number": 80}, **fields}])


@pytest.mark.parametrize(
    ("spec", "path", "part"),
    [
        ({"host": ""}, "host", "is empty"),
        ({"host": "10.0.0.1"}, "host", "10.0.0.1 is an address"),
        ({"host": "*a"}, "host", "a * stands for whole labels"),
        (policy(), "trafficPolicy", "has no field"),
        (policy(connectionPool={}), "trafficPolicy.connectionPool", "is not supported yet"),
        (policy(outlierDetection={}), "trafficPolicy.outlierDetection", "is not supported yet"),
        (policy(tls={"mode": "DISABLE"}), "trafficPolicy.tls", "is not supported yet"),
        (policy(tunnel={}), "trafficPolicy.tunnel", "is not supported yet"),
        (policy(proxyProtocol={}), "trafficPolicy.proxyProtocol", "is not supported yet"),
        (policy(loadBalancer={"consistentHash": {}}), "trafficPolicy.loadBalancer.consistentHash", "not supported yet"),
        (policy(loadBalancer={"localityLbSetting": {}}), "trafficPolicy.loadBalancer.localityLbSetting", "is not"),
        (policy(loadBalancer={"warmup": {}}), "trafficPolicy.loadBalancer.warmup", "is not supported yet"),
        (policy(loadBalancer={"warmupDurationSecs": "1s"}), "trafficPolicy.loadBalancer.warmupDurationSecs",
         "is not supported yet"),
        (policy(loadBalancer={"simple": "ROBIN"}), "trafficPolicy.loadBalancer.simple", "'ROBIN' is not one of"),
        (policy(retryBudget={"percent": 101}), "trafficPolicy.retryBudget.percent", "101.0 is not from 0 to 100"),
        (policy(retryBudget={"percent": -0.1}), "trafficPolicy.retryBudget.percent", "is not from 0 to 100"),
        (policy(retryBudget={"percent": float("nan")}), "trafficPolicy.retryBudget.percent", "nan is not from"),
        (policy(retryBudget={"percent": "20"}), "trafficPolicy.retryBudget.percent", "'20' is not a number"),
        (policy(retryBudget={"minRetryConcurrency": -1}), "trafficPolicy.retryBudget.minRetryConcurrency", "-1 is not"),
        (policy(retryBudget=BUDGET), "trafficPolicy.retryBudget.retryRatio", "is a field of a BackendTrafficPolicy"),
        (port(), "trafficPolicy.portLevelSettings[0]", "says nothing of the port"),
        (port(tls={}), "trafficPolicy.portLevelSettings[0].tls", "is not supported yet"),
        (port(retryBudget={}), "trafficPolicy.portLevelSettings[0].retryBudget", "is of the whole destination"),
        (policy(portLevelSettings=[{"port": {"number": 80}, "loadBalancer": {}}] * 2),
         "trafficPolicy.portLevelSettings[1].port.number", "80 is there already"),
        ({"subsets": [{"name": "V1"}]}, "subsets[0].name", "'V1' is not a DNS label"),
        ({"subsets": [{"name": "a"}, {"name": "a"}]}, "subsets[1].name", "a is the name of subsets[0] already"),
        ({"subsets": [{"name": "a", "labels": {"/": "b"}}]}, "subsets[0].labels./", "is no key of a label"),
        ({"subsets": [{"name": "a", **policy(tls={})}]}, "subsets[0].trafficPolicy.tls", "is not supported yet"),
        ({"subsets": [{"name": "a", **policy(retryBudget={"percent": 200})}]},
         "subsets[0].trafficPolicy.retryBudget.percent", "200.0 is not from 0 to 100"),
        ({"exportTo": [".", "shop"]}, "exportTo[1]", "stands here twice"),
        ({"exportTo": ["*"], "workloadSelector": {"matchLabels": {"a": "b"}}}, "exportTo", "beyond the own namespace"),
        ({"workloadSelector": {"matchLabels": {"a": "*"}}}, "workloadSelector.matchLabels.a", "is no value of a label"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_destination_rule(spec: dict[str, Any], path: str, part: str) -> None:
    (found,) = problems("DestinationRule", spec)
    assert found.partition(": ")[0] == path and part in found.partition(": ")[2]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"host": "*"},
        {"host": "*.local"},
        policy(loadBalancer={"simple": "PASSTHROUGH"}),
        policy(loadBalancer={}),
        policy(retryBudget={"percent": 0}),
        policy(retryBudget={}),
        port(loadBalancer={"simple": "LEAST_REQUEST"}),
        {"exportTo": ["."], "workloadSelector": {}},
    ],
)
def test_what_is_right_in_a_destination_rule(spec: dict[str, Any]) -> None:
    assert problems("DestinationRule", spec) == []


@pytest.mark.parametrize(
    ("spec", "path", "part"),
    [
        ({}, "spec", "says nothing of the host; add retryBudget or retry"),
        ({"host": "a b", "retryBudget": {}}, "host", "is no host"),
        ({"retryBudget": {"retryRatio": -0.1}}, "retryBudget.retryRatio", "-0.1 is not from 0 to 1000"),
        ({"retryBudget": {"retryRatio": 1001}}, "retryBudget.retryRatio", "1001.0 is not from 0 to 1000"),
        ({"retryBudget": {"retryRatio": float("inf")}}, "retryBudget.retryRatio", "inf is not from 0 to 1000"),
        ({"retryBudget": {"minRetriesPerSecond": -1}}, "retryBudget.minRetriesPerSecond", "-1 is not a whole number"),
        ({"retryBudget": {"ttl": "0s"}}, "retryBudget.ttl", "'0s' is not from 1s to 60s"),
        ({"retryBudget": {"ttl": "2m"}}, "retryBudget.ttl", "is not from 1s to 60s"),
        ({"retryBudget": {"ttl": "soon"}}, "retryBudget.ttl", "'soon' is not a duration"),
        ({"retryBudget": {"percent": 20}}, "retryBudget.percent", "is a field of a DestinationRule"),
        ({"retry": {"nonIdempotentRoutes": [""]}}, "retry.nonIdempotentRoutes[0]", "is empty"),
        ({"retry": {"nonIdempotentRoutes": ["a", "a"]}}, "retry.nonIdempotentRoutes[1]", "stands here twice"),
        ({"retry": {"attempts": 3}}, "retry.attempts", "is a field of a VirtualService"),
        ({"retryBudget": {}, "exportTo": ["~"]}, "exportTo[0]", "is no namespace"),
    ],
)
def test_what_is_wrong_with_a_backend_traffic_policy(spec: dict[str, Any], path: str, part: str) -> None:
    (found,) = problems("BackendTrafficPolicy", spec)
    assert found.partition(": ")[0] == path and part in found.partition(": ")[2]


def test_what_is_right_in_a_backend_traffic_policy() -> None:
    budgets: list[dict[str, Any]] = [{}, {"retryRatio": 0, "ttl": "60s"}]
    for budget in budgets:
        assert problems("BackendTrafficPolicy", {"retryBudget": budget}) == []
    assert problems("BackendTrafficPolicy", {"retry": {"nonIdempotentRoutes": ["a", "b"]}}) == []
