"""Which VirtualService counts for a host and port, and its routes for connections."""

from __future__ import annotations

import functools
from typing import Any

import msgspec
import pytest

from sidecar.policy.virtual_hosts import EMPTY, Shadowed, VirtualHosts, compile_virtual_hosts
from sidecar.resources.virtual_service import VirtualServiceSpec
from tests.support.operations import lines_of, longest_step
from tests.support.route_drawing import LABELS, NAMESPACE, compiled, finished

ANY_HTTP: list[dict[str, Any]] = [{}]


def spec(name: str, *hosts: str, **routes: Any) -> VirtualServiceSpec:
    written = {"name": name, "namespace": "shop", "hosts": list(hosts), **(routes or {"http": ANY_HTTP})}
    return msgspec.convert(written, VirtualServiceSpec)


def title(hosts: VirtualHosts, host: str, port: int = 80) -> str:
    found = hosts.find(host.encode(), port)
    return "" if found is None else found.title.removeprefix("shop/")


def test_the_most_specific_host_counts() -> None:
    hosts = compiled(
        [
            spec("all", "*"),
            spec("test", "*.Test"),
            spec("web", "Web.shop.test", "10.0.0.1", "fd00::1"),
            spec("shop", "*.shop.test"),
        ]
    )
    assert title(hosts, "web.shop.test") == "web"
    assert title(hosts, "10.0.0.1") == "web"
    assert title(hosts, "fd00::1") == "web"
    assert title(hosts, "cart.shop.test") == "shop"
    assert title(hosts, "a.cart.shop.test") == "shop"
    assert title(hosts, "shop.test") == "test"
    assert title(hosts, "test") == "all"
    assert title(hosts, ".test") == "all"
    assert title(hosts, "other") == "all"
    assert title(compiled([spec("test", "*.test")]), "other") == ""
    assert EMPTY.find(b"web", 80) is None


def test_of_two_for_one_host_the_first_counts() -> None:
    hosts = compiled([spec("old", "web", "a"), spec("new", "b", "web"), spec("newest", "web", "b")])
    assert [title(hosts, host) for host in ("web", "a", "b")] == ["old", "old", "new"]
    assert hosts.shadowed == [
        Shadowed("web", "shop/new", "shop/old"),
        Shadowed("web", "shop/newest", "shop/old"),
        Shadowed("b", "shop/newest", "shop/new"),
    ]
    assert [each.title for each in hosts.all] == ["shop/old", "shop/new", "shop/newest"]


def test_one_that_can_not_match_is_passed_over() -> None:
    hosts = compiled(
        [
            spec("other-caller", "web", http=[{"match": [{"sourceNamespace": "else"}]}]),
            spec("edge", "web", http=[{"match": [{"gateways": ["edge"]}]}]),
            spec("port-80", "web", http=[{"match": [{"port": 80}]}]),
            spec("bytes", "web", tcp=[{}]),
            spec("every-port", "*", http=ANY_HTTP),
        ]
    )
    assert title(hosts, "web", 80) == "port-80"
    assert title(hosts, "web", 8080) == "every-port"


def test_one_for_http_leaves_connections_to_another() -> None:
    hosts = compiled(
        [
            spec("http", "web"),
            spec("tcp", "web", tcp=[{"match": [{"port": 90}]}]),
            spec("tls", "web", "*.test", tls=[{"match": [{"sniHosts": ["web"]}]}]),
        ]
    )
    tcp, tls = hosts.find_tcp(b"web", 90), hosts.find_tls(b"web", 90)
    assert tcp is not None and tcp.title == "shop/tcp"
    assert tls is not None and tls.title == "shop/tls"
    assert hosts.find_tcp(b"web", 91) is None
    assert hosts.find_tls(b"other", 90) is None
    assert hosts.shadowed == []


def destinations(*names: str, weights: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    return [
        {"destination": {"host": name}, **({"weight": weights[number]} if weights else {})}
        for number, name in enumerate(names)
    ]


def tcp(*matches: dict[str, Any] | None) -> Any:
    written = [{"match": [match] if match is not None else [], "route": destinations("db")} for match in matches]
    host = compiled([spec("db", "db", tcp=written)]).all[0]

    def number(address: str, port: int) -> int:
        rule = host.first_tcp(address, port)
        return -1 if rule is None else rule.number

    return number


def test_a_tcp_route() -> None:
    number = tcp(
        {"port": 90, "destinationSubnets": ["10.1.0.0/16"]},
        {"destinationSubnets": ["10.0.0.0/8", "fd00::/8", "192.168.1.1"]},
        {"port": 90, "gateways": ["edge"]},
        {"port": 90, "sourceLabels": {"app": "else"}},
        {"port": 90, "sourceNamespace": "else"},
        {"port": 90, "gateways": ["mesh"], "sourceLabels": {"app": "else"}},
        {"port": 91, "gateways": ["mesh"], "sourceLabels": {"app": "web"}, "sourceNamespace": NAMESPACE},
        {"port": 92},
    )
    assert number("10.1.2.3", 90) == 0
    assert number("10.1.2.3", 91) == 1
    assert number("::ffff:10.2.0.1", 90) == 1
    assert number("fd00::1", 90) == 1
    assert number("192.168.1.1", 1) == 1
    assert number("192.168.1.2", 90) == -1
    assert number("192.168.1.2", 91) == 6
    assert number("192.168.1.2", 92) == 7
    assert number("nonsense", 90) == -1
    assert tcp(None)("nonsense", 1) == 0
    assert tcp({"port": 5}, None)("::1", 6) == 1


def test_a_connection_goes_to_a_destination_by_weight() -> None:
    route = {"route": destinations("old", "new", weights=(90, 10))}
    rule = compiled([spec("db", "db", tcp=[route])]).all[0].first_tcp("10.0.0.1", 90)
    assert rule is not None
    assert [each.destination.host for each in rule.destinations] == ["old", "new"]
    assert [rule.split.choose(number) for number in (0.0, 0.89, 0.9)] == [0, 0, 1]


@pytest.mark.parametrize(
    ("sni", "port", "expected"),
    [
        (b"a.test", 443, 0),
        (b"A.TEST", 443, 0),
        (b"a.test", 444, 2),
        (b"x.b.test", 443, 1),
        (b"x.y.b.test", 443, 1),
        (b"b.test", 443, 2),
        (b"c.test", 443, 2),
        (b"test", 443, -1),
        (b"", 443, -1),
        (b"", 90, 3),
        (b"other", 90, 3),
    ],
)
def test_a_tls_route(sni: bytes, port: int, expected: int) -> None:
    written = [
        {"match": [{"sniHosts": ["a.test", "z.test"], "port": 443}]},
        {"match": [{"sniHosts": ["none"]}, {"sniHosts": ["*.b.test"]}]},
        {"match": [{"sniHosts": ["*.test"]}]},
        {"match": [{"sniHosts": ["*"], "port": 90}, {"sniHosts": ["test"], "gateways": ["edge"]}]},
    ]
    rule = compiled([spec("tls", "*", tls=written)]).all[0].first_tls(sni, "10.0.0.1", port)
    assert (-1 if rule is None else rule.number) == expected


def test_ten_thousand_hosts_cost_what_ten_do() -> None:
    costs = []
    for count in (10, 10_000):
        hosts = compiled([spec(f"v{n}", f"h{n}.shop", f"*.w{n}.shop") for n in range(count)])
        costs += [lines_of(functools.partial(hosts.find, name, 80)) for name in (b"h7.shop", b"a.w7.shop")]
    assert costs[:2] == costs[2:]


def test_ten_thousand_server_names_cost_what_ten_do() -> None:
    costs = []
    for count in (10, 10_000):
        written = [{"match": [{"sniHosts": [f"h{n}.test", f"*.w{n}.test"]}]} for n in range(count)]
        host = compiled([spec("tls", "*", tls=written)]).all[0]
        costs += [
            lines_of(functools.partial(host.first_tls, name, "10.0.0.1", 443)) for name in (b"h7.test", b"a.w7.test")
        ]
    assert costs[:2] == costs[2:]


def test_compiling_many_hosts_is_cut_into_short_steps() -> None:
    routes = [{"match": [{"uri": {"prefix": f"/p{n}/"}}]} for n in range(10)]
    specs = [spec(f"v{n}", f"h{n}.shop", http=routes) for n in range(300)]
    assert longest_step(compile_virtual_hosts(specs, NAMESPACE, LABELS)) < 3_000
    ports = [{"match": [{"port": 1 + n, "destinationSubnets": ["10.0.0.0/8"]}]} for n in range(2_000)]
    names = [{"match": [{"sniHosts": [f"h{n}.test"]}]} for n in range(2_000)]
    assert longest_step(compile_virtual_hosts([spec("l4", "*", tcp=ports, tls=names)], NAMESPACE, LABELS)) < 3_000
    assert len(finished(compile_virtual_hosts(specs, NAMESPACE, LABELS)).all) == 300
