"""What stands in the rules of an AuthorizationPolicy is judged as Istio's validation does, each with its place."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.resources.authorization import Condition, From, PolicySpec, Rule, Source
from sidecar.resources.authorization_rules import MOST_ACCOUNTS, check_rules, is_block
from sidecar.resources.documents import parse
from sidecar.resources.kinds import AuthorizationPolicy


def problems(spec: object, annotations: dict[str, str] | None = None) -> list[str]:
    """Of a policy with this spec; its rules' paths are without what is the same in all."""
    _, found = parse(policy(spec, annotations))
    return [str(each).removeprefix("spec.") for each in found]


def policy(spec: object, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    metadata = {"name": "p", "namespace": "shop", "annotations": annotations or {}}
    return {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec}


def source(**fields: object) -> list[str]:
    return [
        each.removeprefix("rules[0].from[0].source.") for each in problems({"rules": [{"from": [{"source": fields}]}]})
    ]


def operation(**fields: object) -> list[str]:
    return [
        each.removeprefix("rules[0].to[0].operation.")
        for each in problems({"rules": [{"to": [{"operation": fields}]}]})
    ]


def when(key: str, *values: str, **more: object) -> list[str]:
    condition = {"key": key, "values": list(values), **more}
    return [each.removeprefix("rules[0].when[0].") for each in problems({"rules": [{"when": [condition]}]})]


@pytest.mark.parametrize(
    "spec", [None, {}, {"rules": []}, {"rules": [{}]}, {"rules": [{"when": []}], "action": "AUDIT"}]
)
def test_a_policy_may_leave_out_what_it_likes(spec: object) -> None:
    assert problems(spec) == []
    document, _ = parse(policy(spec))
    assert document is not None and isinstance(document.spec, AuthorizationPolicy)
    assert document.spec.rules in ([], [Rule()], [Rule(when=[])])


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"action": "CUSTOM", "provider": {"name": "x"}}, [
            "action: CUSTOM is not supported yet; write ALLOW, DENY or AUDIT",
            "provider: is not supported yet, since it is for action CUSTOM; leave it out",
        ]),
        ({"action": "Deny"}, ["action: 'Deny' is not one of ALLOW, DENY, AUDIT"]),
        ({"targetRef": {}, "targetRefs": []}, [
            "targetRef: is not supported yet; leave it out", "targetRefs: is not supported yet; leave it out",
        ]),
        ({"rules": [None]}, ["rules[0]: nothing is not a mapping"]),
        ({"rules": [{"from": [], "to": []}]}, [
            "rules[0].from: is empty; leave it out to mean any source",
            "rules[0].to: is empty; leave it out to mean any operation",
        ]),
        ({"rules": [{"from": [{}], "to": [{}], "when": [{}]}]}, [
            "rules[0].from[0]: source is missing", "rules[0].to[0]: operation is missing",
            "rules[0].when[0]: key is missing",
        ]),
        ({"rules": [{}, {"from": [{"source": {}}, {"source": {"principals": []}}], "to": [{"operation": {}}]}]}, [
            "rules[1].from[0].source: has no field; leave out the source to mean any",
            "rules[1].from[1].source: has no field; leave out the source to mean any",
            "rules[1].to[0].operation: has no field; leave out the operation to mean any",
        ]),
        ({"selector": {"matchLabels": {"a b": "*"}}, "rules": [{"to": [{"operation": {"ports": ["0"]}}]}]}, [
            "selector.matchLabels.a b: 'a b' is no key of a label",
            "selector.matchLabels.a b: '*' is no value of a label (letters, digits, inner - _ . , at most 63)",
            "rules[0].to[0].operation.ports[0]: '0' is not a port from 1 to 65535",
        ]),
    ],
)  # fmt: skip
def test_what_a_policy_can_not_be(spec: object, told: list[str]) -> None:
    assert problems(spec) == told


@pytest.mark.parametrize("text", ["true", "false"])
def test_a_dry_run_is_said_by_an_annotation(text: str) -> None:
    assert problems({}, {"istio.io/dry-run": text}) == []
    for wrong in ("True", "1", "", "yes", text + " "):
        told = f'metadata.annotations.istio.io/dry-run: {wrong!r} is neither "true" nor "false"'
        assert problems({}, {"istio.io/dry-run": wrong}) == [told]


# -- sources ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["principals", "notPrincipals", "namespaces", "notNamespaces"])
def test_texts_of_a_source(field: str) -> None:
    assert source(**{field: ["a", "a*", "*a", "*", "*/ns/x/sa/y", "a*b"]}) == []
    assert source(**{field: ["a", "", "b"]}) == [
        f'{field}[1]: is empty; write a value, or "*" for any that is not empty'
    ]


@pytest.mark.parametrize("field", ["ipBlocks", "notIpBlocks", "remoteIpBlocks", "notRemoteIpBlocks"])
def test_addresses_of_a_source(field: str) -> None:
    assert source(**{field: ["10.1.2.3", "10.1.2.3/8", "0.0.0.0/0", "2001:db8::1", "2001:db8::/32", "::/0"]}) == []
    assert source(**{field: ["10.1.2.3", "10.1.2"]}) == [f"{field}[1]: '10.1.2' is neither an IP address nor a CIDR"]


@pytest.mark.parametrize(
    "text",
    ["", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/08", "10.0.0.0/255.0.0.0", "010.0.0.1", "*", "10.*",
     "::1/129", "fe80::1%eth0", "fe80::1%eth0/64", "web.example", "10.0.0.1 ", "10.0.0.0/8/8", "10", "\u0661.1.1.1"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    assert not is_block(text)


@pytest.mark.parametrize("field", ["serviceAccounts", "notServiceAccounts"])
def test_service_accounts_of_a_source(field: str) -> None:
    assert source(**{field: ["web", "shop/web"]}) == []
    told = "is neither NAMESPACE/ACCOUNT nor ACCOUNT"
    assert source(**{field: ["", "/web", "shop/", "a/b/c", "shop/*", "x" * 321]}) == [
        f"{field}[0]: '' {told}", f"{field}[1]: '/web' {told}", f"{field}[2]: 'shop/' {told}",
        f"{field}[3]: 'a/b/c' {told}", f"{field}[4]: 'shop/*' has a *, which is not allowed here; write principals",
        f"{field}[5]: is longer than 320 characters",
    ]  # fmt: skip
    assert source(**{field: ["a"] * (MOST_ACCOUNTS + 1)}) == [f"{field}: has 17 entries; at most 16 are allowed"]
    for other in ("principals", "notPrincipals", "namespaces", "notNamespaces"):
        why = "can't be together with principals or namespaces; write one of them"
        assert source(**{field: ["a"], other: ["*"]}) == [f"{field}: {why}"]
    assert source(**{field: ["a"], "ipBlocks": ["10.0.0.1"]}) == []


@pytest.mark.parametrize("field", ["requestPrincipals", "notRequestPrincipals", "trustDomains", "notTrustDomains"])
def test_what_a_source_can_not_say_yet(field: str) -> None:
    (told,) = source(**{field: ["*"]})
    assert told.startswith(f"{field}: is not supported yet")


# -- operations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["hosts", "notHosts", "methods", "notMethods"])
def test_texts_of_an_operation(field: str) -> None:
    assert operation(**{field: ["a", "a*", "*a", "*", "example.com:8080"]}) == []
    assert operation(**{field: [""]}) == [f'{field}[0]: is empty; write a value, or "*" for any that is not empty']


@pytest.mark.parametrize("field", ["ports", "notPorts"])
def test_ports_of_an_operation(field: str) -> None:
    assert operation(**{field: ["1", "80", "65535"]}) == []
    wrong = ["", "0", "080", "65536", "-1", "80-90", "http", "*", "+1", "\u0668"]
    told = [f"{field}[{index}]: {text!a} is not a port from 1 to 65535" for index, text in enumerate(wrong)]
    assert operation(**{field: wrong}) == told
    assert operation(**{field: [80]}) == [f"{field}[0]: 80 is not text; put it in quotes"]


@pytest.mark.parametrize("field", ["paths", "notPaths"])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/a", ""), ("/a/*", ""), ("*/a", ""), ("*", ""), ("/a/*/b", ""), ("rules[0]", ""), ("/%7Bx%7D", ""),
        ("/{*}", ""), ("/{**}", ""), ("/a/{*}/b/{*}", ""), ("/{**}/a", ""), ("/a/{*}/b/{**}", ""),
        ("/a/{**}/b/c.d/", ""),
        ("", "is empty; write a path"),
        ("/{**}/a/{*}", "'/{**}/a/{*}' has {*} after {**}, which has to be the last of them"),
        ("/{**}/{**}", "'/{**}/{**}' has {**} after {**}, which has to be the last of them"),
        ("/a{*}", "'/a{*}' has braces that are not a whole segment {*} or {**}"),
        ("/{*}.json", "'/{*}.json' has braces that are not a whole segment {*} or {**}"),
        ("/{id}", "'/{id}' has braces that are not a whole segment {*} or {**}"),
        ("/{***}", "'/{***}' has braces that are not a whole segment {*} or {**}"),
        ("/a}", "'/a}' has braces that are not a whole segment {*} or {**}"),
        ("/{*}/*", "'/{*}/*' has a * beside {*} or {**}"),
        ("/a*/{**}", "'/a*/{**}' has a * beside {*} or {**}"),
        ("/{*}//a", "'/{*}//a' has an empty segment beside {*} or {**}"),
        ("/{*}/a?b", "'/{*}/a?b' has a character no path can have beside {*} or {**}"),
        ("{**}", "'{**}' does not begin with /, so the template matches no path"),
    ],
)  # fmt: skip
def test_paths_of_an_operation(field: str, text: str, why: str) -> None:
    assert operation(**{field: ["/fine", text]}) == ([f"{field}[1]: {why}"] if why else [])


# -- conditions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("request.headers[x-team]", "a*", ""),
        ("request.headers[User-Agent]", "*", ""),
        ("source.ip", "10.0.0.0/8", "ten"),
        ("remote.ip", "2001:db8::1", "*"),
        ("source.namespace", "*-prod", ""),
        ("source.principal", "cluster.local/ns/a/sa/b", ""),
        ("source.serviceAccount", "a/b", "*"),
        ("destination.ip", "10.0.0.1", ""),
        ("destination.port", "80", "http"),
        ("connection.sni", "*.example.com", ""),
    ],
)
def test_conditions(key: str, good: str, bad: str) -> None:
    assert when(key, good) == [] == when(key, notValues=[good])
    for told, field in (
        (when(key, good, bad), "values"),
        (when(key, good, notValues=["x" * 400, bad][1:]), "notValues"),
    ):
        assert [each.partition(":")[0] for each in told] == [f"{field}[{int(field == 'values')}]"]
    assert when(key) == ["rules[0].when[0]: has neither values nor notValues; add one of them"]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "is empty; name what is looked at, for example source.ip"),
        ("request.headers", "'request.headers' names no header; write request.headers[NAME]"),
        ("request.headers[]", "'request.headers[]' names no header; write request.headers[NAME]"),
        ("request.headers[a b]", "'request.headers[a b]' names no header; write request.headers[NAME]"),
        ("request.headers[:path]", "'request.headers[:path]' names no header; write request.headers[NAME]"),
        ("request.auth.claims[iss]", "'request.auth.claims[iss]' is not supported yet: no JSON Web Token is read"),
        ("request.auth.principal", "'request.auth.principal' is not supported yet: no JSON Web Token is read"),
        ("experimental.envoy.filters.a[b]", "'experimental.envoy.filters.a[b]' is not supported yet; leave it out"),
        ("source.trustDomain", "'source.trustDomain' is not supported yet; write source.principal, for example with "
                               '"TRUST-DOMAIN/*"'),
        ("destination.labels[app]", "'destination.labels[app]' is written in spec.selector"),
        ("source.ips", "'source.ips' is not a key; there are request.headers[NAME], source.ip, remote.ip, "
                       "source.namespace, source.principal, source.serviceAccount, destination.ip, destination.port, "
                       "connection.sni"),
    ],
)  # fmt: skip
def test_keys_that_are_none(key: str, why: str) -> None:
    assert when(key, "a") == [f"key: {why}"]


def test_what_the_control_plane_sends_is_judged_by_the_same_rules() -> None:
    spec = PolicySpec("p", "shop", rules=[Rule([From(Source(ip_blocks=["x"]))], when=[Condition("later.key", ["a"])])])
    assert [each.path for each in check_rules(spec.rules, ("authorization", 0, "rules"))] == [
        ("authorization", 0, "rules", 0, "from", 0, "source", "ipBlocks", 0),
        ("authorization", 0, "rules", 0, "when", 0, "key"),
    ]
