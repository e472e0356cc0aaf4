"""The clusters of what the app calls, and of subsets of it, as Snapshots and DestinationRules change."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from sidecar.errors import ProxyError, Reason
from sidecar.policy.authorize import Asked, Permit, allow_all, authorize_service
from sidecar.policy.retry_budget import RatioBudget
from sidecar.resources.snapshot import Snapshot
from sidecar.upstream.cluster import Cluster
from sidecar.upstream.clusters import Clusters
from sidecar.upstream.endpoint import Endpoint
from tests.unit.test_route_lookups import API, WEB, Table, rule, snapshot

SUBSETS = [{"name": f"v{number}", "labels": {"version": f"v{number}"}} for number in (1, 2, 3)]


def obeying(table: Table, given: Snapshot) -> Clusters:
    """The clusters, once they follow this Snapshot."""
    table.mesh.snapshot = given
    table.routes.current()
    return table.clusters


def by_rule(*subsets: dict[str, Any], **policy: Any) -> Snapshot:
    """The service with these subsets and this traffic policy."""
    more: dict[str, Any] = {"trafficPolicy": policy} if policy else {}
    return snapshot(rules=(rule(subsets=list(subsets or SUBSETS), **more),))


def port(table: Table) -> Any:
    return table.routes.current().by_authority("web.shop", 80)


def cluster(table: Table, subset: str = "") -> Cluster[Any]:
    return table.clusters.of_service(port(table), subset)


def permit(of: Cluster[Any]) -> Permit:
    return authorize_service(allow_all, Asked("outbound", "", "127.0.0.1", of.name, "HTTP"), None)


def picked(of: Cluster[Any], times: int = 60) -> set[str]:
    """The endpoints that it picks."""
    return {of.pick(permit(of)).name for _ in range(times)}


def test_a_subset_has_the_endpoints_with_its_labels() -> None:
    table = Table(by_rule({"name": "all"}, *SUBSETS))
    assert picked(cluster(table, "v1")) == {"10.0.0.1:8080"}
    assert picked(cluster(table, "v2")) == {"10.0.0.2:8080"}
    assert picked(cluster(table, "all")) == picked(cluster(table)) == {"10.0.0.1:8080", "10.0.0.2:8080"}
    assert [each.name for each in table.clusters.called] == [
        f"outbound|80|{subset}|{WEB}" for subset in ("v1", "v2", "all", "")
    ]
    with pytest.raises(ProxyError) as refused:
        picked(cluster(table, "v3"))
    assert refused.value.reason is Reason.NO_ENDPOINT
    with pytest.raises(ProxyError) as refused:
        cluster(table, "v4")
    assert refused.value.reason is Reason.NO_CLUSTER


def test_a_subset_follows_its_labels_and_those_of_the_endpoints() -> None:
    table = Table(by_rule())
    one = cluster(table, "v1")
    assert picked(one) == {"10.0.0.1:8080"}
    obeying(table, by_rule({"name": "v1", "labels": {"version": "v2"}}))
    assert cluster(table, "v1") is one and picked(one) == {"10.0.0.2:8080"}, "the rule has changed"
    endpoints: list[dict[str, Any]] = [
        {"address": "10.0.0.7", "labels": {"version": "v2", "zone": "b"}}, {"address": "10.0.0.8"},
    ]  # fmt: skip
    service = {
        "name": "web", "namespace": "shop", "serviceAccounts": ["web"], "ports": [{"port": 80, "targetPort": 8080}],
        "endpoints": endpoints,
    }  # fmt: skip
    obeying(table, snapshot(rules=(rule(subsets=SUBSETS),), services=[service]))
    assert cluster(table, "v1") is not one, "others speak there now: the port has no name any more"
    two = cluster(table, "v2")
    assert picked(two) == {"10.0.0.7:8080"}
    endpoints[1]["labels"] = {"version": "v2"}
    obeying(table, snapshot(rules=(rule(subsets=SUBSETS),), services=[service]))
    assert cluster(table, "v2") is two and picked(two) == {"10.0.0.7:8080", "10.0.0.8:8080"}


def test_weights_are_those_of_the_endpoints_of_the_subset() -> None:
    endpoints: list[dict[str, Any]] = [
        {"address": f"10.0.0.{number}", "weight": weight, "labels": {"version": version}}
        for number, weight, version in ((1, 1, "v1"), (2, 9, "v1"), (3, 500, "v2"), (4, 500, "v2"))
    ]
    service = {
        "name": "web", "namespace": "shop", "serviceAccounts": ["web"], "ports": [{"port": 80, "targetPort": 8080}],
        "endpoints": endpoints,
    }  # fmt: skip
    table = Table(snapshot(rules=(rule(subsets=SUBSETS),), services=[service]))

    def share(subset: str, last: int) -> float:
        found = cluster(table, subset)
        name = f"10.0.0.{last}:8080"
        return sum(found.pick(permit(found)).name == name for _ in range(4000)) / 4000

    assert abs(share("v1", 2) - 0.9) < 0.03 and abs(share("v2", 4) - 0.5) < 0.05
    endpoints[0]["weight"] = 9
    obeying(table, snapshot(rules=(rule(subsets=SUBSETS),), services=[service]))
    assert abs(share("v1", 2) - 0.5) < 0.05


def test_an_equal_budget_is_kept_and_another_one_begins_anew() -> None:
    policy = {"name": "p", "namespace": "shop", "host": WEB, "retryBudget": {
        "retryRatio": 0.2, "minRetriesPerSecond": 1, "ttl": "10s",
    }}  # fmt: skip

    def given(*subsets: dict[str, Any], **more: Any) -> Snapshot:
        return snapshot(rules=(rule(subsets=list(subsets)),), backendTrafficPolicies=[policy | more])

    table = Table(given(*SUBSETS))
    load = cluster(table, "v1").load
    assert isinstance(load.budget, RatioBudget)
    while load.begin_retry(1.0):
        pass
    used = load.budget
    obeying(table, given(*SUBSETS, {"name": "more"}))
    assert cluster(table, "v1").load.budget is used and not load.begin_retry(1.0), "the rule says the same of retries"
    other = {"retryRatio": 0.2, "minRetriesPerSecond": 2, "ttl": "10s"}
    obeying(table, given(*SUBSETS, retryBudget=other))
    assert cluster(table, "v1").load.budget is not used and load.begin_retry(1.0)
    obeying(table, snapshot(rules=(rule(subsets=SUBSETS),)))
    assert "20" in str(cluster(table, "v1").load.budget), "the default"


def test_a_change_of_balancing_keeps_the_endpoints() -> None:
    table = Table(by_rule())
    found = cluster(table, "v1")
    endpoint: Endpoint = found.pick(permit(found))
    for way in ("ROUND_ROBIN", "RANDOM", "LEAST_REQUEST"):
        obeying(table, by_rule(loadBalancer={"simple": way}))
        assert cluster(table, "v1") is found and found.pick(permit(found)) is endpoint


async def test_a_subset_that_is_gone_closes_and_the_others_go_on() -> None:
    table = Table(by_rule())
    first, second, whole = cluster(table, "v1"), cluster(table, "v2"), cluster(table)
    obeying(table, by_rule(*SUBSETS[1:]))
    assert [each.name for each in table.clusters.called] == [second.name, whole.name]
    with pytest.raises(ProxyError) as refused, trio.fail_after(5):
        await first.lease(permit(first))
    assert refused.value.reason is Reason.NO_ENDPOINT
    with pytest.raises(ProxyError) as refused:
        cluster(table, "v1")
    assert refused.value.reason is Reason.NO_CLUSTER
    assert cluster(table, "v2") is second and cluster(table) is whole
    obeying(table, snapshot())
    assert [each.name for each in table.clusters.called] == [whole.name], "no rule is left"
    obeying(table, by_rule())
    assert cluster(table, "v1") is not first and picked(cluster(table, "v1")) == {"10.0.0.1:8080"}


def test_subsets_of_an_entry_are_as_those_of_a_service() -> None:
    def given(*subsets: dict[str, Any], **more: Any) -> Snapshot:
        return snapshot(rules=(rule("api.example", subsets=list(subsets)),), serviceEntries=[API | more])

    table = Table(given(*SUBSETS))

    def of(subset: str) -> Cluster[Any]:
        found = table.routes.current().entry_by_authority("api.example", 80)
        assert found is not None
        return table.clusters.of_entry(found, subset)

    one, none = of("v1"), of("v3")
    assert (one.name, picked(one)) == ("outbound|80|v1|api.example", {"192.0.2.51:80"})
    with pytest.raises(ProxyError) as refused:
        picked(none)
    assert refused.value.reason is Reason.NO_ENDPOINT
    moved = [{"address": "192.0.2.53", "labels": {"version": "v1"}}, {"address": "192.0.2.54"}]
    obeying(table, given(*SUBSETS, endpoints=moved))
    assert of("v1") is one and picked(one) == {"192.0.2.53:80"}
    obeying(table, given(*SUBSETS[1:]))
    with pytest.raises(ProxyError) as refused:
        of("v1")
    assert refused.value.reason is Reason.NO_CLUSTER
    assert [each.name for each in table.clusters.called] == [none.name]
