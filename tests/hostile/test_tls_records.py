"""A caller with a good certificate, and bad manners after the handshake: it is told why, and nobody else suffers.

The handshake is ssl's; then its secrets are taken over, and the records are made by hand.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy.sealedpeer import SealedPeer
from tests.support.member import Shop
from tests.support.raw import Reply, ask, parse_replies
from tests.support.sealing import (
    ALERT,
    CCS,
    CLOSE_NOTIFY,
    DATA,
    HANDSHAKE,
    UPDATE,
    UPDATE_ASKING,
    Hand,
    message,
    ticket,
)
from tests.support.secure import SecureClient, client_context
from tests.support.upstream import ok, send

GET = b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n"
BIG = b"b" * 20_000_000
Part = tuple[int, bytes] | tuple[int, bytes, int]


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop(scripts={"big": (send(ok(BIG)),)}) as running:
        yield running


@contextlib.contextmanager
def insider(shop: Shop) -> Iterator[SealedPeer]:
    """A caller of the mesh's, whose records are ours from here on."""
    papers = shop.papers["caller"]
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "secrets")
        context = client_context(papers.key, papers.chain, papers.roots)
        context.keylog_filename = str(log)
        with SecureClient(shop.web.inbound, context) as client:
            assert not client.failed
            lines = [line.split() for line in log.read_text().splitlines() if not line.startswith("#")]
            secrets = {label: bytes.fromhex(secret) for label, _, secret in lines}
            cipher = client.tls.cipher()
            assert cipher is not None
            with socket.socket(fileno=os.dup(client.tls.fileno())) as sock:
                sock.setblocking(False)
                by_server = Hand(cipher[0], secrets["SERVER_TRAFFIC_SECRET_0"])
                yield SealedPeer(sock, by_server, Hand(cipher[0], secrets["CLIENT_TRAFFIC_SECRET_0"]))


def _replies(peer: SealedPeer, count: int) -> list[Reply]:
    while len(replies := parse_replies(peer.data, (b"GET",) * count)) < count:
        peer.wait()
        assert peer.take(), peer.ended
    return replies


def _others_are_served(shop: Shop) -> None:
    head = b"GET http://web.shop/others HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n"
    (reply,) = ask(shop.caller.outbound, head)
    assert reply.status == 200


BAD: dict[str, tuple[list[Part] | bytes, int]] = {
    "change_cipher_spec": (b"\x14\x03\x03\x00\x01\x01", 10),
    "an alert in the clear": (b"\x15\x03\x03\x00\x02\x01\x00", 10),
    "HTTP in the clear": (GET, 10),
    "a record that was never sealed": (b"\x17\x03\x03\x00\x20" + bytes(32), 20),
    "a record too long": (b"\x17\x03\x03\x41\x01", 22),
    "content too long": ([(DATA, bytes(16_385))], 22),
    "a sealed change_cipher_spec": ([(CCS, b"\1")], 10),
    "nothing but padding": ([(0, b"", 100)], 10),
    "a new ClientHello": ([(HANDSHAKE, message(1, bytes(200)))], 10),
    "a certificate": ([(HANDSHAKE, message(11, bytes(200)))], 10),
    "a ticket": ([(HANDSHAKE, ticket())], 10),
    "a KeyUpdate that says 2": ([(HANDSHAKE, message(24, b"\2"))], 47),
    "half a message, and a request": ([(HANDSHAKE, UPDATE[:3]), (DATA, GET)], 10),
    "an endless message": ([(HANDSHAKE, b"\4\xff\xff\xff" + bytes(1_000))], 50),
    "half an alert": ([(ALERT, b"\1")], 50),
    "blank records": ([(DATA, b"")] * 33, 10),
    "new keys and new keys": ([(HANDSHAKE, UPDATE)] * 33, 10),
}


@pytest.mark.parametrize("name", BAD)
def test_who_breaks_the_rules_is_told_so_and_let_go(shop: Shop, name: str) -> None:
    what, alert = BAD[name]
    with insider(shop) as peer:
        peer.say((DATA, GET))
        assert [each.status for each in _replies(peer, 1)] == [200]
        seen = shop.seen()
        bad = what if isinstance(what, bytes) else peer.sealed(*what)
        peer.write(bad + peer.sealed((DATA, GET)))
        peer.wait_end()
        assert peer.told(ALERT)[:1] in ([bytes((2, alert))], [])  # a reset may have overtaken it
        assert len(parse_replies(peer.data, (b"GET",) * 2)) == 1
    assert shop.seen() == seen
    _others_are_served(shop)


@pytest.mark.parametrize("cut", [1, 4, 5, 30, -1])
def test_half_a_record_is_no_request(shop: Shop, cut: int) -> None:
    with insider(shop) as peer:
        seen = shop.seen()
        peer.write(peer.sealed((DATA, GET))[:cut])
        peer.sock.shutdown(socket.SHUT_WR)
        peer.wait_end()
        assert not peer.data
    assert shop.seen() == seen


def test_a_request_that_is_repeated_on_the_way_is_asked_once(shop: Shop) -> None:
    with insider(shop) as peer:
        request = peer.sealed((DATA, b"GET /once HTTP/1.1\r\nHost: web\r\n\r\n"))
        peer.write(request + request)
        peer.wait_end()
    asked = [each.target for one in shop.app.connections for each in one.requests]
    assert asked.count(b"/once") <= 1


def test_a_request_and_the_end_without_a_fin(shop: Shop) -> None:
    """Nothing more comes, not even a FIN: it is let go all the same."""
    with insider(shop) as peer:
        peer.say((DATA, GET))
        _replies(peer, 1)
        peer.say((ALERT, CLOSE_NOTIFY))
        peer.wait_end()
        assert peer.told(ALERT) in ([CLOSE_NOTIFY], [])


def test_who_takes_nothing_and_wants_new_keys_all_the_time_is_a_burden_to_nobody(shop: Shop) -> None:
    with insider(shop) as peer:
        peer.say((DATA, b"GET /script/big HTTP/1.1\r\nHost: web\r\n\r\n"))
        peer.wait()
        before = shop.web.rss()
        with contextlib.suppress(BlockingIOError):
            for _ in range(1_000):
                wire = peer.sealed(*[(HANDSHAKE, UPDATE_ASKING)] * 31, (DATA, b"\r\n"))
                while wire:
                    wire = wire[peer.sock.send(wire) :]
        _others_are_served(shop)
        assert shop.web.rss() - before < 30_000_000
    _others_are_served(shop)


def test_new_keys_are_answered_before_the_next_answer(shop: Shop) -> None:
    with insider(shop) as peer:
        for count in range(1, 40):
            peer.say((HANDSHAKE, UPDATE_ASKING), (DATA, GET))
            assert len(_replies(peer, count)) == count
        kinds = [each.kind for each in peer.heard if each.kind != DATA]
        assert kinds == [HANDSHAKE] * 39
