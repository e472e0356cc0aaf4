"""Which VirtualService counts for what the app calls, by name or by address; and where a rule leads."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from sidecar.addresses import OriginalDst
from sidecar.errors import ProxyError, Reason
from sidecar.feed.time_slicer import at_once
from sidecar.http.h1.head import parse_request
from sidecar.http.message import Request
from sidecar.policy.egress import OPEN, AllowedHost, Egress
from sidecar.proxy.route import Route
from sidecar.proxy.route_table import RouteTable
from sidecar.resources.incremental_compile import compile_slices
from sidecar.resources.snapshot import Node, Snapshot
from sidecar.upstream.clusters import Clusters
from tests.unit.test_route_table import VIRTUAL, Mesh, routes

WEB = "web.shop.svc.cluster.local"
ONE, TWO = OriginalDst("10.0.0.1", 8080), OriginalDst("10.0.0.2", 8080)
OUTSIDE = OriginalDst("192.0.2.1", 80)
TO_ALL = {"route": [{"destination": {"host": WEB}}]}
TO_V1 = {"route": [{"destination": {"host": WEB, "subset": "v1"}}]}
DOWN = {"directResponse": {"status": 503}}
STRICT = Egress(True, (AllowedHost("localhost"),))
API = {
    "name": "api", "namespace": "shop", "hosts": ["api.example"], "resolution": "STATIC",
    "ports": [{"port": 80, "name": "http"}, {"port": 443, "name": "tls"}],
    "endpoints": [
        {"address": "192.0.2.51", "labels": {"version": "v1"}}, {"address": "192.0.2.52", "labels": {"version": "v2"}},
    ],
}  # fmt: skip
ANY = {
    "name": "any", "namespace": "shop", "hosts": ["*.example"], "resolution": "NONE",
    "ports": [{"port": 80, "name": "http"}],
}  # fmt: skip


def virtual_service(host: str, *http: dict[str, Any], name: str = "v", **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "shop", "hosts": [host], "http": list(http), **more}


def rule(host: str = WEB, **more: Any) -> dict[str, Any]:
    """A DestinationRule with the subset v1."""
    return {
        "name": "r", "namespace": "shop", "host": host, "subsets": [{"name": "v1", "labels": {"version": "v1"}}],
    } | more  # fmt: skip


def snapshot(*virtual: dict[str, Any], rules: tuple[dict[str, Any], ...] = (), **more: Any) -> Snapshot:
    """A service with two endpoints, one of each version, and what documents say."""
    service = {
        "name": "web", "namespace": "shop", "serviceAccounts": ["web"], "addresses": [VIRTUAL.host],
        "ports": [{"port": 80, "name": "http", "targetPort": 8080}],
        "endpoints": [
            {"address": ONE.host, "labels": {"version": "v1"}}, {"address": TWO.host, "labels": {"version": "v2"}},
        ],
    }  # fmt: skip
    document = {
        "schema": "1.4", "version": "1.1", "proxy": "spiffe://cluster.local/ns/shop/sa/x", "issued": 1.0,
        "trustDomain": "cluster.local", "services": [service], "virtualServices": list(virtual),
        "destinationRules": list(rules),
    } | more  # fmt: skip
    found = at_once(compile_slices(json.dumps(document).encode(), Node("shop"), cast(Any, "control")))
    assert found.snapshot is not None, found.problems
    return found.snapshot


class Table:
    """The routes of a proxy with this Snapshot."""

    def __init__(self, given: Snapshot, told: Egress = OPEN) -> None:
        self.mesh = Mesh(given)
        self.routes: RouteTable
        self.clusters: Clusters
        self.routes, self.clusters = routes(self.mesh, told)

    def captured(self, original: OriginalDst, host: str, *fields: str) -> Route:
        """The route of a request on a captured connection."""
        now = self.routes.current()
        asked = request(host, *fields)
        return self.routes.routed(
            self.routes.by_authority(now, self.routes.captured(now, original), asked.authority), asked
        )

    def named(self, host: str, port: int = 80, *fields: str) -> Route:
        """The route of a request to the explicit proxy."""
        return self.routes.routed(self.routes.named(self.routes.current(), host, port), request(host, *fields))


def request(host: str, *fields: str) -> Request:
    head = "\r\n".join(["GET / HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode()
    parsed = parse_request(head)
    assert parsed is not None
    return parsed[0]


def where(route: Route) -> tuple[str, str | None]:
    """The cluster of a route, and the rule that led there."""
    return route.cluster.name, None if route.rule is None else route.rule.title.rpartition("/")[2]


# -- which VirtualService ---------------------------------------------------------------------------------------------


def test_a_service_is_routed_by_its_name_and_by_its_address() -> None:
    found = Table(snapshot(virtual_service(WEB, TO_V1), rules=(rule(),)))
    v1 = (f"outbound|80|v1|{WEB}", "http[0]")
    for route in (
        found.named("web.shop"),
        found.named(VIRTUAL.host),
        found.captured(VIRTUAL, "web.shop"),
        found.captured(OUTSIDE, "Web.Shop:80"),
        found.captured(VIRTUAL, "unknown.test"),
        found.captured(VIRTUAL, VIRTUAL.host),
    ):
        assert where(route) == v1 and route.at is None
    assert [each.name for each in found.clusters.called if "|v1|" in each.name] == [v1[0]]


def test_an_endpoint_at_its_own_address_is_reached_itself() -> None:
    """By the DestinationRule of its service, and by no VirtualService."""
    budget = rule(trafficPolicy={"retryBudget": {"percent": 50}})
    found = Table(snapshot(virtual_service(WEB, TO_V1), rules=(budget,)))
    for original in (ONE, TWO):
        for route in (
            found.captured(original, "unknown.test"),
            found.captured(original, str(original)),
            found.named(original.host, original.port),
        ):
            assert where(route) == (f"outbound|80||{WEB}", None) and str(route.at) == str(original)
            assert "50" in str(route.cluster.load.budget)
        bytes_ = found.routes.routed_bytes(found.routes.captured(found.routes.current(), original))
        assert str(bytes_.at) == str(original), "and so it is for bytes"
    assert where(found.captured(ONE, "web.shop")) == (f"outbound|80|v1|{WEB}", "http[0]"), "the Host names the service"


def test_passthrough_keeps_to_the_endpoint_whatever_the_host() -> None:
    through = rule(trafficPolicy={"loadBalancer": {"simple": "PASSTHROUGH"}})
    found = Table(snapshot(virtual_service(WEB, TO_ALL), rules=(through,)))
    for host in ("web.shop", "unknown.test"):
        assert str(found.captured(TWO, host).at) == str(TWO)
    assert found.captured(VIRTUAL, "web.shop").at is None, "no endpoint was dialed"


def test_an_unknown_host_is_routed_at_port_80_alone() -> None:
    found = Table(snapshot(virtual_service("old.test", TO_ALL)))
    led = (f"outbound|80||{WEB}", "http[0]")
    assert where(found.named("old.test")) == led
    assert where(found.named("old.test", 8080)) == ("PassthroughCluster", None)
    for original, host, counts in (
        (OUTSIDE, "old.test", True),
        (OUTSIDE, "OLD.test:80", True),
        (OUTSIDE, "old.test:8080", True),  # the original port counts
        (OriginalDst(OUTSIDE.host, 8080), "old.test", False),
        (OUTSIDE, "older.test", False),
    ):
        route = found.captured(original, host)
        assert where(route) == (led if counts else ("PassthroughCluster", None)), (original, host)
        assert counts or route.at == original


def test_a_wildcard_that_covers_what_is_known_counts_for_that_alone() -> None:
    known = virtual_service("*.shop.svc.cluster.local", TO_V1)
    found = Table(snapshot(known, rules=(rule(),)))
    assert where(found.named("web.shop")) == (f"outbound|80|v1|{WEB}", "http[0]")
    assert where(found.named("gone.shop.svc.cluster.local")) == ("PassthroughCluster", None)
    unknown = virtual_service("*.old.test", TO_ALL)
    unknown["hosts"].append("*.shop.svc.cluster.local")
    found = Table(snapshot(unknown))
    for host, counts in (("a.old.test", True), ("b.a.old.test", True), ("old.test", False), ("a.other.test", False)):
        assert (found.named(host).rule is not None) is counts, host
    assert found.named("gone.shop.svc.cluster.local").rule is None


def test_an_entry_is_routed_however_it_is_called() -> None:
    to = {"route": [{"destination": {"host": "api.example", "subset": "v1"}}]}
    entry = API | {"addresses": ["198.51.100.7"]}
    found = Table(snapshot(virtual_service("api.example", to), rules=(rule("api.example"),), serviceEntries=[entry]))
    for route in (
        found.named("api.example"),
        found.captured(OriginalDst("198.51.100.7", 80), "unknown.test"),
        found.captured(OUTSIDE, "api.example"),
        found.captured(OUTSIDE, "API.example.:80"),
    ):
        assert where(route) == ("outbound|80|v1|api.example", "http[0]")


def test_tls_to_an_entry_is_routed_by_its_name() -> None:
    match = [{"port": 443, "sniHosts": ["api.example"]}]
    to = [{"destination": {"host": "api.example", "subset": "v1"}}]
    by_name = virtual_service("api.example", tls=[{"match": match, "route": to}])
    found = Table(snapshot(by_name, rules=(rule("api.example"),), serviceEntries=[API]))
    now = found.routes.current()
    base = found.routes.captured(now, OriginalDst("192.0.2.9", 443))
    led = found.routes.routed_bytes(found.routes.by_server_name(now, base, b"API.example"), b"API.example")
    assert led.cluster.name == "outbound|443|v1|api.example"
    assert found.routes.routed_bytes(found.routes.by_server_name(now, base, b"other.test"), b"other.test") is base


# -- where a rule leads -----------------------------------------------------------------------------------------------


def test_a_rule_leads_to_an_entry_where_nothing_else_outside_is_called() -> None:
    to = {"route": [{"destination": {"host": "api.example"}}]}
    found = Table(
        snapshot(virtual_service("old.test", to), virtual_service("down.test", DOWN, name="d"), serviceEntries=[API]),
        STRICT,
    )
    for route in (found.named("old.test"), found.captured(OUTSIDE, "old.test")):
        assert where(route) == ("outbound|80||api.example", "http[0]")
        permit = found.routes.permit(route, "127.0.0.1", protocol="HTTP")
        assert permit.cluster == "outbound|80||api.example"
    found.routes.permit(found.named("down.test"), "127.0.0.1", protocol="HTTP")  # the proxy itself answers
    with pytest.raises(ProxyError) as refused:
        found.routes.permit(found.named("other.test"), "127.0.0.1", protocol="HTTP")
    assert refused.value.reason is Reason.BLACK_HOLE


async def test_a_rule_opens_no_address_that_the_app_chose() -> None:
    """An entry without addresses is where its name leads, and a rule that leads to it changes nothing about that."""
    to = {"route": [{"destination": {"host": "*.example"}}]}
    entry = ANY | {"hosts": ["*.example", "localhost"]}
    given = snapshot(virtual_service("localhost", to), serviceEntries=[entry])
    found = Table(given, Egress(True))
    for original, opens in ((OriginalDst("127.0.0.1", 80), True), (OUTSIDE, False)):
        route = found.captured(original, "localhost")
        assert where(route) == ("outbound|80||*.example", "http[0]") and route.at == original
        if opens:
            permit = await found.routes.permit_as(route, "127.0.0.1", "localhost", protocol="HTTP")
            assert permit.at == original
        else:
            with pytest.raises(ProxyError) as refused:
                await found.routes.permit_as(route, "127.0.0.1", "localhost", protocol="HTTP")
            assert refused.value.reason is Reason.BLACK_HOLE


def test_a_rule_for_many_names_leads_each_request_where_it_goes() -> None:
    to = {"route": [{"destination": {"host": "*.example"}}]}
    found = Table(snapshot(virtual_service("*.example", to), serviceEntries=[ANY]))
    for _ in range(2):
        for host in ("a.example", "b.example"):
            assert str(found.named(host).at) == f"{host}:80"
        for original in (OUTSIDE, OriginalDst("192.0.2.2", 80)):
            assert found.captured(original, "a.example").at == original


def test_routes_of_a_rule_are_kept_until_the_next_snapshot() -> None:
    given = snapshot(virtual_service(WEB, TO_V1), rules=(rule(),))
    found = Table(given)
    first = found.named("web.shop")
    assert found.named("web.shop") is first
    found.mesh.snapshot = snapshot(virtual_service(WEB, TO_ALL), rules=(rule(),))
    second = found.named("web.shop")
    assert where(second) == (f"outbound|80||{WEB}", "http[0]")
    found.mesh.snapshot = snapshot(virtual_service(WEB, TO_V1), rules=(rule(),))
    third = found.named("web.shop")
    assert third is not first and third.cluster is first.cluster, "its connections stay"
    found.mesh.snapshot = snapshot(virtual_service(WEB, TO_V1))
    with pytest.raises(ProxyError) as refused:
        found.named("web.shop")
    assert refused.value.reason is Reason.NO_CLUSTER


def test_no_rule_and_no_destination() -> None:
    only = {"match": [{"uri": {"exact": "/only"}}], **TO_ALL}
    found = Table(snapshot(virtual_service(WEB, only)))
    with pytest.raises(ProxyError) as refused:
        found.named("web.shop")
    assert refused.value.reason is Reason.NO_ROUTE
    for to in ({"host": "gone.test"}, {"host": WEB, "port": {"number": 81}}, {"host": WEB, "subset": "v9"}):
        found = Table(snapshot(virtual_service(WEB, {"route": [{"destination": to}]})))
        with pytest.raises(ProxyError) as refused:
            found.named("web.shop")
        assert refused.value.reason is Reason.NO_CLUSTER


# -- time limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("http", "fields", "total", "per_try"),
    [
        ({}, (), None, None),
        ({}, ("1500",), 1.5, 1.5),
        ({"timeout": "2s"}, (), 2.0, 2.0),
        ({"timeout": "2s"}, ("1500",), 1.5, 1.5),
        ({"timeout": "2s"}, ("2500",), 2.0, 2.0),
        ({"timeout": "2s", "retries": {"attempts": 2, "perTryTimeout": "1s"}}, ("1500",), 1.5, 1.0),
        ({"timeout": "2s", "retries": {"attempts": 2, "perTryTimeout": "1s"}}, ("500",), 0.5, 0.5),
        ({"retries": {"attempts": 2, "perTryTimeout": "1s"}}, ("1500",), 1.5, 1.0),
        ({"timeout": "2s"}, ("0",), 2.0, 2.0),
        ({"timeout": "2s"}, ("-5",), 2.0, 2.0),
        ({"timeout": "2s"}, ("1e3",), 2.0, 2.0),
        ({"timeout": "2s"}, ("9" * 30,), 2.0, 2.0),
    ],
)
def test_the_app_shortens_the_time_of_its_request_and_never_lengthens_it(
    http: dict[str, Any], fields: tuple[str, ...], total: float | None, per_try: float | None
) -> None:
    found = Table(snapshot(virtual_service(WEB, {**TO_ALL, **http})))
    asked = tuple(f"x-envoy-expected-rq-timeout-ms: {each}" for each in fields)
    for _ in range(2):
        limits = found.named("web.shop", 80, *asked).limits
        assert (None if limits is None else (limits.total, limits.per_try)) == (
            None if total is None else (total, per_try)
        )
        plain = found.named("web.shop").limits
        assert plain is None or plain.total == (2.0 if "timeout" in http else float("inf")), "only that request's"
