"""How a connection over TLS ends, and what either side hears of it: close_notify, FIN, alerts, resets, and none."""

from __future__ import annotations

import socket

import pytest
import trio

from sidecar.net.connection import Connection
from sidecar.tls.tls_socket import TlsFailure, TlsSocket
from tests.proxy.sealedpeer import SealedPeer, read, readable, taken_over
from tests.support.sealing import ALERT, CCS, CLOSE_NOTIFY, DATA, HANDSHAKE, UPDATE, UPDATE_ASKING, ticket

LINGER_NO_TIME = b"\x01\0\0\0\0\0\0\0"
SMALL = 4_096
FATAL = b"\x02\x28"


def fill(near: TlsSocket) -> int:
    """Sends until that is refused; returns how many bytes were taken."""
    sent = 0
    while True:
        try:
            sent += near.send(b"f" * 5_000)
        except BlockingIOError:
            return sent


def fails(near: TlsSocket) -> str:
    """Why nothing more is read; the same as often as one asks, and a poll tells of it."""
    assert readable(near)
    told = set()
    for flags in (0, socket.MSG_PEEK, 0):
        with pytest.raises(TlsFailure) as failed:
            near.recv(65_536, flags)
        told.add(failed.value.strerror)
    (words,) = told
    assert words is not None
    return words


def says_nothing_more(near: TlsSocket, peer: SealedPeer) -> None:
    """Whatever is asked of it, not a byte goes out; a FIN at most."""
    before = len(peer.heard)
    with pytest.raises(BrokenPipeError):
        near.send(b"x")
    near.shutdown(socket.SHUT_WR)
    near.close()
    peer.wait_end()
    assert len(peer.heard) == before


# -- what the peer says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fin", [False, True])
@pytest.mark.parametrize("peeks", [False, True])
def test_the_end_that_comes_with_the_last_bytes_is_noticed(fin: bool, peeks: bool) -> None:
    """Without a FIN nothing more comes: whoever waits on the descriptor must be woken by what is known already."""
    with taken_over() as (near, peer):
        peer.say((DATA, b"last"), (ALERT, CLOSE_NOTIFY))
        if fin:
            peer.sock.shutdown(socket.SHUT_WR)
        if peeks:
            assert read(near, 2, socket.MSG_PEEK) == b"la"
        assert read(near) == b"last"
        for flags in (socket.MSG_PEEK, 0, 0):
            assert readable(near)
            assert near.recv(65_536, flags) == b""
        assert near.send(b"answer") == 6
        peer.hear_end(near)
        assert peer.data == b"answer"


async def test_a_task_that_waits_on_a_connection_is_woken_by_its_end() -> None:
    with taken_over() as (near, peer), trio.fail_after(30):
        connection = Connection(near, "peer", set())
        peer.say((DATA, b"last"), (ALERT, CLOSE_NOTIFY))
        assert [await connection.recv(), await connection.recv(), await connection.recv()] == [b"last", b"", b""]
        connection.close()


def test_nothing_behind_an_end_is_read() -> None:
    with taken_over() as (near, peer):
        peer.say((DATA, b"last"), (ALERT, CLOSE_NOTIFY), (DATA, b"more"))
        assert read(near) == b"last"
        peer.say((DATA, b"and more"), (HANDSHAKE, UPDATE_ASKING), (ALERT, FATAL))
        assert [near.recv(65_536), near.recv(65_536), near.recv(1, socket.MSG_PEEK)] == [b""] * 3
        peer.hear_end(near)
        assert not peer.told(HANDSHAKE)


@pytest.mark.parametrize("full", [False, True])
def test_bytes_and_then_a_fatal_alert(full: bool) -> None:
    with taken_over(room=SMALL) as (near, peer):
        if full:
            fill(near)
        peer.say((DATA, b"last"), (ALERT, FATAL))
        assert read(near) == b"last"
        assert fails(near) == "TLS alert handshake failure"
        if full:
            peer.take_all()
        says_nothing_more(near, peer)


@pytest.mark.parametrize("part", [0, 1, 4, 5, 20, 25])
def test_a_fin_without_a_close_notify_is_no_end(part: int) -> None:
    with taken_over() as (near, peer):
        peer.say((DATA, b"last"))
        peer.write(peer.sealed((DATA, b"never"))[:part])
        peer.sock.shutdown(socket.SHUT_WR)
        assert read(near) == b"last"
        assert "close_notify" in fails(near)
        says_nothing_more(near, peer)


def test_a_close_notify_that_is_cut_is_none() -> None:
    with taken_over() as (near, peer):
        peer.write(peer.sealed((ALERT, CLOSE_NOTIFY))[:-1])
        peer.sock.shutdown(socket.SHUT_WR)
        assert "close_notify" in fails(near)


def test_a_reset_is_an_error_and_nothing_is_said_after_it() -> None:
    with taken_over() as (near, peer):
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NO_TIME)
        peer.sock.close()
        assert readable(near)
        with pytest.raises(ConnectionResetError):
            near.recv(100)
        with pytest.raises(BrokenPipeError):
            near.send(b"x")
        with pytest.raises(TlsFailure):
            near.recv(100)
        near.close()


def test_a_reset_that_a_write_hears_of() -> None:
    with taken_over(room=SMALL) as (near, peer):
        fill(near)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NO_TIME)
        peer.sock.close()
        assert readable(near)
        with pytest.raises(OSError) as failed:
            near.send(b"f" * 5_000)
        assert not isinstance(failed.value, BlockingIOError)
        with pytest.raises(BrokenPipeError):
            near.send(b"x")
        near.close()


# -- what breaks it ----------------------------------------------------------------------------------------------------

BROKEN = {
    "changed": (20, b""),
    "plain alert": (10, b"\x15\x03\x03\x00\x02\x02\x28"),
    "plain change_cipher_spec": (10, b"\x14\x03\x03\x00\x01\x01"),
    "too long": (22, b"\x17\x03\x03\x41\x01"),
    "too short": (50, b"\x17\x03\x03\x00\x10" + bytes(16)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_who_breaks_it_is_told_why_and_nothing_else(name: str) -> None:
    alert, wire = BROKEN[name]
    with taken_over() as (near, peer):
        if not wire:
            changed = bytearray(peer.sealed((DATA, b"first"), (DATA, b"second")))
            changed[-1] ^= 1
            wire = bytes(changed)
        else:
            wire = peer.sealed((DATA, b"first")) + wire
        peer.write(wire + peer.sealed((DATA, b"third"), (HANDSHAKE, UPDATE_ASKING)))
        assert read(near) == b"first"
        fails(near)
        peer.write(peer.sealed((DATA, b"fourth")))
        fails(near)
        peer.wait()
        peer.take()
        assert [each.content for each in peer.heard] == [bytes((2, alert))]
        says_nothing_more(near, peer)


@pytest.mark.parametrize(
    ("kind", "content", "serves"),
    [(HANDSHAKE, ticket(), True), (HANDSHAKE, b"\x01\0\0\0", False), (CCS, b"\x01", True), (DATA, bytes(16_385), True)],
    ids=["a ticket from a client", "a handshake", "a sealed change_cipher_spec", "a record too long"],
)
def test_what_may_not_be_said_ends_it(kind: int, content: bytes, serves: bool) -> None:
    with taken_over(serves=serves) as (near, peer):
        peer.say((kind, content), (DATA, b"never"))
        fails(near)
        peer.wait()
        peer.take()
        assert [(each.kind, each.content[0]) for each in peer.heard] == [(ALERT, 2)]
        says_nothing_more(near, peer)


def test_who_breaks_it_and_takes_nothing_is_let_go() -> None:
    """There is no room for the alert: it is not waited for, and what the peer reads later is no more than was sent."""
    with taken_over(room=SMALL) as (near, peer):
        sent = fill(near)
        peer.write(b"\x15\x03\x03\x00\x02\x02\x28")
        fails(near)
        near.close()
        while not peer.ended:
            peer.wait()
            peer.take()
        assert len(peer.data) <= sent + 5_000
        assert not peer.told(ALERT)


def test_an_alert_goes_under_the_keys_that_were_asked_for() -> None:
    with taken_over() as (near, peer):
        peer.write(peer.sealed((HANDSHAKE, UPDATE_ASKING)) + b"\x14\x03\x03\x00\x01\x01")
        fails(near)
        peer.wait()
        peer.take_all()
        assert [each.content for each in peer.heard] == [UPDATE, b"\x02\x0a"]


# -- what we say -------------------------------------------------------------------------------------------------------


def test_after_our_end_the_peers_bytes_are_read_on() -> None:
    with taken_over() as (near, peer):
        near.send(b"question")
        peer.hear_end(near)
        with pytest.raises(BrokenPipeError):
            near.send(b"x")
        peer.say((DATA, b"answer"), (HANDSHAKE, UPDATE_ASKING), (DATA, b" and more"), (ALERT, CLOSE_NOTIFY))
        got = b""
        while data := read(near):
            got += data
        assert got == b"answer and more"
        assert not peer.told(HANDSHAKE)


def test_our_end_waits_for_room() -> None:
    with taken_over(room=SMALL) as (near, peer):
        sent = fill(near)
        with pytest.raises(BlockingIOError):
            near.shutdown(socket.SHUT_WR)
        with pytest.raises(BrokenPipeError):
            near.send(b"f" * 5_000)
        peer.hear_end(near)
        assert peer.data in (b"f" * sent, b"f" * (sent + 5_000))


def test_a_close_says_so_where_there_is_room() -> None:
    with taken_over() as (near, peer):
        near.send(b"last")
        near.close()
        peer.wait_end()
        assert [each.content for each in peer.heard] == [b"last", CLOSE_NOTIFY]
        assert near.fileno() == -1
        assert near.take_unread() == b""


def test_a_close_with_a_full_send_buffer_looks_like_the_cut_that_it_is() -> None:
    with taken_over(room=SMALL) as (near, peer):
        sent = fill(near)
        near.close()
        peer.wait_end()
        assert not peer.told(ALERT)
        assert sent - 100_000 < len(peer.data) <= sent
        assert peer.partial or len(peer.data) == sent


def test_a_reset_of_ours_says_no_close_notify() -> None:
    with taken_over() as (near, peer):
        near.send(b"half of a bo")
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NO_TIME)
        near.close()
        peer.wait_end()
        assert peer.ended == "reset"
        assert not peer.told(ALERT)


def test_a_cut_of_ours_says_nothing_and_reads_nothing() -> None:
    with taken_over(room=SMALL) as (near, peer):
        fill(near)
        peer.say((DATA, b"too late"), (HANDSHAKE, UPDATE))
        near.shutdown(socket.SHUT_RDWR)
        assert "our side" in fails(near)
        assert near.take_unread() == b""
        with pytest.raises(BrokenPipeError):
            near.send(b"x")
        near.close()
        peer.wait_end()
        assert not peer.told(ALERT)
