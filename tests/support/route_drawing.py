"""VirtualServices and requests that are drawn at random, and the compiled form held against the reading of documents.

``python -m tests.support.route_drawing --count N --seed S`` asks more than the tests do.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from sidecar.policy.http_routes import VirtualHost
from sidecar.policy.route_question import RouteQuestion
from sidecar.policy.virtual_hosts import VirtualHosts, compile_virtual_hosts
from sidecar.resources.virtual_service import (
    HTTPMatchRequest,
    HTTPRoute,
    L4MatchAttributes,
    StringMatch,
    TCPRoute,
    TLSMatchAttributes,
    TLSRoute,
    VirtualServiceSpec,
)
from tests.support.route_reading import Answer, read_http, read_l4, tries

REQUESTS = 500  # of each set of matches that is drawn
VARIANTS = 5  # of documents that are made of it
NAMESPACE = "shop"
LABELS: list[dict[str, str]] = [{"app": "web", "version": "v1"}, {"app": "other"}]
T = TypeVar("T")

PATHS = ["/", "/a", "/a/", "/a/b", "/A", "/A/b", "/ab", "/b", "/a/b/c", "", "/a?x"]
PATH_REGEXES = [
    "/a.*", "/[ab]", "/a/(b|c)", ".*", "/", "(?i)/a", "/a|/b", ".*b", "/a?", "(/a)+", "/a/b.*", "(", "/ab?c?", "[^a]*",
]  # fmt: skip
VALUES = ["u", "v", "", "uv", "u,v", "u=v"]
VALUE_REGEXES = ["u|v", "u.*", ".*", "*", "*", ".", "(", ".+"]
METHODS = ["GET", "POST", "get", "G"]
HOST_VALUES = ["web", "WEB", "web:80", "a.test", "w"]


def texts(plain: list[str], regexes: list[str]) -> st.SearchStrategy[StringMatch]:
    """Mostly exact; seldom only that it is there."""
    exact = st.sampled_from(plain).map(lambda text: StringMatch(exact=text))
    prefix = st.sampled_from(plain).map(lambda text: StringMatch(prefix=text))
    regex = st.sampled_from(regexes).map(lambda text: StringMatch(regex=text))
    return st.sampled_from("eeeeepprr-").flatmap(
        lambda kind: {"e": exact, "p": prefix, "r": regex, "-": st.just(StringMatch())}[kind]
    )


VALUE_TEXTS = texts(VALUES, VALUE_REGEXES)
URIS = texts(PATHS, PATH_REGEXES)
NAMES = ["x-user", "X-User", "x-canary", "x-user", "x-canary", "host", ":authority", ":method", ":path", ":scheme"]
AUTHORITIES = texts(HOST_VALUES, ["web.*", "(?i)web"])
SCHEMES = texts(["http", "https", "HTTP"], ["https?", "h"])
VERBS = texts(METHODS, ["GET|POST", "."])
OF_PSEUDO = {"host": AUTHORITIES, ":authority": AUTHORITIES, ":method": VERBS, ":scheme": SCHEMES, ":path": URIS}
FIELDS = st.lists(
    st.sampled_from(NAMES).flatmap(lambda name: st.tuples(st.just(name), OF_PSEUDO.get(name, VALUE_TEXTS))),
    min_size=1,
    max_size=2,
).map(dict)
PORTS = st.sampled_from([80, 8080])
CALLER: dict[str, st.SearchStrategy[Any]] = {
    "source_labels": st.sampled_from(
        [{"app": "web"}, {"app": "web", "version": "v1"}, {"app": "other", "version": "v1"}, {"x": "y"}]
    ),
    "source_namespace": st.sampled_from([NAMESPACE, NAMESPACE, "b"]),
    "gateways": st.sampled_from([["mesh"], ["mesh", "gw"], ["gw"]]),
}
MATCH_FIELDS: dict[str, st.SearchStrategy[Any]] = CALLER | {
    "scheme": SCHEMES,
    "method": VERBS,
    "authority": AUTHORITIES,
    "headers": FIELDS,
    "without_headers": FIELDS,
    "query_params": st.dictionaries(st.sampled_from(["x", "y", "X"]), VALUE_TEXTS, min_size=1, max_size=2),
    "port": PORTS,
}
COMMON = ["headers"] * 10 + ["without_headers"] * 4 + ["query_params"] * 10


def some_of(kind: Callable[..., T], fields: Mapping[str, st.SearchStrategy[Any]], often: Sequence[str] = ()) -> Any:
    """A match with few conditions, so that it holds now and then, and one field decides."""
    return st.sets(st.sampled_from([*sorted(fields), *often]), max_size=2).flatmap(
        lambda chosen: st.builds(kind, **{name: fields[name] for name in sorted(chosen)})
    )


def with_uri(chosen: tuple[HTTPMatchRequest, StringMatch | None, bool]) -> HTTPMatchRequest:
    match, uri, ignore_case = chosen
    return msgspec.structs.replace(match, uri=uri, ignore_uri_case=ignore_case)


MATCHES = st.tuples(
    some_of(HTTPMatchRequest, MATCH_FIELDS, COMMON),
    st.one_of(URIS, URIS, st.none()),
    st.sampled_from([False, False, True]),
).map(with_uri)
SUBNETS = st.lists(st.sampled_from(["10.0.0.0/8", "10.1.0.1", "10.1.0.0/16", "fd00::/8", "::1"]), max_size=2)
L4_FIELDS: dict[str, st.SearchStrategy[Any]] = CALLER | {"port": PORTS, "destination_subnets": SUBNETS}
SNI_HOSTS = st.lists(st.sampled_from(["a.test", "*.test", "*.b.test", "A.b.test", "*", "web"]), min_size=1, max_size=2)
TLS_MATCHES = st.tuples(some_of(L4MatchAttributes, L4_FIELDS), SNI_HOSTS).map(
    lambda both: TLSMatchAttributes(
        both[1],
        both[0].destination_subnets,
        both[0].port,
        both[0].source_labels,
        both[0].gateways,
        both[0].source_namespace,
    )
)
PARTS = st.tuples(
    st.lists(MATCHES, min_size=3, max_size=14),
    st.lists(some_of(L4MatchAttributes, L4_FIELDS), max_size=3),
    st.lists(TLS_MATCHES, max_size=3),
)
Parts = tuple[list[HTTPMatchRequest], list[L4MatchAttributes], list[TLSMatchAttributes]]
HOSTS = ["web", "web", "web", "web", "*.test", "a.test", "*.b.test", "*", "a.b.test", "Web"]
FEWS = st.sampled_from([0, 0, 1, 8])

_TARGETS = [path.encode() for path in PATHS if path.startswith("/") and "?" not in path] + [b"/x", b"*", b"/a/b/c/d"]
_QUERIES = [b"", b"", b"?x=u", b"?x=v", b"?y=u"] + [
    b"?", b"?x=u", b"?x", b"?y=v&x=u", b"?x=v&x=u", b"?X=u", b"?x=%75", b"?=u", b"?&x=u&", b"?x=u=v", b"?xy=u", b"?x==",
]  # fmt: skip
_FIELD_NAMES = [b"x-user", b"X-USER", b"x-canary", b"X-Canary", b"other", b"x_user"]
_FIELD_VALUES = [value.encode() for value in VALUES]
_HOSTS = ["web", "web", "web", "web", "a.test", "b.test", "a.b.test", "other", ".test"]
_ADDRESSES = ["10.0.0.1", "10.1.0.1", "192.168.0.1", "fd00::1", "::1"]
_SNI = ["a.test", "A.TEST", "b.test", "a.b.test", "x.y.b.test", "web", "test", ".test", ""]


def request(chance: random.Random) -> RouteQuestion:
    """A request out of a small world, in which matches happen."""
    pick = chance.choice
    return RouteQuestion(
        pick([b"GET", b"GET", b"POST", b"get"]),
        pick(_TARGETS) + pick(_QUERIES),
        pick([b"web", b"WEB", b"web:80", b"a.test"]),
        [(pick(_FIELD_NAMES), pick(_FIELD_VALUES)) for _ in range(chance.randrange(5))],
        pick([80, 80, 8080]),
        pick([b"http", b"https"]),
    )


def finished(steps: Generator[None, None, T]) -> T:
    """Run a generator to its end, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found


def compiled(
    specs: Sequence[VirtualServiceSpec],
    namespace: str = NAMESPACE,
    labels: Sequence[Mapping[str, str]] = LABELS,
    few: int = 8,
) -> VirtualHosts:
    """Compile in one go."""
    return finished(compile_virtual_hosts(specs, namespace, labels, few=few))


def answer(host: VirtualHost | None, asked: RouteQuestion) -> tuple[str | None, Answer | None]:
    """What the compiled form says, in the words of the reading."""
    if host is None:
        return None, None
    found = host.first(asked)
    if found is None:
        return host.title, None
    rule, match = found
    place = next((place for place, each in enumerate(rule.spec.match) if each is match), -1)
    return host.title, Answer(host.title, rule.number, place)


def documents(parts: Parts, chance: random.Random) -> list[VirtualServiceSpec]:
    """One to three VirtualServices made of what was drawn."""
    matches, l4_matches, tls_matches = parts

    def some(found: list[T], least: int, most: int) -> list[T]:
        return chance.choices(found, k=chance.randint(least, most)) if found else []

    return [
        VirtualServiceSpec(
            name,
            chance.choice("ab"),
            some(HOSTS, 1, 2),
            [HTTPRoute(match=some(matches, 1, 3)) for _ in range(chance.randrange(10))]
            + [HTTPRoute()] * (chance.random() < 0.3),
            [TCPRoute(match=some(l4_matches, 0, 2)) for _ in range(chance.randrange(3))],
            [TLSRoute(match=some(tls_matches, 1, 2), route=[]) for _ in range(chance.randrange(3))],
        )
        for name in ("one", "two", "three")[: chance.choice([1, 1, 2, 3])]
    ]


def hold_against_reading(parts: Parts, seed: int, few: int) -> int:
    """Ask both; AssertionError where they differ, or where the explanation does. Return how many found a rule."""
    chance = random.Random(seed)
    decided = 0
    for _ in range(VARIANTS):
        specs = documents(parts, chance)
        hosts = compiled(specs, few=few)
        for number in range(REQUESTS // VARIANTS):
            host, asked = chance.choice(_HOSTS), request(chance)
            expected = read_http(specs, host, asked, NAMESPACE, LABELS)
            virtual_host = hosts.find(host.encode(), asked.port)
            found = answer(virtual_host, asked)
            assert found == expected, f"{found} instead of {expected} for {asked} to {host} under {specs}"
            decided += found[1] is not None
            if not number % 4:
                _check_connection(specs, hosts, host, chance)
                if virtual_host is not None:
                    _check_explanation(virtual_host, asked)
    return decided


def _check_explanation(host: VirtualHost, asked: RouteQuestion) -> None:
    steps = [(step.rule, step.match, step.field) for step in host.tried(asked)]
    expected = list(tries(host.spec, asked, NAMESPACE, LABELS))
    assert steps == expected, f"{steps} instead of {expected} for {asked} under {host.spec}"
    assert (host.first(asked) is not None) is bool(steps and not steps[-1][2])


def _check_connection(specs: list[VirtualServiceSpec], hosts: VirtualHosts, host: str, chance: random.Random) -> None:
    sni, address, port = chance.choice(_SNI), chance.choice(_ADDRESSES), chance.choice([80, 8080])
    for name in (None, sni):
        title, expected = read_l4(specs, host, name, address, port, NAMESPACE, LABELS)
        if name is None:
            found = hosts.find_tcp(host.encode(), port)
            rule = None if found is None else found.first_tcp(address, port)
        else:
            found = hosts.find_tls(host.encode(), port)
            rule = None if found is None else found.first_tls(name.encode(), address, port)
        seen = (None if found is None else found.title, None if rule is None else rule.number)
        wanted = (title, None if expected is None else expected.rule)
        assert seen == wanted, f"{seen} instead of {wanted} for {name} {address} {port} to {host} under {specs}"


def main() -> int:
    """The command; a difference is an AssertionError with the documents and the request."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.route_drawing", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    totals = [0, 0]

    @seeded(seed)
    @settings(
        max_examples=max(1, options.count // REQUESTS),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(PARTS, st.integers(0, 1 << 32), FEWS)
    def run(parts: Parts, requests: int, few: int) -> None:
        totals[1] += hold_against_reading(parts, requests, few)
        totals[0] += REQUESTS

    run()
    print(f"{totals[0]} requests in {time.monotonic() - began:.0f} s: {totals[1]} found their rule")
    return 0


if __name__ == "__main__":
    sys.exit(main())
