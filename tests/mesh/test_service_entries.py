"""Hosts without a sidecar, called in plaintext by an operator's document; what the outbound policy of one closes;
and a sidecar that has no configuration yet, which calls nobody."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.member import PORTS, WEB, Member, Shop
from tests.support.papers import Authority
from tests.support.ports import held_port
from tests.support.raw import Client
from tests.support.upstream import RecordingUpstream, ok, send, wait_until

STATIC = "api.example"
ANYWHERE = "localhost"  # the one name that every machine finds


@pytest.fixture(scope="module")
def outside() -> Iterator[RecordingUpstream]:
    """A server without a sidecar."""
    with RecordingUpstream({"plain": (send(ok()),)}, strict=False) as app:
        yield app


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop(scripts={"plain": (send(ok()),)}, strict=False) as running:
        yield running


def mesh(shop: Shop, *entries: dict[str, Any], web: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """What a control plane would send: the shop's service, and these entries."""
    at = [{"address": "127.0.0.1", "port": shop.web.inbound, "mode": "direct"}] if web is None else web
    service = {
        "name": "web", "namespace": "shop", "serviceAccounts": ["web"], "endpoints": at,
        "ports": [{"port": port, "name": f"{name}-web"} for name, port in PORTS.items()],
    }  # fmt: skip
    return {
        "schema": "1.0", "version": "1.1", "proxy": shop.papers["caller"].spiffe_id, "issued": 1.0,
        "trustDomain": "cluster.local", "services": [service], "serviceEntries": list(entries), **more,
    }  # fmt: skip


def entry(host: str, port: int, *places: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "outside", "namespace": "shop", "hosts": [host], "ports": [{"port": port, "name": "http"}],
        "endpoints": list(places), **more,
    }  # fmt: skip


def get(member: Member, host: str, port: int = 80) -> tuple[int, dict[str, Any]]:
    """The status of a call by the explicit proxy, and the record of it."""
    authority = f"{host}:{port}".encode()
    with Client(member.outbound) as client:
        client.send(
            b"GET http://%b/script/plain HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % ((authority,) * 2)
        )
        (reply,) = client.replies((b"GET",), 1)
    record = member.record_of(client.heard.port)
    status, page = member.admin_get(f"/explain/{record['request_id']}")
    assert status == 200
    return reply.status, {**record, "cluster": json.loads(page)["upstream"]["cluster"]}


def take(shop: Shop, document: dict[str, Any]) -> None:
    assert shop.caller.tell("take", document=document) == []


def test_a_static_entry_is_reached_at_its_endpoints_and_as_the_app_speaks(
    shop: Shop, outside: RecordingUpstream
) -> None:
    place = {"address": "127.0.0.1", "port": outside.port}
    take(shop, mesh(shop, entry(STATIC, 80, place, resolution="STATIC"), outboundPolicy="REGISTRY_ONLY"))
    status, record = get(shop.caller, STATIC)
    assert (status, record["cluster"]) == (200, f"outbound|80||{STATIC}")
    assert record["upstream_host"] == f"127.0.0.1:{outside.port}"
    assert record["upstream_peer_uri_san"] is None


def test_an_entry_is_found_by_a_suffix_and_goes_where_the_name_leads(shop: Shop, outside: RecordingUpstream) -> None:
    found = entry("*.localhost", outside.port, resolution="DNS")
    take(shop, mesh(shop, found, outboundPolicy="REGISTRY_ONLY"))
    status, record = get(shop.caller, "api.localhost", outside.port)
    assert (status, record["cluster"]) == (200, f"outbound|{outside.port}||*.localhost")


@pytest.mark.parametrize("policy", ["REGISTRY_ONLY", "ALLOW_ANY", None])
def test_a_document_closes_what_the_command_line_left_open(
    shop: Shop, outside: RecordingUpstream, policy: str | None
) -> None:
    take(shop, mesh(shop, outboundPolicy=policy))
    status, record = get(shop.caller, ANYWHERE, outside.port)
    if policy == "REGISTRY_ONLY":
        assert (status, record["response_code_details"]) == (502, "black_hole")
        assert record["cluster"] == "BlackHoleCluster"
        assert get(shop.caller, WEB)[0] == 200, "a service is known"
    else:
        assert (status, record["cluster"]) == (200, "PassthroughCluster")


def test_an_entry_has_the_ports_that_it_says_and_no_others(shop: Shop, outside: RecordingUpstream) -> None:
    take(shop, mesh(shop, entry(ANYWHERE, 81, resolution="DNS"), outboundPolicy="REGISTRY_ONLY"))
    assert get(shop.caller, ANYWHERE, outside.port)[1]["response_code_details"] == "black_hole"


def test_an_entry_never_leads_to_a_service_in_plaintext(shop: Shop, outside: RecordingUpstream) -> None:
    """Neither by the service's name nor by an endpoint of it, whichever mode that has."""
    place = {"address": "127.0.0.1", "port": outside.port}
    take(shop, mesh(shop, entry(WEB, 80, place, resolution="STATIC")))
    status, record = get(shop.caller, WEB)
    assert (status, record["upstream_peer_uri_san"]) == (200, shop.papers["web"].spiffe_id)
    for web in ({"ports": {"http-web": outside.port}}, {"port": outside.port, "mode": "direct"}):
        take(shop, mesh(shop, entry(STATIC, 80, place, resolution="STATIC"), web=[{"address": "127.0.0.1", **web}]))
        before = len(outside.connections)
        status, record = get(shop.caller, STATIC)
        assert (status, record["response_code_details"]) == (502, "black_hole")
        assert len(outside.connections) == before


def test_an_entry_never_leads_to_a_service_by_a_name_of_its_endpoints(shop: Shop) -> None:
    """Where it is looked up it may lead to an address that is in no list of endpoints, and to the service all the
    same."""
    take(shop, mesh(shop, entry(STATIC, 80, {"address": WEB}, resolution="DNS")))
    status, record = get(shop.caller, STATIC)
    assert (status, record["response_code_details"]) == (502, "black_hole")


def test_connections_of_an_entry_that_is_gone_are_not_used_again(shop: Shop) -> None:
    with RecordingUpstream({"plain": (send(ok()),)}, strict=False) as other:
        place = {"address": "127.0.0.1", "port": other.port}
        take(shop, mesh(shop, entry(STATIC, 80, place, resolution="STATIC"), outboundPolicy="REGISTRY_ONLY"))
        assert get(shop.caller, STATIC)[0] == 200
        take(shop, mesh(shop, outboundPolicy="REGISTRY_ONLY"))
        assert get(shop.caller, STATIC)[1]["response_code_details"] == "black_hole"
        wait_until(lambda: not other.live(), "the connection to it is closed")


def test_an_endpoint_that_is_gone_costs_nobody_a_request(shop: Shop) -> None:
    with held_port() as nobody:
        gone = {"address": "127.0.0.1", "port": nobody, "mode": "direct"}
        here = {"address": "127.0.0.1", "port": shop.web.inbound, "mode": "direct"}
        take(shop, mesh(shop, web=[here]))
        assert get(shop.caller, WEB)[0] == 200
        take(shop, mesh(shop, web=[gone, here]))
        assert {get(shop.caller, WEB)[0] for _ in range(6)} == {200}
    take(shop, mesh(shop, web=[]))
    assert get(shop.caller, WEB)[1]["response_code_details"] == "no_endpoint"


def test_an_endpoint_that_is_silent_costs_nobody_a_request(shop: Shop) -> None:
    """Its queue is full, so that SYNs are dropped, as at an address where nothing is any more."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(closing(socket.socket()))
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        silent = {"address": "127.0.0.1", "port": listener.getsockname()[1], "mode": "direct"}
        here = {"address": "127.0.0.1", "port": shop.web.inbound, "mode": "direct"}
        for _ in range(4):  # with no connection that could be used again; each time another of the two has its turn
            take(shop, mesh(shop, web=[]))
            assert get(shop.caller, WEB)[0] == 503
            take(shop, mesh(shop, web=[silent, here]))
            assert get(shop.caller, WEB)[0] == 200
        take(shop, mesh(shop, web=[here]))


def test_without_a_configuration_nobody_is_called_and_then_it_is_as_it_says(outside: RecordingUpstream) -> None:
    with tempfile.TemporaryDirectory() as directory:
        papers = Authority(Path(directory)).issue("caller")
        with Member(outside.port, papers, "--namespace", "shop") as caller:
            status, record = get(caller, ANYWHERE, outside.port)
            assert (status, record["response_flags"], record["response_code_details"]) == (
                503, "UH", "no_configuration",
            )  # fmt: skip
            with Client(caller.outbound) as client:
                client.send(b"CONNECT localhost:%d HTTP/1.1\r\nHost: x\r\n\r\n" % outside.port)
                (reply,) = client.replies((b"CONNECT",), 1)
                assert json.loads(reply.body)["reason"] == "no_configuration"
            assert caller.tell("take", document={
                "schema": "1.0", "version": "1.1", "proxy": "", "issued": 1, "trustDomain": "cluster.local",
            }) == []  # fmt: skip
            assert get(caller, ANYWHERE, outside.port)[0] == 200


@pytest.mark.parametrize("policy", ["ALLOW_ANY", None])
def test_no_other_name_leads_to_a_service_in_plaintext(
    shop: Shop, outside: RecordingUpstream, policy: str | None
) -> None:
    """Whatever a look-up makes of it: where an endpoint of a service is, nobody is spoken to in plaintext, by a
    connection that was made when nobody served there least of all."""
    take(shop, mesh(shop, outboundPolicy=policy))
    assert get(shop.caller, ANYWHERE, outside.port)[0] == 200
    for web in ({"ports": {"http-web": outside.port}}, {"port": outside.port, "mode": "direct"}):
        take(shop, mesh(shop, web=[{"address": "127.0.0.1", **web}], outboundPolicy=policy))
        before = len(outside.connections)
        status, record = get(shop.caller, ANYWHERE, outside.port)
        assert (status, record["response_code_details"]) == (502, "black_hole")
        assert len(outside.connections) == before


def test_a_tunnel_that_was_silent_when_a_service_came_there_sends_nothing_in_plaintext(shop: Shop) -> None:
    """Its connection was made while the address was outside of the mesh, and nothing was sent on it."""
    take(shop, mesh(shop))
    with socket.create_server(("127.0.0.1", 0)) as listener, Client(shop.caller.outbound) as client:
        port = listener.getsockname()[1]
        client.send(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (port, port))
        assert client.replies((b"CONNECT",), 1)[0].status == 200
        server, _ = listener.accept()
        with server:
            server.settimeout(10)
            take(shop, mesh(shop, web=[{"address": "127.0.0.1", "port": port, "mode": "direct"}]))
            client.send(b"\xff secret, and no HTTP\r\n\r\n")
            assert server.recv(65536) == b""
    take(shop, mesh(shop))
