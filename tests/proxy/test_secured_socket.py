"""TlsSocket over loopback TCP, against a peer of another hand: refused writes, new keys at any time, memory."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from sidecar.tls import tls_socket
from sidecar.tls.tls_socket import TlsFailure, TlsSocket
from tests.proxy.sealedpeer import SealedPeer, read, readable, taken_over
from tests.support.sealing import ALERT, DATA, HANDSHAKE, SUITES, UPDATE, UPDATE_ASKING, ticket

BODY = random.Random(13).randbytes(2_000_000)
SMALL = 4_096  # bytes of room that the kernel has; it doubles them, and has more


def fill(near: TlsSocket, data: bytes) -> int:
    """Sends until that is refused; returns how many bytes were taken."""
    sent = 0
    while True:
        try:
            taken = near.send(memoryview(data)[sent:])
        except BlockingIOError:
            return sent
        assert taken
        sent += taken
        assert sent < len(data), "it takes all"


def finish(near: TlsSocket, peer: SealedPeer, data: bytes, sent: int) -> None:
    """Sends the rest, while the peer reads."""
    while sent < len(data):
        try:
            sent += near.send(memoryview(data)[sent:])
        except BlockingIOError:
            peer.wait()
            peer.take()


def nothing_comes(near: TlsSocket) -> None:
    """Whatever has come is read, and none of it is the app's."""
    assert readable(near)
    with pytest.raises(BlockingIOError):
        near.recv(65_536)


# -- writes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("piece", [100, 16_384, 16_385, 65_536, 2_000_000])
def test_a_slow_reader_gets_every_byte_once(suite: str, piece: int) -> None:
    body = BODY[: min(len(BODY), piece * 2_000)]
    with taken_over(room=SMALL, suite=suite) as (near, peer):
        sent = refused = 0
        chance = random.Random(piece)
        while sent < len(body):
            try:
                sent += near.send(memoryview(body)[sent : sent + piece])
            except BlockingIOError:
                refused += 1
                peer.wait()
                peer.take(chance.randint(1, 20_000))
        peer.hear_end(near)
        assert refused
        assert peer.data == body
        assert all(0 < len(each) <= 16_384 for each in peer.told(DATA))


def test_what_was_refused_may_be_offered_with_more_behind_it() -> None:
    with taken_over(room=SMALL) as (near, peer):
        sent = refused = 0
        while sent < 400_000:
            try:
                sent += near.send(BODY[sent : sent + 1_000 + 99 * min(refused, 900)])
            except BlockingIOError:
                refused += 1
                if refused % 3 == 0:
                    peer.wait()
                    peer.take(5_000)
        finish(near, peer, BODY, sent)
        peer.hear_end(near)
        assert refused > 10
        assert peer.data == BODY


@pytest.mark.parametrize("instead", [b"", b"x", b"y" * 2_000_000], ids=["nothing", "less", "another message"])
def test_what_was_refused_and_is_not_offered_again_is_a_failure(instead: bytes) -> None:
    """It is on its way already: bytes of another message would be lost in its place."""
    with taken_over(room=SMALL) as (near, peer):
        sent = fill(near, BODY)
        while True:
            try:
                near.send(instead)
            except BlockingIOError:
                peer.wait()
                peer.take()
            except TlsFailure:
                break
        with pytest.raises(BrokenPipeError):
            near.send(BODY[sent:])
        near.close()
        peer.wait_end()
        assert not peer.told(ALERT)
        assert BODY.startswith(peer.data)


def test_nothing_says_nothing() -> None:
    with taken_over() as (near, peer):
        assert [near.send(b"") for _ in range(50)] == [0] * 50
        assert near.send(b"x") == 1
        peer.wait()
        peer.take_all()
        assert [each.content for each in peer.heard] == [b"x"]


@pytest.mark.parametrize("most", [512, 1_024, 4_096, 16_384])
def test_no_record_is_longer_than_the_peer_wants(most: int) -> None:
    with taken_over(most=most) as (near, peer):
        for size in (1, most, most + 1, 4 * most, 4 * most + 1, 150_000):
            before = len(peer.data)
            finish(near, peer, BODY[:size], 0)
            while len(peer.data) < before + size:
                peer.wait()
                peer.take()
            assert peer.data[before:] == BODY[:size]
        assert max(len(each) for each in peer.told(DATA)) == most


# -- new keys ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("serves", [True, False])
def test_new_keys_with_an_empty_send_buffer(suite: str, serves: bool) -> None:
    with taken_over(suite=suite, serves=serves) as (near, peer):
        for turn in range(20):
            peer.say((DATA, b"before"), (HANDSHAKE, UPDATE_ASKING if turn % 2 else UPDATE), (DATA, b"after"))
            got = b""
            while len(got) < 11:
                got += read(near)
            assert got == b"beforeafter"
            assert near.send(b"answer") == 6
            while len(peer.data) < 6 * (turn + 1):
                peer.wait()
                peer.take()
        assert peer.told(HANDSHAKE) == [UPDATE] * 10


def test_new_keys_with_a_full_send_buffer() -> None:
    """The answer goes behind what is sealed already, and in front of what is sealed after it."""
    with taken_over(room=SMALL) as (near, peer):
        sent = 0
        for turn in range(8):
            sent += fill(near, BODY[sent:])
            peer.say((HANDSHAKE, UPDATE_ASKING), (DATA, b"%d" % turn))
            assert read(near) == b"%d" % turn
            peer.take_all()
        finish(near, peer, BODY[:1_000_000], sent)
        peer.hear_end(near)
        assert peer.data == BODY[:1_000_000]
        assert 1 <= len(peer.told(HANDSHAKE)) <= 8


@pytest.mark.parametrize("offered", [1, 100, 5_000, 16_384, 16_385, 100_000])
def test_what_was_refused_is_not_sealed_again_when_an_answer_has_taken_it_along(offered: int) -> None:
    with taken_over(room=SMALL) as (near, peer):
        sent = 0
        try:
            while True:
                sent += near.send(memoryview(BODY)[sent : sent + offered])
        except BlockingIOError:
            pass
        peer.take_all()
        peer.say((HANDSHAKE, UPDATE_ASKING))  # with room again, our answer takes the rest along
        nothing_comes(near)
        finish(near, peer, BODY[: sent + offered], sent)
        peer.hear_end(near)
        assert peer.data == BODY[: sent + offered]


def test_a_flood_of_wishes_for_new_keys_gets_one_answer_while_nothing_can_be_written() -> None:
    with taken_over(room=SMALL) as (near, peer):
        sent = fill(near, BODY)
        tracemalloc.start()
        try:
            got = b""
            for _ in range(25):
                peer.say(*[(HANDSHAKE, UPDATE_ASKING)] * 10, (DATA, b"x"))
                while not got.endswith(b"x"):
                    got += read(near)
                got = b""
            assert tracemalloc.get_traced_memory()[0] < 100_000
        finally:
            tracemalloc.stop()
        finish(near, peer, BODY[:600_000], sent)
        peer.hear_end(near)
        assert peer.data == BODY[:600_000]
        assert peer.told(HANDSHAKE) == [UPDATE]


def test_our_own_new_keys_come_when_those_that_we_have_are_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_socket, "RECORDS_PER_KEY", 5)
    with taken_over(room=SMALL) as (near, peer):
        sent = 0
        while sent < 300_000:
            try:
                sent += near.send(memoryview(BODY)[sent : sent + 700])
            except BlockingIOError:
                peer.wait()
                peer.take(3_000)
        peer.hear_end(near)
        assert peer.data == BODY[:sent]
        kinds = [each.kind for each in peer.heard]
        runs = "".join("u" if kind == HANDSHAKE else "." for kind in kinds).split("u")
        assert len(runs) > 50
        assert max(map(len, runs)) <= 6


def test_both_want_new_keys_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_socket, "RECORDS_PER_KEY", 3)
    with taken_over(room=SMALL) as (near, peer):
        sent = turn = 0
        while sent < 300_000:
            turn += 1
            try:
                sent += near.send(memoryview(BODY)[sent : sent + 9_000])
            except BlockingIOError:
                peer.say((HANDSHAKE, UPDATE_ASKING), (DATA, b"%d" % turn))
                assert read(near) == b"%d" % turn
                peer.take(turn * 777 % 20_000 + 1)
        peer.hear_end(near)
        assert peer.data == BODY[:sent]


# -- reads -------------------------------------------------------------------------------------------------------------


def test_thousands_of_tiny_records_come_in_a_few_reads() -> None:
    with taken_over() as (near, peer):
        peer.say(*[(DATA, b"%d" % (number % 10)) for number in range(5_000)])
        got, reads = b"", 0
        while len(got) < 5_000:
            got += read(near)
            reads += 1
        assert got == b"0123456789" * 500
        assert reads <= 60


def test_a_peek_leaves_what_it_saw() -> None:
    with taken_over() as (near, peer):
        with pytest.raises(BlockingIOError):
            near.recv(1, 2)
        peer.say((DATA, b"abc"), (DATA, b"def"))
        assert read(near, 1, 2) == b"a"
        assert near.recv(7, 2).startswith(b"abc"[:3])
        got = near.recv(65_536)
        while len(got) < 6:
            got += read(near)
        assert got == b"abcdef"
        with pytest.raises(BlockingIOError):
            near.recv(1, 2)
        assert near.take_unread() == b""


def test_a_ticket_and_new_keys_are_nothing_to_peek_at() -> None:
    with taken_over(serves=False) as (near, peer):
        peer.say((HANDSHAKE, ticket() + ticket()), (HANDSHAKE, UPDATE))
        assert readable(near)
        with pytest.raises(BlockingIOError):
            near.recv(1, 2)
        assert not readable(near, 0)
        peer.say((HANDSHAKE, ticket()), (DATA, b"answer"))
        assert read(near) == b"answer"


def test_a_record_that_comes_byte_by_byte_is_waited_for() -> None:
    with taken_over() as (near, peer):
        wire = peer.sealed((DATA, b"abc"), (HANDSHAKE, UPDATE), (DATA, b"def", 5))
        got = b""
        for at in range(len(wire)):
            peer.write(wire[at : at + 1])
            assert readable(near)
            try:
                got += near.recv(65_536)
            except BlockingIOError:
                pass
        assert got == b"abcdef"


# -- what a peer that is known, and means ill, can cost ---------------------------------------------------------------


def test_what_one_peer_makes_us_hold_is_bounded() -> None:
    """A record without its end, a message without its end, writes that it does not take, and wishes for keys."""
    with taken_over(serves=False, room=SMALL) as (near, peer):
        tracemalloc.start()
        try:
            fill(near, BODY)
            peer.say((HANDSHAKE, UPDATE_ASKING))
            nothing_comes(near)
            message = ticket(65_536)
            for at in range(0, 65_536, 16_384):
                wire = peer.sealed((HANDSHAKE, message[at : at + 16_384]))
                peer.write(wire)
                nothing_comes(near)
            peer.write(peer.sealed((DATA, bytes(16_384), 239))[:-1])
            nothing_comes(near)
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert held < 300_000
