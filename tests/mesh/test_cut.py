"""A peer that is no longer good while it is connected: whatever its connection is doing, it ends, no more is taken, and
the record says which it was: revoked, expired, or of a root that was withdrawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from certs.facts import read
from certs.pem import from_pem
from tests.support.member import SNI, Member, Shop
from tests.support.papers import Authority, Papers
from tests.support.raw import Client
from tests.support.secure import OPAQUE
from tests.support.upstream import hold, ok, send, wait_until

BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"
_GET = b"GET %b HTTP/1.1\r\nHost: web\r\n\r\n"
_SEVERAL = _GET % b"/script/holds" + _GET % b"/behind" * 5


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    scripts = {"holds": (hold,), "begins": (send(BEGUN), hold), "plain": (send(ok()),)}
    with Shop(scripts=scripts) as running:
        yield running


def revoke(member: Member, papers: Papers) -> None:
    """From now on this sidecar refuses these."""
    leaf, issuer = from_pem(papers.chain.read_bytes())[:2]
    member.tell("revoke", serials=[(read(issuer).key_id.hex(), leaf.serial_number)])


def _taken(shop: Shop, path: bytes) -> int:
    return sum(request.target == path for each in shop.app.connections for request in each.requests)


def _in_app(shop: Shop, path: bytes) -> Callable[[], bool]:
    before = _taken(shop, path)
    return lambda: _taken(shop, path) > before


@pytest.mark.parametrize("sent", [_GET % b"/script/holds", _SEVERAL], ids=["one", "pipelined"])
def test_while_the_app_thinks(shop: Shop, sent: bytes) -> None:
    papers = shop.authority.issue("caller")
    there = _in_app(shop, b"/script/holds")
    with shop.stranger(papers) as client:
        client.send(sent)
        wait_until(there, "the request is in the app")
        revoke(shop.web, papers)
        client.read_to_end()
        assert client.heard.end in ("cut", "reset") and not client.heard.raw
    told = f"127.0.0.1:{client.heard.port}: cut"
    wait_until(lambda: any(told in (each["detail"] or "") for each in shop.web.log_records()), "it is recorded")
    (record,) = (each for each in shop.web.log_records() if told in (each["detail"] or ""))
    assert record["response_code_details"] == "revoked" and record["response_code"] == 0
    assert "the leaf with serial number" in record["detail"]
    assert _taken(shop, b"/behind") == 0


def test_in_the_middle_of_an_answer(shop: Shop) -> None:
    papers = shop.authority.issue("caller")
    with shop.stranger(papers) as client:
        client.send(_GET % b"/script/begins")
        client.read_until(lambda raw: raw.endswith(b"half"))
        revoke(shop.web, papers)
        client.read_to_end()
        assert client.heard.end in ("cut", "reset") and client.heard.raw.endswith(b"half")


def test_between_two_requests(shop: Shop) -> None:
    papers = shop.authority.issue("caller")
    with shop.stranger(papers) as client:
        client.send(_GET % b"/script/plain")
        client.replies((b"GET",), 1)
        seen = shop.seen()
        revoke(shop.web, papers)
        client.send(_GET % b"/after")
        client.read_to_end()
        assert client.heard.end in ("cut", "reset") and bytes(client.heard.raw).count(b"HTTP/1.1") == 1
    assert shop.seen() == seen


def test_in_an_opaque_connection(shop: Shop) -> None:
    papers = shop.authority.issue("caller")
    with shop.stranger(papers, alpn=OPAQUE, sni=SNI[3306]) as client:
        seen = shop.seen()
        client.send(b"\0opaque")
        wait_until(lambda: shop.seen() > seen, "it is in the app")
        seen = shop.seen()
        revoke(shop.web, papers)
        client.read_to_end()
        assert client.heard.end in ("cut", "reset")
    assert shop.seen() == seen
    port = f"127.0.0.1:{client.heard.port}"
    wait_until(lambda: any(each["client"] == port for each in shop.web.log_records()), "it is recorded")
    (record,) = (each for each in shop.web.log_records() if each["client"] == port)
    assert record["response_code_details"] == "revoked" and record["detail"].startswith(f"{port}: cut: the leaf")


def test_another_connection_goes_on(shop: Shop) -> None:
    papers, others = shop.authority.issue("caller"), shop.authority.issue("other")
    with shop.stranger(papers) as revoked, shop.stranger(others) as good:
        for client in (revoked, good):
            client.send(_GET % b"/script/plain")
            client.replies((b"GET",), 1)
        revoke(shop.web, papers)
        revoked.read_to_end()
        good.send(_GET % b"/script/plain")
        assert [each.status for each in good.replies((b"GET",) * 2, 2)] == [200, 200]
    with shop.stranger(papers) as again:
        again.send(_GET % b"/again")
        again.read_to_end()
        assert not again.heard.raw and "alert certificate revoked" in again.heard.end
    told = f"127.0.0.1:{again.heard.port}: its certificate is refused"
    wait_until(lambda: any(told in (each["detail"] or "") for each in shop.web.log_records()), "it is recorded")
    (record,) = (each for each in shop.web.log_records() if told in (each["detail"] or ""))
    assert record["response_code_details"] == "peer_refused" and record["detail"].endswith("is revoked")


def test_the_caller_of_a_server_that_is_revoked_gets_503(shop: Shop) -> None:
    there = _in_app(shop, b"/script/holds")
    url = b"http://web.shop.svc.cluster.local/script/holds"
    with Client(shop.caller.outbound) as client:
        client.send(_GET.replace(b"Host: web", b"Host: web.shop.svc.cluster.local") % url)
        wait_until(there, "the request is in the app")
        revoke(shop.caller, shop.papers["web"])
        (reply,) = client.replies((b"GET",), 1)
    assert reply.status == 503 and b"upstream_identity" in reply.body
    assert b"cut: the leaf with serial number" in reply.body
    wait_until(lambda: any(each["rule"] == "revoked" for each in shop.caller.log_records()), "it is recorded")


HOUR = 3600.0
_LONG, _SHORT = 24 * HOUR, 1 * HOUR


def _cut_while_held(shop: Shop, papers: Papers, happens: Callable[[], object]) -> tuple[str, str]:
    """A request is in the app when this happens; returns the reason's word and the detail of its record at web's."""
    there = _in_app(shop, b"/script/holds")
    before = dict(shop.web.tell("look")["cut"])
    with shop.stranger(papers) as client:
        client.send(_GET % b"/script/holds")
        wait_until(there, "the request is in the app")
        happens()
        client.read_to_end()
        assert client.heard.end in ("cut", "reset") and not client.heard.raw
    record = shop.web.record_of(client.heard.port)
    assert (record["response_flags"], record["response_code"]) == ("UAEX", 0)
    word = record["response_code_details"]
    after = shop.web.tell("look")["cut"]
    assert {reason for reason in after if after[reason] > before[reason]} == {word}
    shown = shop.web.admin_get("/metrics")[1]
    assert f'sidecar_tls_connections_cut_total{{reason="{word}"}} {float(after[word])}' in shown
    return word, record["detail"]


def _ended(word: str, detail: str, whose: str) -> None:
    assert word == "certificate_expired" and f": cut: {whose}" in detail, (word, detail)


def test_a_caller_whose_certificate_expires_is_told_from_one_that_is_revoked() -> None:
    with Shop(scripts={"holds": (hold,)}) as shop:
        papers = shop.authority.issue("caller", ttl=_SHORT)
        found = _cut_while_held(shop, papers, lambda: shop.web.tell("clock", ahead=2 * _SHORT))
        _ended(*found, whose="its certificate has expired")


def test_where_our_own_certificate_expires_it_is_said_to_be_ours() -> None:
    with Shop(scripts={"holds": (hold,)}) as shop:
        shop.web.install(shop.authority.issue("web", ttl=_SHORT))
        papers = shop.authority.issue("caller", ttl=_LONG)
        found = _cut_while_held(shop, papers, lambda: shop.web.tell("clock", ahead=2 * _SHORT))
        _ended(*found, whose="this proxy's own certificate has expired")


def test_a_connection_does_not_outlive_the_certificate_of_ours_that_it_began_with() -> None:
    with Shop(scripts={"holds": (hold,)}) as shop:
        shop.web.install(shop.authority.issue("web", ttl=_SHORT))

        def renewed_and_later() -> None:
            shop.web.install(shop.authority.issue("web", ttl=_LONG))
            shop.web.tell("clock", ahead=2 * _SHORT)

        found = _cut_while_held(shop, shop.authority.issue("caller", ttl=_LONG), renewed_and_later)
        _ended(*found, whose="this proxy's certificate with which the connection began has expired")


def test_a_caller_whose_root_is_withdrawn(tmp_path: Path) -> None:
    with Shop(scripts={"holds": (hold,)}) as shop:
        papers, others = shop.authority.issue("caller"), Authority(tmp_path)
        word, detail = _cut_while_held(shop, papers, lambda: shop.web.install(others.issue("web")))
        assert word == "root_withdrawn" and detail.endswith(": cut: its root has been taken out of the bundle")
