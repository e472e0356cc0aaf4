"""Which rule of a VirtualService a request follows: each condition by itself, their order, the cost of many, and the
compiled form against a direct reading."""

from __future__ import annotations

import functools
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.policy.http_routes import RouteQuestion, Tried, VirtualHost, compile_virtual_host
from sidecar.resources.virtual_service import HTTPRoute, VirtualServiceSpec
from tests.support.operations import lines_of, longest_step
from tests.support.route_drawing import FEWS, LABELS, NAMESPACE, PARTS, REQUESTS, Parts, finished, hold_against_reading

Match = dict[str, Any]
REQUESTS_OF_CI = 100_000
DEFAULT = {
    "method": b"GET",
    "target": b"/shop/cart?item=7&x=",
    "authority": b"Web.shop:8080",
    "fields": [(b"X-User", b"ann"), (b"x-team", b"red"), (b"X-TEAM", b"blue"), (b"x-empty", b"")],
    "port": 8080,
}


def question(**changes: Any) -> RouteQuestion:
    return RouteQuestion(**{**DEFAULT, **changes})


def host_of(*rules: list[Match], few: int = 8, labels: list[dict[str, str]] = LABELS) -> VirtualHost:
    """A VirtualService whose rules have these matches."""
    written = [{"match": matches, "name": f"rule-{number}"} for number, matches in enumerate(rules)]
    spec = VirtualServiceSpec("web", "shop", ["web.shop.test"], msgspec.convert(written, list[HTTPRoute]))
    return finished(compile_virtual_host(spec, NAMESPACE, labels, few=few))


def exact(text: str) -> Match:
    return {"exact": text}


def prefix(text: str) -> Match:
    return {"prefix": text}


def regex(text: str) -> Match:
    return {"regex": text}


def header(name: str, match: Match) -> Match:
    return {"headers": {name: match}}


def without(name: str, match: Match) -> Match:
    return {"withoutHeaders": {name: match}}


def param(name: str, match: Match) -> Match:
    return {"queryParams": {name: match}}


CASES: list[tuple[Match, dict[str, Any], bool]] = [
    ({}, {}, True),
    # uri: the path alone, whole for exact and regex
    ({"uri": exact("/shop/cart")}, {}, True),
    ({"uri": exact("/shop/cart")}, {"target": b"/shop/cart"}, True),
    ({"uri": exact("/shop/cart")}, {"target": b"/shop/cart?"}, True),
    ({"uri": exact("/shop/cart")}, {"target": b"/shop/cart/"}, False),
    ({"uri": exact("/shop")}, {}, False),
    ({"uri": exact("/shop/cart?item=7&x=")}, {}, False),
    ({"uri": exact("/shop/Cart")}, {}, False),
    ({"uri": prefix("/shop")}, {}, True),
    ({"uri": prefix("/sh")}, {}, True),
    ({"uri": prefix("/shop/cart")}, {}, True),
    ({"uri": prefix("/shop/cart?item")}, {}, False),
    ({"uri": prefix("/Shop")}, {}, False),
    ({"uri": regex("/shop/.*")}, {}, True),
    ({"uri": regex("/shop")}, {}, False),
    ({"uri": regex("shop/cart")}, {}, False),
    ({"uri": regex(".*item.*")}, {}, False),
    ({"uri": regex("/(shop|store)/[a-z]+")}, {}, True),
    ({"uri": regex("/(?i)SHOP/CART")}, {}, True),
    ({"uri": regex(".*")}, {"target": b"/\xff"}, False),  # no UTF-8
    ({"uri": regex("/é+")}, {"target": "/éé".encode()}, True),
    ({"uri": {}}, {}, True),
    ({"uri": exact("/SHOP/cart"), "ignoreUriCase": True}, {}, True),
    ({"uri": exact("/shop/cart"), "ignoreUriCase": True}, {"target": b"/Shop/CART?Q"}, True),
    ({"uri": prefix("/SHOP"), "ignoreUriCase": True}, {}, True),
    ({"uri": regex("/SHOP/cart"), "ignoreUriCase": True}, {}, False),
    ({"ignoreUriCase": True}, {}, True),
    # scheme, method, authority: as they were sent
    ({"scheme": exact("http")}, {}, True),
    ({"scheme": exact("https")}, {}, False),
    ({"scheme": prefix("http")}, {"scheme": b"https"}, True),
    ({"method": exact("GET")}, {}, True),
    ({"method": exact("get")}, {}, False),
    ({"method": regex("GET|HEAD")}, {"method": b"HEAD"}, True),
    ({"method": regex("GET|HEAD")}, {"method": b"HEADS"}, False),
    ({"method": {}}, {}, True),
    ({"authority": exact("Web.shop:8080")}, {}, True),
    ({"authority": exact("web.shop:8080")}, {}, False),
    ({"authority": exact("Web.shop")}, {}, False),
    ({"authority": prefix("Web.")}, {}, True),
    ({"authority": regex(r"(?i)web\.shop(:\d+)?")}, {}, True),
    ({"port": 8080}, {}, True),
    ({"port": 80}, {}, False),
    # headers: names in any case; one of two values is enough; a list in one field is one value
    (header("x-user", exact("ann")), {}, True),
    (header("X-USER", exact("ann")), {}, True),
    (header("x-user", exact("Ann")), {}, False),
    (header("x-user", exact("an")), {}, False),
    (header("x-user", prefix("an")), {}, True),
    (header("x-user", prefix("nn")), {}, False),
    (header("x-user", regex("a.n")), {}, True),
    (header("x-user", regex("a.")), {}, False),
    (header("x-user", {}), {}, True),
    (header("x-user", regex("*")), {}, True),
    (header("x-user", regex(".+")), {}, True),
    (header("x_user", exact("ann")), {}, False),
    (header("x-team", exact("red")), {}, True),
    (header("x-team", exact("blue")), {}, True),
    (header("x-team", exact("red,blue")), {}, False),
    (header("x-team", prefix("bl")), {}, True),
    (header("x-team", regex("green|blue")), {}, True),
    (header("x-team", exact("red")), {"fields": [(b"x-team", b"red,blue")]}, False),
    (header("x-none", {}), {}, False),
    (header("x-none", regex("*")), {}, False),
    (header("x-none", regex(".*")), {}, False),
    (header("x-none", exact("")), {}, False),
    (header("x-empty", {}), {}, True),
    (header("x-empty", exact("")), {}, True),
    (header("x-empty", regex(".+")), {}, False),
    ({"headers": {"x-user": exact("ann"), "x-team": exact("blue")}}, {}, True),
    ({"headers": {"x-user": exact("ann"), "x-team": exact("green")}}, {}, False),
    # pseudo-headers, and Host for the authority
    (header(":authority", exact("Web.shop:8080")), {}, True),
    (header("host", prefix("Web")), {}, True),
    (header("Host", exact("other")), {}, False),
    (header(":method", exact("GET")), {}, True),
    (header(":scheme", exact("http")), {}, True),
    (header(":path", exact("/shop/cart?item=7&x=")), {}, True),
    (header(":path", exact("/shop/cart")), {}, False),
    (header(":nothing", {}), {}, False),
    # withoutHeaders: a missing field is an empty one, unless presence is asked for
    (without("x-none", {}), {}, True),
    (without("x-none", regex("*")), {}, True),
    (without("x-none", exact("ann")), {}, True),
    (without("x-none", exact("")), {}, False),
    (without("x-none", regex(".*")), {}, False),
    (without("x-none", regex(".+")), {}, True),
    (without("x-user", {}), {}, False),
    (without("X-User", exact("ann")), {}, False),
    (without("x-user", exact("bob")), {}, True),
    (without("x-user", prefix("b")), {}, True),
    (without("x-empty", {}), {}, False),
    (without("x-team", exact("red")), {}, False),
    (without("x-team", exact("blue")), {}, False),
    (without("x-team", exact("green")), {}, True),
    (without("host", {}), {}, False),
    # queryParams: the first value, as it was sent
    (param("item", exact("7")), {}, True),
    (param("item", exact("8")), {}, False),
    (param("item", prefix("")), {}, True),
    (param("item", regex("[0-9]")), {}, True),
    (param("item", {}), {}, True),
    (param("item", regex("*")), {}, True),
    (param("Item", {}), {}, False),
    (param("x", exact("")), {}, True),
    (param("x", {}), {"target": b"/?x"}, True),
    (param("none", {}), {}, False),
    (param("none", exact("")), {}, False),
    (param("item", exact("7")), {"target": b"/?item=8&item=7"}, False),
    (param("item", exact("8")), {"target": b"/?item=8&item=7"}, True),
    (param("item", exact("7")), {"target": b"/?item=%37"}, False),
    (param("item", exact("a=b")), {"target": b"/?item=a=b"}, True),
    (param("item", exact("7")), {"target": b"/?a&&item=7"}, True),
    (param("item", {}), {"target": b"/item"}, False),
    # the caller: its labels, its namespace, and gateways in place of both
    ({"sourceLabels": {"app": "web"}}, {}, True),
    ({"sourceLabels": {"app": "web", "version": "v1"}}, {}, True),
    ({"sourceLabels": {"app": "other", "version": "v1"}}, {}, False),  # of two services
    ({"sourceLabels": {"app": "else"}}, {}, False),
    ({"sourceNamespace": NAMESPACE}, {}, True),
    ({"sourceNamespace": "else"}, {}, False),
    ({"gateways": ["mesh"]}, {}, True),
    ({"gateways": ["edge", "mesh"]}, {}, True),
    ({"gateways": ["edge"]}, {}, False),
    ({"gateways": ["mesh"], "sourceLabels": {"app": "else"}, "sourceNamespace": "else"}, {}, True),
    # all of them have to hold; an expression without meaning never does
    ({"uri": prefix("/shop"), "method": exact("GET"), **header("x-user", {}), **param("item", {})}, {}, True),
    ({"uri": prefix("/shop"), "method": exact("PUT"), **header("x-user", {}), **param("item", {})}, {}, False),
    ({"uri": prefix("/store"), "method": exact("GET"), **header("x-user", {}), **param("item", {})}, {}, False),
    ({"uri": prefix("/shop"), "method": exact("GET"), **header("x-user", {}), **param("items", {})}, {}, False),
    ({"uri": regex("(")}, {}, False),
    (without("x-user", regex("(")), {}, False),
]


@pytest.mark.parametrize("few", [8, 0], ids=["walked", "indexed"])
@pytest.mark.parametrize(("match", "changes", "holds"), CASES)
def test_a_match(match: Match, changes: dict[str, Any], holds: bool, few: int) -> None:
    found = host_of([match], few=few).first(question(**changes))
    assert (found is not None) is holds
    if found is not None:
        rule, by = found
        assert rule.number == 0
        assert by is rule.spec.match[0]


@pytest.mark.parametrize("few", [8, 0], ids=["walked", "indexed"])
def test_the_first_rule_in_the_document_counts(few: int) -> None:
    host = host_of(
        [{"uri": exact("/a"), "name": "exact"}, {"uri": prefix("/a/b")}],
        [{"uri": regex("/a/.*")}],
        [{"uri": prefix("/A"), "ignoreUriCase": True}, header("x-user", exact("ann"))],
        [{"uri": prefix("/a")}],
        [],
        [{"uri": exact("/z")}],
        few=few,
    )

    def asked(path: bytes, **changes: Any) -> tuple[int, str | None]:
        found = host.first(question(target=path, **changes))
        assert found is not None
        return found[0].number, None if found[1] is None else found[1].name

    assert asked(b"/a") == (0, "exact")
    assert asked(b"/a/b/c?/x") == (0, "")
    assert asked(b"/a/c") == (1, "")
    assert asked(b"/ab") == (2, "")
    assert asked(b"/x") == (2, "")
    assert asked(b"/x", fields=[]) == (4, None)  # a rule without matches takes all
    assert asked(b"/z", fields=[]) == (4, None)


def test_no_rule_for_a_request() -> None:
    assert host_of([{"uri": exact("/a")}]).first(question(target=b"/b")) is None
    assert host_of().first(question()) is None


def test_a_virtual_service_counts_only_where_a_match_of_it_can_hold() -> None:
    assert host_of([]).serves(80)
    assert host_of([{"uri": exact("/a")}]).serves(80)
    assert not host_of().serves(80)
    assert not host_of([{"gateways": ["edge"]}, {"sourceNamespace": "else"}]).serves(80)
    by_port = host_of([{"port": 80}], [{"port": 8080, "sourceNamespace": "else"}])
    assert by_port.serves(80) and not by_port.serves(8080)


def test_what_was_tried_names_the_field_that_failed() -> None:
    host = host_of(
        [{"sourceLabels": {"app": "else"}, "uri": exact("/x"), "name": "ours"}, {"gateways": ["edge"]}],
        [{"sourceNamespace": "else"}, {"port": 80}, {"uri": regex("(")}],
        [{"method": exact("PUT"), "uri": prefix("/shop")}, {"uri": prefix("/x")}, {"scheme": exact("https")}],
        [{"authority": exact("a")}, header("X-Canary", {}), without("x-user", {}), param("q", exact("1"))],
        [header("x-user", exact("ann")), {}],
        [],
    )
    assert host.tried(question()) == [
        Tried(0, "rule-0", 0, "ours", "sourceLabels"),
        Tried(0, "rule-0", 1, "", "gateways"),
        Tried(1, "rule-1", 0, "", "sourceNamespace"),
        Tried(1, "rule-1", 1, "", "port"),
        Tried(1, "rule-1", 2, "", "uri"),
        Tried(2, "rule-2", 0, "", "method"),
        Tried(2, "rule-2", 1, "", "uri"),
        Tried(2, "rule-2", 2, "", "scheme"),
        Tried(3, "rule-3", 0, "", "authority"),
        Tried(3, "rule-3", 1, "", "headers[X-Canary]"),
        Tried(3, "rule-3", 2, "", "withoutHeaders[x-user]"),
        Tried(3, "rule-3", 3, "", "queryParams[q]"),
        Tried(4, "rule-4", 0, "", ""),
    ]
    assert host.tried(question(fields=[]))[-1] == Tried(3, "rule-3", 2, "", "")
    assert host_of([]).tried(question()) == [Tried(0, "rule-0", -1, "", "")]


def many(kind: str, count: int) -> VirtualHost:
    """``count`` rules of which the one for number 7 is asked for, and a last one that takes all."""
    matches: dict[str, Any] = {
        "exact": lambda n: {"uri": exact(f"/p{n}/x")},
        "prefix": lambda n: {"uri": prefix(f"/p{n}/")},
        "prefixes of all lengths": lambda n: {"uri": prefix(f"/p{n}/" if n == 7 else f"/{'y' * (n % 300)}{n}/")},
        "without case": lambda n: {"uri": prefix(f"/P{n}/"), "ignoreUriCase": True},
        "regex": lambda n: {"uri": regex(f"/p{n}/[a-z]*")},
        "header": lambda n: header("x-user", exact(f"u{n}")),
        "header below one prefix": lambda n: {
            "uri": prefix("/p"),
            "method": exact("GET"),
            **header("x-user", exact(f"u{n}")),
        },
        "names of headers": lambda n: header("x-user" if n == 7 else f"x-{n}", exact("u7")),
        "query": lambda n: param("q", exact(f"{n}")),
        "query below one path": lambda n: {"uri": exact("/p7/x"), **param("q", exact(f"{n}"))},
        "authority": lambda n: {"authority": exact(f"h{n}")},
    }
    return host_of(*[[matches[kind](n)] for n in range(count)], [])


ASKED = {"target": b"/p7/x?q=7", "authority": b"h7", "fields": [(b"X-User", b"u7"), (b"accept", b"*/*")]}
KINDS = [
    "exact", "prefix", "prefixes of all lengths", "without case", "regex", "header", "header below one prefix",
    "names of headers", "query", "query below one path", "authority",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_rules_cost_what_ten_do(kind: str) -> None:
    costs = []
    for count in (10, 10_000):
        host = many(kind, count)
        for expected, asked in ((7, ASKED), (count, {**ASKED, "target": b"/q", "authority": b"x", "fields": []})):
            found = host.first(question(**asked))
            assert found is not None and found[0].number == expected
            costs.append(lines_of(functools.partial(host.first, question(**asked))))
    ten, ten_other, many_, many_other = costs
    assert many_ <= ten + 40, costs  # five more forks of the tree
    assert many_other <= ten_other + 40, costs


@pytest.mark.parametrize("kind", ["exact", "regex", "header below one prefix"])
def test_compiling_is_cut_into_short_steps(kind: str) -> None:
    host = many(kind, 2_000)
    assert longest_step(compile_virtual_host(host.spec, NAMESPACE, LABELS)) < 6_000


def test_matches_with_very_many_fields_are_divided_by_some_of_them() -> None:
    """If each name were one more division, they would be as deep as the interpreter's stack."""
    shared = {f"x-{number}": exact("a") for number in range(1200)}
    host = host_of(*[[{"headers": {**shared, "y": prefix(f"{number}.")}}] for number in range(20)])
    fields = [(name.encode(), b"a") for name in shared]
    found = host.first(question(fields=[*fields, (b"y", b"7.x")]))
    assert found is not None and found[0].name == "rule-7"
    assert host.first(question(fields=[*fields[1:], (b"y", b"7.x")])) is None


@settings(
    max_examples=REQUESTS_OF_CI // REQUESTS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(PARTS, st.integers(0, 1 << 32), FEWS)
def test_the_compiled_form_says_what_the_documents_do(parts: Parts, seed: int, few: int) -> None:
    hold_against_reading(parts, seed, few)
