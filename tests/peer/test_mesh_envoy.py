"""Envoy at the other end of mutual TLS, as the caller's sidecar and as the app's; each refuses the other's wrong id."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peer.envoy import Envoy, calling, serving
from tests.support.member import SNI, WEB, Shop
from tests.support.papers import Authority
from tests.support.raw import Client, Reply, ask, parse_replies
from tests.support.upstream import RecordingUpstream, wait_until

PEER = "spiffe://cluster.local/ns/shop/sa/envoy"
OURS = {name: f"spiffe://cluster.local/ns/shop/sa/{name}" for name in ("web", "caller")}


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop() as running:
        yield running


def _get(port: int, path: str, host: str = WEB) -> Reply:
    data = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    (reply,) = ask(port, data)
    return reply


def _requests(app: RecordingUpstream, path: str) -> list[tuple[tuple[bytes, bytes], ...]]:
    wanted = path.encode()
    return [each.fields for one in app.connections for each in one.requests if each.target == wanted]


# -- Envoy calls us ----------------------------------------------------------------------------------------------------


def test_envoy_calls_and_the_app_learns_who_it_is(shop: Shop) -> None:
    with Envoy(shop.web.inbound, calling(shop.authority.issue("envoy"), OURS["web"], SNI[80])) as envoy:
        replies = [_get(envoy.port, f"/from-envoy/{number}") for number in range(5)]
        assert [reply.status for reply in replies] == [200] * 5
        assert replies[4].body == b"GET /from-envoy/4 0"
        assert envoy.counter("cluster.next.ssl.handshake") == 1  # its connection to us was kept
        (fields,) = _requests(shop.app, "/from-envoy/0")
        (said,) = [value for name, value in fields if name.lower() == b"x-forwarded-client-cert"]
        assert said.startswith(f"By={OURS['web']};Hash=".encode())
        assert said.endswith(f"URI={PEER}".encode())


def test_envoy_of_another_authority_is_refused(shop: Shop, tmp_path: Path) -> None:
    before = shop.seen()
    theirs = Authority(tmp_path).issue("envoy")
    mixed = type(theirs)(theirs.spiffe_id, theirs.key, theirs.chain, shop.authority.roots)
    with Envoy(shop.web.inbound, calling(mixed, OURS["web"], SNI[80])) as envoy:
        assert _get(envoy.port, "/other-authority").status == 503
    assert shop.seen() == before
    assert not _requests(shop.app, "/other-authority")


def test_envoy_refuses_us_where_it_expects_somebody_else(shop: Shop) -> None:
    before = shop.seen()
    with Envoy(shop.web.inbound, calling(shop.authority.issue("envoy"), OURS["caller"], SNI[80])) as envoy:
        assert _get(envoy.port, "/not-you").status == 503
        assert envoy.counter("cluster.next.ssl.fail_verify_san") >= 1
    assert shop.seen() == before


def test_envoy_asks_for_what_is_not_served_here(shop: Shop) -> None:
    before = shop.seen()
    wrong = SNI[80].replace("web.shop", "till.shop")
    with Envoy(shop.web.inbound, calling(shop.authority.issue("envoy"), OURS["web"], wrong)) as envoy:
        assert _get(envoy.port, "/not-here").status == 503
    assert shop.seen() == before


# -- we call Envoy -----------------------------------------------------------------------------------------------------


@pytest.fixture
def authority() -> Iterator[Authority]:
    with tempfile.TemporaryDirectory(prefix="authority-") as directory:
        yield Authority(Path(directory))


@pytest.fixture
def behind() -> Iterator[RecordingUpstream]:
    """The app behind Envoy."""
    with RecordingUpstream(strict=False) as app:
        yield app


def _through(shop: Shop, paths: list[str]) -> list[Reply]:
    """One client of the caller's sidecar, one request after the other."""
    with Client(shop.caller.outbound) as client:
        for number, path in enumerate(paths, 1):
            client.send(f"GET http://{WEB}{path} HTTP/1.1\r\nHost: {WEB}\r\n\r\n".encode())
            client.replies([b"GET"] * number, number)
        return parse_replies(client.heard.raw, [b"GET"] * len(paths))


def test_we_call_envoy_and_its_app_learns_who_we_are(authority: Authority, behind: RecordingUpstream) -> None:
    papers = authority.issue("web")
    with (
        Envoy(behind.port, serving(papers, OURS["caller"])) as envoy,
        Shop(authority=authority, endpoint=envoy.port) as shop,
    ):
        (reply,) = _through(shop, ["/to-envoy"])
        assert (reply.status, reply.body) == (200, b"GET /to-envoy 0")
        (fields,) = _requests(behind, "/to-envoy")
        (said,) = [value for name, value in fields if name.lower() == b"x-forwarded-client-cert"]
        assert said.endswith(f"URI={OURS['caller']}".encode())


def test_connections_survive_the_tickets_that_envoy_sends(authority: Authority, behind: RecordingUpstream) -> None:
    """Tickets come once the handshake is over, when nobody has asked for bytes: they are none of an answer's, and a
    connection that they came on is as good as before."""
    papers = authority.issue("web")
    with (
        Envoy(behind.port, serving(papers, OURS["caller"])) as envoy,
        Shop(authority=authority, endpoint=envoy.port) as shop,
    ):
        replies = [*_through(shop, [f"/kept/{number}" for number in range(20)]), *_through(shop, ["/kept/again"])]
        assert [reply.status for reply in replies] == [200] * 21
        assert envoy.counter("ssl.handshake") == 1
        assert envoy.counter("ssl.session_reused") == 0


def test_envoy_that_is_somebody_else_gets_nothing(authority: Authority, behind: RecordingUpstream) -> None:
    papers = authority.issue("till")
    with (
        Envoy(behind.port, serving(papers, OURS["caller"])) as envoy,
        Shop(authority=authority, endpoint=envoy.port) as shop,
    ):
        (reply,) = _through(shop, ["/to-till"])
        assert reply.status == 503
        wait_until(lambda: bool(shop.caller.log_records()), "a record of it")
        (record,) = shop.caller.log_records()
        assert record["response_flags"] == "UF,URX", record
    assert not behind.connections


def test_envoy_that_expects_somebody_else_refuses_us(authority: Authority, behind: RecordingUpstream) -> None:
    papers = authority.issue("web")
    with (
        Envoy(behind.port, serving(papers, OURS["web"])) as envoy,
        Shop(authority=authority, endpoint=envoy.port) as shop,
    ):
        (reply,) = _through(shop, ["/as-caller"])
        assert reply.status == 503
        assert envoy.counter("ssl.fail_verify_san") >= 1
    assert not behind.connections
