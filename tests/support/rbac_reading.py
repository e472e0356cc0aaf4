"""AuthorizationPolicies as their documents read, word by word and slowly: what the compiled form is held against.

Written apart from ``sidecar.policy.rbac``: nothing is compiled, indexed or kept. Only the forms of a path are taken
from the product, since they are what the law is about. ``python -m tests.support.rbac_reading --count N --seed S``
judges more requests than the tests do.
"""

from __future__ import annotations

import argparse
import functools
import ipaddress
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from sidecar.errors import ProxyError
from sidecar.http.paths import forwarded, judged
from sidecar.policy.authorize import Asked
from sidecar.policy.rbac import Engine, Judgement, compile_policies
from sidecar.resources.authorization import Condition, From, Operation, PolicySpec, Rule, Source, To

REQUESTS = 200  # of each set of policies that is drawn
VARIANTS = 10  # of it: one request in so many is for each
OWN = "mesh.test"
Part = TypeVar("Part")


class Undecided(Exception):
    """What a request has there can't be decided."""


class Unreadable(Exception):
    """A value of a policy has no meaning."""


def text_matches(pattern: str, seen: str) -> bool:
    if not pattern:
        raise Unreadable
    if pattern == "*":
        return seen != ""
    if pattern[0] == "*":
        return seen.endswith(pattern[1:])
    return seen.startswith(pattern[:-1]) if pattern[-1] == "*" else seen == pattern


class Reading:
    """One request under one policy."""

    def __init__(self, policy: PolicySpec, asked: Asked, identities: bool) -> None:
        self.policy = policy
        self.asked = asked
        self.identities = identities
        self.allows = policy.action == "ALLOW"
        self.http = asked.protocol == "HTTP"

    def matches(self, rule: Rule) -> bool:
        if self.allows and (rule.from_ == [] or rule.to == []):
            return False
        if self.allows and not self.http and self._asks(rule, HTTP):
            return False
        if self.allows and not self.identities and self._asks(rule, IDENTITY):
            return False
        if rule.from_ and not any(self._source(each.source) for each in rule.from_):
            return False
        if rule.to and not any(self._operation(each.operation) for each in rule.to):
            return False
        return all(self._condition(each) for each in rule.when or ())

    def _asks(self, rule: Rule, names: str) -> bool:
        parts: list[Source | Operation] = [each.source for each in rule.from_ or ()]
        parts += [each.operation for each in rule.to or ()]
        given = [name for part in parts for name in part.__struct_fields__ if getattr(part, name)]
        given += [each.key for each in rule.when or () if each.values or each.not_values]
        return any(re.match(names, name) for name in given)

    def _source(self, source: Source) -> bool:
        return (
            self._both(source.principals, source.not_principals, self._principal)
            and self._both(source.namespaces, source.not_namespaces, self._namespace)
            and self._both(source.service_accounts, source.not_service_accounts, self._account)
            and self._both(source.ip_blocks, source.not_ip_blocks, self._block(self.asked.client))
            and self._both(source.remote_ip_blocks, source.not_remote_ip_blocks, self._block(self._remote()))
        )

    def _operation(self, operation: Operation) -> bool:
        return (
            self._both(operation.hosts, operation.not_hosts, self._host)
            and self._both(operation.ports, operation.not_ports, self._port)
            and self._both(operation.methods, operation.not_methods, self._method)
            and self._both(operation.paths, operation.not_paths, self._path)
        )

    def _condition(self, condition: Condition) -> bool:
        header = re.fullmatch(r"request\.headers\[([a-zA-Z-]+)\]", condition.key)
        tests: dict[str, Test] = {
            "source.principal": self._principal,
            "source.namespace": self._namespace,
            "source.ip": self._block(self.asked.client),
            "remote.ip": self._block(self._remote()),
            "destination.ip": self._block(self.asked.place[0]),
            "destination.port": self._port,
            "connection.sni": lambda value, wide: text_matches(value.lower(), self.asked.sni.decode().lower()),
        }
        if header and (condition.values or condition.not_values):
            name = header[1].lower()
            return (not condition.values or self._header(name, condition.values, False)) and (
                not condition.not_values or self._header(name, condition.not_values, True)
            )
        test = tests.get(condition.key)
        if test is None or not (condition.values or condition.not_values):
            return not self.allows
        return self._both(condition.values, condition.not_values, test)

    def _both(self, values: Sequence[str], twin: Sequence[str], test: Test) -> bool:
        return (not values or self._holds(values, test, False)) and (not twin or self._holds(twin, test, True))

    def _holds(self, values: Sequence[str], test: Test, negated: bool) -> bool:
        wide = negated if self.allows else not negated
        hits = []
        for value in values:
            try:
                hits.append(test(value, wide))
            except Unreadable:
                hits.append(wide)
            except Undecided:
                return not self.allows
        if wide or test != self._path:
            return any(hits) is not negated
        # Each form of a path needs a value that matches, not all the same one.
        return all(any(self._one_path(value, form) for value in values) for form in self._forms()) is not negated

    def _remote(self) -> str:
        return self.asked.remote or self.asked.client

    def _id(self) -> re.Match[str] | None:
        """The peer's id; None if it has none."""
        if not self.identities:
            raise Undecided
        if not self.asked.peer:
            return None
        match = re.fullmatch(
            r"spiffe://(?P<all>[a-z.]+(?:/ns/(?P<ns>[a-z]+)/sa/(?P<sa>[a-z]+)|/other)?)", self.asked.peer
        )
        if match is None:
            raise Undecided
        return match

    def _principal(self, value: str, wide: bool) -> bool:
        peer = self._id()
        if not value.startswith("*"):
            value = re.sub(r"^spiffe://", "", value)
            value = re.sub(r"^cluster\.local(?=$|/|\*$)", OWN, value)
        return text_matches(value, peer["all"] if peer else "")

    def _namespace(self, value: str, wide: bool) -> bool:
        peer = self._id()
        return text_matches(value, (peer["ns"] or "") if peer else "")

    def _account(self, value: str, wide: bool) -> bool:
        peer = self._id()
        wanted = re.fullmatch(r"(?:([^/*]+)/)?([^/*]+)", value)
        if wanted is None:
            raise Unreadable
        return peer is not None and (peer["ns"], peer["sa"]) == (wanted[1] or self.policy.namespace, wanted[2])

    def _block(self, address: str) -> Test:
        def test(value: str, wide: bool) -> bool:
            try:
                seen = _ip(address)
            except ValueError:
                raise Undecided from None
            try:
                block = _network(value)
            except ValueError:
                raise Unreadable from None
            return seen in block or (getattr(seen, "ipv4_mapped", None) or seen) in block

        return test

    def _port(self, value: str, wide: bool) -> bool:
        if not self.asked.place[1]:
            raise Undecided
        if not value.isdigit() or not 0 < int(value) < 65536:
            raise Unreadable
        return int(value) == self.asked.place[1]

    def _method(self, value: str, wide: bool) -> bool:
        if not self.http:
            raise Undecided
        return text_matches(value, self.asked.method.decode())

    def _host(self, value: str, wide: bool) -> bool:
        if not self.http:
            raise Undecided
        seen = re.fullmatch(r"([a-z0-9.-]*|\[[0-9a-f:]+\])(?::([0-9]+))?", self.asked.authority.decode().lower())
        if seen is None:
            raise Undecided
        wanted = re.fullmatch(r"(\*?)([a-z0-9.-]*|\[[0-9a-f:]+\])(?::([0-9]+))?(:?\*)?", value.lower())
        if wanted is None or not value:
            raise Unreadable
        before, name, port, after = wanted.groups()
        if (before and after) or (value != "*" and not name and not (before and port)):
            raise Unreadable
        own_name, own_port = _plain(seen[1]), seen[2] or "80"
        if not own_name:
            return False
        if value == "*":
            return True
        if after and port:
            return f"{own_name}:{own_port}".startswith(f"{name}:{port}")
        if after == "*":
            return own_name.startswith(name)
        if port and port != own_port:
            return False
        return own_name.endswith(name.removesuffix(".")) if before else own_name == _plain(name)

    def _header(self, name: str, patterns: Sequence[str], negated: bool) -> bool:
        wide = negated if self.allows else not negated
        if not self.http:
            return not self.allows

        def one(value: bytes) -> bool:
            hits = []
            for pattern in patterns:
                try:
                    hits.append(pattern == "*" or text_matches(pattern, value.decode("latin-1")))
                except Unreadable:
                    hits.append(wide)
            return any(hits)

        names = (name, name.replace("-", "_")) if wide else (name,)
        seen = [found for key, found in self.asked.fields if key.decode().lower() in names]
        if not wide:
            return (bool(seen) and all(map(one, seen))) is not negated
        readings = [part for each in seen for part in (each, *each.split(b","))]
        readings += [re.sub(rb"^[^!-~]+|[^!-~]+$", b"", each) for each in readings]
        if not readings and "" in patterns:
            return not self.allows  # a pattern that can't be read may be one for what is absent
        return any(map(one, readings)) is not negated

    def _path(self, value: str, wide: bool) -> bool:
        return any(self._one_path(value, form, strict=True) for form in self._forms())

    def _forms(self) -> set[bytes] | frozenset[bytes]:
        if not self.http:
            raise Undecided
        sent = self.asked.path.partition(b"?")[0]
        if sent == b"*":
            return {sent}
        if not sent.startswith(b"/"):
            raise Undecided
        try:
            return judged(sent) | {forwarded(sent)}
        except ProxyError:
            raise Undecided from None

    def _one_path(self, value: str, form: bytes, strict: bool = False) -> bool:
        try:
            return _path_matches(value, form.decode())
        except Unreadable:
            if strict:
                raise
            return False


Test = Callable[[str, bool], bool]
_ip = functools.lru_cache(ipaddress.ip_address)
_network = functools.lru_cache(functools.partial(ipaddress.ip_network, strict=False))
HTTP = r"(not_)?(hosts|methods|paths)$|request\.headers\["
IDENTITY = r"(not_)?(principals|namespaces|service_accounts)$|source\.(principal|namespace)$"


def _plain(host: str) -> str:
    return str(ipaddress.ip_address(host[1:-1])) if host[:1] == "[" else host.removesuffix(".")


def _path_matches(pattern: str, path: str) -> bool:
    if "{*}" not in pattern and "{**}" not in pattern:
        return text_matches(pattern, path)
    if not re.fullmatch(r"(?:(?:^|/)(?:\{\*\}|[^/{}*]*))*(?:(?:^|/)\{\*\*\})?(?:/[^/{}*]*)*", pattern):
        raise Unreadable
    pieces = re.split(r"(\{\*\*?\})", pattern)
    whole = {"{*}": "[^/]+", "{**}": ".*"}
    return re.fullmatch("".join(whole.get(each) or re.escape(each) for each in pieces), path, re.DOTALL) is not None


def read(policies: Sequence[PolicySpec], asked: Asked, identities: bool = True) -> Judgement:
    """Return the verdict, by one look at each rule of each policy."""
    hits: list[tuple[str, bool, str, int]] = []
    for policy in policies:
        reading = Reading(policy, asked, identities)
        found = [index for index, rule in enumerate(policy.rules) if reading.matches(rule)]
        hits += [(policy.action, policy.dry_run, policy.title, index) for index in found]
    allowed, title, index = _verdict([each for each in policies if not each.dry_run], [h for h in hits if not h[1]])
    audited = next((hit[2] for hit in hits if hit[:2] == ("AUDIT", False)), "")
    if not any(policy.dry_run for policy in policies):
        return Judgement(allowed, title, index, audited)
    would, by, _ = _verdict(policies, hits)
    if not would and not by:
        by = next((each.title for each in policies if each.dry_run and each.action == "ALLOW"), "")
    return Judgement(allowed, title, index, audited, would, by)


def _verdict(policies: Sequence[PolicySpec], hits: list[tuple[str, bool, str, int]]) -> tuple[bool, str, int]:
    for action, _, title, index in hits:
        if action == "DENY":
            return False, title, index
    if not any(policy.action == "ALLOW" for policy in policies):
        return True, "", -1
    for action, _, title, index in hits:
        if action == "ALLOW":
            return True, title, index
    return False, "", -1


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
    "cluster.localhost/ns/a/sa/x",
]  # fmt: skip
NAMESPACES = ["a", "b", "a*", "*b", "*", "", "c"]
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
    parser = argparse.ArgumentParser(prog="python -m tests.support.rbac_reading", description=__doc__)
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
