"""The engine of AuthorizationPolicies as a whole: dry runs, explanations, its cost, and the compiled form against a
direct reading."""

from __future__ import annotations

from time import thread_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.rbac import Step, compile_policies
from sidecar.resources.authorization import PolicySpec
from tests.support.rbac_drawing import POLICIES, REQUESTS, compiled, hold_against_reading
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
from tests.support.yardstick import slowness


@pytest.mark.parametrize(
    ("policies", "would_allow", "would_policy"),
    [
        ([ALL_ALLOW], None, ""),
        ([ALL_ALLOW, policy("DENY", ANYONE, "dry", dryRun=True)], False, "shop/dry"),
        ([policy("DENY", ANYONE, "dry", dryRun=True), ALL_DENY], False, "shop/dry"),
        ([policy("ALLOW", [], "dry", dryRun=True)], False, "shop/dry"),  # the default deny is its doing
        ([policy("ALLOW", []), policy("ALLOW", ANYONE, "dry", dryRun=True)], True, "shop/dry"),
        ([ALL_ALLOW, policy("ALLOW", ANYONE, "dry", dryRun=True)], True, "shop/allow"),
        ([policy("AUDIT", ANYONE, "dry", dryRun=True)], True, ""),
    ],
)
def test_a_dry_run_has_one_combined_verdict(
    policies: list[PolicySpec], would_allow: bool | None, would_policy: str
) -> None:
    found = judge(*policies)
    assert (found.would_allow, found.would_policy) == (would_allow, would_policy)
    in_force = judge(*[each for each in policies if not each.dry_run])
    assert (found.allowed, found.policy, found.rule) == (in_force.allowed, in_force.policy, in_force.rule)
    assert found.audited == ""


def test_an_explanation_names_the_first_field_that_failed() -> None:
    engine = compiled(
        [
            policy("AUDIT", ANYONE, "audit"),
            policy("ALLOW", [], "nothing"),
            policy("ALLOW", [{**source(namespaces=["shop"]), **operation(methods=["PUT"], paths=["/x"])}], "put"),
            policy("DENY", [when("request.headers[x-user]", "bob"), operation(paths=["/b"])], "dry", dryRun=True),
            policy("DENY", [source(notNamespaces=["shop"]), when("request.headers[cookie]", "x")], "deny"),
        ],
        TRUST_DOMAIN,
    )
    asked = changed(fields=(*GET.fields, (b"cookie", b"secret")))
    assert engine.explain(asked) == [
        Step("shop/deny", 0, "DENY", False, False, "from[0].source.notNamespaces", "shop"),
        Step("shop/deny", 1, "DENY", False, False, "when[0] request.headers[cookie]", "***"),
        Step("shop/nothing", -1, "ALLOW", False, False, "rules"),
        Step("shop/put", 0, "ALLOW", False, False, "to[0].operation.methods", "GET"),
        Step("shop/audit", 0, "AUDIT", False, True),
        Step("shop/dry", 0, "DENY", True, False, "when[0] request.headers[x-user]", "ann"),
        Step("shop/dry", 1, "DENY", True, False, "to[0].operation.paths", "/app/x"),
    ]
    assert engine.explain(OPAQUE)[3].field == "to[0].operation.methods"
    assert engine.explain(OPAQUE)[3].seen == "can't be decided"


def test_the_nearest_miss_failed_on_the_fewest_fields() -> None:
    far = {**source(namespaces=["x"]), **operation(methods=["PUT"], paths=["/app/*"])}
    near = {**source(namespaces=["shop"]), **operation(methods=["PUT"], paths=["/app/*"])}
    engine = compiled([policy("ALLOW", [operation(paths=["/y"])] * 99 + [far, near], "big")], TRUST_DOMAIN)
    assert engine.nearest_miss(GET) == "shop/big rule 100: to[0].operation.methods"
    assert compiled([policy("ALLOW", [])], TRUST_DOMAIN).nearest_miss(GET) == "shop/p: it has no rules"
    assert compiled([ALL_ALLOW], TRUST_DOMAIN).nearest_miss(GET) == ""
    assert compiled([ALL_DENY], TRUST_DOMAIN).nearest_miss(GET) == ""


def many(count: int) -> dict[str, PolicySpec]:
    return {
        "principal": policy(
            "ALLOW",
            [
                {**source(principals=[f"mesh.test/ns/shop/sa/w{n}"]), **operation(methods=["GET"], paths=["/app*"])}
                for n in range(count)
            ],
        ),
        "path": policy("DENY", [operation(paths=[f"/p{n}/*"]) for n in range(count)]),
        "host": policy("ALLOW", [operation(hosts=[f"h{n}.shop"]) for n in range(count)]),
    }


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["principal", "path", "host"])
def test_a_thousand_rules_cost_what_ten_do(kind: str) -> None:
    asked = changed(peer="spiffe://mesh.test/ns/shop/sa/w7", path=b"/p7/x" if kind == "path" else GET.path)
    asked = changed(asked, authority=b"h7.shop")
    costs = []
    for count in (10, 1000):
        engine = compiled([many(count)[kind]], TRUST_DOMAIN)
        assert engine.judge(asked).rule == 7
        rounds = []
        for _ in range(50):
            began = thread_time()
            for _ in range(200):
                engine.judge(asked)
            rounds.append((thread_time() - began) / 200)
        costs.append(min(rounds))
    bound = 6e-6 * slowness()
    assert costs[0] < bound and costs[1] < costs[0] + bound, costs


def test_compiling_yields_after_every_few_rules_and_values() -> None:
    assert sum(1 for _ in compile_policies([many(1000)["principal"]], TRUST_DOMAIN)) >= 250
    large = policy("DENY", [source(principals=[f"a/ns/b/sa/c{n}" for n in range(5000)])])
    assert sum(1 for _ in compile_policies([large], TRUST_DOMAIN)) >= 50


@settings(max_examples=100_000 // REQUESTS, deadline=None, derandomize=True)
@given(POLICIES, st.integers(0, 1 << 32), st.sampled_from([True, True, True, False]))
def test_the_compiled_form_reads_as_the_documents_do(policies: list[PolicySpec], seed: int, identities: bool) -> None:
    hold_against_reading(policies, seed, identities)
