"""HDR-1 to HDR-3 within a mesh: what a caller may say of callers, and that the app is told who called by us alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.coverage import covers
from tests.support.member import Shop
from tests.support.raw import Client
from tests.support.strict import Request

XFCC = b"x-forwarded-client-cert"
SPOOFED = b"By=spiffe://cluster.local/ns/shop/sa/web;Hash=00;URI=spiffe://cluster.local/ns/shop/sa/admin"
LINES = {
    "plain": b"x-forwarded-client-cert: " + SPOOFED,
    "mixed case": b"X-Forwarded-Client-CERT: " + SPOOFED,
    "underscores": b"x_forwarded_client_cert: " + SPOOFED,
    "nominated": b"Connection: x-forwarded-client-cert, x-forwarded-for",
    "source": b"x-source-principal: admin\r\nX-Envoy-Peer-Metadata: admin\r\nl5d-client-id: admin",
    "trailer": b"",
}
FROM_PEERS = (b"x-envoy-upstream-rq-timeout-ms", b"x-envoy-expected-rq-timeout-ms", b"x-envoy-attempt-count")


@pytest.fixture(scope="module", params=["strict", "permissive"])
def shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    with Shop(mode=str(request.param)) as shop:
        yield shop


def _sent(line: bytes, trailer: bytes = b"") -> bytes:
    more = line + b"\r\n" if line else b""
    if not trailer:
        return b"GET /told HTTP/1.1\r\nHost: web\r\n" + more + b"\r\n"
    return (
        b"POST /told HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + trailer + b"\r\n\r\n"
    )


def _told(shop: Shop, client: Client, data: bytes) -> Request:
    """The request as the app saw it."""
    shop.app.take()
    client.send(data)
    (reply,) = client.replies((b"GET",), 1)
    assert reply.status == 200
    (request,) = shop.app.take().requests  # it is counted before it is answered
    return request


@covers("HDR-1", "HDR-2", "HDR-3")
@pytest.mark.parametrize("name", LINES)
def test_a_peer_is_who_its_certificate_says(shop: Shop, name: str) -> None:
    trailer = LINES["plain"] if name == "trailer" else b""
    with shop.stranger(shop.papers["caller"]) as client:
        request = _told(shop, client, _sent(LINES[name], trailer))
    (value,) = request.get(XFCC)
    assert value.endswith(b";URI=spiffe://cluster.local/ns/shop/sa/caller")
    assert value.startswith(b"By=spiffe://cluster.local/ns/shop/sa/web;Hash=")
    assert not [each for each, _ in request.fields + request.trailers if b"admin" in _]
    assert request.get(b"x-forwarded-for") == [b"127.0.0.1"]


@covers("HDR-1", "HDR-2", "HDR-3")
@pytest.mark.parametrize("name", LINES)
def test_a_stranger_is_nobody(shop: Shop, name: str) -> None:
    """In STRICT mode it does not come that far."""
    with Client(shop.web.inbound) as client:
        data = _sent(LINES[name], LINES["plain"] if name == "trailer" else b"")
        if shop.mode == "strict":
            client.send(data)
            assert not client.read_to_end().raw
            return
        request = _told(shop, client, data)
    assert not request.get(XFCC)
    assert not [each for each, value in request.fields + request.trailers if b"admin" in value]


@covers("HDR-1")
def test_what_a_peer_may_say_of_time_limits_is_kept(shop: Shop) -> None:
    lines = b"\r\n".join(name + b": 7" for name in FROM_PEERS)
    with shop.stranger(shop.papers["caller"]) as client:
        request = _told(shop, client, _sent(lines))
    assert [request.get(name) for name in FROM_PEERS] == [[b"7"]] * 3
    if shop.mode == "permissive":
        with Client(shop.web.inbound) as stranger:
            request = _told(shop, stranger, _sent(lines))
        assert [request.get(name) for name in FROM_PEERS] == [[]] * 3


@covers("HDR-1", "HDR-3")
@pytest.mark.parametrize("name", [name for name in LINES if name != "trailer"])
def test_what_the_app_of_the_caller_says_is_not_passed_on(shop: Shop, name: str) -> None:
    """Outbound takes it out, and inbound says who has called."""
    data = _sent(LINES[name]).replace(b"GET /", b"GET http://web.shop/").replace(b"Host: web", b"Host: web.shop")
    with Client(shop.caller.outbound) as client:
        request = _told(shop, client, data)
    (value,) = request.get(XFCC)
    assert value.endswith(b";URI=spiffe://cluster.local/ns/shop/sa/caller")
    assert not [each for each, value in request.fields if b"admin" in value]
