"""Reasons that only a mesh has, each as it comes about: the reply, where there is one, and the record."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.support.member import Shop
from tests.support.ports import held_port
from tests.support.raw import Client
from tests.support.upstream import wait_until

ASK = b"GET http://web.shop/ HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop() as shop:
        yield shop


def asked(shop: Shop) -> tuple[int, str, str]:
    """What the caller's app is told of a call of web: status, flag and reason; the log says the same."""
    with Client(shop.caller.outbound) as client:
        client.send(ASK)
        (reply,) = client.replies((b"GET",), 1)
    record = shop.caller.record_of(client.heard.port)
    told = json.loads(reply.body)
    assert (record["response_flags"], record["response_code_details"]) == (told["flag"], told["reason"])
    return reply.status, told["flag"], told["reason"]


def test_a_client_of_an_older_tls(shop: Shop) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", shop.web.inbound), timeout=30) as sock:
        port = sock.getsockname()[1]
        with pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(sock)
    record = shop.web.record_of(port)
    assert (record["response_code_details"], record["response_flags"]) == ("handshake_failed", "DPE")
    assert shop.seen() == 0


def test_a_client_that_says_nothing(shop: Shop) -> None:
    """As a port scan does; 10 s is the time that any handshake has."""
    with socket.create_connection(("127.0.0.1", shop.web.inbound), timeout=60) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(ConnectionResetError):
            assert sock.recv(1) == b"never"
    record = shop.web.record_of(port)
    assert (record["response_code_details"], record["response_flags"]) == ("handshake_timeout", "DPE")


def test_an_upstream_that_speaks_no_tls(shop: Shop) -> None:
    """It is silent, so that one handshake takes all the time that connections have: no retry follows, and no URX."""
    with Shop(endpoint=shop.app.port) as other:
        assert asked(other) == (503, "UF", "upstream_handshake")
    assert shop.seen() < 3000 and not any(each.requests for each in shop.app.connections), "no request in plaintext"


def test_a_service_without_an_endpoint() -> None:
    with held_port() as nobody, Shop(endpoint=nobody) as shop:
        path = shop.directory / "caller.yaml"
        text = path.read_text()
        path.write_text(text[: text.index("  endpoints:")] + "  endpoints: []\n")
        wait_until(
            lambda: '"endpoints": []' in shop.caller.admin_get("/config_dump")[1], "the file has been read again"
        )
        assert asked(shop) == (503, "UH", "no_endpoint")
