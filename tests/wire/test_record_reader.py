"""What a peer may say after a handshake, and what ends it, as tables; in one piece, in two, and byte by byte."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sidecar.tls.record_reader import LATE_BYTES
from sidecar.tls.records import PLAIN_BYTES, SEALED_BYTES
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
from tests.wire.feeding import SPLITS
from tests.wire.unsealing import FULL, SECRET, SUITE, Heard, Part, hear, wire_of

UNEXPECTED, BAD_MAC, OVERFLOW, ILLEGAL, DECODE = 10, 20, 22, 47, 50


BLANK: Part = (DATA, b"")

GOOD: dict[str, tuple[Sequence[Part], bytes]] = {
    "nothing": ([], b""),
    "one": ([(DATA, b"a")], b"a"),
    "several": ([(DATA, b"a"), (DATA, b"bc"), (DATA, b"d" * 1000)], b"abc" + b"d" * 1000),
    "full": ([(DATA, FULL), (DATA, b"z")], FULL + b"z"),
    "nine full ones": ([(DATA, FULL)] * 9, FULL * 9),
    "padded by one": ([(DATA, b"a", 1), (DATA, b"b")], b"ab"),
    "padded by 255": ([(DATA, b"a", 255), (DATA, b"b")], b"ab"),
    "full and padded to the most": ([(DATA, FULL, 239), (DATA, b"b")], FULL + b"b"),
    "almost only padding": ([(DATA, b"a", SEALED_BYTES - 18), (DATA, b"b")], b"ab"),
    "only padding": ([(DATA, b"", SEALED_BYTES - 17), (DATA, b"b")], b"b"),
    "zeros and padding": ([(DATA, bytes(20), 20), (DATA, b"b")], bytes(20) + b"b"),
    "content that ends as other types do": ([(DATA, b"\x15\x16\x17"), (DATA, b"\x16", 3)], b"\x15\x16\x17\x16"),
    "content of its own type": ([(DATA, b"\x17"), (DATA, b"\x17\x17", 1), (DATA, b"\x17" * 10)], b"\x17" * 13),
    "of 17 bytes": ([BLANK, (DATA, b"b")], b"b"),
    "as many blank ones as may be": ([BLANK] * 32 + [(DATA, b"a")] + [BLANK] * 32 + [(DATA, b"b")], b"ab"),
    "blank ones around data": ([BLANK, (DATA, b"a"), (DATA, b"", 9)] * 40, b"a" * 40),
    "a ticket": ([(HANDSHAKE, ticket()), (DATA, b"a")], b"a"),
    "a padded ticket": ([(HANDSHAKE, ticket(), 77), (DATA, b"a")], b"a"),
    "an empty ticket": ([(HANDSHAKE, ticket(0)), (DATA, b"a")], b"a"),
    "two tickets in one": ([(HANDSHAKE, ticket() + ticket(1)), (DATA, b"a")], b"a"),
    "one and a half, and a half": (
        [(HANDSHAKE, ticket() + ticket(50)[:20]), (HANDSHAKE, ticket(50)[20:]), (DATA, b"a")],
        b"a",
    ),
    "a ticket in pieces": ([*((HANDSHAKE, ticket(26)[at : at + 1]) for at in range(30)), (DATA, b"a")], b"a"),
    "a ticket that carries a chain": (
        [*((HANDSHAKE, ticket(LATE_BYTES)[at : at + PLAIN_BYTES]) for at in range(0, LATE_BYTES + 4, PLAIN_BYTES)),
         (DATA, b"a")],
        b"a",
    ),
    "new keys": ([(DATA, b"a"), (HANDSHAKE, UPDATE), (DATA, b"b")], b"ab"),
    "new keys, padded": ([(DATA, b"a"), (HANDSHAKE, UPDATE, 3), (DATA, b"b")], b"ab"),
    "new keys again and again": ([(DATA, b"a"), (HANDSHAKE, UPDATE)] * 30 + [(DATA, b"b")], b"a" * 30 + b"b"),
    "new keys without anything between": ([(HANDSHAKE, UPDATE)] * 32 + [(DATA, b"b")], b"b"),
    "new keys over two records": ([(HANDSHAKE, UPDATE[:2]), (HANDSHAKE, UPDATE[2:]), (DATA, b"b")], b"b"),
    "new keys over five records": ([*((HANDSHAKE, UPDATE[at : at + 1]) for at in range(4)),
         (HANDSHAKE, UPDATE[4:])], b""),
    "a ticket and new keys": ([(HANDSHAKE, ticket() + UPDATE), (DATA, b"b")], b"b"),
    "an end to come": ([(DATA, b"a"), (ALERT, b"\x01\x5a"), (DATA, b"b")], b"ab"),
}  # fmt: skip


def _good(parts: Sequence[Part]) -> bytes:
    """``wire_of``, also where a KeyUpdate is in pieces."""
    hand = Hand(SUITE, SECRET)
    said = late = b""
    for part in parts:
        assert not isinstance(part, bytes)
        said += hand.seal(*part)
        if part[0] == HANDSHAKE:
            late = (late + part[1])[-5:]
            if late in (UPDATE, UPDATE_ASKING):
                hand.update()
                late = b""
    return said


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", GOOD)
def test_what_may_be_said(name: str, split: str) -> None:
    parts, data = GOOD[name]
    assert hear(SPLITS[split](_good(parts))) == Heard(data, None)


ENDS: dict[str, tuple[Sequence[Part], str]] = {
    "close_notify": ([(DATA, b"a"), (ALERT, CLOSE_NOTIFY)], ""),
    "close_notify, said to be fatal": ([(DATA, b"a"), (ALERT, b"\x02\x00")], ""),
    "close_notify, padded": ([(DATA, b"a"), (ALERT, CLOSE_NOTIFY, 100)], ""),
    "close_notify, and more": ([(DATA, b"a"), (ALERT, CLOSE_NOTIFY), (DATA, b"b"), (ALERT, b"\x02\x28")], ""),
    "close_notify, and rubbish": ([(DATA, b"a"), (ALERT, CLOSE_NOTIFY), b"GET / HTTP/1.1\r\n\r\n" * 9], ""),
    "an end to come, and one": ([(DATA, b"a"), (ALERT, b"\x01\x5a"), (ALERT, CLOSE_NOTIFY)], ""),
    "close_notify under new keys": ([(DATA, b"a"), (HANDSHAKE, UPDATE), (ALERT, CLOSE_NOTIFY)], ""),
    "a known alert": ([(DATA, b"a"), (ALERT, b"\x02\x28")], "TLS alert handshake failure"),
    "a known alert, said to be a warning": ([(DATA, b"a"), (ALERT, b"\x01\x2a")], "TLS alert bad certificate"),
    "an unknown alert": ([(DATA, b"a"), (ALERT, b"\x02\xc8")], "TLS alert 200"),
    "an alert, and more": ([(DATA, b"a"), (ALERT, b"\x02\x14"), (DATA, b"b")], "TLS alert bad record mac"),
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ENDS)
def test_an_end_that_the_peer_says(name: str, split: str) -> None:
    parts, end = ENDS[name]
    assert hear(SPLITS[split](wire_of(parts))) == Heard(b"a", end)


def _header(kind: int, size: int) -> bytes:
    return bytes([kind, 3, 3]) + size.to_bytes(2, "big")


def _moved(*order: int) -> bytes:
    """Records that say their number, in this order."""
    hand = Hand(SUITE, SECRET)
    records = [hand.seal(DATA, b"%d" % number) for number in range(1 + max(order))]
    return b"".join(records[number] for number in order)


def _changed(at: int, bit: int = 1) -> bytes:
    changed = bytearray(_moved(0))
    changed[at] ^= bit
    return bytes(changed)


def _old_keys() -> bytes:
    """A KeyUpdate whose sender goes on under the keys that it had."""
    hand = Hand(SUITE, SECRET)
    return hand.seal(HANDSHAKE, UPDATE) + hand.seal(DATA, b"a")


def _early_keys() -> bytes:
    """New keys that nobody was told of."""
    hand = Hand(SUITE, SECRET)
    hand.update()
    return hand.seal(DATA, b"a")


def _inner(inner: bytes) -> bytes:
    return Hand(SUITE, SECRET).seal_inner(inner)


MORE: Part = (DATA, b"more")

BROKEN: dict[str, tuple[Sequence[Part], int, bytes]] = {
    "one blank record too many": ([(DATA, b"a"), *[BLANK] * 33, MORE], UNEXPECTED, b"a"),
    "padded blank ones": ([(DATA, b"", 9)] * 33 + [MORE], UNEXPECTED, b""),
    "tickets and tickets": ([(HANDSHAKE, ticket(0))] * 33 + [MORE], UNEXPECTED, b""),
    "tickets in one record": ([(HANDSHAKE, ticket(0) * 33), MORE], UNEXPECTED, b""),
    "keys and keys": ([(HANDSHAKE, UPDATE)] * 33 + [MORE], UNEXPECTED, b""),
    "announced ends": ([(ALERT, b"\x01\x5a")] * 33 + [MORE], UNEXPECTED, b""),
    "a message in too many pieces": (
        [*((HANDSHAKE, ticket(40)[at : at + 1]) for at in range(33)), MORE], UNEXPECTED, b""
    ),
    "one byte too long": ([(DATA, b"a"), (DATA, FULL + b"z"), MORE], OVERFLOW, b"a"),
    "one byte too long, padded": ([(DATA, FULL + b"z", 1), MORE], OVERFLOW, b""),
    "as long as it can be": ([(DATA, FULL + b"z" * 239), MORE], OVERFLOW, b""),
    "a handshake record too long": ([(HANDSHAKE, ticket(PLAIN_BYTES - 3)), MORE], OVERFLOW, b""),
    "nothing but zeros": ([(DATA, b"a"), (0, b"", 40), MORE], UNEXPECTED, b"a"),
    "one zero": ([_inner(b"\0"), MORE], UNEXPECTED, b""),
    "zeros as long as can be": ([_inner(bytes(SEALED_BYTES - 16)), MORE], UNEXPECTED, b""),
    "no inner type at all": ([_inner(b""), MORE], DECODE, b""),
    "a sealed change_cipher_spec": ([(DATA, b"a"), (CCS, b"\1"), MORE], UNEXPECTED, b"a"),
    "a heartbeat": ([(24, b"\1\0\0"), MORE], UNEXPECTED, b""),
    "type 1": ([(1, b"x"), MORE], UNEXPECTED, b""),
    "type 255": ([(255, b"x", 5), MORE], UNEXPECTED, b""),
    "plain change_cipher_spec": ([(DATA, b"a"), b"\x14\x03\x03\x00\x01\x01", MORE], UNEXPECTED, b"a"),
    "plain alert": ([(DATA, b"a"), b"\x15\x03\x03\x00\x02\x02\x28", MORE], UNEXPECTED, b"a"),
    "plain close_notify": ([(DATA, b"a"), b"\x15\x03\x03\x00\x02\x01\x00", MORE], UNEXPECTED, b"a"),
    "plain handshake": ([b"\x16\x03\x03\x00\x05" + UPDATE, MORE], UNEXPECTED, b""),
    "a long one of another type": ([_header(HANDSHAKE, 40) + bytes(40)], UNEXPECTED, b""),
    "HTTP": ([b"GET / HTTP/1.1\r\n\r\n"], UNEXPECTED, b""),
    "a length of 0": ([_header(DATA, 0), MORE], DECODE, b""),
    "a length of 16": ([_header(DATA, 16), bytes(16)], DECODE, b""),
    "a length of 16,641": ([_header(DATA, 16_641)], OVERFLOW, b""),
    "a length of 65,535": ([_header(DATA, 65_535)], OVERFLOW, b""),
    "a KeyUpdate that says 2": ([(DATA, b"a"), (HANDSHAKE, message(24, b"\2")), MORE], ILLEGAL, b"a"),
    "a KeyUpdate that says 255": ([(HANDSHAKE, message(24, b"\xff")), MORE], ILLEGAL, b""),
    "new keys, and a ticket": ([(HANDSHAKE, UPDATE + ticket())], UNEXPECTED, b""),
    "new keys, and the begin of a ticket": ([(HANDSHAKE, UPDATE + b"\4")], UNEXPECTED, b""),
    "new keys twice in one": ([(HANDSHAKE, UPDATE + UPDATE)], UNEXPECTED, b""),
    "under the old keys": ([_old_keys()], BAD_MAC, b""),
    "under keys to come": ([_early_keys()], BAD_MAC, b""),
    "a ClientHello": ([(HANDSHAKE, message(1, bytes(100))), MORE], UNEXPECTED, b""),
    "a ServerHello": ([(HANDSHAKE, message(2, bytes(100))), MORE], UNEXPECTED, b""),
    "a HelloRequest": ([(HANDSHAKE, message(0, b"")), MORE], UNEXPECTED, b""),
    "the end of early data": ([(HANDSHAKE, message(5, b"")), MORE], UNEXPECTED, b""),
    "a certificate": ([(HANDSHAKE, message(11, bytes(50))), MORE], UNEXPECTED, b""),
    "who wants a certificate now": ([(HANDSHAKE, message(13, bytes(50))), MORE], UNEXPECTED, b""),
    "a second Finished": ([(HANDSHAKE, message(20, bytes(32))), MORE], UNEXPECTED, b""),
    "an empty handshake record": ([(DATA, b"a"), (HANDSHAKE, b""), MORE], UNEXPECTED, b"a"),
    "an empty one in the middle": (
        [(HANDSHAKE, ticket()[:9]), (HANDSHAKE, b""), (HANDSHAKE, ticket()[9:]), MORE], UNEXPECTED, b""
    ),
    "data in the middle of a message": ([(HANDSHAKE, ticket()[:9]), MORE], UNEXPECTED, b""),
    "padded data in the middle": ([(HANDSHAKE, ticket()[:9]), (DATA, b"x", 9)], UNEXPECTED, b""),
    "a blank one in the middle": ([(HANDSHAKE, ticket()[:1]), BLANK, MORE], UNEXPECTED, b""),
    "an end in the middle": ([(HANDSHAKE, ticket()[:9]), (ALERT, CLOSE_NOTIFY)], UNEXPECTED, b""),
    "a message that is too long": ([(HANDSHAKE, b"\4\1\0\1"), MORE], DECODE, b""),
    "a message that says it is endless": ([(HANDSHAKE, b"\4\xff\xff\xff"), MORE], DECODE, b""),
    "an empty alert": ([(DATA, b"a"), (ALERT, b""), MORE], DECODE, b"a"),
    "half an alert": ([(ALERT, b"\1"), (ALERT, b"\0"), MORE], DECODE, b""),
    "an alert of three bytes": ([(ALERT, b"\1\0\0"), MORE], DECODE, b""),
    "two alerts in one": ([(ALERT, b"\1\x5a\1\0"), MORE], DECODE, b""),
    "a changed seal": ([_changed(-1)], BAD_MAC, b""),
    "a changed byte": ([_changed(5, 128)], BAD_MAC, b""),
    "a changed version": ([_changed(2, 2)], BAD_MAC, b""),
    "repeated": ([_moved(0, 1, 1)], BAD_MAC, b"01"),
    "repeated later": ([_moved(0, 1, 2, 0)], BAD_MAC, b"012"),
    "left out": ([_moved(0, 2)], BAD_MAC, b"0"),
    "the first left out": ([_moved(1)], BAD_MAC, b""),
    "moved": ([_moved(0, 2, 1)], BAD_MAC, b"0"),
}  # fmt: skip


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", BROKEN)
def test_what_ends_a_connection(name: str, split: str) -> None:
    parts, alert, data = BROKEN[name]
    heard = hear(SPLITS[split](wire_of(parts)))
    assert (heard.data, heard.alert) == (data, alert), heard
    assert heard.end


@pytest.mark.parametrize("size", [0, 2, 5])
def test_a_key_update_of_another_length_is_none(size: int) -> None:
    heard = hear([wire_of([(DATA, b"a"), (HANDSHAKE, message(24, bytes(size))), MORE])])
    assert heard.data == b"a" and heard.alert in {ILLEGAL, DECODE} and heard.end


@pytest.mark.parametrize("parts", [[ticket()], [ticket()[:9], ticket()[9:]], [UPDATE + ticket()]])
def test_a_client_gives_no_tickets(parts: list[bytes]) -> None:
    heard = hear([wire_of([(DATA, b"a"), *((HANDSHAKE, part) for part in parts)])], tickets=False)
    assert (heard.data, heard.alert) == (b"a", UNEXPECTED)


@pytest.mark.parametrize("split", SPLITS)
def test_a_client_may_want_new_keys(split: str) -> None:
    wire = wire_of([(DATA, b"a"), (HANDSHAKE, UPDATE_ASKING), (DATA, b"b")])
    assert hear(SPLITS[split](wire), tickets=False) == Heard(b"ab", None, asked=True)


def test_an_end_without_the_end_of_a_message_is_seen_by_the_socket_alone() -> None:
    """A FIN is none of our business here: what is not whole is simply not there."""
    whole = wire_of([(DATA, b"a"), (DATA, b"b" * 100)])
    for end in range(len(whole)):
        heard = hear([whole[:end]])
        assert heard == Heard(b"a" if end >= 23 else b"", None)


def test_one_read_takes_new_keys_so_often_and_no_more() -> None:
    """Each costs what ten records do, and nobody else has his turn meanwhile."""
    wire = wire_of([(DATA, b"a"), (HANDSHAKE, UPDATE)] * 33)
    heard = hear([wire])
    assert (heard.data, heard.alert) == (b"a" * 33, UNEXPECTED)
    half = len(wire) // 2
    assert hear([wire[:half], wire[half:]]).end is None
