"""What is legal in routing documents, and yet most likely a mistake, is noted with its place; the document is taken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.resources.lint import lint
from tests.unit.resources.docs import doc, entry, mesh, read, service

V1 = doc("DestinationRule", "a/web", "{host: web, subsets: [{name: v1}]}")
WEB = service("a/web", labels="{app: web, tier: front}")
BASE = WEB + service("a/db", ports="{port: 5432, name: tcp-db}") + V1
FULL = "web.a.svc.cluster.local"
TO = {"route": [{"destination": {"host": "web"}}]}


def vs(where: str = "a/r", hosts: Any = ("web",), **spec: Any) -> str:
    http = {} if {"tcp", "tls"} & set(spec) else {"http": [TO]}
    return doc("VirtualService", where, json.dumps({"hosts": list(hosts), **http, **spec}))


def http(*routes: dict[str, Any]) -> str:
    return vs(http=[{**TO, **route} for route in routes])


def to(host: str, **more: Any) -> dict[str, Any]:
    return {"route": [{"destination": {"host": host, **more}}]}


def match(**fields: Any) -> str:
    return http({"match": [fields]})


def rule(where: str, **spec: Any) -> str:
    return doc("DestinationRule", where, json.dumps({"host": "web", **spec}))


def backend(where: str, **spec: Any) -> str:
    return doc("BackendTrafficPolicy", where, json.dumps({"host": "web", **spec}))


PASSTHROUGH = {"loadBalancer": {"simple": "PASSTHROUGH"}}
BUDGET = {"trafficPolicy": {"retryBudget": {"percent": 10}}}
LATER = "of two that a caller sees the older one counts; with --config, and on ties, the first by namespace and name"


@pytest.mark.parametrize(
    ("text", "noted"),
    [
        (vs(), []),
        # hosts
        (vs(hosts=["wbe"]), ["spec.hosts[0]: 'wbe' is no service and no host of a ServiceEntry; here it means "
                             "wbe.a.svc.cluster.local"]),
        (vs(hosts=["web.a"]), ["spec.hosts[0]: 'web.a' works here as web.a.svc.cluster.local, and in Istio it does "
                               "not; write the full name"]),
        (vs(hosts=["web.a.svc"]), ["spec.hosts[0]: 'web.a.svc' works here as web.a.svc.cluster.local, and in Istio it "
                                   "does not; write the full name"]),
        (vs(hosts=["web", "web.a.svc.cluster.local"]), ["spec.hosts[1]: is the same host as hosts[0]"]),
        (vs(hosts=["nowhere.example", "*.b.example", "10.0.0.1"]), []),
        (vs() + vs("a/s"), [f"spec.hosts[0]: VirtualService a/r is for web as well; {LATER}"]),
        (vs() + vs("b/s", hosts=[FULL], http=[to(FULL)]),
         [f"spec.hosts[0]: VirtualService a/r is for web.a.svc.cluster.local as well; {LATER}"]),
        (vs(exportTo=["."]) + service("b/c") + vs("b/s", hosts=[FULL], http=[to(FULL)], exportTo=["b"]), []),
        (vs(hosts=["*.example"]) + vs("a/s", hosts=["b.example"]), []),
        # gateways, exportTo
        (vs(gateways=["edge", "mesh"]),
         ["spec.gateways[0]: gateways are not supported yet: the routes hold for mesh alone"]),
        (match(gateways=["edge"]),
         ["spec.http[0].match[0].gateways: never holds: gateways are not supported yet; for all sidecars write mesh"]),
        (vs(exportTo=["b"]), ["spec.exportTo[0]: no document is in namespace b"]),
        (vs(exportTo=["*"]), []),
        # matches
        (match(sourceLabels={"app": "web", "tier": "front"}), []),
        (match(sourceLabels={"app": "web", "tier": "back"}),
         ["spec.http[0].match[0].sourceLabels: match no service of the mesh: callers have the labels of the services "
          "they serve"]),
        (vs(tcp=[{**to("db"), "match": [{"sourceLabels": {"app": "x"}}]}]),
         ["spec.tcp[0].match[0].sourceLabels: match no service of the mesh: callers have the labels of the services "
          "they serve"]),
        (match(sourceNamespace="b"), ["spec.http[0].match[0].sourceNamespace: no document is in namespace b"]),
        (match(uri={"prefix": "api"}),
         ["spec.http[0].match[0].uri.prefix: 'api' matches no path: paths begin with /"]),
        (match(uri={"exact": ""}), ["spec.http[0].match[0].uri.exact: is empty, and matches no path"]),
        (vs(hosts=["a.example"], tls=[{**to("web"), "match": [{"sniHosts": ["10.0.0.1"]}]}]),
         ["spec.tls[0].match[0].sniHosts[0]: 10.0.0.1 is an address, which no client sends as a name"]),
        # destinations
        (http(to("api")), ["spec.http[0].route[0].destination.host: 'api' is no service and no host of a ServiceEntry; "
                           "here it means api.a.svc.cluster.local"]),
        (http(to("api.example")),
         ["spec.http[0].route[0].destination.host: 'api.example' is no service and no host of a ServiceEntry"]),
        (http(to("api.example")) + entry("a/e", "'*.example'"), []),
        (http(to("web.a", subset="v1")),
         ["spec.http[0].route[0].destination.host: 'web.a' works here as web.a.svc.cluster.local, and in Istio it does "
          "not; write the full name"]),
        (http(to("web", subset="v2")),
         [f"spec.http[0].route[0].destination.subset: v2 is no subset of a DestinationRule for {FULL}"]),
        (http(to("web", subset="v2")) + rule("b/w", host="*.svc.cluster.local", subsets=[{"name": "v2"}]), []),
        (http(to("web", port={"number": 81})),
         ["spec.http[0].route[0].destination.port.number: 81 is no port of web.a.svc.cluster.local"]),
        (vs(tcp=[to("db", port={"number": 80})]),
         ["spec.tcp[0].route[0].destination.port.number: 80 is no port of db.a.svc.cluster.local"]),
        (http({"route": [{**TO["route"][0], "weight": 1}, {"destination": {"host": "db"}}]}),
         ["spec.http[0].route[1]: has no weight beside others, so nothing goes there"]),
        (http({"route": [{**TO["route"][0], "weight": 0}]}),
         ["spec.http[0].route[0].weight: is 0, and yet everything goes there: it is the only destination"]),
        (http({"mirror": {"host": "web.a.svc.cluster.local"}}),
         ["spec.http[0].mirror: is a destination of the route as well: what is mirrored arrives there twice"]),
        (http({"mirrors": [{"destination": {"host": "web", "subset": "v1"}}, {"destination": {"host": "web"}}]}),
         ["spec.http[0].mirrors[1].destination: is a destination of the route as well: what is mirrored arrives there "
          "twice"]),
        # regexes that a client can make slow
        (http({"match": [{"uri": {"regex": ".*[a-m].{900}#.*"}, "headers": {"x-a": {"regex": "[a-z]{1,63}"}}}]}),
         ["spec.http[0].match[0].uri.regex: '.*[a-m].{900}#.*' has more than 500 instructions in RE2, and a long "
          "text may take it half a second; repeat less, or match a prefix"]),
        (http({"rewrite": {"uriRegexRewrite": {"match": "a.{900}", "rewrite": "b"}}}),
         ["spec.http[0].rewrite.uriRegexRewrite.match: 'a.{900}' has more than 500 instructions in RE2, and a long "
          "text may take it half a second; repeat less, or match a prefix"]),
        # retries, timeouts, shares
        (http({"retries": {"attempts": 1, "retryOn": "5xx,refused-stream,unavailable"}}),
         ["spec.http[0].retries.retryOn: refused-stream is of HTTP/2, and acts once that is served",
          "spec.http[0].retries.retryOn: unavailable is of gRPC, and acts once that is served"]),
        (http({"timeout": "1s", "retries": {"attempts": 1, "perTryTimeout": "2s"}}),
         ["spec.http[0].retries.perTryTimeout: 2s is above the timeout of 1s, which ends the request first"]),
        (http({"retries": {"attempts": 1, "retryRemoteLocalities": True}}),
         ["spec.http[0].retries.retryRemoteLocalities: has no effect yet: endpoints have no localities, and a retry "
          "may go to any of them"]),
        (http({"fault": {"delay": {"fixedDelay": "1s"}, "abort": {"httpStatus": 500}}}),
         ["spec.http[0].fault.delay: has no percentage, so no request is delayed",
          "spec.http[0].fault.abort: has no percentage, so no request is aborted"]),
        (http({"fault": {"delay": {"fixedDelay": "1s", "percent": 1, "percentage": {"value": 2}}}}),
         ["spec.http[0].fault.delay.percent: does not count, since percentage is there"]),
        (http({"mirror": {"host": "db"}, "mirrorPercent": 1, "mirrorPercentage": {"value": 2}}),
         ["spec.http[0].mirrorPercent: does not count, since mirrorPercentage is there"]),
    ],
)  # fmt: skip
def test_what_is_odd_in_a_virtual_service(text: str, noted: list[str]) -> None:
    assert told(BASE + text) == noted


@pytest.mark.parametrize(
    ("matches", "noted"),
    [
        ([[{"uri": {"prefix": "/a"}}], []], []),
        ([[], []], ["spec.http[1]: http[1] is never reached: http[0] takes every request"]),
        ([[{"uri": {"prefix": "/"}}], [{"port": 80}], []],
         ["spec.http[1]: http[1] to http[2] are never reached: http[0] takes every request"]),
        ([[{"port": 80}, {}], []], ["spec.http[1]: http[1] is never reached: http[0] takes every request"]),
        ([[{"uri": {"regex": ".*"}}], []], ["spec.http[1]: http[1] is never reached: http[0] takes every request"]),
        ([[{"gateways": ["mesh"]}], []], ["spec.http[1]: http[1] is never reached: http[0] takes every request"]),
        ([[{"uri": {"prefix": "/"}, "method": {"exact": "GET"}}], []], []),
        ([[{"uri": {"prefix": "/a"}, "name": "x"}], [{"uri": {"prefix": "/a"}, "name": "y"}]],
         ["spec.http[1].match[0]: is never reached: http[0].match[0] is the same, and comes first"]),
        ([[{"port": 80}, {"headers": {"a": {}, "b": {}}}], [{"headers": {"b": {}, "a": {}}}]],
         ["spec.http[1].match[0]: is never reached: http[0].match[1] is the same, and comes first"]),
        ([[{"uri": {"prefix": "/api"}}], [{"uri": {"exact": "/api/v1"}, "port": 80}]],
         ["spec.http[1].match[0]: is never reached: http[0].match[0] takes all paths below '/api'"]),
        ([[{"uri": {"prefix": "/api"}, "port": 80}], [{"uri": {"exact": "/api/v1"}}]], []),
        ([[{"uri": {"prefix": "/api"}}], [{"uri": {"exact": "/API"}}]], []),
        ([[{"uri": {"prefix": "/api"}}], [{"uri": {"prefix": "/api"}, "ignoreUriCase": True}]], []),
        ([[{"uri": {"prefix": "/api"}}, {"uri": {"prefix": "/api/v1"}}]], []),
    ],
)  # fmt: skip
def test_a_route_that_nothing_reaches_is_noted(matches: list[list[dict[str, Any]]], noted: list[str]) -> None:
    assert told(BASE + http(*({"match": each} for each in matches))) == noted


def test_opaque_routes_that_nothing_reaches_are_noted() -> None:
    port = {"match": [{"port": 5432}]}
    one = "connection"
    assert told(BASE + vs(tcp=[{**to("db"), **port}, to("db")])) == []
    assert told(BASE + vs(tcp=[to("db"), {**to("db"), **port}])) == [
        f"spec.tcp[1]: tcp[1] is never reached: tcp[0] takes every {one}"
    ]
    names = {**to("web"), "match": [{"sniHosts": ["a.example"], "port": 443}]}
    assert told(BASE + vs(hosts=["a.example"], tls=[names, names])) == [
        "spec.tls[1].match[0]: is never reached: tls[0].match[0] is the same, and comes first"
    ]


@pytest.mark.parametrize(
    ("text", "noted"),
    [
        (rule("a/x", host="*.a.svc.cluster.local"), []),
        (rule("a/x", host="*"), []),
        (rule("a/x", host="*.b.example"),
         ["spec.host: '*.b.example' covers no service and no host of a ServiceEntry"]),
        (rule("a/x", host="*.b.example") + entry("a/e", "x.b.example"), []),
        (rule("a/x", host="*.b.example") + entry("a/e", "'*.b.example'"), []),
        (rule("a/x", host="wbe"), ["spec.host: 'wbe' is no service and no host of a ServiceEntry; here it means "
                                   "wbe.a.svc.cluster.local"]),
        (rule("b/x", host="web.a"), ["spec.host: 'web.a' works here as web.a.svc.cluster.local, and in Istio it does "
                                     "not; write the full name"]),
        (rule("a/x", host="db", exportTo=["b"]), ["spec.exportTo[0]: no document is in namespace b"]),
        (rule("a/x", host="db", workloadSelector={"matchLabels": {"app": "web"}}), []),
        (rule("a/x", host="db", workloadSelector={"matchLabels": {"app": "x"}}),
         ["spec.workloadSelector: matches no service of namespace a: workloads have the labels of the services they "
          "serve"]),
        (rule("a/x", host="db", trafficPolicy=PASSTHROUGH),
         ["spec.trafficPolicy.loadBalancer.simple: PASSTHROUGH goes where the app was going, and a service's virtual "
          "address leads nowhere"]),
        (rule("a/x", host="db", subsets=[{"name": "v", "trafficPolicy": {
            "portLevelSettings": [{"port": {"number": 80}, **PASSTHROUGH}]}}]),
         ["spec.subsets[0].trafficPolicy.portLevelSettings[0].loadBalancer.simple: PASSTHROUGH goes where the app was "
          "going, and a service's virtual address leads nowhere"]),
        (rule("a/x", host="e.example", trafficPolicy=PASSTHROUGH) + entry("a/e", "e.example"), []),
        (rule("a/x", host="*", trafficPolicy=PASSTHROUGH), []),
        (rule("a/x", subsets=[{"name": "v2"}]), []),
        (rule("a/x", subsets=[{"name": "v1"}]),
         ["spec.subsets[0].name: v1 is a subset in DestinationRule a/web as well; one of them counts"]),
        (rule("b/x", host="web.a.svc.cluster.local", subsets=[{"name": "v1"}]), []),
        (rule("a/x", host="db", **BUDGET) + rule("a/y", host="db", **BUDGET),
         ["spec.trafficPolicy: DestinationRule a/x has one for db.a.svc.cluster.local as well; one of them counts, so "
          "write one"]),
        (rule("a/x", host="db", **BUDGET)
         + rule("a/y", host="db", **BUDGET, workloadSelector={"matchLabels": {"app": "web"}}), []),
        # budgets in both forms
        (rule("a/x", host="db", **BUDGET) + backend("a/y", host="db", retryBudget={}),
         ["spec.trafficPolicy.retryBudget: BackendTrafficPolicy a/y has a retryBudget for db.a.svc.cluster.local as "
          "well; write one of them"]),
        (rule("a/x", host="db", **BUDGET) + service("b/w")
         + backend("b/y", host="db.a.svc.cluster.local", retryBudget={}, exportTo=["."]),
         ["spec.trafficPolicy.retryBudget: BackendTrafficPolicy b/y has a retryBudget for db.a.svc.cluster.local as "
          "well; write one of them"]),
        (rule("a/x", host="db", **BUDGET, exportTo=["."]) + service("b/w")
         + backend("b/y", host="db.a.svc.cluster.local", retryBudget={}, exportTo=["."]), []),
        # BackendTrafficPolicy
        (backend("a/x", retryBudget={}), []),
        (backend("a/x", retryBudget={}) + backend("a/y", retryBudget={}),
         ["spec.host: BackendTrafficPolicy a/x is for web.a.svc.cluster.local as well; one of them counts, so write "
          "one"]),
        (backend("a/x", host="wbe", retryBudget={}),
         ["spec.host: 'wbe' is no service and no host of a ServiceEntry; here it means wbe.a.svc.cluster.local"]),
        (http({"name": "pay"}) + backend("a/x", retry={"nonIdempotentRoutes": ["pay"]}), []),
        (http({"name": "pay"}) + backend("a/x", retry={"nonIdempotentRoutes": ["apy"]}),
         ["spec.retry.nonIdempotentRoutes[0]: 'apy' is the name of no route of a VirtualService that leads to "
          "web.a.svc.cluster.local"]),
        (http({"name": "pay"}) + backend("a/x", host="db", retry={"nonIdempotentRoutes": ["pay"]}),
         ["spec.retry.nonIdempotentRoutes[0]: 'pay' is the name of no route of a VirtualService that leads to "
          "db.a.svc.cluster.local"]),
    ],
)  # fmt: skip
def test_what_is_odd_in_what_is_said_of_a_host(text: str, noted: list[str]) -> None:
    assert told(BASE + text) == noted


def told(text: str) -> list[str]:
    """The notes, without their documents. Each is told of its document alone as well, or of the one that it names."""
    found = read(text)
    assert found.problems == () and found.mesh is not None
    for note in lint(found.mesh):
        assert note in lint(found.mesh, [note.key])
    return [each.partition(": ")[2] for each in found.notes]


def test_a_new_document_is_noted_whichever_of_two_it_is() -> None:
    """``sidecarctl check`` asks about what is new alone; of two, that is either."""
    both = mesh(BASE + vs() + vs("a/s"))
    for key in (("VirtualService", "a", "r"), ("VirtualService", "a", "s")):
        (note,) = lint(both, [key])
        assert note.key == key and note.path == ("spec", "hosts", 0)
    (note,) = lint(both)
    assert note.key == ("VirtualService", "a", "s")


def test_what_is_looked_up_follows_every_change() -> None:
    """The table behind the notes is updated, not made anew; what it says is the same."""
    at = mesh(BASE + http(to("web", subset="v2")))
    assert [str(each.path[-1]) for each in lint(at)] == ["subset"]
    (v2,) = read(rule("a/x", subsets=[{"name": "v2"}])).documents
    with_v2 = at.with_(v2)
    assert lint(with_v2) == []
    assert [str(each.path[-1]) for each in lint(with_v2.without(v2.key))] == ["subset"]
    (v3,) = read(rule("a/x", subsets=[{"name": "v3"}])).documents
    assert [str(each.path[-1]) for each in lint(with_v2.with_(v3))] == ["subset"]


def test_one_route_is_noted_among_ten_thousand() -> None:
    """Every prefix is looked up and not compared with every other: here that would be 50 million comparisons."""
    routes = [{"match": [{"uri": {"prefix": f"/a{number}/"}}]} for number in range(10_000)]
    assert told(BASE + http(*routes, {"match": [{"uri": {"prefix": "/a9999/x"}}]})) == [
        "spec.http[10000].match[0]: is never reached: http[9999].match[0] takes all paths below '/a9999/'"
    ]
