"""TLS-1 to TLS-8: what a peer shows is judged before a byte of anybody's goes by, on both sides of a connection."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import forged
from tests.hostile.coverage import covers
from tests.hostile.forged import FAULTS, Fault
from tests.support.member import WEB, Shop
from tests.support.papers import Authority, Papers, web_certificate
from tests.support.raw import Client, Reply, ask
from tests.support.secure import SecureServer, server_context
from tests.support.upstream import wait_until

GET = b"GET /refused HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"


class Forging(Authority):
    """The forge in the place of an authority; it also vouches for a trust domain of another root."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "other.example")
        self.directory = directory
        self.others = self.roots
        self.roots = forged.roots_file(directory)

    def issue(self, service_account: str, namespace: str = "shop", *, ttl: float = 0.0) -> Papers:
        spec = {"web": forged.WEB, "caller": forged.CALLER}[service_account]
        return forged.papers(self.directory, service_account, spec, forged.honest(spec))

    def faulty(self, fault: Fault, as_whom: str) -> Papers:
        spec = fault.leaf({"web": forged.WEB, "caller": forged.CALLER}[as_whom])
        return forged.papers(self.directory, f"{fault}-{as_whom}".replace(" ", "-"), spec, fault.chain(spec))


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="forged-") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def authority(directory: Path) -> Forging:
    return Forging(directory)


@pytest.fixture(scope="module")
def shop(authority: Forging) -> Iterator[Shop]:
    roots = [f"cluster.local={authority.roots}", f"other.example={authority.others}"]
    with Shop(authority=authority, web_roots=roots) as shop:
        yield shop


def _through(shop: Shop, target: bytes = b"/through") -> Reply:
    head = b"GET http://web.shop" + target + b" HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n"
    (reply,) = ask(shop.caller.outbound, head)
    return reply


def _refused(shop: Shop, papers: Papers | None) -> dict[str, Any]:
    """A caller with these papers is refused, and no byte reaches the app; returns the record of it."""
    before = shop.seen()
    with shop.stranger(papers) as client:
        client.send(GET)
        heard = client.read_to_end()
        assert not heard.raw
        assert "alert" in heard.end or heard.end in {"reset", "cut"}, heard.end
    record = shop.web.record_of(client.heard.port)
    assert shop.seen() == before
    assert record["response_flags"] == "UAEX", record
    assert record["request_id"], "it has an id to be explained by"
    status, text = shop.web.admin_get(f"/explain/{record['request_id']}")
    assert status == 200 and f'"{record["rule"]}"' in text
    return record


@covers("TLS-1")
def test_who_shows_no_certificate_is_refused_and_told_so_on_its_first_read(shop: Shop) -> None:
    before = shop.seen()
    with shop.stranger(None) as client:
        assert not client.failed, "in TLS 1.3 a client is done before the server has judged it"
        client.send(GET)
        assert "alert certificate required" in client.read_to_end().end
        assert not client.heard.raw
    wait_until(lambda: "no_certificate" in shop.web.tell("look")["outcomes"], "the refusal is counted")
    assert shop.seen() == before
    assert _refused(shop, None)["rule"] == "no_certificate"


@covers("TLS-2", "TLS-3", "TLS-4", "TLS-5", "TLS-6", "TLS-8")
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_faulty_caller_reaches_nobody(fault: Fault, shop: Shop, authority: Forging) -> None:
    assert _refused(shop, authority.faulty(fault, "caller"))["rule"] in fault.rules
    assert _through(shop).status == 200  # and nobody else suffers for it


@covers("TLS-2", "TLS-3", "TLS-4", "TLS-5", "TLS-6", "TLS-8")
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_faulty_server_is_told_nothing(fault: Fault, authority: Forging, callers: Callers) -> None:
    papers = authority.faulty(fault, "web")
    record, heard = callers.call(papers, papers.roots)
    assert record["rule"] in fault.rules
    assert record["response_code_details"] == "upstream_identity", record
    assert not heard


class Callers:
    """A caller's sidecar, and in the place of its only endpoint a server that each test makes somebody else."""

    def __init__(self, shop: Shop, server: SecureServer) -> None:
        self._shop = shop
        self.server = server

    def call(self, papers: Papers, roots: Path | None) -> tuple[dict[str, Any], bytes]:
        """The caller's record of a request that meets a server with these papers; what that heard."""
        self.server.use(server_context(papers.key, papers.chain, roots))
        with Client(self._shop.caller.outbound) as client:
            client.send(b"GET http://web.shop/lost HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n")
            (reply,) = client.replies((b"GET",), 1)
        assert reply.status == 503
        wait_until(lambda: bool(self.server.failed), "the server is left")
        return self._shop.caller.record_of(client.heard.port), b"".join(bytes(each) for each in self.server.heard)


@pytest.fixture(scope="module")
def callers(authority: Forging) -> Iterator[Callers]:
    papers = authority.issue("web")
    with (
        SecureServer(server_context(papers.key, papers.chain, None)) as server,
        Shop(authority=authority, endpoint=server.port) as shop,
    ):
        yield Callers(shop, server)


@covers("TLS-7")
def test_a_server_with_another_identity_of_the_mesh_is_told_nothing(authority: Forging, callers: Callers) -> None:
    papers = authority.issue("caller")
    record, heard = callers.call(papers, papers.roots)
    assert (record["rule"], record["response_flags"]) == ("wrong_identity", "UF,URX"), record
    assert not heard


@covers("TLS-7")
def test_a_server_that_the_web_trusts_is_told_nothing(directory: Path, callers: Callers) -> None:
    key, chain = web_certificate(directory, "web.shop.svc.cluster.local")
    record, heard = callers.call(Papers("", key, chain, chain), None)
    assert record["rule"] == "unknown_authority"
    assert not heard


@covers("TLS-1")
def test_a_server_that_asks_for_no_certificate_is_given_none_and_still_judged(
    authority: Forging, callers: Callers
) -> None:
    """That the endpoint lets anybody in is its own affair; that it is who it has to be is ours."""
    papers = authority.issue("caller")
    record, heard = callers.call(papers, None)
    assert record["rule"] == "wrong_identity"
    assert not heard


def test_the_names_of_the_service_are_said_to_the_server(callers: Callers, authority: Forging) -> None:
    papers = authority.issue("caller")
    callers.call(papers, papers.roots)
    assert set(callers.server.sni) == {f"outbound_.80_._.{WEB}"}
    assert set(callers.server.alpn) <= {"istio-http/1.1"}
