"""What the app calls leads to one cluster, however it is called; one stream is routed and judged by one Snapshot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import pytest
import trio

from sidecar.addresses import OriginalDst
from sidecar.errors import ProxyError, Reason
from sidecar.feed.time_slicer import at_once
from sidecar.net.connection import Connection
from sidecar.net.connection_pool import Limits
from sidecar.net.resolve import Resolver
from sidecar.policy.authorize import Asked, Leave, Rules, allow_all
from sidecar.policy.egress import OPEN, AllowedHost, Egress
from sidecar.proxy.route_table import RouteTable
from sidecar.resources.incremental_compile import compile_slices
from sidecar.resources.snapshot import Endpoint, Node, Snapshot
from sidecar.telemetry.metrics import Counters
from sidecar.upstream.clusters import Clusters
from sidecar.upstream.plaintext import PlaintextConnector
from sidecar.upstream.transport import Mtls

VIRTUAL = OriginalDst("240.240.0.1", 80)


class Mesh:
    """A mesh whose Snapshot the test sets; ``reads`` counts how often it was asked for. ``dialed`` is where to, and as
    whom."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.reads = 0
        self.dialed: list[tuple[str, Mtls]] = []

    @property
    def snapshot(self) -> Snapshot:
        self.reads += 1
        return self._snapshot

    @snapshot.setter
    def snapshot(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    async def connect(self, endpoint: Endpoint, transport: Mtls, seconds: float, *, opaque: bool) -> Connection:
        self.dialed.append((str(endpoint), transport))
        raise ProxyError(Reason.CONNECT_FAILED, "nothing listens in this test")


def snapshot(
    *addresses: str, account: str = "web", entries: Sequence[dict[str, Any]] = (), source: str = "control"
) -> Snapshot:
    """A service with these endpoints, and these service entries."""
    service = {
        "name": "web", "namespace": "shop", "serviceAccounts": [account], "ports": [{"port": 80, "targetPort": 8080}],
        "addresses": [VIRTUAL.host], "endpoints": [{"address": address} for address in addresses],
    }  # fmt: skip
    document = {
        "schema": "1.1", "version": "1.1", "proxy": "spiffe://cluster.local/ns/shop/sa/x", "issued": 1.0,
        "trustDomain": "cluster.local", "services": [service], "serviceEntries": list(entries),
    }  # fmt: skip
    found = at_once(compile_slices(json.dumps(document).encode(), Node(), cast(Any, source)))
    assert found.snapshot is not None, found.problems
    return found.snapshot


def routes(mesh: Mesh | None, told: Egress = OPEN, rules: Rules = allow_all) -> tuple[RouteTable, Clusters]:
    plaintext = PlaintextConnector(Resolver(), [], set(), None if mesh is None else lambda: mesh.snapshot)
    clusters = Clusters(Limits(8, 8, 1.0, 60.0), 1.0, Counters(), plaintext, mesh)
    return RouteTable(clusters, mesh, told, Resolver(), [], rules, 60.0), clusters


def test_one_service_port_is_one_cluster_however_it_is_called() -> None:
    mesh = Mesh(snapshot("10.0.0.1", "10.0.0.2"))
    found, clusters = routes(mesh)
    now = found.current()
    outside = found.captured(now, OriginalDst("192.0.2.1", 80))
    ways = [
        found.named(now, "web.shop", 80),
        found.named(now, "web.shop.svc.cluster.local", 80),
        found.named(now, VIRTUAL.host, 80),
        found.captured(now, VIRTUAL),
        found.captured(now, OriginalDst("10.0.0.2", 8080)),
        found.by_authority(now, outside, b"Web.Shop:80"),
    ]
    assert {id(way.cluster) for way in ways} == {id(ways[0].cluster)} and all(way.at is None for way in ways)
    assert ways[0].cluster.name == "outbound|80||web.shop.svc.cluster.local"
    assert [cluster.name for cluster in clusters.called] == [ways[0].cluster.name]
    assert outside.cluster is clusters.passthrough and outside.at == OriginalDst("192.0.2.1", 80)


def test_endpoints_that_come_and_go_leave_one_cluster_behind() -> None:
    mesh = Mesh(snapshot("10.0.0.1"))
    found, clusters = routes(mesh)
    first = found.named(found.current(), "web.shop", 80).cluster
    for number in range(2, 200):
        mesh.snapshot = snapshot(f"10.0.0.{number}")
        now = found.current()
        assert found.captured(now, OriginalDst(f"10.0.0.{number}", 8080)).cluster is first
    assert clusters.called == [first]
    mesh.snapshot = snapshot("10.0.0.1", account="other")
    assert found.named(found.current(), "web.shop", 80).cluster is not first  # others serve it: nothing is shared


async def test_each_stream_is_routed_and_judged_by_one_snapshot() -> None:
    """The Snapshot changes at every read: endpoint and identity of one dial are always of the same."""

    class Changing(Mesh):
        @property
        def snapshot(self) -> Snapshot:
            self.reads += 1
            return by_number[self.reads % 2]

        @snapshot.setter
        def snapshot(self, snapshot: Snapshot) -> None:
            raise AssertionError

    by_number = [snapshot("10.0.0.1", account="one"), snapshot("10.0.0.2", account="two")]
    mesh = Changing(by_number[0])
    seen: list[Asked] = []

    def rules(asked: Asked) -> Leave:
        seen.append(asked)
        return Leave("allowed")

    found, _ = routes(mesh, rules=rules)
    for number in range(20):
        before = mesh.reads
        route = found.named(found.current(), "web.shop", 80)
        permit = await found.permit_as(route, "127.0.0.1", "web.shop", protocol="HTTP")
        with pytest.raises(ProxyError):
            await route.cluster.lease(permit)
        assert mesh.reads == before + 1, "the Snapshot is read once for a stream"
        endpoint, transport = mesh.dialed[-1]
        (identity,) = transport.identities
        assert (endpoint, str(identity).rpartition("/")[2]) in (("10.0.0.1:8080", "one"), ("10.0.0.2:8080", "two"))
        assert len(seen) == number + 1 and seen[-1].cluster == permit.cluster


def test_what_bears_a_services_name_is_reached_in_no_other_way() -> None:
    found, _ = routes(Mesh(snapshot("10.0.0.1")))
    now = found.current()
    for host, port in (("web.shop", 81), ("WEB.shop.svc", 8080)):
        with pytest.raises(ProxyError) as refused:
            found.named(now, host, port)
        assert refused.value.reason is Reason.NO_ROUTE
    with pytest.raises(ProxyError) as refused:
        found.captured(now, OriginalDst("240.240.9.9", 80))
    assert refused.value.reason is Reason.NO_ROUTE


async def test_under_registry_only_a_captured_name_has_to_lead_where_the_connection_was_going() -> None:
    closed = Egress(True, (AllowedHost("localhost"),))
    found, _ = routes(Mesh(snapshot("10.0.0.1")), closed)
    now = found.current()
    there = found.captured(now, OriginalDst("127.0.0.1", 9))
    elsewhere = found.captured(now, OriginalDst("192.0.2.1", 9))
    with trio.fail_after(5):
        assert (await found.permit_as(there, "127.0.0.1", "localhost", protocol="TLS")).at == there.at
        for route, name in ((elsewhere, "localhost"), (there, "other.example"), (there, "")):
            with pytest.raises(ProxyError) as refused:
                await found.permit_as(route, "127.0.0.1", name, protocol="TLS")
            assert refused.value.reason is Reason.BLACK_HOLE
    assert there.permit is None  # what a name has opened is open for that name alone
    with pytest.raises(ProxyError):
        found.permit(there, "127.0.0.1", protocol="TCP")
    service = found.named(now, "web.shop", 80)
    assert found.permit(service, "127.0.0.1", protocol="TCP").cluster == service.cluster.name


def test_before_the_first_configuration_nothing_outside_is_called() -> None:
    found, _ = routes(Mesh(snapshot("10.0.0.1", source="none")))
    route = found.named(found.current(), "192.0.2.1", 80)
    with pytest.raises(ProxyError) as refused:
        found.permit(route, "127.0.0.1", protocol="HTTP")
    assert refused.value.reason is Reason.NO_CONFIGURATION


def test_an_entry_without_addresses_counts_for_the_address_that_its_name_leads_to() -> None:
    entry = {"name": "db", "namespace": "shop", "hosts": ["*.example"], "ports": [{"port": 443}], "resolution": "NONE"}
    found, clusters = routes(Mesh(snapshot("10.0.0.1", entries=[entry])))
    now = found.current()
    base = found.captured(now, OriginalDst("192.0.2.7", 443))
    led = found.by_server_name(now, base, b"a.example")
    assert (led.kind, led.chosen, led.at) == ("entry", True, OriginalDst("192.0.2.7", 443))
    assert found.by_server_name(now, base, b"a.other") is base
    service = found.captured(now, VIRTUAL)
    assert found.by_server_name(now, service, b"a.example") is service
    named = found.named(now, "b.example", 443)
    assert named.cluster is led.cluster and str(named.at) == "b.example:443"
    assert [cluster.name for cluster in clusters.called][1:] == ["outbound|443||*.example"]


def test_without_a_mesh_everything_is_outside() -> None:
    found, clusters = routes(None)
    route = found.named(found.current(), "web.shop", 80)
    assert route.kind == "outside" and route.cluster is clusters.passthrough
    assert found.by_authority(found.current(), route, b"web.shop") is route
