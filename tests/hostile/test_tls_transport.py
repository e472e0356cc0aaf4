"""TLS-9 to TLS-18: what of TLS is spoken, what a rotation, a revocation and another hour do to connections."""

from __future__ import annotations

import ssl
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.pem import from_pem
from tests.hostile.coverage import covers
from tests.support.member import Member, Shop
from tests.support.papers import Authority, Papers
from tests.support.raw import Client, Reply, ask, parse_replies
from tests.support.secure import SecureClient, SecureServer, client_context, server_context
from tests.support.tls import client_hello
from tests.support.upstream import wait_until

GET = b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n"
HOUR = 3600.0
DAY = 24 * HOUR


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as shop:
        yield shop


def through(shop: Shop, target: bytes = b"/through") -> Reply:
    head = b"GET http://web.shop" + target + b" HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n"
    (reply,) = ask(shop.caller.outbound, head)
    return reply


def signed_as(papers: Papers, place: int = 0) -> tuple[str, int]:
    """Whose key signed the certificate at this place of the chain, as lists name it, and its number."""
    chain = [*from_pem(papers.chain.read_bytes()), *from_pem(papers.roots.read_bytes())]
    key = chain[place + 1].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key)
    return digest.finalize().hex(), chain[place].serial_number


@covers("TLS-9")
@pytest.mark.parametrize("where", ["verify", "alpn"])
def test_a_callback_that_raises_ends_the_handshake(shop: Shop, where: str) -> None:
    for member, name in ((shop.web, "web"), (shop.caller, "caller")):
        member.install(shop.papers[name])  # with contexts that nobody has used
        member.tell("break", where=where)
    with shop.stranger(shop.papers["caller"]) as client:
        client.send(GET)
        assert not client.read_to_end().raw
    assert through(shop).status in {500, 503}
    assert shop.seen() == 0
    for member in (shop.web, shop.caller):
        member.terminate()
        assert member.wait_exit() == 0


@covers("TLS-10")
def test_whoever_comes_back_with_a_session_shakes_hands_anew(shop: Shop) -> None:
    """And so is judged anew: a root, a list, a mode may have changed meanwhile."""
    papers = shop.papers["caller"]
    context = client_context(papers.key, papers.chain, papers.roots)
    session = None
    for _ in range(3):
        with Client(shop.web.inbound) as client, context.wrap_socket(client.sock, session=session) as tls:
            tls.sendall(GET)
            assert tls.recv(65536).startswith(b"HTTP/1.1 200")
            assert not tls.session_reused
            session = tls.session


@covers("TLS-10")
def test_a_caller_comes_back_with_no_session(shop: Shop) -> None:
    """The server of the other end offers tickets, as most do."""
    reused: list[bool | None] = []

    def answer(tls: ssl.SSLSocket) -> None:
        reused.append(tls.session_reused)
        while tls.recv(65536):
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            return

    papers = shop.papers["web"]
    with (
        SecureServer(server_context(papers.key, papers.chain, papers.roots), answer) as server,
        Shop(endpoint=server.port, authority=shop.authority) as other,
    ):
        server.use(server_context(other.papers["web"].key, other.papers["web"].chain, papers.roots))
        assert [through(other).status for _ in range(3)] == [200, 200, 200]
    assert reused == [False, False, False]


@covers("TLS-11")
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_1", "TLSv1"])
def test_nothing_older_than_tls_1_3_is_spoken(shop: Shop, version: str) -> None:
    papers = shop.papers["caller"]
    context = client_context(papers.key, papers.chain, papers.roots)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with SecureClient(shop.web.inbound, context) as client:
        assert client.failed
    assert shop.seen() == 0
    assert shop.web.record_of(client.heard.port)["rule"] in {"unsupported_protocol", "alert_protocol_version"}


@covers("TLS-11")
def test_what_is_spoken_is_tls_1_3_without_compression_and_early_data(shop: Shop) -> None:
    with shop.stranger(shop.papers["caller"]) as client:
        assert (client.tls.version(), client.tls.compression()) == ("TLSv1.3", None)
        cipher = client.tls.cipher()
        assert cipher is not None
        assert cipher[2] >= 128


@covers("TLS-10", "TLS-11")
def test_no_ticket_is_given_and_so_no_early_data_is_offered(shop: Shop) -> None:
    """As openssl's own client tells it."""
    papers = shop.papers["caller"]
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{shop.web.inbound}", "-tls1_3",
         "-cert", str(papers.chain), "-cert_chain", str(papers.chain),
         "-key", str(papers.key), "-ign_eof"],
        input=GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert b"HTTP/1.1 200 OK" in done.stdout
    assert b"Early data was not sent" in done.stdout
    assert b"New Session Ticket" not in done.stdout
    assert b"Max Early Data" not in done.stdout


@covers("TLS-11")
def test_a_group_that_the_mesh_does_not_name_is_refused(shop: Shop) -> None:
    papers = shop.papers["caller"]
    context = client_context(papers.key, papers.chain, papers.roots)
    context.set_ecdh_curve("secp384r1")
    with SecureClient(shop.web.inbound, context) as client:
        client.send(GET)
        assert not client.read_to_end().raw
    assert shop.seen() == 0
    assert shop.web.record_of(client.heard.port)["rule"] in {"group", "no_shared_cipher", "other"}


@covers("TLS-12")
def test_handshakes_that_are_begun_and_not_ended_are_bounded_and_keep_nobody_out(shop: Shop) -> None:
    clients = [Client(shop.web.inbound) for _ in range(600)]
    try:
        for client in clients:
            client.send(b"\x16\x03\x01\x02")
        wait_until(lambda: shop.web.tell("look")["under_way"] >= 500, "they are under way")
        assert shop.web.tell("look")["under_way"] <= 512
        assert through(shop).status == 200
    finally:
        for client in clients:
            client.sock.close()
    wait_until(lambda: shop.web.tell("look")["under_way"] == 0, "none is left")


@covers("TLS-12")
@pytest.mark.parametrize("how", ["a byte in each record", "a hello without end"])
def test_a_handshake_takes_no_more_of_us_than_an_honest_one(shop: Shop, how: str) -> None:
    hello = client_hello("web")[5:]
    if how == "a byte in each record":
        said = b"".join(b"\x16\x03\x01\x00\x01" + hello[at : at + 1] for at in range(len(hello)))
    else:  # 100 kB, as it says of itself, of which OpenSSL would take 128
        said = b"".join(
            b"\x16\x03\x01\x40\x00" + piece + bytes(16_384 - len(piece)) for piece in (b"\x01\x01\x86\xa0", b"", b"")
        )
    with Client(shop.web.inbound) as client:
        client.send(said)
        client.read_to_end()
        assert shop.web.record_of(client.heard.port)["rule"] == "too_long"
    assert shop.seen() == 0
    assert through(shop).status == 200


@covers("TLS-13")
@pytest.mark.parametrize("end", ["cut", "finish"])
def test_a_request_that_is_cut_is_no_request(shop: Shop, end: str) -> None:
    with shop.stranger(shop.papers["caller"]) as client:
        client.send(b"POST /cut HTTP/1.1\r\nHost: web\r\nContent-Length: 100\r\n\r\n" + b"x" * 50)
        wait_until(lambda: any(each.mid_request for each in shop.app.live()), "the beginning reaches the app")
        getattr(client, end)()
        client.read_to_end()
        assert b"200" not in client.heard.raw
    wait_until(lambda: not any(each.mid_request for each in shop.app.live()), "the request to the app is ended")
    assert not shop.app.take().requests


@covers("TLS-13")
@pytest.mark.parametrize("clean", [True, False])
def test_an_answer_until_the_end_is_whole_only_with_a_close_notify(clean: bool) -> None:
    def answer(tls: ssl.SSLSocket) -> None:
        tls.recv(65536)
        tls.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        if clean:
            tls.settimeout(5)
            with_close_notify(tls)

    with tempfile.TemporaryDirectory() as directory:
        authority = Authority(Path(directory))
        papers = authority.issue("web")
        context = server_context(papers.key, papers.chain, papers.roots)
        with SecureServer(context, answer) as server, Shop(endpoint=server.port, authority=authority) as shop:
            with Client(shop.caller.outbound) as client:
                client.send(b"GET http://web.shop/half HTTP/1.1\r\nHost: web.shop\r\n\r\n")
                heard = client.read_to_end() if not clean else client.heard
                replies = client.replies((b"GET",), 1) if clean else []
            if clean:
                assert [(each.body, each.complete) for each in replies] == [(b"half", True)]
            else:
                told = parse_replies(heard.raw, (b"GET",), ended=True)
                assert heard.end == "reset" or not any(each.complete for each in told), heard


def with_close_notify(tls: ssl.SSLSocket) -> None:
    tls.settimeout(0)
    try:
        tls.unwrap()
    except (ssl.SSLWantReadError, OSError):
        pass


@covers("TLS-14")
def test_a_hundred_rotations_under_load_fail_no_request_and_leave_nothing_behind(shop: Shop) -> None:
    stop = threading.Event()
    statuses: list[int] = []

    def load(number: int) -> None:
        while not stop.is_set():
            with Client(shop.caller.outbound) as client:
                for _ in range(20):
                    client.send(b"GET http://web.shop/load/%d HTTP/1.1\r\nHost: web.shop\r\n\r\n" % number)
                    before = len(statuses)
                    client.heard.raw.clear()
                    replies = client.replies((b"GET",), 1)
                    statuses.append(replies[0].status if replies else 0)
                    if not replies or replies[0].closes or len(statuses) == before:
                        break

    assert through(shop).status == 200
    descriptors = [member.descriptors() for member in (shop.web, shop.caller)]
    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for number in range(100):
        name = "web" if number % 2 else "caller"
        member: Member = getattr(shop, name)
        done = len(statuses)
        member.install(shop.authority.issue(name))
        wait_until(lambda done=done: len(statuses) > done, "requests go on")  # type: ignore[misc]
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    for member, before in zip((shop.web, shop.caller), descriptors, strict=True):
        look = member.tell("look")
        assert look["generation"] == 51
        assert look["contexts"] <= 8, look
        assert member.descriptors() <= before + 12


@covers("TLS-17")
@pytest.mark.parametrize("place", [0, 1], ids=["leaf", "intermediate"])
def test_who_is_revoked_is_cut_and_comes_in_no_more(shop: Shop, place: int) -> None:
    with shop.stranger(shop.papers["caller"]) as client:
        client.send(GET)
        assert client.replies((b"GET",), 1)[0].status == 200
        shop.web.tell("revoke", serials=[signed_as(shop.papers["caller"], place)])
        client.give_up_in(5)
        assert client.read_to_end().end in {"reset", "cut"}
    seen = shop.seen()
    with shop.stranger(shop.papers["caller"]) as again:
        again.send(GET)
        heard = again.read_to_end()
        assert not heard.raw and "alert certificate revoked" in heard.end, heard.end
    assert shop.web.record_of(again.heard.port)["rule"] == "revoked"
    assert through(shop).status == 503
    assert shop.seen() == seen
    assert shop.web.tell("look")["cut"]["revoked"] >= 1
    shop.web.tell("revoke", serials=[])
    assert through(shop).status == 200


@covers("TLS-10")
def test_a_root_that_is_gone_opens_nothing_any_more(shop: Shop) -> None:
    with tempfile.TemporaryDirectory() as directory:
        other = Authority(Path(directory))
        with shop.stranger(shop.papers["caller"]) as client:
            client.send(GET)
            assert client.replies((b"GET",), 1)[0].status == 200
            shop.web.install(other.issue("web"))
            assert client.read_to_end().end in {"reset", "cut"}
        seen = shop.seen()
        with shop.stranger(shop.papers["caller"], trusts=False) as again:
            again.send(GET)
            assert not again.read_to_end().raw
        assert shop.web.record_of(again.heard.port)["rule"] == "unknown_authority"
        assert through(shop).status == 503
        assert shop.seen() == seen


@covers("TLS-15", "TLS-18")
def test_a_certificate_that_ends_closes_both_ways_and_a_new_one_opens_them(shop: Shop) -> None:
    with shop.stranger(shop.papers["caller"]) as client:
        client.send(GET)
        assert client.replies((b"GET",), 1)[0].status == 200
        for member in (shop.web, shop.caller):
            member.tell("clock", ahead=2 * DAY)
        assert client.read_to_end().end in {"reset", "cut"}
    reply = through(shop)
    assert (reply.status, b"no_identity" in reply.body) == (503, True)
    assert shop.web.admin_get("/ready")[0] == 503
    seen = shop.seen()
    with shop.stranger(shop.papers["caller"]) as again:
        again.send(GET)
        assert not again.read_to_end().raw
    assert shop.seen() == seen
    for member, name in ((shop.web, "web"), (shop.caller, "caller")):
        member.install(shop.authority.issue(name, ttl=4 * DAY))
    assert through(shop).status == 200
    assert shop.web.admin_get("/ready")[0] == 200


@covers("TLS-18")
@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_a_clock_that_is_an_hour_off_breaks_nothing_for_good(shop: Shop, ahead: float) -> None:
    for member in (shop.web, shop.caller):
        member.tell("clock", ahead=ahead)
    assert through(shop).status == (200 if ahead > 0 else 503)  # before its begin no certificate is good
    for member in (shop.web, shop.caller):
        member.tell("clock", ahead=0.0)
    assert through(shop).status == 200
