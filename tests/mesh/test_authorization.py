"""AuthorizationPolicy at the app's sidecar, over mutual TLS and in plaintext: what is refused reaches the app with no
byte, a peer of the mesh learns why, a stranger does not, and what is open ends when a policy comes that denies it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from wsproto.events import AcceptConnection

from tests.hostile.coverage import covers
from tests.support.member import PORTS, SNI, Shop
from tests.support.raw import Client, Reply
from tests.support.secure import OPAQUE
from tests.support.upstream import hold, ok, send, wait_until
from tests.support.websocket import EchoApp, Talk

CALLER = "cluster.local/ns/shop/sa/caller"
VIEWER = {
    "name": "viewer", "namespace": "shop",
    "rules": [
        {
            "from": [{"source": {"principals": [CALLER]}}],
            "to": [{"operation": {"methods": ["GET"], "paths": ["/script/*"]}}],
        }
    ],
}  # fmt: skip
EVERYBODY = {"name": "everybody", "namespace": "shop", "rules": [{}]}
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    scripts = {"plain": (send(ok()),), "holds": (hold,), "begins": (send(BEGUN), hold)}
    with Shop(scripts=scripts, mode="permissive") as running:
        yield running


def obey(shop: Shop, *policies: dict[str, Any]) -> None:
    """From now on these policies hold at web's sidecar, and no others."""
    service = {
        "name": "web", "namespace": "shop", "serviceAccounts": ["web"],
        "endpoints": [{"address": "127.0.0.1", "port": shop.web.inbound, "mode": "direct"}],
        "ports": [{"port": port, "name": f"any-{port}"} for port in PORTS.values()],
    }  # fmt: skip
    document = {
        "schema": "1.3", "version": "1.1", "proxy": shop.papers["web"].spiffe_id, "issued": 1.0,
        "trustDomain": "cluster.local", "services": [service], "authorization": list(policies),
        "peerAuthentication": {"mtls": {"mode": "PERMISSIVE"}},
    }  # fmt: skip
    assert shop.web.tell("take", document=document) == []


def ask(client: Client, method: bytes = b"GET", path: bytes = b"/script/plain") -> Reply:
    client.send(b"%b %b HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n" % (method, path))
    (reply,) = client.replies((method,), 1)
    return reply


def status_of(reply: Reply) -> dict[bytes, bytes]:
    return {name.lower(): value for name, value in reply.fields}


def explained(shop: Shop, port: int) -> dict[str, Any]:
    record = shop.web.record_of(port)
    status, page = shop.web.admin_get(f"/explain/{record['request_id']}")
    assert status == 200
    found: dict[str, Any] = json.loads(page)
    return found


def test_the_named_caller_may_read_and_nothing_else(shop: Shop) -> None:
    obey(shop, VIEWER)
    caller, other = shop.papers["caller"], shop.authority.issue("other")
    with shop.stranger(caller) as client:
        assert ask(client).status == 200
    assert explained(shop, client.heard.port)["authorization"]["decided_by"] == "shop/viewer[0]"
    before = shop.seen()
    for papers, method, path in (
        (caller, b"DELETE", b"/script/plain"),
        (caller, b"GET", b"/admin"),
        (other, b"GET", b"/script/plain"),
    ):
        with shop.stranger(papers) as client:
            reply = ask(client, method, path)
        assert (reply.status, reply.body) == (403, b"RBAC: access denied"), (papers.spiffe_id, method, path)
        record = shop.web.record_of(client.heard.port)
        assert (record["response_flags"], record["response_code_details"]) == ("UAEX", "rbac_denied")
        assert (record["rule"], record["response_code"]) == ("default deny", 403)
    with Client(shop.web.inbound) as plain:
        reply = ask(plain)
    assert (reply.status, b"proxy-status" in status_of(reply)) == (403, False)
    assert shop.seen() == before, "a byte of what was refused has reached the app"


def test_a_peer_learns_the_policy_and_the_nearest_miss_and_a_stranger_nothing(shop: Shop) -> None:
    obey(shop, VIEWER)
    with shop.stranger(shop.papers["caller"]) as client:
        told = status_of(ask(client, b"POST"))[b"proxy-status"]
    assert told.startswith(b'sidecar; error=http_request_denied; details="default deny; ')
    assert b"shop/viewer" in told and b"methods" in told, told
    record = shop.web.record_of(client.heard.port)
    assert record["request_id"].encode() in told
    with Client(shop.web.inbound) as plain:
        reply = ask(plain)
    assert {name for name in status_of(reply) if name.startswith(b"proxy")} == set()


def test_a_flood_of_refusals_is_not_looked_into(shop: Shop) -> None:
    obey(shop, VIEWER)
    with shop.stranger(shop.papers["caller"]) as client:
        client.send(b"POST /script/plain HTTP/1.1\r\nHost: web\r\n\r\n" * 300)  # in one piece: a matter of milliseconds
        replies = client.replies((b"POST",) * 300, 300)
    details = [status_of(reply)[b"proxy-status"] for reply in replies]
    with_rule = sum(b"shop/viewer rule 0" in each for each in details)
    assert 0 < with_rule < len(details) == 300


def test_deny_comes_first(shop: Shop) -> None:
    deny = {
        "name": "no-admin", "namespace": "shop", "action": "DENY",
        "rules": [{"to": [{"operation": {"paths": ["/script/holds", "/script/%70lain", "/admin*"]}}]}],
    }  # fmt: skip
    obey(shop, EVERYBODY, deny)
    with shop.stranger(shop.papers["caller"]) as client:
        reply = ask(client, path=b"/script/../admin/x")
    assert reply.status == 403
    record = shop.web.record_of(client.heard.port)
    assert record["rule"] == "shop/no-admin[0]"
    with shop.stranger(shop.papers["caller"]) as client:
        assert ask(client).status == 200


def test_without_a_policy_and_with_one_that_allows_nothing(shop: Shop) -> None:
    obey(shop)
    with Client(shop.web.inbound) as plain:
        assert ask(plain).status == 200
    obey(shop, {"name": "closed", "namespace": "shop"})
    with shop.stranger(shop.papers["caller"]) as client:
        assert ask(client).status == 403


def test_opaque_bytes_are_reset_by_a_rule_on_http(shop: Shop) -> None:
    for policies, served in (
        ((VIEWER,), False),  # HTTP fields of an ALLOW rule never allow bytes
        (({"name": "a", "namespace": "shop", "rules": [{"from": [{"source": {"principals": [CALLER]}}]}]},), True),
        ((EVERYBODY, {"name": "d", "namespace": "shop", "action": "DENY",
                      "rules": [{"to": [{"operation": {"methods": ["POST"]}}]}]}), False),
    ):  # fmt: skip
        obey(shop, *policies)
        before = shop.seen()
        with shop.stranger(shop.papers["caller"], alpn=OPAQUE, sni=SNI[3306]) as client:
            client.send(b"\0opaque")
            if served:
                wait_until(_grows(shop, before), "it is in the app")
            else:
                client.read_to_end()
                assert client.heard.end in ("cut", "reset")
        if not served:
            record = shop.web.record_of(client.heard.port)
            assert record["response_code_details"] == "rbac_denied"
            assert shop.seen() == before


def test_a_dry_run_refuses_nothing_and_is_counted(shop: Shop) -> None:
    obey(shop, EVERYBODY, {**VIEWER, "name": "dry", "action": "DENY", "dryRun": True})
    with shop.stranger(shop.papers["caller"]) as client:
        assert ask(client).status == 200
    told = explained(shop, client.heard.port)["authorization"]
    assert told["note"] == "dry run: shop/dry would deny it"
    metrics = shop.web.admin_get("/metrics")[1]
    assert 'sidecar_authorization_dry_run_total{decision="would_deny"} 0.0' not in metrics
    with Client(shop.web.inbound) as plain:
        assert ask(plain).status == 200  # it would not be denied: the rule is about the caller
    (row,) = json.loads(shop.web.admin_get("/dry_runs?policy=shop/dry")[1])
    assert (row["caller"], row["would"], row["times"]) == (f"spiffe://{CALLER}", "deny", 1)
    assert json.loads(shop.web.admin_get("/dry_runs?policy=shop/other")[1]) == []


def _grows(shop: Shop, before: int) -> Callable[[], bool]:
    return lambda: shop.seen() > before


# -- a change counts at once -------------------------------------------------------------------------------------------


def _taken(shop: Shop, path: bytes) -> int:
    return sum(request.target == path for each in shop.app.connections for request in each.requests)


def _in_app(shop: Shop, path: bytes) -> Callable[[], bool]:
    before = _taken(shop, path)
    return lambda: _taken(shop, path) > before


@covers("POL-9")
@pytest.mark.parametrize(
    ("path", "heard"), [(b"/script/holds", b""), (b"/script/begins", b"half")], ids=["long poll", "download"]
)
def test_a_policy_that_comes_later_cuts_what_is_under_way(shop: Shop, path: bytes, heard: bytes) -> None:
    obey(shop, VIEWER)
    there = _in_app(shop, path)
    with shop.stranger(shop.papers["caller"]) as client:
        client.send(b"GET %b HTTP/1.1\r\nHost: web\r\n\r\n" % path)
        wait_until(there, "the request is in the app")
        if heard:
            client.read_until(lambda raw: raw.endswith(heard))
        obey(shop, EVERYBODY)
        with Client(shop.web.inbound) as plain:
            assert ask(plain).status == 200  # a policy that allows it cuts nothing
        obey(shop, {"name": "closed", "namespace": "shop", "action": "DENY", "rules": [{}]})
        client.read_to_end()
        assert client.heard.end in ("cut", "reset") and bytes(client.heard.raw).endswith(heard)
    record = shop.web.record_of(client.heard.port)
    assert (record["response_code_details"], record["response_flags"]) == ("policy_changed", "UAEX")
    assert "shop/closed" in record["detail"]


@covers("POL-9")
def test_a_policy_that_comes_later_cuts_a_websocket() -> None:
    with EchoApp() as app, Shop(app=app.port, mode="permissive") as shop:
        obey(shop, EVERYBODY)
        with Client(shop.web.inbound) as client:
            talk = Talk(client.sock, "web", "/chat")
            assert isinstance(talk.next(), AcceptConnection)
            assert talk.echoed(b"before") == b"before"
            obey(shop, {"name": "closed", "namespace": "shop", "action": "DENY", "rules": [{}]})
            client.read_to_end()
            assert client.heard.end in ("eof", "cut", "reset")
        record = shop.web.record_of(client.heard.port)
        assert (record["response_code"], record["response_code_details"]) == (101, "policy_changed")


@covers("POL-9")
def test_a_policy_that_comes_later_cuts_opaque_bytes(shop: Shop) -> None:
    obey(shop, EVERYBODY)
    with shop.stranger(shop.papers["caller"], alpn=OPAQUE, sni=SNI[3306]) as client:
        seen = shop.seen()
        client.send(b"\0opaque")
        wait_until(lambda: shop.seen() > seen, "it is in the app")
        obey(shop, {"name": "closed", "namespace": "shop"})
        client.read_to_end()
        assert client.heard.end in ("cut", "reset")
    record = shop.web.record_of(client.heard.port)
    assert record["response_code_details"] == "policy_changed"


@covers("POL-9")
def test_a_silent_client_is_cut_when_bytes_are_denied(shop: Shop) -> None:
    """It was let in as bytes, and the app was dialed for it; what it sends later must not go there."""
    obey(shop, EVERYBODY)
    dialed = len(shop.app.connections)
    with shop.stranger(shop.papers["caller"], alpn=("istio",), sni=SNI[80]) as client:
        wait_until(lambda: len(shop.app.connections) > dialed, "the app is dialed for a silent client")
        seen = shop.seen()
        obey(shop, {"name": "closed", "namespace": "shop", "action": "DENY", "rules": [{}]})
        client.read_to_end()
        assert client.heard.end in ("cut", "reset")
        assert shop.seen() == seen
    assert shop.web.record_of(client.heard.port)["response_code_details"] == "policy_changed"


# -- a request that was never made -------------------------------------------------------------------------------------


def test_what_is_explained_is_what_is_done(shop: Shop) -> None:
    obey(shop, VIEWER)
    before = shop.web.admin_get("/metrics")[1].count("authorization_decisions")
    for method, path, allowed in (
        ("GET", "/script/plain", True),
        ("POST", "/script/plain", False),
        ("GET", "/x", False),
    ):
        with shop.stranger(shop.papers["caller"]) as client:
            assert (ask(client, method.encode(), path.encode()).status != 403) is allowed
        status, page = shop.web.admin_get(
            f"/explain?method={method}&path={path}&from=spiffe://{CALLER}&host=web", "POST"
        )
        told = json.loads(page)
        assert (status, told["allowed"]) == (200, allowed), told
        (step,) = told["policies"]
        assert (step["policy"], step["matched"]) == ("shop/viewer", allowed)
    assert shop.web.admin_get("/metrics")[1].count("authorization_decisions") == before
    status, page = shop.web.admin_get("/explain?colour=red", "POST")
    assert status == 400 and "colour= is not a parameter" in page
