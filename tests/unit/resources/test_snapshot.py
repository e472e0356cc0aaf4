"""A request finds its service by name or address, a port its mode, and ten thousand services cost what ten do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import pytest

from sidecar.resources.dump import dump
from sidecar.resources.protocols import protocol_of
from sidecar.resources.snapshot import NOTHING, Endpoint, Mode, Node, Version, effective, sni
from sidecar.resources.sni import Sni, parse_sni
from tests.unit.resources.written import SHOP, snapshot

if TYPE_CHECKING:
    from _typeshed import TraceFunction

STRICT, PERMISSIVE, DISABLE = Mode


@pytest.mark.parametrize(
    "host",
    [
        b"billing", b"billing.shop", b"billing.shop.svc", b"billing.shop.svc.cluster.local", "billing.shop",
        b"billing.shop.svc.cluster.local.", b"Billing.SHOP", b"10.96.0.7", b"2001:db8::7", b"2001:db8:0::0007",
        b"::ffff:10.96.0.7",
    ],
)  # fmt: skip
def test_a_service_is_found_by_each_of_its_names(host: bytes | str) -> None:
    found = snapshot().by_authority(host, 80)
    assert found is not None
    assert (str(found), found.name, found.protocol) == ("billing.shop.svc.cluster.local:80", "http-api", "http")


@pytest.mark.parametrize(
    "host",
    [
        b"", b".", b"billing..", b".billing.shop", b"billing.shop.svc.other", b"billing.svc", b"web",
        b"billing.shop.cluster.local", b"billin\xc7", "billin\u212a", b"10.96.0.8", b"[2001:db8::7]", b"10.96.0.07",
    ],
)  # fmt: skip
def test_no_other_name_is_one(host: bytes | str) -> None:
    assert snapshot().by_authority(host, 80) is None


def test_the_bare_name_is_for_callers_of_the_same_namespace() -> None:
    for namespace, found in (("shop", True), ("default", False)):
        seen = snapshot(me=Node(namespace=namespace))
        assert (seen.by_name(b"billing") is not None) is found
        assert (seen.by_name(b"web") is not None) is not found
        assert seen.by_name(b"billing.shop") is not None


def test_a_known_name_has_only_the_ports_that_it_was_given() -> None:
    assert snapshot().by_authority(b"billing", 8080) is None
    assert snapshot().by_name(b"billing") is not None


def test_an_address_is_a_virtual_one_or_a_captured_endpoint_at_its_own_port() -> None:
    at = snapshot()
    billing = at.services["shop", "billing"].ports
    assert at.by_address("10.96.0.7", 80) is billing[80]
    assert at.by_address("2001:db8::7", 5432) is billing[5432]
    assert at.by_address("10.0.0.7", 8080) is billing[80]
    assert at.by_address("10.0.0.7", 5432) is billing[5432]
    assert at.by_address("10.0.0.8", 9090) is billing[80]
    for address, port in (("10.0.0.7", 80), ("10.0.0.8", 8080), ("127.0.0.1", 15006), ("10.96.0.7", 8080)):
        assert at.by_address(address, port) is None


def test_endpoints_have_ports_of_their_own() -> None:
    ports = snapshot().services["shop", "billing"].ports
    assert ports[80].endpoints == (
        Endpoint("10.0.0.7", 8080, "captured", (("app", "billing"), ("version", "v2"))),
        Endpoint("10.0.0.8", 9090),
        Endpoint("127.0.0.1", 15006, "direct"),
    )
    assert [each.port for each in ports[5432].endpoints] == [5432, 5432, 15006]


def test_who_may_serve_is_what_the_service_says() -> None:
    (found,) = {port.identities for port in snapshot().services["shop", "billing"].ports.values()}
    assert sorted(map(str, found)) == [
        "spiffe://cluster.local/ns/shop/sa/batch",
        "spiffe://cluster.local/ns/shop/sa/billing",
        "spiffe://other.example/ns/shop/sa/billing",
    ]


def test_the_apps_own_service() -> None:
    assert snapshot().own is None  # web is in namespace default
    own = snapshot(me=Node(namespace="default", service="web")).own
    assert own is not None and own.name == "web"
    assert NOTHING.own is None


@pytest.mark.parametrize(
    ("told", "document", "mode"),
    [
        (None, None, STRICT),
        (None, STRICT, STRICT), (None, PERMISSIVE, PERMISSIVE), (None, DISABLE, DISABLE),
        (STRICT, None, STRICT), (PERMISSIVE, None, PERMISSIVE), (DISABLE, None, DISABLE),
        (STRICT, STRICT, STRICT), (STRICT, PERMISSIVE, STRICT), (STRICT, DISABLE, STRICT),
        (PERMISSIVE, STRICT, STRICT), (PERMISSIVE, DISABLE, PERMISSIVE),
        (DISABLE, STRICT, STRICT), (DISABLE, PERMISSIVE, PERMISSIVE), (DISABLE, DISABLE, DISABLE),
    ],
)  # fmt: skip
def test_a_document_tightens_what_the_command_line_says_and_never_loosens_it(
    told: Mode | None, document: Mode | None, mode: Mode
) -> None:
    assert effective(told, document) is mode


def test_modes_per_port() -> None:
    def modes(mtls: Mode | None) -> list[Mode]:
        at = snapshot(me=Node(namespace="shop", mtls=mtls))
        return [at.mode_for(port) for port in (1, 9090, 9091)]

    assert modes(None) == [PERMISSIVE, DISABLE, PERMISSIVE]
    assert modes(STRICT) == [STRICT, STRICT, STRICT]
    assert modes(PERMISSIVE) == [PERMISSIVE, PERMISSIVE, PERMISSIVE]
    assert [snapshot("services: []").mode_for(1), NOTHING.mode_for(1)] == [STRICT, STRICT]


def test_the_server_name_says_port_subset_and_service_and_is_read_back() -> None:
    port = snapshot().services["shop", "billing"].ports[80]
    assert port.sni == b"outbound_.80_._.billing.shop.svc.cluster.local"
    assert sni(port, "v2") == b"outbound_.80_.v2_.billing.shop.svc.cluster.local"
    assert parse_sni(port.sni) == Sni(80, "", "billing", "shop", "cluster.local")
    assert parse_sni(sni(port, "v2")) == Sni(80, "v2", "billing", "shop", "cluster.local")


@pytest.mark.parametrize(
    "name",
    [
        b"", b"billing.shop.svc.cluster.local", b"outbound_.0_._.a.b.svc.c", b"outbound_.080_._.a.b.svc.c",
        b"outbound_.65536_._.a.b.svc.c", b"outbound_.80_._.A.b.svc.c", b"outbound_.80_._.a.b.svc.C",
        b"outbound_.80_._.a.b.svc.", b"outbound_.80_._.a.b.svc", b"outbound_.80_._.a.b.c.svc.d",
        b"outbound_.80_._.-a.b.svc.c", b"outbound_.80_.v.2_.a.b.svc.c", b"outbound_.80_._.a.b.svc.c\n",
        b"outbound_.80._.a.b.svc.c", b"outbound_.80_._..b.svc.c", b" outbound_.80_._.a.b.svc.c",
        b"inbound_.80_._.a.b.svc.c", b"outbound_.80_._.a.b.svc.\xc3\xa9", b"outbound_.80_._.a.b.svc." + b"c" * 256,
        b"outbound_.\xd9\xa18_._.a.b.svc.c",
    ],
)  # fmt: skip
def test_what_is_not_such_a_name_to_the_letter_is_none(name: bytes) -> None:
    assert parse_sni(name) is None


@pytest.mark.parametrize(
    ("port", "name", "app_protocol", "protocol"),
    [
        (80, "", "", "auto"), (80, "http", "", "http"), (80, "http-web", "", "http"), (80, "httpx", "", "auto"),
        (80, "web-http", "", "auto"), (80, "tcp-http", "", "tcp"), (80, "tcp-x", "http", "http"),
        (80, "grpc-web-x", "", "http2"), (443, "https-x", "", "tcp"), (80, "mysql", "", "tcp"),
        (5432, "", "", "tcp"), (5432, "http", "", "http"), (6379, "x", "", "tcp"), (80, "http2", "", "http2"),
    ],
)  # fmt: skip
def test_what_a_port_speaks(port: int, name: str, app_protocol: str, protocol: str) -> None:
    assert protocol_of(port, name, app_protocol) == protocol


def test_it_can_be_shown() -> None:
    shown = dump(snapshot(me=Node(namespace="shop", mtls=STRICT)))
    assert (shown["source"], shown["version"], shown["schema"]) == ("file", "0.1", "1.4")
    assert shown["mtls"] == {"mode": "STRICT", "portLevelMtls": {"9090": "STRICT", "9091": "STRICT"}}
    services = shown["services"]
    assert isinstance(services, list)
    assert [each["name"] for each in services] == ["web", "billing"]
    assert services[1]["ports"][0]["endpoints"][2] == {
        "address": "127.0.0.1", "port": 15006, "mode": "direct", "labels": {},
    }  # fmt: skip


def test_versions_have_an_order() -> None:
    assert Version(0, 9) < Version(0, 10) < Version(1, 1)
    assert str(Version(3, 4)) == "3.4"


@contextmanager
def _counted() -> Iterator[list[int]]:
    """Counts the lines and calls that run within."""
    steps = [0]

    def trace(frame: FrameType, event: str, arg: object) -> TraceFunction:
        steps[0] += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield steps
    finally:
        sys.settrace(before)


def test_ten_thousand_services_cost_a_look_up_what_ten_do() -> None:
    def steps(count: int) -> int:
        text = "services:\n" + "".join(
            f"- {{name: s{i}, serviceAccounts: [a], ports: [{{port: 80}}], "
            f"endpoints: [{{address: 10.0.{i >> 8}.{i & 255}}}]}}\n"
            for i in range(count)
        )
        at = snapshot(text)
        last = count - 1
        with _counted() as seen:
            found = at.by_authority(f"s{last}.default".encode(), 80)
            again = at.by_address(f"10.0.{last >> 8}.{last & 255}", 80)
            at.by_authority(b"nobody.default", 80)
            at.mode_for(80)
        assert found is again is not None
        return seen[0]

    assert steps(10_000) == steps(10)


def test_the_written_example_is_whole() -> None:
    assert "direct" in SHOP and len(snapshot().services) == 2
