"""What stands in a VirtualService is judged whole, each problem with its place."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.http import headers
from sidecar.resources.documents import parse, read_documents
from sidecar.resources.header_rules import header_value
from sidecar.resources.route_hosts import covering, full_host

ROUTE: dict[str, Any] = {"route": [{"destination": {"host": "web"}}]}
WEB = {"destination": {"host": "web"}}


def problems(**spec: Any) -> list[str]:
    metadata = {"name": "p", "namespace": "shop"}
    value = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata}
    _, found = parse({**value, "spec": {"hosts": ["web"], "http": [ROUTE], **spec}})
    return [str(each).removeprefix("spec.") for each in found]


def http(**fields: Any) -> list[str]:
    return [each.removeprefix("http[0].") for each in problems(http=[{**ROUTE, **fields}])]


def match(**fields: Any) -> list[str]:
    return [each.removeprefix("match[0].") for each in http(match=[fields])]


def one(found: list[str], path: str, part: str) -> None:
    """There is one problem: at this place, and with this in its words."""
    assert [each.partition(": ")[0] for each in found] == [path], found
    assert part in found[0].partition(": ")[2]


@pytest.mark.parametrize(
    ("spec", "path", "part"),
    [
        ({"hosts": []}, "hosts", "is a delegate, which is not supported yet"),
        ({"hosts": ["*"]}, "hosts[0]", "* is for gateways alone"),
        ({"hosts": ["a b"]}, "hosts[0]", "'a b' is no host"),
        ({"hosts": ["a."]}, "hosts[0]", "'a.' is no host: a name without a dot at its end"),
        ({"hosts": ["*-a.example"]}, "hosts[0]", "not supported yet: a * stands for whole labels"),
        ({"hosts": ["a.*.example"]}, "hosts[0]", "is no host"),
        ({"hosts": ["a.1"]}, "hosts[0]", "is no host"),
        ({"hosts": ["Web", "web"]}, "hosts[1]", "'web' stands here twice"),
        ({"hosts": ["*.a.example", "b.a.example"]}, "hosts[1]", "is covered by '*.a.example'"),
        ({"hosts": ["*.b.a.example", "*.example"]}, "hosts[0]", "is covered by '*.example'"),
        ({"gateways": ["edge"]}, "gateways", "without mesh: gateways are not supported yet"),
        ({"gateways": ["mesh", "a/b~c"]}, "gateways[1]", "'b~c' is not a DNS label"),
        ({"gateways": ["mesh", "A/b"]}, "gateways[1]", "'A' is not a DNS label"),
        ({"gateways": ["mesh", "a b"]}, "gateways[1]", "is no gateway"),
        ({"http": []}, "spec", "has no route; add http, tcp or tls"),
        ({"exportTo": ["~"]}, "exportTo[0]", "'~' is no namespace"),
        ({"exportTo": [".", "shop"]}, "exportTo[1]", "'shop' stands here twice"),
        ({"exportTo": ["*", "a"]}, "exportTo", "has * beside others"),
        ({"tcp": [{}]}, "tcp[0].route", "is missing"),
        ({"tcp": [{"route": [WEB, WEB]}]}, "tcp[0].route", "the sum of their weights is 0"),
        ({"tcp": [{"route": [WEB], "match": [{"destinationSubnets": ["10.0.0.0/33"]}]}]},
         "tcp[0].match[0].destinationSubnets[0]", "neither an IP address nor a CIDR"),
        ({"tcp": [{"route": [WEB], "match": [{"sourceSubnet": "10.0.0.0/8"}]}]},
         "tcp[0].match[0].sourceSubnet", "is not supported"),
        ({"tls": [{"route": [WEB]}]}, "tls[0]", "match is missing"),
        ({"tls": [{"route": [WEB], "match": []}]}, "tls[0].match", "is empty"),
        ({"tls": [{"route": [WEB], "match": [{"sniHosts": []}]}]}, "tls[0].match[0].sniHosts", "is empty"),
        ({"tls": [{"match": [{"sniHosts": ["web"]}]}]}, "tls[0].route", "is missing"),
        ({"tls": [{"route": [WEB], "match": [{"sniHosts": ["other.example"]}]}]},
         "tls[0].match[0].sniHosts[0]", "not one of the VirtualService's hosts"),
        ({"tls": [{"route": [WEB], "match": [{"sniHosts": ["web"], "port": 0}]}]},
         "tls[0].match[0].port", "0 is not a port from 1 to 65535"),
        ({"http": [{**ROUTE, "name": "\ud800"}]}, "http[0].name", "has a character that no text can have"),
        ({"http": [{**ROUTE, "match": [{"queryParams": {"\udfff": {}}}]}]},
         "http[0].match[0].queryParams.\udfff", "has a character that no text can have"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_document(spec: dict[str, Any], path: str, part: str) -> None:
    one(problems(**spec), path, part)


@pytest.mark.parametrize(
    "spec",
    [
        {"hosts": ["web", "a.example", "*.b.example", "192.0.2.7", "2001:db8::7", "_sip.x.example", "EDGE.example"]},
        {"hosts": ["*.a.example", "a.example"]},
        {"gateways": ["mesh"]},
        {"gateways": ["edge.ns.svc.cluster.local", "a/b", "mesh"]},
        {"http": [], "tcp": [{"route": [WEB]}]},
        {"http": [], "hosts": ["*.a.example"],
         "tls": [{"match": [{"sniHosts": ["b.a.example", "*.c.a.example", "192.0.2.1"]}], "route": [WEB]}]},
        {"exportTo": ["*"]},
        {"exportTo": [".", "front"]},
    ],
)  # fmt: skip
def test_what_is_right_in_a_document(spec: dict[str, Any]) -> None:
    assert problems(**spec) == []


@pytest.mark.parametrize(
    ("fields", "path", "part"),
    [
        ({"route": []}, "http[0]", "does nothing; add route, redirect or directResponse"),
        ({"redirect": {"uri": "/"}}, "redirect", "and route can't be together"),
        ({"directResponse": {"status": 200}}, "directResponse", "and route can't be together"),
        ({"route": [], "redirect": {"uri": "/"}, "fault": {"abort": {"httpStatus": 500}}}, "fault",
         "and redirect can't be together"),
        ({"route": [], "directResponse": {"status": 200}, "rewrite": {"uri": "/"}}, "rewrite",
         "and directResponse can't be together"),
        ({"mirror": {"host": "b"}, "mirrors": [{"destination": {"host": "c"}}]}, "mirrors",
         "and mirror can't be together"),
        ({"route": [{"destination": {"host": "*"}}]}, "route[0].destination.host", "* is no destination"),
        ({"route": [{"destination": {"host": "10.0.0.1"}}]}, "route[0].destination.host", "is an address"),
        ({"route": [{"destination": {"host": ""}}]}, "route[0].destination.host", "is empty"),
        ({"route": [{"destination": {"host": "a", "subset": "V1"}}]}, "route[0].destination.subset", "'V1' is not"),
        ({"route": [{**WEB, "weight": -1}]}, "route[0].weight", "-1 is not a whole number from 0 to 4294967295"),
        ({"route": [{**WEB, "weight": 1.5}]}, "route[0].weight", "1.5 is not a whole number"),
        ({"route": [WEB, WEB]}, "route", "the sum of their weights is 0"),
        ({"route": [{**WEB, "weight": 4294967295}, {**WEB, "weight": 1}]}, "route", "whose sum is above 4294967295"),
        ({"delegate": {"name": "a"}}, "delegate", "is not supported yet"),
        ({"timeout": "-1s"}, "timeout", "'-1s' is negative"),
        ({"timeout": "0s"}, "timeout", "'0s' is below 1ms"),
        ({"timeout": "10"}, "timeout", "has no unit; write 10s"),
        ({"timeout": "1.0005s"}, "timeout", "is finer than a millisecond"),
        ({"timeout": "soon"}, "timeout", "'soon' is not a duration"),
        ({"timeout": 10}, "timeout", "10 is not text"),
        ({"retries": {"attempts": -1}}, "retries.attempts", "-1 is not a whole number from 0 to 100"),
        ({"retries": {"attempts": 0, "retryOn": "5xx"}}, "retries.retryOn", "turns retries off"),
        ({"retries": {"attempts": 0, "perTryTimeout": "1s"}}, "retries.perTryTimeout", "turns retries off"),
        ({"retries": {"attempts": 1, "perTryTimeout": "1us"}}, "retries.perTryTimeout", "is not a duration"),
        ({"retries": {"attempts": 1, "backoff": "-1s"}}, "retries.backoff", "is negative"),
        ({"retries": {"attempts": 1, "retryOn": "6xx"}}, "retries.retryOn", "'6xx' is not a reason to retry; there"),
        ({"retries": {"attempts": 1, "retryOn": "5xx, reset"}}, "retries.retryOn", "(without white space)"),
        ({"retries": {"attempts": 1, "retryOn": "5xx,"}}, "retries.retryOn", "'' is not a reason to retry"),
        ({"retries": {"attempts": 1, "retryOn": "999"}}, "retries.retryOn", "'999' is not a reason to retry"),
        ({"fault": {}}, "fault", "injects nothing"),
        ({"fault": {"delay": {"fixedDelay": "0s"}}}, "fault.delay.fixedDelay", "is below 1ms"),
        ({"fault": {"delay": {"fixedDelay": "1s", "percentage": {"value": 101}}}}, "fault.delay.percentage.value",
         "101.0 is neither 0, nor from 0.0001 to 100"),
        ({"fault": {"delay": {"fixedDelay": "1s", "percent": 101}}}, "fault.delay.percent", "from 0 to 100"),
        ({"fault": {"abort": {"httpStatus": 500, "percentage": {"value": -1}}}}, "fault.abort.percentage.value", "-1"),
        ({"fault": {"abort": {"httpStatus": 500, "percentage": {"value": 0.00001}}}}, "fault.abort.percentage.value",
         "nor from 0.0001"),
        ({"fault": {"abort": {"httpStatus": 500, "percentage": {"value": float("nan")}}}},
         "fault.abort.percentage.value", "nan is neither"),
        ({"fault": {"abort": {"httpStatus": 500, "percentage": {"value": ".nan"}}}},
         "fault.abort.percentage.value", "'.nan' is not a number"),
        ({"fault": {"abort": {"httpStatus": 600}}}, "fault.abort.httpStatus", "from 200 to 599"),
        ({"mirror": {"host": "b"}, "mirrorPercentage": {"value": 100.1}}, "mirrorPercentage.value",
         "100.1 is not from 0 to 100"),
        ({"mirror": {"host": "b"}, "mirrorPercentage": {"value": float("inf")}}, "mirrorPercentage.value", "inf is"),
        ({"mirrorPercentage": {"value": 1}}, "mirrorPercentage", "is the share of mirror, and there is none"),
        ({"mirrors": [{"destination": {"host": "*"}}]}, "mirrors[0].destination.host", "is no destination"),
        ({"route": [], "redirect": {}}, "redirect", "redirects to nothing"),
        ({"route": [], "redirect": {"port": 80, "derivePort": "FROM_REQUEST_PORT"}}, "redirect.derivePort",
         "and port can't be together"),
        ({"route": [], "redirect": {"scheme": "ftp"}}, "redirect.scheme", "'ftp' is neither http nor https"),
        ({"route": [], "redirect": {"uri": "/", "redirectCode": 300}}, "redirect.redirectCode",
         "300 is not one of 301, 302, 303, 307, 308"),
        ({"route": [], "redirect": {"uri": "a"}}, "redirect.uri", "does not begin with /"),
        ({"route": [], "redirect": {"uri": "/a\r\nb: c"}}, "redirect.uri", "has what no path can have"),
        ({"route": [], "redirect": {"uri": "%PREFIX()%/a"}}, "redirect.uri", "is written prefixRewrite here"),
        ({"route": [], "redirect": {"authority": "a/b"}}, "redirect.authority", "'a/b' is no authority"),
        ({"rewrite": {}}, "rewrite", "rewrites nothing"),
        ({"rewrite": {"uri": "/a b"}}, "rewrite.uri", "has what no path can have"),
        ({"rewrite": {"uri": "/a?b"}}, "rewrite.uri", "has a query"),
        ({"rewrite": {"authority": "a\r\nb: c"}}, "rewrite.authority", "is no authority"),
        ({"rewrite": {"uri": "/", "uriRegexRewrite": {"match": "a", "rewrite": "b"}}}, "rewrite.uriRegexRewrite",
         "and uri can't be together"),
        ({"rewrite": {"uriRegexRewrite": {"match": "(", "rewrite": "b"}}}, "rewrite.uriRegexRewrite.match",
         "does not compile: missing )"),
        ({"rewrite": {"uriRegexRewrite": {"match": "(a)", "rewrite": "\\2"}}}, "rewrite.uriRegexRewrite.rewrite",
         "and the expression has 1 groups"),
        ({"rewrite": {"uriRegexRewrite": {"match": "a", "rewrite": "\\q"}}}, "rewrite.uriRegexRewrite.rewrite",
         "has a \\ that is neither"),
        ({"rewrite": {"uriRegexRewrite": {"match": "a", "rewrite": "\r"}}}, "rewrite.uriRegexRewrite.rewrite",
         "has what no path can have"),
        ({"rewrite": {"uriRegexRewrite": {"match": "a", "rewrite": "/b#c"}}}, "rewrite.uriRegexRewrite.rewrite",
         "path"),
        ({"rewrite": {"uriRegexRewrite": {"match": "a", "rewrite": ""}}}, "rewrite.uriRegexRewrite.rewrite", "empty"),
        ({"rewrite": {"authority": "a"}, "headers": {"request": {"set": {"host": "b"}}}}, "rewrite.authority",
         "is set in headers.request.set as well"),
        ({"route": [], "directResponse": {"status": 200, "body": {"bytes": "a"}}}, "directResponse.body.bytes",
         "is not base64"),
        ({"route": [], "directResponse": {"status": 200, "body": {"bytes": "", "string": ""}}},
         "directResponse.body.bytes", "and string can't be together"),
        ({"route": [], "directResponse": {"status": 200, "body": {"string": "x" * ((1 << 20) + 1)}}},
         "directResponse.body", "is longer than 1 MiB"),
        ({"route": [], "directResponse": {"status": 199}}, "directResponse.status", "from 200 to 599"),
        ({"corsPolicy": {"allowOrigins": [{}]}}, "corsPolicy.allowOrigins[0]", "matches no origin"),
        ({"corsPolicy": {"allowOrigins": [{"regex": "["}]}}, "corsPolicy.allowOrigins[0].regex", "does not compile"),
        ({"corsPolicy": {"allowOrigin": ["*"]}}, "corsPolicy.allowOrigin", "write allowOrigins"),
        ({"corsPolicy": {"allowMethods": ["get"]}}, "corsPolicy.allowMethods[0]", "'get' is not one of GET"),
        ({"corsPolicy": {"allowHeaders": ["a b"]}}, "corsPolicy.allowHeaders[0]", "is not a name of a header"),
        ({"corsPolicy": {"exposeHeaders": [""]}}, "corsPolicy.exposeHeaders[0]", "is not a name of a header"),
        ({"corsPolicy": {"maxAge": "1.5s"}}, "corsPolicy.maxAge", "is finer than a second"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_route(fields: dict[str, Any], path: str, part: str) -> None:
    one(http(**fields), path, part)


@pytest.mark.parametrize(
    "fields",
    [
        {"route": [{**WEB, "weight": 0}]},
        {"route": [WEB, {**WEB, "weight": 1}]},
        {"timeout": "1h2m"},
        {"timeout": "1.5s"},
        {"retries": {"attempts": 0}},
        {"retries": {"attempts": 3, "retryOn": "5xx,connect-failure,refused-stream,unavailable,503"}},
        {"fault": {"abort": {"httpStatus": 500, "percentage": {"value": 0}}}},
        {"fault": {"abort": {"httpStatus": 500, "percentage": {"value": 0.0001}}}},
        {"mirrors": [{"destination": {"host": "b"}}, {"destination": {"host": "c"}, "percentage": {"value": 0.00001}}]},
        {"rewrite": {"uriRegexRewrite": {"match": "(a)(b)", "rewrite": "/\\2\\\\\\0"}}},
        {"rewrite": {"authority": "[2001:db8::1]:80"}},
        {"corsPolicy": {"allowOrigins": [{"exact": "*"}], "maxAge": "24h"}},
    ],
)
def test_what_is_right_in_a_route(fields: dict[str, Any]) -> None:
    assert http(**fields) == []


@pytest.mark.parametrize(
    ("fields", "path", "part"),
    [
        ({"uri": {"exact": "/a", "prefix": "/b"}}, "uri", "has exact and prefix; write one of them"),
        ({"uri": {"regex": "a("}}, "uri.regex", "'a(' does not compile: missing ): a( (RE2 syntax)"),
        ({"uri": {"regex": "(?=a)"}}, "uri.regex", "does not compile"),
        ({"uri": {"regex": ""}}, "uri.regex", "is empty"),
        ({"uri": {"regex": "a" * 1025}}, "uri.regex", "is longer than 1024 characters"),
        ({"uri": {"suffix": "a"}}, "uri.suffix", "is not supported; write a regex"),
        ({"method": {"prefix": ""}}, "method.prefix", "is empty"),
        ({"headers": {"x a": {"exact": "b"}}}, "headers.x a", "is not a name of a header"),
        ({"headers": {":path": {"exact": "b"}}}, "headers.:path", "is not a name of a header"),
        ({"headers": {"": {}}}, "headers.", "is empty"),
        ({"headers": {"X-A": {}, "x-a": {}}}, "headers.x-a", "stands here twice: case does not count"),
        ({"headers": {"x": {"regex": "*"}}}, "headers.x.regex", "does not compile"),
        ({"headers": {"@request.auth.claims.sub": {}}}, "headers.@request.auth.claims.sub", "is not supported yet"),
        ({"withoutHeaders": {"x": {"prefix": ""}}}, "withoutHeaders.x.prefix", "is empty"),
        ({"queryParams": {"": {}}}, "queryParams.", "is empty"),
        ({"port": 65536}, "port", "is not a port from 1 to 65535"),
        ({"sourceLabels": {"a": "*"}}, "sourceLabels.a", "is no value of a label"),
        ({"sourceNamespace": "A"}, "sourceNamespace", "is not a DNS label"),
        ({"gateways": ["a/b/c"]}, "gateways[0]", "is not a DNS label"),
        ({"statPrefix": "a"}, "statPrefix", "is not supported yet"),
        ({"ignoreUriCase": "yes"}, "ignoreUriCase", "is not true or false"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_match(fields: dict[str, Any], path: str, part: str) -> None:
    one(match(**fields), path, part)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"uri": {}},
        {"uri": {"prefix": ""}},
        {"uri": {"regex": "(a+)+$"}},
        {"headers": {"x.y~z": {}, "host": {"exact": "a"}}},
        {"withoutHeaders": {"x": {"regex": "*"}, "y": {}}},
        {"queryParams": {"a b": {"exact": ""}}},
    ],
)
def test_what_is_right_in_a_match(fields: dict[str, Any]) -> None:
    assert match(**fields) == []


def operations(side: str, **fields: Any) -> list[str]:
    """The problems of changes to a whole route's headers, which are those of one destination's, too."""
    found = [each.removeprefix("headers.") for each in http(headers={side: fields})]
    there = http(route=[{**WEB, "headers": {side: fields}}])
    assert [each.removeprefix("route[0].headers.") for each in there] == found
    return found


@pytest.mark.parametrize(
    ("fields", "path", "part"),
    [
        ({"set": {"a b": "c"}}, "request.set.a b", "is not a name of a header"),
        ({"add": {"": "c"}}, "request.add.", "is empty"),
        ({"remove": [""]}, "request.remove[0]", "is empty"),
        ({"remove": [":path"]}, "request.remove[0]", "is not a header; rewrite.uri changes the path"),
        ({"remove": ["Host"]}, "request.remove[0]", "Host can only be in request.set"),
        ({"add": {":authority": "a"}}, "request.add.:authority", "can only be in request.set"),
        ({"set": {"X-A": "b", "x-a": "c"}}, "request.set.x-a", "stands here twice"),
        ({"set": {"host": "a", ":authority": "b"}}, "request.set.:authority", "stands here twice"),
        ({"set": {"Host": "a/b"}}, "request.set.Host", "is no authority"),
        ({"set": {"x": "a\r\nb"}}, "request.set.x", "has a control character"),
        ({"add": {"x": "a\x00"}}, "request.add.x", "has a control character"),
        ({"set": {"x": "%REQ(host)%"}}, "request.set.x", "the command operator '%REQ(host)%', which is not supported"),
        ({"set": {"x": "50%"}}, "request.set.x", "a single %; for a percent sign write %%"),
        ({"set": {"x": "%%%"}}, "request.set.x", "a single %"),
        ({"set": {"Content-Length": "0"}}, "request.set.Content-Length", "frames the message"),
        ({"remove": ["content_length"]}, "request.remove[0]", "frames the message"),
        ({"set": {"X-Forwarded-Client-Cert": "a"}}, "request.set.X-Forwarded-Client-Cert", "by the mesh alone"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_changes_to_headers(fields: dict[str, Any], path: str, part: str) -> None:
    one(operations("request", **fields), path, part)


def test_what_is_right_in_changes_to_headers() -> None:
    assert operations("request", set={"HOST": "a.example:80", "x": "100%% of\tthis", "é-free": ""}) != []
    assert operations("request", set={"HOST": "a.example:80", "x": "100%% of\tthis", "y": "é"}, remove=["cookie"]) == []
    assert operations("response", set={"x": ""}, add={"set-cookie": "a=b"}, remove=["server"]) == []
    one(operations("response", set={"host": "a"}), "response.set.host", "can only be in request.set")
    assert header_value("100%% %%a") == "100% %a"


@pytest.mark.parametrize("name", sorted(headers.HOP_BY_HOP - {headers.TWIN, headers.HOST}))
def test_no_header_of_one_hop_is_changed(name: bytes) -> None:
    for side in ("request", "response"):
        one(operations(side, remove=[name.decode()]), f"{side}.remove[0]", "is for one hop")
    for mesh_only in ("x-envoy-a", "l5d-a", "x-source-a", "x-istio-a", "x-sidecar-a", "x-forwarded-client-cert"):
        assert headers.meaning(mesh_only.encode()) == headers.MESH_ONLY
        one(operations("request", add={mesh_only: "a"}), f"request.add.{mesh_only}", "is set by the mesh alone")


def test_every_problem_is_told_at_once_with_its_line() -> None:
    text = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [web, "*"]
  http:
  - match:
    - uri: {regex: "("}
    timeout: -1s
    route:
    - destination: {host: web}
    - destination: {host: web}
"""
    found = read_documents(text.encode(), "f.yaml").problems
    assert [each.partition(": ")[0] for each in found] == [f"f.yaml:{line}" for line in (5, 8, 9, 10)]


def test_names_are_of_the_documents_namespace_unless_they_have_a_dot() -> None:
    assert full_host("web", "shop", "td") == "web.shop.svc.td"
    for host in ("web.shop", "*", "*.a.example", "192.0.2.7", "2001:db8::7"):
        assert full_host(host, "shop", "td") == host
    assert full_host("Web.Example", "shop", "td") == "web.example"
    assert list(covering("a.b.c")) == ["a.b.c", "*.b.c", "*.c", "*"]
    assert list(covering("*.b.c")) == ["*.b.c", "*.c", "*"]
    assert list(covering("*")) == ["*"]
