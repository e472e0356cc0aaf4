"""AuthorizationPolicies: each field and its twin, and the order of actions."""

from __future__ import annotations

import msgspec
import pytest

from sidecar.policy.authorize import Asked
from sidecar.policy.rbac import EMPTY, Judgement
from sidecar.resources.authorization import PolicySpec
from tests.support.rbac_drawing import compiled
from tests.support.rbac_rules import (
    ALL_ALLOW,
    ALL_DENY,
    ANYONE,
    GET,
    OPAQUE,
    TRUST_DOMAIN,
    changed,
    judge,
    operation,
    policy,
    source,
    when,
)


def allows(rule: dict, asked: Asked = GET, **how: bool) -> bool:
    """Whether an ALLOW policy with this rule allows it."""
    return compiled([policy("ALLOW", [rule])], TRUST_DOMAIN, **how).judge(asked).allowed


def denies(rule: dict, asked: Asked = GET, **how: bool) -> bool:
    """Whether a DENY policy with this rule denies it."""
    return not compiled([policy("DENY", [rule])], TRUST_DOMAIN, **how).judge(asked).allowed


ALL_AUDIT = policy("AUDIT", ANYONE, "audit")


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ([], Judgement(True, "", -1)),
        ([ALL_ALLOW], Judgement(True, "shop/allow", 0)),
        ([ALL_ALLOW, ALL_DENY], Judgement(False, "shop/deny", 0)),
        ([policy("ALLOW", [])], Judgement(False, "", -1)),
        ([policy("ALLOW", []), ALL_ALLOW], Judgement(True, "shop/allow", 0)),
        ([policy("DENY", [])], Judgement(True, "", -1)),
        ([policy("DENY", [operation(paths=["/other"])])], Judgement(True, "", -1)),
        ([policy("ALLOW", [operation(paths=["/other"])])], Judgement(False, "", -1)),
        ([policy("ALLOW", [operation(paths=["/other"]), {}, {}], "two")], Judgement(True, "shop/two", 1)),
        ([ALL_AUDIT], Judgement(True, "", -1, "shop/audit")),
        ([policy("ALLOW", []), ALL_AUDIT], Judgement(False, "", -1, "shop/audit")),
        ([ALL_DENY, ALL_AUDIT], Judgement(False, "shop/deny", 0, "shop/audit")),
        ([ALL_ALLOW, msgspec.structs.replace(ALL_ALLOW, name="second")], Judgement(True, "shop/allow", 0)),
    ],
)
def test_actions_have_an_order(policies: list[PolicySpec], expected: Judgement) -> None:
    assert judge(*policies) == expected


def test_without_policies_everything_is_allowed() -> None:
    assert EMPTY.empty and EMPTY.judge(GET).allowed and EMPTY.explain(GET) == [] and EMPTY.nearest_miss(GET) == ""


# what a source, an operation or a condition has -> whether GET matches
MATCHES = [
    (source(principals=["mesh.test/ns/shop/sa/web"]), True),
    (source(principals=["cluster.local/ns/shop/sa/web"]), True),
    (source(principals=["mesh*/ns/shop/sa/web"]), True),
    (source(principals=["mesh*/ns/shop/sa/w*"]), True),
    (source(principals=["mesh*/ns/other/sa/web"]), False),
    (source(principals=["mess*/ns/shop/sa/web"]), False),
    (source(principals=["mesh*/ns/shop/*"]), False),
    (source(principals=["other/ns/shop/sa/web"]), False),
    (source(principals=["cluster.local/ns/shop/*"]), True),
    (source(principals=["cluster.local/ns/other/*"]), False),
    (source(principals=["*/sa/web"]), True),
    (source(principals=["*cluster.local/ns/shop/sa/web"]), False),
    (source(principals=["*"]), True),
    (source(principals=["nothing", "*"]), True),
    (source(namespaces=["shop"]), True),
    (source(namespaces=["sho*"]), True),
    (source(namespaces=["*p"]), True),
    (source(namespaces=["other"]), False),
    (source(namespaces=["s*p"]), True),
    (source(namespaces=["*ho*"]), True),
    (source(namespaces=["*"]), True),
    (source(namespaces=["**"]), True),
    (source(namespaces=["s*h*op"]), True),
    (source(namespaces=["*shop*shop*"]), False),
    (source(namespaces=["sho*op"]), False),
    (source(namespaces=["s*p*h*"]), False),
    (source(namespaces=["x", "s*o*"]), True),
    (source(serviceAccounts=["web"]), True),
    (source(serviceAccounts=["shop/web"]), True),
    (source(serviceAccounts=["other/web"]), False),
    (source(ipBlocks=["10.0.0.0/8"]), True),
    (source(ipBlocks=["10.1.2.3"]), True),
    (source(ipBlocks=["10.1.9.9/16"]), True),
    (source(ipBlocks=["::ffff:10.0.0.0/104"]), True),
    (source(ipBlocks=["203.0.113.0/24", "fd00::/8"]), False),
    (source(remoteIpBlocks=["203.0.113.0/24"]), True),
    (source(remoteIpBlocks=["10.0.0.0/8"]), False),
    (operation(hosts=["app.shop"]), True),
    (operation(hosts=["APP.Shop."]), True),
    (operation(hosts=["app.shop:8080"]), True),
    (operation(hosts=["app.shop:80"]), False),
    (operation(hosts=["*.shop"]), True),
    (operation(hosts=["*.shop:8080"]), True),
    (operation(hosts=["*.shop:80"]), False),
    (operation(hosts=["app.*"]), True),
    (operation(hosts=["app.shop:80*"]), True),
    (operation(hosts=["app.shop:*"]), True),
    (operation(hosts=["*"]), True),
    (operation(hosts=["app"]), False),
    (operation(ports=["8080"]), True),
    (operation(ports=["80"]), False),
    (operation(methods=["POST", "GET"]), True),
    (operation(methods=["get"]), False),
    (operation(methods=["G*"]), True),
    (operation(paths=["/app/x"]), True),
    (operation(paths=["/app/x?q=1"]), False),
    (operation(paths=["/app*"]), True),
    (operation(paths=["*/x"]), True),
    (operation(paths=["*"]), True),
    (operation(paths=["/app"]), False),
    (operation(paths=["/app/{*}"]), True),
    (operation(paths=["/{*}/x"]), True),
    (operation(paths=["/{*}"]), False),
    (operation(paths=["/{**}"]), True),
    (operation(paths=["/app/x/{**}"]), False),
    (operation(paths=["/{**}/x"]), True),
    (when("request.headers[x-user]", "ann"), True),
    (when("request.headers[X-USER]", "a*"), True),
    (when("request.headers[x-role]", "*"), True),
    (when("request.headers[x-user]", "bob"), False),
    (when("request.headers[host]", "app.shop:8080"), True),
    (when("request.headers[:authority]", "app.shop*"), True),
    (when("source.ip", "10.0.0.0/8"), True),
    (when("remote.ip", "203.0.113.9"), True),
    (when("destination.ip", "192.168.0.7"), True),
    (when("destination.port", "8080"), True),
    (when("source.namespace", "shop"), True),
    (when("source.namespace", "*h*p"), True),
    (when("source.principal", "cluster.local/ns/shop/sa/web"), True),
    (when("connection.sni", "App.shop"), True),
    (when("connection.sni", "other"), False),
    ({**source(namespaces=["shop"], ipBlocks=["10.9.0.0/16"])}, False),
    ({**source(namespaces=["shop"]), **operation(methods=["GET"]), **when("destination.port", "8080")}, True),
    ({**source(namespaces=["shop"]), **operation(methods=["PUT"])}, False),
    ({"from": [{"source": {"namespaces": ["x"]}}, {"source": {"namespaces": ["shop"]}}]}, True),
    ({"to": [{"operation": {"methods": ["PUT"]}}, {"operation": {"paths": ["/app/*"]}}]}, True),
    ({"when": [{"key": "source.ip", "values": ["10.0.0.0/8"]}, {"key": "destination.port", "values": ["1"]}]}, False),
]


@pytest.mark.parametrize(("rule", "matches"), MATCHES, ids=[str(rule) for rule, _ in MATCHES])
def test_a_rule_matches(rule: dict, matches: bool) -> None:
    assert allows(rule) is matches
    assert denies(rule) is matches
    assert judge(policy("AUDIT", [rule])).audited == ("shop/p" if matches else "")


def twin(rule: dict) -> dict | None:
    """The rule with its only field as ``not`` twin; None if it has several."""
    if list(rule) == ["when"] and len(rule["when"]) == 1:
        return {"when": [{"key": rule["when"][0]["key"], "notValues": rule["when"][0]["values"]}]}
    for part, kind in (("from", "source"), ("to", "operation")):
        if list(rule) == [part] and len(rule[part]) == 1 and len(rule[part][0][kind]) == 1:
            [(name, values)] = rule[part][0][kind].items()
            return {part: [{kind: {f"not{name[0].upper()}{name[1:]}": values}}]}
    return None


TWINS = [(other, not matches) for rule, matches in MATCHES if (other := twin(rule))]


@pytest.mark.parametrize(("rule", "matches"), TWINS, ids=[str(rule) for rule, _ in TWINS])
def test_a_not_twin_matches_the_rest(rule: dict, matches: bool) -> None:
    assert allows(rule) is matches
    assert denies(rule) is matches


@pytest.mark.parametrize(
    ("template", "path", "matches"),
    [
        ("/a/{*}", b"/a/b", True),
        ("/a/{*}", b"/a/", False),
        ("/a/{*}", b"/a/b/c", False),
        ("/a/{*}/c", b"/a/b/c", True),
        ("/a/{**}", b"/a/", True),
        ("/a/{**}", b"/a/b/c", True),
        ("/a/{**}", b"/a", False),
        ("/{**}/c", b"/a/b/c", True),
        ("/{**}/c", b"/c", False),
        ("/{*}/{**}", b"/a/b", True),
        ("/{*}/{**}", b"/a", False),
    ],
)
def test_a_path_template_matches_segments(template: str, path: bytes, matches: bool) -> None:
    assert allows(operation(paths=[template]), changed(path=path)) is matches
    assert denies(operation(paths=[template]), changed(path=path)) is matches


UNREADABLE = [
    operation(paths=["/a/{**}/{*}"]), operation(paths=["/a{*}"]), operation(paths=["/{*}/*"]), operation(ports=["x"]),
    operation(ports=["0"]), operation(hosts=["a b"]), operation(hosts=["app.shop:x"]), source(ipBlocks=["10.0.0.0/99"]),
    source(ipBlocks=["10.0.0.0/255.0.0.0"]), source(serviceAccounts=["*"]), source(serviceAccounts=["a/b/c"]),
    operation(methods=[""]), when("request.headers[x-user]", ""), when("request.headers[x-none]", ""),
    when("request.auth.claims[iss]", "x"), when("nonsense", "x"), when("request.headers[]", "x"),
    when("destination.ip", "x"),
]  # fmt: skip


@pytest.mark.parametrize("rule", UNREADABLE, ids=str)
def test_a_value_without_a_meaning_is_decided_against_the_caller(rule: dict) -> None:
    other = twin(rule)
    assert other is not None
    assert not allows(rule) and denies(rule)
    assert not allows(other) and denies(other)


@pytest.mark.parametrize("rule", [{"from": []}, {"to": []}, when("source.ip")], ids=str)
def test_an_empty_list_is_decided_against_the_caller(rule: dict) -> None:
    assert not allows(rule) and denies(rule)


IDENTITY = [
    source(principals=["*"]), source(namespaces=["shop"]), source(serviceAccounts=["web"]),
    source(namespaces=["*s*"]), source(namespaces=["**"]), when("source.principal", "*"),
    when("source.namespace", "shop"),
]  # fmt: skip


@pytest.mark.parametrize("rule", IDENTITY, ids=str)
def test_a_caller_without_identity_has_no_principal(rule: dict) -> None:
    plain, other = changed(peer=""), twin(rule)
    assert other is not None
    assert not allows(rule, plain) and not denies(rule, plain)
    assert allows(other, plain) and denies(other, plain)


@pytest.mark.parametrize("rule", IDENTITY, ids=str)
def test_a_proxy_without_identity_decides_against_the_caller(rule: dict) -> None:
    other = twin(rule)
    assert other is not None
    for asked in (GET, changed(peer="")):
        for each in (rule, other):
            assert not allows(each, asked, identities=False) and denies(each, asked, identities=False)
    assert allows(operation(paths=["/app/*"]), identities=False)


@pytest.mark.parametrize("rule", IDENTITY, ids=str)
def test_an_identity_that_is_none_is_decided_against_the_caller(rule: dict) -> None:
    for peer in ("spiffe://Mesh.test/ns/shop/sa/web", "nonsense", "spiffe://mesh.test/ns/shop/sa/\udc80"):
        for each in (rule, twin(rule)):
            assert each is not None
            assert not allows(each, changed(peer=peer)) and denies(each, changed(peer=peer))


def test_a_dot_in_a_principal_is_a_dot() -> None:  # POL-6
    rule = source(principals=["mesh.test/ns/shop/sa/a.b"])
    assert allows(rule, changed(peer="spiffe://mesh.test/ns/shop/sa/a.b"))
    assert not allows(rule, changed(peer="spiffe://mesh.test/ns/shop/sa/axb"))
    assert not denies(rule, changed(peer="spiffe://mesh.test/ns/shop/sa/axb"))


def test_the_local_trust_domain_is_the_meshs_own() -> None:
    rule = source(principals=["cluster.local/ns/shop/sa/web"])
    assert not allows(rule, changed(peer="spiffe://cluster.local/ns/shop/sa/web"))


@pytest.mark.parametrize(
    "value", ["spiffe://mesh.test/ns/shop/sa/web", "spiffe://cluster.local/ns/shop/*", "spiffe://*"]
)
def test_a_principal_with_a_scheme_refuses_and_never_allows(value: str) -> None:
    for rule in (source(principals=[value]), when("source.principal", value)):
        other = twin(rule)
        assert other is not None
        assert not allows(rule) and denies(rule)
        assert not allows(other) and denies(other)
        assert not denies(rule, changed(peer="")) and allows(other, changed(peer=""))


HTTP_RULES = [
    operation(hosts=["app.shop"]), operation(methods=["GET"]), operation(paths=["/app/*"]),
    when("request.headers[x-user]", "ann"),
]  # fmt: skip


@pytest.mark.parametrize("asked", [OPAQUE, changed(OPAQUE, protocol="TLS", sni=b"app.shop")])
@pytest.mark.parametrize("rule", HTTP_RULES, ids=str)
def test_opaque_bytes_are_never_allowed_by_http_fields(rule: dict, asked: Asked) -> None:
    for each in (rule, twin(rule)):
        assert each is not None
        assert not allows(each, asked) and denies(each, asked)
        assert judge(policy("AUDIT", [each]), asked=asked).audited
    both = {"to": [{"operation": {"ports": ["8080"]}}, {"operation": {"paths": ["/x"]}}]}
    assert not allows(both, asked)
    assert not denies({"to": [{"operation": {"ports": ["1"], "paths": ["/x"]}}]}, asked)
    assert allows(operation(ports=["8080"]), asked) and allows(source(namespaces=["shop"]), asked)


ADMIN = [  # targets that an app may take for /admin: POL-1, POL-3
    b"/admin", b"/admin?x", b"/app/../admin", b"/app/%2E./admin", b"/%61dmin", b"//admin", b"/%2fadmin", b"/\\admin",
    b"/%5Cadmin", b"/admin;a=b", b"/;/admin", b"/app//../admin", b"/./admin",
]  # fmt: skip


@pytest.mark.parametrize("path", ADMIN)
def test_a_denied_path_is_denied_in_every_form(path: bytes) -> None:
    assert denies(operation(paths=["/admin"]), changed(path=path))
    assert not allows(operation(notPaths=["/admin"]), changed(path=path))
    assert not allows(operation(paths=["/app/*"]), changed(path=path))


@pytest.mark.parametrize("path", [b"/app/0x2e0x2e/admin", b"/%252e%252e/admin", b"/...", b"/Admin", b"/admin%01"])
def test_what_no_app_takes_for_a_denied_path_is_left_alone(path: bytes) -> None:
    assert not denies(operation(paths=["/admin"]), changed(path=path))


@pytest.mark.parametrize("path", [b"/%00", b"/a%0d%0a", b"/%c0%ae", b"/app/..;x/admin", b"http://a/app/x", b"a:1", b""])
def test_a_path_that_can_not_be_read_is_decided_against_the_caller(path: bytes) -> None:  # POL-2
    asked = changed(path=path)
    assert denies(operation(paths=["/never"]), asked) and denies(operation(notPaths=["/never"]), asked)
    assert not allows(operation(paths=["*"]), asked) and not allows(operation(notPaths=["/never"]), asked)


def test_an_allowed_path_is_allowed_in_all_its_forms_only() -> None:
    rule = operation(paths=["/app/*"])
    assert allows(rule, changed(path=b"/app/%61"))
    assert allows(rule, changed(path=b"/app/b/../c"))
    assert not allows(rule, changed(path=b"/app%2fb"))
    assert not allows(rule, changed(path=b"/app//../admin"))
    assert not denies(operation(notPaths=["/app/*"]), changed(path=b"/app/x"))
    assert denies(operation(notPaths=["/app/*"]), changed(path=b"/app%2fb"))


@pytest.mark.parametrize("authority", [b"app.shop", b"APP.shop", b"app.shop.", b"app.shop:80", b"App.Shop.:80"])
def test_a_host_has_one_meaning_however_it_is_spelled(authority: bytes) -> None:  # POL-4
    for hosts in (["app.shop"], ["app.shop:80"], ["APP.SHOP."], ["*.shop"]):
        assert allows(operation(hosts=hosts), changed(authority=authority))
        assert denies(operation(hosts=hosts), changed(authority=authority))


@pytest.mark.parametrize("authority", [b"[::1]", b"[0:0::1]:80", b"[0:0:0:0:0:0:0:1]"])
@pytest.mark.parametrize("host", ["[::1]", "::1", "[0::1]:80", "*:80"])
def test_an_ipv6_host_has_one_meaning(host: str, authority: bytes) -> None:
    assert allows(operation(hosts=[host]), changed(authority=authority))
    assert not allows(operation(hosts=[host]), changed(authority=b"[::2]:81"))


@pytest.mark.parametrize(
    "values", [(b"ann", b"bob"), (b"bob", b"ann"), (b"bob,ann",), (b"bob , ann",), (b"ann\x85",), (b"\xffann",)]
)
def test_a_denied_header_is_denied_however_it_is_sent(values: tuple[bytes, ...]) -> None:  # POL-5
    asked = changed(fields=tuple((b"X-User", value) for value in values))
    assert denies(when("request.headers[x-user]", "ann"), asked)
    assert not allows(when("request.headers[x-user]", notValues=["ann"]), asked)


def test_an_allowed_header_is_taken_as_it_was_sent() -> None:
    rule = when("request.headers[x-user]", "ann")
    assert allows(rule, changed(fields=((b"x-user", b"ann"), (b"x-user", b"ann"))))
    assert not allows(rule, changed(fields=((b"x-user", b"bob"), (b"x-user", b"ann"))))
    assert denies(
        when("request.headers[x-user]", notValues=["ann"]), changed(fields=((b"x-user", b"bob"), (b"x-user", b"ann")))
    )
    for value in (b"bob,ann", b"ann\x85", b" ann"):
        assert not allows(rule, changed(fields=((b"x-user", value),)))
    present = when("request.headers[x-user]", "*")
    assert allows(present, changed(fields=((b"x-user", b""),)))
    assert not allows(present, changed(fields=()))
    assert denies(present, changed(fields=((b"x-user", b""),)))
    assert not denies(present, changed(fields=()))


def test_an_address_that_is_not_known_is_decided_against_the_caller() -> None:
    for asked in (changed(client=""), changed(client="app.test")):
        assert denies(source(ipBlocks=["1.1.1.1"]), asked) and not allows(source(notIpBlocks=["1.1.1.1"]), asked)
    assert denies(operation(ports=["1"]), changed(place=("", 0)))
    assert allows(source(ipBlocks=["fe80::/10"]), changed(client="fe80::1%eth0"))
    assert allows(source(remoteIpBlocks=["10.0.0.0/8"]), changed(remote=""))


def test_a_field_with_many_members_is_decided_against_the_caller() -> None:
    many = changed(fields=((b"x-user", b",".join(b"%d" % each for each in range(100))),))
    assert denies(when("request.headers[x-user]", "nothing of it"), many)
    assert not allows(when("request.headers[x-user]", notValues=["nothing of it"]), many)


def test_a_field_is_known_by_other_spellings_of_its_name() -> None:
    assert denies(when("request.headers[x-user]", "ann"), changed(fields=((b"X_User", b"ann"),)))
    assert not allows(when("request.headers[x-user]", "ann"), changed(fields=((b"X_User", b"ann"),)))
    for authority in (b"ADMIN.test", b"admin.test.", b"admin.test:80", b"admin.test:8080"):
        assert denies(when("request.headers[host]", "admin.test"), changed(authority=authority)), authority
    assert allows(when("source.serviceAccount", "b/x"), changed(peer="spiffe://cluster.local/ns/b/sa/x"))
