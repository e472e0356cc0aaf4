"""What stands in a RateLimitPolicy is judged whole, each problem with its place; and what is only odd is noted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.http import headers
from sidecar.resources.documents import parse
from sidecar.resources.lint import lint
from sidecar.resources.rate_limit_rules import source_of
from tests.unit.resources.docs import mesh, read, service

RATE = {"requests": 1, "per": "1s"}


def problems(spec: object) -> list[str]:
    metadata = {"name": "p", "namespace": "shop"}
    _, found = parse({"apiVersion": "sidecar/v1", "kind": "RateLimitPolicy", "metadata": metadata, "spec": spec})
    return [str(each).removeprefix("spec.") for each in found]


def limit(**fields: Any) -> list[str]:
    return [each.removeprefix("limits[0].") for each in problems({"limits": [{"name": "a", **fields}]})]


def test_a_policy_with_all_fields_is_right() -> None:
    assert limit(
        key=["source.principal", "request.headers[x-tenant]", "request.path"],
        match={
            "methods": ["GET"], "paths": ["/a/*", "/b/{*}"], "hosts": ["web"], "headers": {"x-tier": ["free*"]},
            "sources": ["web", "shop/web", "cluster.local/ns/shop/sa/web", "10.0.0.0/8", "2001:db8::/32"],
        },
        rate={"requests": 10, "per": "1m", "burst": 20},
        overrides=[
            {"source": "web", "requests": 1, "per": "500ms", "burst": 2}, {"source": "10.0.0.0/8", "requests": 9},
        ],
        total={"requests": 100, "per": "1s"}, fairShare=True, prefixLength=48, maxKeys=1000,
    ) == []  # fmt: skip
    both = {"max": 1, "perSecond": 2}
    assert limit(key=["source.ip"], connections=both, bytesPerSecond={"received": 4096, "sent": 4096}) == []


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, ["limits[0]: limits nothing; add rate, total, connections or bytesPerSecond"]),
        ({"rate": {"requests": 0, "per": "1s"}}, ["rate.requests: 0 is not a whole number from 1 to 1000000000"]),
        ({"rate": {**RATE, "burst": 0}}, ["rate.burst: 0 is not a whole number from 1 to 1000000000"]),
        ({"rate": {"requests": 1, "per": "soon"}}, [
            "rate.per: 'soon' is not a duration; write for example 1s, 500ms, 1m or 1h",
        ]),
        ({"rate": {"requests": 1, "per": "0s"}}, [
            "rate.per: '0s' is not above zero; write for example 1s, 500ms, 1m or 1h",
        ]),
        ({"rate": {"requests": 1, "per": "25h"}}, ["rate.per: '25h' is longer than 24h"]),
        ({"rate": RATE, "key": ["source.pod"]}, [
            "key[0]: 'source.pod' is not a key; there are source.principal, source.namespace, source.ip, remote.ip, "
            "request.path, request.method, route, request.headers[NAME]",
        ]),
        ({"rate": RATE, "key": ["route"]}, [
            "key[0]: route is known to the caller's proxy alone; write direction: OUTBOUND",
        ]),
        ({"rate": RATE, "key": ["request.headers"]}, [
            "key[0]: 'request.headers' names no header; write request.headers[NAME]",
        ]),
        ({"rate": RATE, "key": ["request.headers[X-Forwarded-Client-Cert]"]}, [
            "key[0]: X-Forwarded-Client-Cert is removed from requests before policies see them",
        ]),
        ({"rate": RATE, "key": ["request.headers[Host]"]}, [
            "key[0]: the Host is not read as a header; write match.hosts",
        ]),
        ({"rate": RATE, "key": ["source.ip", "source.ip"]}, ["key[1]: 'source.ip' stands here twice"]),
        ({"rate": RATE, "match": {}}, ["match: has no field; leave it out to mean every request"]),
        ({"rate": RATE, "match": {"paths": ["/a/{x}"]}}, [
            "match.paths[0]: '/a/{x}' has braces that are not a whole segment {*} or {**}",
        ]),
        ({"rate": RATE, "match": {"headers": {"te": ["x"]}}}, [
            "match.headers.te: te is removed from requests before policies see them",
        ]),
        ({"rate": RATE, "match": {"headers": {"x": []}}}, [
            'match.headers.x: is empty; write values, or "*" for any that is not empty',
        ]),
        ({"rate": RATE, "match": {"sources": ["a/b/c"]}}, [
            "match.sources[0]: 'a/b/c' is neither TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT, NAMESPACE/ACCOUNT, ACCOUNT nor "
            "a CIDR",
        ]),
        ({"rate": {**RATE, "burst": 2}, "algorithm": "sliding-window"}, [
            "rate.burst: a sliding window has no burst; leave it out, or write algorithm token-bucket",
        ]),
        ({"total": RATE, "overrides": [{"source": "web", "requests": 1}]}, [
            "overrides: replace the rate, and there is none; add rate",
        ]),
        ({"rate": RATE, "overrides": [{"source": "web", "requests": 1}, {"source": "shop/web", "requests": 2}]}, [
            "overrides[1].source: 'shop/web' is the source of overrides[0] already",
        ]),
        ({"rate": RATE, "overrides": [
            {"source": "10.1.2.3/8", "requests": 1}, {"source": "10.0.0.0/8", "requests": 2},
        ]}, [
            "overrides[1].source: '10.0.0.0/8' is the source of overrides[0] already",
        ]),
        ({"rate": RATE, "fairShare": True}, [
            "fairShare: shares a total, and there is none; add total",
            "fairShare: shares between the values of a key, and there is none; add key",
        ]),
        ({"connections": {"max": 1}, "key": ["request.path"]}, [
            "connections: a connection has no request.path; write a limit of its own, with a key of source.principal, "
            "source.namespace, source.ip",
        ]),
        ({"connections": {"max": 1}, "match": {"methods": ["GET"]}}, [
            "connections: a connection has nothing to match but sources; write a limit of its own",
        ]),
        ({"connections": {}}, ["connections: has no field; there are max, perSecond"]),
        ({"bytesPerSecond": {"sent": 10}}, [
            "bytesPerSecond.sent: 10 is not a whole number from 4096 to 1000000000000",
        ]),
        ({"rate": RATE, "fairShare": "yes"}, ["fairShare: 'yes' is not true or false, without quotes"]),
        ({"rate": RATE, "prefixLength": 129}, ["prefixLength: 129 is not a whole number from 1 to 128"]),
        ({"rate": RATE, "fillInterval": "1s"}, ["fillInterval: is written rate.per here"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(fields: dict[str, Any], told: list[str]) -> None:
    assert limit(**fields) == told


def test_every_problem_of_a_policy_is_told_at_once() -> None:
    told = problems({"limits": [{"name": "A", "rate": RATE}, {"name": "b"}, {"name": "b", "rate": RATE}]})
    assert [each.partition(":")[0] for each in told] == ["limits[0].name", "limits[1]", "limits[2].name"]
    many = [{"name": f"l{number}", "rate": RATE} for number in range(101)]
    assert problems({"limits": many}) == ["limits: has 101 limits; at most 100 are allowed, since each is looked at"]
    assert problems({"limits": []}) == ["limits: is empty; a policy has one limit or more"]
    assert problems({}) == ["spec: limits is missing"]


@pytest.mark.parametrize("name", sorted(headers.HOP_BY_HOP - {headers.TWIN, headers.HOST}))
def test_no_key_is_a_header_that_policies_never_see(name: bytes) -> None:
    assert limit(rate=RATE, key=[f"request.headers[{name.decode()}]"])
    for mesh_only in ("x-envoy-a", "l5d-a", "x-source-a", "x-istio-a", "x-sidecar-a", "x-forwarded-client-cert"):
        assert headers.meaning(mesh_only.encode()) == headers.MESH_ONLY
        assert limit(rate=RATE, key=[f"request.headers[{mesh_only}]"])


def test_sources_have_one_form() -> None:
    assert source_of("web", "shop") == source_of("shop/web", "x") == "cluster.local/ns/shop/sa/web"
    assert source_of("10.1.2.3", "shop") == "10.1.2.3/32"
    wrong = (
        "",
        "*",
        "a/b/c",
        "spiffe://cluster.local/ns/a/sa/b",
        "ns/",
        "/sa",
        "10.0.0.0/33",
        "192.168.1.300",
        "a b",
        "10",
    )
    for text in wrong:
        assert source_of(text, "shop") is None, text


def text_of(limits: list[dict[str, Any]], more: str = "") -> str:
    head = "apiVersion: sidecar/v1\nkind: RateLimitPolicy\nmetadata: {name: p, namespace: shop}\n"
    return f"{head}spec: {{limits: {json.dumps(limits)}{more}}}\n---\n"


@pytest.mark.parametrize(
    ("limits", "more", "noted"),
    [
        ([{"rate": {"requests": 2, "per": "1s"}, "total": RATE}], "", ["is above the total, which is reached first"]),
        ([{"rate": RATE, "key": ["request.path"]}], "", [
            "is chosen by the caller alone, who can have a fresh bucket at any time; add source.principal",
        ]),
        ([{"rate": RATE, "key": ["source.ip"]}], ", direction: OUTBOUND", [
            "has source.ip, and there is one source with direction OUTBOUND: the app beside the proxy",
        ]),
        ([{"rate": RATE}], ", selector: {matchLabels: {app: other}}", [
            "matches no service of namespace shop: workloads have the labels of the services they serve",
        ]),
        ([{"rate": RATE}], "", []),
    ],
)  # fmt: skip
def test_what_is_odd_is_noted(limits: list[dict[str, Any]], more: str, noted: list[str]) -> None:
    named = [{"name": f"l{number}", **each} for number, each in enumerate(limits)]
    found = lint(mesh(service("shop/web", labels="{app: web}"), text_of(named, more)))
    assert [each.why for each in found] == noted


def test_a_limit_of_requests_says_that_it_sees_none_on_a_tcp_port() -> None:
    made = mesh(service("shop/db", ports="{port: 5432, name: tcp-db}"), text_of([{"name": "l", "rate": RATE}]))
    (finding,) = lint(made)
    assert finding.why == "is of requests, and the ports of service shop/db are tcp: write connections for that"


def test_two_policies_of_one_name_are_refused_with_their_lines() -> None:
    text = text_of([{"name": "l", "rate": RATE}])
    (problem,) = read(text, text).problems
    assert problem == "f1.yaml:1: RateLimitPolicy shop/p stands in f0.yaml:1 already"
