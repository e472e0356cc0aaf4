"""Where a VirtualService's rules lead requests and bytes, however the destination was called, and with which permit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sidecar.addresses import Address, OriginalDst
from sidecar.errors import ProxyError, Reason
from sidecar.feed.time_slicer import at_once
from sidecar.http.first_bytes import Detected
from sidecar.http.h1.head import parse_request
from sidecar.http.message import Request
from sidecar.policy.egress import OPEN, AllowedHost, Egress
from sidecar.proxy.outbound import _Captured
from sidecar.proxy.protocol_detection import Detection
from sidecar.proxy.route import Route
from sidecar.proxy.route_table import RouteTable
from sidecar.resources.incremental_compile import compile_slices
from sidecar.resources.snapshot import Node, Snapshot
from sidecar.telemetry.record import UNKNOWN_CONNECTION
from sidecar.upstream.endpoint import Endpoint
from tests.unit.test_route_table import VIRTUAL, Mesh, routes

ENDPOINT = OriginalDst("10.0.0.1", 8080)
ELSEWHERE = OriginalDst("192.0.2.1", 80)
CLOSED = Egress(True, (AllowedHost("localhost"),))


def entry(name: str, *hosts: str, resolution: str = "STATIC", ports: Sequence[int] = (80,)) -> dict[str, Any]:
    endpoints = [{"address": "127.0.0.9"}] if resolution == "STATIC" else []
    return {
        "name": name, "namespace": "shop", "hosts": list(hosts), "resolution": resolution,
        "ports": [{"port": port} for port in ports], "endpoints": endpoints,
    }  # fmt: skip


def rules(*hosts: str, to: str, kind: str = "http", **match: Any) -> dict[str, Any]:
    """A VirtualService whose only rule leads to this host."""
    rule = {"route": [{"destination": {"host": to}}], **({"match": [match]} if match else {})}
    return {"name": "vs", "namespace": "shop", "hosts": list(hosts), kind: [rule]}


def snapshot(
    *entries: dict[str, Any],
    virtual: Sequence[dict[str, Any]] = (),
    destinations: Sequence[dict[str, Any]] = (),
    **of_first: Any,
) -> Snapshot:
    """Two services, these entries and documents; ``of_first`` is what else the first endpoint has."""
    services = [
        {
            "name": name, "namespace": "shop", "serviceAccounts": [name], "ports": [{"port": 80, "targetPort": 8080}],
            "addresses": addresses, "endpoints": [{"address": first, **of_first}, {"address": second}],
        }
        for name, addresses, first, second in (
            ("web", [VIRTUAL.host], "10.0.0.1", "10.0.0.2"), ("api", [], "10.0.0.3", "10.0.0.4"),
        )
    ]  # fmt: skip
    document = {
        "schema": "1.4", "version": "1.1", "proxy": "spiffe://cluster.local/ns/shop/sa/x", "issued": 1.0,
        "trustDomain": "cluster.local", "services": services, "serviceEntries": list(entries),
        "virtualServices": list(virtual), "destinationRules": list(destinations),
    }  # fmt: skip
    found = at_once(compile_slices(json.dumps(document).encode(), Node(), "control"))
    assert found.snapshot is not None, found.problems
    return found.snapshot


def table(*entries: dict[str, Any], virtual: Sequence[dict[str, Any]] = (), told: Egress = OPEN) -> RouteTable:
    return routes(Mesh(snapshot(*entries, virtual=virtual)), told)[0]


def get(host: str, target: str = "/") -> Request:
    parsed = parse_request(f"GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
    assert parsed is not None
    return parsed[0]


def captured(found: RouteTable, original: OriginalDst, host: str) -> Route:
    """The route of a request with this Host on a connection that was going to ``original``."""
    now, request = found.current(), get(host)
    return found.routed(found.by_authority(now, found.captured(now, original), request.authority), request)


async def test_a_permit_for_a_service_is_not_one_for_the_endpoint_that_was_dialed() -> None:
    found = table()
    base = found.captured(found.current(), ENDPOINT)
    await found.permit_as(base, "127.0.0.1", "", protocol="TCP")  # bytes of an earlier connection to this endpoint
    route = captured(found, ENDPOINT, "unknown.example")
    permit = await found.permit_as(route, "127.0.0.1", "unknown.example", protocol="HTTP")
    assert permit.at is route.at
    assert str(route.client.pick(permit).name) == "10.0.0.1:8080"


@pytest.mark.parametrize("resolution", ["STATIC", "DNS", "NONE"])
def test_a_captured_request_that_names_an_entry_follows_its_rules(resolution: str) -> None:
    found = table(
        entry("ext", "ext.example", resolution=resolution),
        entry("other", "other.example"),
        virtual=[rules("ext.example", to="other.example")],
    )
    route = captured(found, ELSEWHERE, "ext.example")
    assert route.cluster.name == "outbound|80||other.example"
    assert route.rule is not None


def test_each_captured_request_goes_where_its_own_connection_was_going() -> None:
    """The destination has no address: a rule that leads back to it keeps the address that was called."""
    found = table(
        entry("ext", "a.example", "b.example", resolution="NONE"),
        virtual=[rules("a.example", "b.example", to="a.example")],
    )
    for address in ("192.0.2.1", "192.0.2.2"):
        assert captured(found, OriginalDst(address, 80), "a.example").at == OriginalDst(address, 80)


async def test_under_registry_only_a_rule_opens_no_address_that_its_name_does_not_lead_to() -> None:
    found = table(
        entry("ext", "ext.example", resolution="NONE"),
        virtual=[rules("ext.example", to="ext.example")],
        told=CLOSED,
    )
    route = captured(found, ELSEWHERE, "ext.example")
    assert route.chosen and not route.allowed


@pytest.mark.parametrize("name", ["web.shop", "unknown.example", "other.example"])
def test_a_destination_without_an_address_is_called_by_its_own_name(name: str) -> None:
    """What was called instead is not the place to go to, and may be one that the outbound policy forbids."""
    hosts = "web.shop.svc.cluster.local", "unknown.example", "other.example"
    found = table(
        entry("ext", "*.ext.example", resolution="NONE"),
        entry("other", "other.example"),
        virtual=[rules(*hosts, to="a.ext.example")],
        told=CLOSED,
    )
    now, request = found.current(), get(name)
    route = found.routed(found.named(now, name, 80), request)
    assert (route.kind, route.at) == ("entry", Address("a.ext.example", 80))


async def test_a_wildcard_is_no_place_to_go_to() -> None:
    found = table(
        entry("ext", "*.ext.example", resolution="NONE"),
        virtual=[rules("web.shop.svc.cluster.local", to="*.ext.example")],
    )
    route = found.routed(found.named(found.current(), "web.shop", 80), get("web.shop"))
    permit = await found.permit_as(route, "127.0.0.1", "web.shop", protocol="HTTP")
    with pytest.raises(ProxyError) as refused:
        route.client.pick(permit)
    assert refused.value.reason is Reason.NO_ENDPOINT


def test_tls_routes_count_for_an_entry_that_the_server_name_leads_to() -> None:
    found = table(
        entry("ext", "ext.example", resolution="DNS", ports=(443,)),
        entry("other", "other.example", ports=(443,)),
        virtual=[rules("ext.example", to="other.example", kind="tls", sniHosts=["ext.example"])],
    )
    now = found.current()
    base = found.by_server_name(now, found.captured(now, OriginalDst("192.0.2.1", 443)), b"ext.example")
    assert found.routed_bytes(base, b"ext.example").cluster.name == "outbound|443||other.example"


async def test_bytes_of_a_silent_client_are_those_of_the_connection_that_was_dialed_for_it() -> None:
    """The destination is drawn once: what is recorded and permitted is where they go."""
    split = [
        {"destination": {"host": f"{name}.shop.svc.cluster.local"}, "weight": 50} for name in ("web", "api")
    ]  # fmt: skip
    virtual = {"name": "vs", "namespace": "shop", "hosts": ["web.shop.svc.cluster.local"], "tcp": [{"route": split}]}
    mesh = Mesh(snapshot(virtual=[virtual]))
    found, _ = routes(mesh)
    now = found.current()
    went = set()
    for _ in range(40):
        base = found.captured(now, VIRTUAL)
        target = _Captured(found, cast(Any, None), now, base, VIRTUAL, "127.0.0.1")
        with pytest.raises(ProxyError):
            await target.dial_early(UNKNOWN_CONNECTION)
        endpoint = mesh.dialed[-1][0]
        route = target.route_bytes(now, Detection(Detected.OPAQUE, b"", cast(Any, SimpleNamespace(stale=False))))
        assert endpoint in {each["endpoint"] for each in route.cluster.explained(0.0)}
        went.add(route.cluster.name)
    assert len(went) == 2


async def test_an_endpoint_keeps_its_connections_while_its_weight_and_labels_change() -> None:
    """In the service's cluster and in those of its subsets; and the one that was dialed by its address is no other."""
    subset = {"name": "v1", "labels": {"version": "v1"}}
    rule = {"name": "web", "namespace": "shop", "host": "web.shop.svc.cluster.local", "subsets": [subset]}
    mesh = Mesh(snapshot(destinations=[rule], labels={"version": "v1"}))
    found, clusters = routes(mesh)
    now = found.current()
    port = now.services["shop", "web"].ports[80]

    def endpoints() -> list[Endpoint]:
        (first,) = clusters.of_service(port, "v1").endpoints
        whole = clusters.of_service(port)
        return [first, *sorted(whole.endpoints, key=lambda each: each.name)]

    for name in ("", "v1"):
        route = found.of_service(port, VIRTUAL, name)
        permit = await found.permit_as(route, "127.0.0.1", "", protocol="HTTP")
        for _ in range(50):
            route.client.pick(permit)
    before = endpoints()
    assert len(before) == 3
    mesh.snapshot = snapshot(destinations=[rule], labels={"version": "v1", "zone": "a"}, weight=7)
    now = found.current()
    assert list(map(id, endpoints())) == list(map(id, before))
    dialed = found.captured(now, ENDPOINT)
    assert dialed.cluster.at(dialed.endpoint) in before
    assert [row.get("weight") for row in clusters.of_service(port).explained(0.0)] == [7, 1]
