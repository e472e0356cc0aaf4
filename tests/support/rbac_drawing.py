"""Policies and requests that are drawn at random, and the compiled form held against the reading of each document.

``python -m tests.support.rbac_drawing --count N --seed S`` judges more requests than the tests do.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from sidecar.policy.authorize import Asked
from sidecar.policy.rbac import Engine, Judgement, compile_policies
from sidecar.resources.authorization import Condition, From, Operation, PolicySpec, Rule, Source, To
from tests.support.rbac_reading import OWN, read

REQUESTS = 200  # of each set of policies that is drawn
VARIANTS = 10  # of it: one request in so many is for each
Part = TypeVar("Part")


def parts(kind: Callable[..., Part], **fields: list[str]) -> st.SearchStrategy[Part]:
    """Sources or operations with few fields, so that rules match now and then, and one field decides."""
    given = {f"{twin}{name}": values for name, values in fields.items() for twin in ("", "not_")}
    one = st.sampled_from(sorted(given)).flatmap(lambda name: st.tuples(st.just(name), _some(given[name])))
    return st.lists(one, min_size=1, max_size=3).map(lambda found: kind(**dict(found)))


def _some(values: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=3)


def alternatives(one: st.SearchStrategy[Part]) -> st.SearchStrategy[list[Part] | None]:
    """None, the list of one or two, and rarely the empty list."""
    few = st.lists(one, min_size=1, max_size=2)
    return st.sampled_from([0, 0, 0, 1, 1, 1, 1, 2]).flatmap(lambda how: (st.none(), few, st.just([]))[how])


PRINCIPALS = [
    "cluster.local/ns/a/sa/x", "mesh.test/ns/a/sa/x", "mesh.test/ns/b/sa/y", "other/ns/a/sa/x", "cluster.local/ns/a/*",
    "cluster.local*", "mesh.test/*", "*/sa/x", "*", "*/ns/b/sa/y", "spiffe://cluster.local/ns/b/sa/x", "", "mesh.test",
    "cluster.localhost/ns/a/sa/x", "mesh*/ns/a/sa/x", "mesh*/ns/a/sa/*", "mesh*/ns/a/*", "o*/ns/a/sa/x", "spiffe://*",
]  # fmt: skip
NAMESPACES = ["a", "b", "a*", "*b", "*", "", "c", "*a*", "**", "a*b", "a**"]
ACCOUNTS = ["x", "y", "a/x", "b/y", "b/x", "*", "a/", "a/b/c", "a/*"]
BLOCKS = [
    "10.0.0.1",
    "10.0.0.0/8",
    "10.1.2.3/16",
    "192.168.0.0/16",
    "fd00::/8",
    "::1",
    "0.0.0.0/0",
    "nonsense",
    "10.0.0.0/99",
]
HOSTS = [
    "a.test", "A.test", "a.test.", "a.test:80", "a.test:8080", "*.test", "a.*", "*", "*.test:8080", "*:8080", "[::1]",
    "a.test:*",
    "[::1]:8080", "b.test", "[0:0::1]", "a.test:80*", "a b", "", ":80", "a.test:x", "*a.test",
]  # fmt: skip
PORTS = ["80", "8080", "0", "x", "99999"]
METHODS = ["GET", "get", "POST", "P*", "*T", "*", ""]
PATHS = [
    "/", "/a", "/b", "/a/b", "/a/", "/a*", "/a/*", "/*", "*", "*/b", "*b", "/{*}", "/a/{*}", "/a/{**}", "/{**}/b",
    "/a/{*}/b", "/{*}/b", "/{**}", "/{**}/{*}", "/a{*}", "", "/a//b", "/a%2fb", "/a;x", "/%61", "{*}", "/{*}/*",
]  # fmt: skip
VALUES = ["u", "v", "u*", "*v", "*", "", "u,v", "uv"]
CONDITIONS: dict[str, list[str]] = {
    "request.headers[x-user]": VALUES,
    "request.headers[X-User]": VALUES,
    "source.ip": BLOCKS,
    "remote.ip": BLOCKS,
    "destination.ip": BLOCKS,
    "source.namespace": NAMESPACES,
    "source.principal": PRINCIPALS,
    "destination.port": PORTS,
    "connection.sni": ["a.test", "A.test", "*.test", "a*", "*", ""],
    "request.auth.claims[x]": VALUES,
    "nonsense": VALUES,
}
SOURCES = parts(
    Source, principals=PRINCIPALS, namespaces=NAMESPACES, service_accounts=ACCOUNTS, ip_blocks=BLOCKS,
    remote_ip_blocks=BLOCKS,
)  # fmt: skip
OPERATIONS = parts(Operation, hosts=HOSTS, ports=PORTS, methods=METHODS, paths=PATHS)
VALUE_LISTS = st.sampled_from([(True, False), (True, False), (False, True), (True, True), (False, False)])
WHEN = st.tuples(st.sampled_from(sorted(CONDITIONS)), VALUE_LISTS).flatmap(
    lambda chosen: st.builds(
        Condition, st.just(chosen[0]), *[_some(CONDITIONS[chosen[0]]) if given else st.just([]) for given in chosen[1]]
    )
)
RULES = st.builds(
    Rule,
    alternatives(st.builds(From, SOURCES)),
    alternatives(st.builds(To, OPERATIONS)),
    st.one_of(st.none(), st.none(), st.lists(WHEN, min_size=1, max_size=2)),
)
POLICIES = st.lists(
    st.builds(
        PolicySpec,
        st.sampled_from(["p", "q", "r"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["ALLOW", "ALLOW", "DENY", "AUDIT"]),
        st.lists(RULES, max_size=3),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=5,
)
_PEERS = [
    "", "spiffe://mesh.test/ns/a/sa/x", "spiffe://mesh.test/ns/b/sa/y", "spiffe://cluster.local/ns/a/sa/x",
    "spiffe://other/ns/a/sa/x", "spiffe://mesh.test/other", "spiffe://mesh.test", "nonsense", "spiffe://Mesh.test/ns/a/sa/x",
    "spiffe://mesh.test/ns/b/sa/x",
]  # fmt: skip
_ADDRESSES = ["10.0.0.1", "10.1.9.9", "192.168.1.1", "::ffff:10.0.0.1", "fd00::1", "::1", "", "app.test"]
_AUTHORITIES = [
    b"a.test", b"A.TEST", b"a.test.", b"a.test:80", b"a.test.:8080", b"a.test:8080", b"b.test", b"[::1]",
    b"[0::1]:8080",
    b"", b"a b", b"a.test:808", b"ba.test", b"a.test.:80",
]  # fmt: skip
_TARGETS = [
    b"/", b"/a", b"/b", b"/a/b", b"/a/", b"/a//b", b"/a/../b", b"/%61", b"/a%2fb", b"/a;x", b"/a?q=/b", b"/a/x/b",
    b"/ab",
    b"*", b"/%00", b"a.test:80", b"http://a.test/a", b"", b"/a/..;/b", b"/a\\b", b"//a", b"/.a", b"/a/./b?x", b"/x/b",
]  # fmt: skip
_HEADER_VALUES = [b"u", b"v", b"", b"u,v", b"v , u", b"\x85u", b"u\xff", b"uv", b",", b"w"]
_PIECES = [b"/", b"/", b"a", b"b", b".", b"..", b"%2f", b"%61", b";", b"\\", b"x", b"?", b"%5c", b"%00", b"%2e"]


def request(chance: random.Random) -> Asked:
    """A request out of a small world, in which matches happen."""
    pick = chance.choice
    fields = [(pick([b"x-user", b"X-USER", b"other"]), pick(_HEADER_VALUES)) for _ in range(chance.randrange(3))]
    target = (
        pick(_TARGETS) if chance.random() < 0.7 else b"/" + b"".join(chance.choices(_PIECES, k=chance.randrange(8)))
    )
    protocol = pick(["HTTP"] * 8 + ["TCP", "TLS"])
    http = protocol == "HTTP"
    return Asked(
        "inbound",
        pick(_PEERS),
        pick(_ADDRESSES),
        "app",
        protocol,
        pick([b"GET", b"get", b"POST", b"PUT"]) if http else b"",
        target if http else b"",
        pick(_AUTHORITIES) if http else b"",
        pick([b"", b"a.test", b"A.test", b"b.test"]),
        pick(_ADDRESSES),
        (pick(_ADDRESSES), pick([0, 80, 8080])),
        fields if http else (),
    )


def compiled(policies: Sequence[PolicySpec], trust_domain: str = OWN, *, identities: bool = True) -> Engine:
    """Compile in one go."""
    steps = compile_policies(policies, trust_domain, identities=identities)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            engine = end.value
            assert isinstance(engine, Engine)
            return engine


def variant(policies: Sequence[PolicySpec], chance: random.Random) -> list[PolicySpec]:
    """Some of the policies with some of their rules, and other actions: a single rule decides more often."""
    kept = chance.sample(policies, chance.randint(min(1, len(policies)), len(policies)))
    return [
        msgspec.structs.replace(
            each,
            action=chance.choice(["ALLOW", "DENY", "DENY", "AUDIT"]),
            dry_run=chance.random() < 0.2,
            rules=chance.sample(each.rules, chance.randint(min(1, len(each.rules)), len(each.rules))),
        )
        for each in kept
    ]


def hold_against_reading(policies: list[PolicySpec], seed: int, identities: bool) -> tuple[int, int]:
    """Judge requests by both; AssertionError where they differ, or where the explanation does. Return how many were
    decided by a rule, and how many were denied."""
    chance = random.Random(seed)
    decided = denied = 0
    drawn = policies
    engine = compiled(policies, identities=identities)
    for number in range(REQUESTS):
        if number and number % (REQUESTS // VARIANTS) == 0:
            policies = variant(drawn, chance)
            engine = compiled(policies, identities=identities)
        asked = request(chance)
        expected, found = read(policies, asked, identities), engine.judge(asked)
        assert found == expected, f"{found} instead of {expected} for {asked} under {policies}"
        decided += found.rule >= 0
        denied += not found.allowed
        if number % 4 == 0:
            _check_explanation(engine, policies, asked, found)
    return decided, denied


def _check_explanation(engine: Engine, policies: list[PolicySpec], asked: Asked, found: Judgement) -> None:
    steps = engine.explain(asked)
    assert len(steps) == sum(max(1, len(policy.rules)) for policy in policies)
    assert all(step.matched is not bool(step.field) for step in steps)
    hits = [step for step in steps if step.matched and not step.dry_run]
    by = next((step for step in hits if step.action in ("DENY", "ALLOW")), None)
    assert (found.policy, found.rule) == ((by.policy, by.rule) if by else ("", -1)), (steps, asked)
    assert found.audited == next((step.policy for step in hits if step.action == "AUDIT"), "")
    missing = not found.allowed and found.rule < 0
    if missing:
        assert engine.nearest_miss(asked), (asked, policies)


def main() -> int:
    """The command; a difference is an AssertionError with the policies and the request."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.rbac_drawing", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    totals = [0, 0, 0]

    @seeded(seed)
    @settings(
        max_examples=max(1, options.count // REQUESTS),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(POLICIES, st.integers(0, 1 << 32), st.sampled_from([True, True, True, False]))
    def run(policies: list[PolicySpec], requests: int, identities: bool) -> None:
        decided, denied = hold_against_reading(policies, requests, identities)
        totals[0] += REQUESTS
        totals[1] += decided
        totals[2] += denied

    run()
    print(
        f"{totals[0]} requests in {time.monotonic() - began:.0f} s: {totals[1]} decided by a rule, {totals[2]} denied"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
