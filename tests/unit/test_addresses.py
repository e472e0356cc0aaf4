"""Addresses: their text, both ways, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.addresses import Address, parse_host_port, parse_ip, parse_port


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("[::1]:8080", "::1", 8080),
        ("app:80", "app", 80),
        ("app.shop.svc.cluster.local.:65535", "app.shop.svc.cluster.local.", 65535),
        ("my_app-2:1", "my_app-2", 1),
    ],
)
def test_host_and_port_both_ways(text: str, host: str, port: int) -> None:
    found = parse_host_port(text)
    assert (found.host, found.port) == (host, port)
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    ["", "8080", ":8080", "app", "app:", "app:0", "app:65536", "app:99999", "app:-1", "app:+1", "app:8_0", "app:٨"]
    + ["::1:8080", "[::1]", "[::1]8080", "[127.0.0.1]:80", "[app]:80", "[]:80", "a b:80", "app/x:80", "http://app:80"]
    + ["-app:80", "app-:80", "app\n:80", "app:80\n", "user@app:80", "äpp:80", "a" * 300 + ":80"],
)
def test_what_is_no_host_and_port(text: str) -> None:
    with pytest.raises(ValueError):
        parse_host_port(text)


def test_port_0_only_where_it_is_asked_for() -> None:
    assert parse_host_port("127.0.0.1:0", lowest_port=0).port == 0
    with pytest.raises(ValueError, match="is not a port from 1 to 65535"):
        parse_port("0")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("::ffff:127.0.0.1", "127.0.0.1"), ("0:0::1", "::1"), ("fe80::1%eth0", "None")]
    + [("app", "None"), ("127.1", "None"), ("0x7f.0.0.1", "None"), ("010.0.0.1", "None"), ("[::1]", "None")],
)
def test_ip_literals(text: str, shown: str) -> None:
    assert str(parse_ip(text)) == shown
    assert str(Address(text, 1).ip) == shown


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_ip_address_comes_back(ip, port: int) -> None:
    assert parse_host_port(str(Address(str(ip), port))) == Address(str(ip), port)


@given(st.text())
def test_any_other_text_is_a_value_error(text: str) -> None:
    try:
        found = parse_host_port(text)
    except ValueError:
        return
    assert parse_host_port(str(found)) == found
