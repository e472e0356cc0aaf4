"""CONNECT to a port of a service: what the port is declared to speak decides, and its first bytes only otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.member import PORTS, WEB, Shop
from tests.support.raw import Client
from tests.support.upstream import ok, send, wait_until

_GET = b"GET /script/plain HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop(scripts={"plain": (send(ok()),)}, strict=False) as running:
        yield running


def _through(shop: Shop, name: str, data: bytes) -> bytes:
    """What comes back through a tunnel to this port."""
    authority = f"{WEB}:{PORTS[name]}".encode()
    with Client(shop.caller.outbound) as client:
        client.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority))
        client.replies((b"CONNECT",), 1)
        client.heard.raw.clear()
        client.send(data)
        if data is _GET:  # a client that finishes before its answer has come counts as gone
            client.read_until(lambda raw: b"\r\n\r\n" in raw)
        client.finish()
        return bytes(client.read_to_end().raw)


@pytest.fixture(scope="module")
def opaque_shop() -> Iterator[Shop]:
    """Web's own port is declared tcp as well."""
    with Shop(scripts={"plain": (send(ok()),)}, strict=False, protocol="tcp") as running:
        yield running


@pytest.mark.parametrize("name", ["http", "auto", "tcp"])
def test_http_through_a_tunnel(shop: Shop, name: str) -> None:
    """Also to the port that its caller has for tcp: all three lead to one app, where HTTP is detected and served."""
    _check_http_through_a_tunnel(shop, name, "HTTP/1.1")


def test_http_through_a_tunnel_to_a_tcp_port(opaque_shop: Shop) -> None:
    _check_http_through_a_tunnel(opaque_shop, "tcp", "TCP")


def _check_http_through_a_tunnel(shop: Shop, name: str, protocol: str) -> None:
    before = len(shop.web.log_records())

    def served() -> list[str]:
        return [each["protocol"] for each in shop.web.log_records()[before:] if each["bytes_sent"]]

    assert _through(shop, name, _GET).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: served() == [protocol], f"{name}: {protocol}")
    assert all(
        each["downstream_peer_uri_san"] == shop.papers["caller"].spiffe_id for each in shop.web.log_records()[before:]
    )


@pytest.mark.parametrize(("name", "taken"), [("http", False), ("auto", True), ("tcp", True)])
def test_other_bytes_through_a_tunnel(shop: Shop, name: str, taken: bool) -> None:
    seen = shop.seen()
    answer = _through(shop, name, b"\0opaque bytes\r\n\r\n")
    if taken:
        wait_until(lambda: shop.seen() == seen + len(b"\0opaque bytes\r\n\r\n"), "they are in the app")
    else:
        assert answer.startswith(b"HTTP/1.1 400 ") and shop.seen() == seen


@pytest.mark.parametrize("gone", [False, True], ids=["served by others", "gone"])
def test_a_tunnel_does_not_outlive_what_its_service_was(gone: bool) -> None:
    get = b"GET /script/plain HTTP/1.1\r\nHost: web\r\n\r\n"
    authority = f"{WEB}:{PORTS['http']}".encode()
    with Shop(scripts={"plain": (send(ok()),)}, strict=False) as shop, Client(shop.caller.outbound) as client:
        client.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority))
        client.replies((b"CONNECT",), 1)

        def status() -> int:
            client.heard.raw.clear()
            client.send(get)
            return client.replies((b"GET",), 1)[0].status

        assert status() == 200
        mesh = shop.directory / "caller.yaml"
        text = mesh.read_text()
        mesh.write_text("services: []\n" if gone else text.replace("[web]", "[other]"))
        wait_until(lambda: any("version 0.2" in line for line in shop.caller.errors), "the caller knows of it")
        wait_until(lambda: status() == 503, "requests go to nobody else")
