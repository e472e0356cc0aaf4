"""What a port of the app takes: by its services' documents, by the command line, and as it is logged."""

from __future__ import annotations

import pytest

from sidecar.resources.app_ports import port_lines
from sidecar.resources.protocols import Protocol, of_one_port, protocol_in_force, strictest
from sidecar.resources.snapshot import UNDECLARED, Declared, Node, Snapshot
from tests.unit.resources.written import snapshot

ME = Node("shop", "web")


@pytest.mark.parametrize(
    ("told", "declared", "expected"),
    [
        ("auto", None, "auto"), ("auto", "auto", "auto"), ("auto", "tcp", "tcp"), ("auto", "http2", "http2"),
        ("tcp", None, "tcp"), ("tcp", "auto", "tcp"), ("tcp", "http", "http"), ("tcp", "http2", "http2"),
        ("http", "tcp", "http"), ("http", "http2", "http"), ("http2", "tcp", "http2"), ("http2", "http", "http"),
    ],
)  # fmt: skip
def test_the_stricter_of_both_counts(told: Protocol, declared: Protocol | None, expected: Protocol) -> None:
    assert protocol_in_force(told, declared) == expected


def test_the_strictest_takes_the_least() -> None:
    groups: list[list[Protocol]] = [[], ["tcp", "http2"], ["tcp", "auto"], ["http2", "auto", "http"]]
    assert [strictest(each) for each in groups] == ["auto", "http2", "auto", "http"]


def _web(ports: str, endpoint: str = "{address: 10.0.0.1}") -> Snapshot:
    of_web = f"name: web, namespace: shop, serviceAccounts: [web], ports: [{ports}], endpoints: [{endpoint}]"
    return snapshot(f"services: [{{{of_web}}}]\n", me=ME)


def test_each_port_of_the_app_is_what_its_service_declares() -> None:
    found = _web("{port: 80, name: http, targetPort: 8080}, {port: 90, name: grpc}, {port: 91, name: x}")
    said = [found.declared("10.0.0.1", port) for port in (8080, 90, 91, 92)]
    assert said == [Declared("http"), Declared("http2"), Declared("auto"), UNDECLARED]
    assert found.declared("10.0.0.9", 8080) == Declared("http")  # no endpoint yet, or an address of another family


@pytest.mark.parametrize(
    ("protocols", "expected"),
    [
        ([], "auto"), (["tcp"], "tcp"), (["http"], "http"), (["http", "tcp"], "auto"), (["auto", "tcp"], "auto"),
        (["http", "auto"], "http"), (["http", "http2"], "http"), (["http2", "tcp"], "http2"),
        (["http", "http2", "tcp"], "auto"),
    ],
)  # fmt: skip
def test_what_a_port_takes_that_is_several_ports_to_its_callers(protocols: list[Protocol], expected: Protocol) -> None:
    assert of_one_port(protocols) == expected


def test_where_two_ports_lead_to_one_http_is_served_and_opaque_bytes_are_taken() -> None:
    ports = "{port: 80, name: http, targetPort: 8080}, {port: 81, name: tcp-x, targetPort: 8080}"
    mixed = Declared("auto", mixed=True)
    assert _web(ports).declared("10.0.0.1", 8080) == _web(ports).declared("10.0.0.9", 8080) == mixed
    (line,) = port_lines(_web(ports), "auto", captured=True)
    assert line.startswith("inbound: ports 80 (http), 81 (tcp) of service web.shop (they lead to one port of the app")


def test_a_direct_endpoint_has_one_app_behind_all_of_its_services_ports() -> None:
    ports = "{port: 80, name: x}, {port: 81, name: tcp-x}"
    found = _web(ports, "{address: 10.0.0.1, port: 15006, mode: direct}")
    assert found.declared("10.0.0.1", 15006, direct=True) == Declared("auto", mixed=True)
    assert found.declared("127.0.0.1", 16006, direct=True) == Declared("auto", mixed=True)  # at another address
    assert len(port_lines(found, "auto", captured=False)) == 1


def test_the_log_says_what_the_field_means_on_each_port() -> None:
    lines = port_lines(
        _web("{port: 80, name: http}, {port: 90, name: grpc}, {port: 91, name: tcp-x}"), "auto", captured=True
    )
    assert [line.split(": ")[2] for line in lines] == ["http", "http2", "tcp"]
    assert all("x-forwarded-client-cert" in line for line in lines)
    assert "means nothing" in lines[1] and "not served yet" in lines[1] and "means nothing" in lines[2]
    assert port_lines(Snapshot(), "auto", captured=True) == []
