"""Protection of records: RFC 8448's trace, a second implementation, and what must never be: a nonce used twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

from sidecar.tls.records import (
    ALERT,
    APPLICATION,
    HANDSHAKE,
    HEADER_BYTES,
    OVERHEAD_BYTES,
    PLAIN_BYTES,
    SUITES,
    TAG_BYTES,
    BadRecord,
    Keys,
    Suite,
)
from tests.support import sealing
from tests.support.sealing import Hand, Plain

# RFC 8448 section 3: the secrets after the handshake, and what either side says then.
BY_CLIENT = bytes.fromhex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
BY_SERVER = bytes.fromhex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
COUNTED = bytes(range(50))
CLIENT_SAYS = bytes.fromhex(
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292a297"
    "7014bd1e3deae63aeebb21694915e4"
)
CLIENT_ENDS = bytes.fromhex("1703030013c9872760655666b74d7ff1153efd6db6d0b0e3")
SERVER_SAYS = bytes.fromhex(
    "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8fcc49c4bf2e5f0a21c"
    "0047c2abf332540dd032e167c2955d"
)

SIZES = (0, 1, 2, 15, 16, 17, 1_000, PLAIN_BYTES - 1, PLAIN_BYTES)


def of(suite: str) -> Suite:
    return SUITES[suite]


def secret(suite: str, first: int = 0) -> bytes:
    return bytes(range(first, first + (48 if suite.endswith("384") else 32)))


def opened(keys: Keys, record: bytes) -> bytes:
    """Content, type and padding."""
    inner = bytearray(len(record) - HEADER_BYTES - TAG_BYTES)
    view = memoryview(record)
    keys.open_into(view[:HEADER_BYTES], view[HEADER_BYTES:], memoryview(inner))
    return bytes(inner)


def sealed_into(keys: Keys, content: bytes) -> bytes:
    into = bytearray(len(content) + OVERHEAD_BYTES + 7)
    size = keys.seal_into(memoryview(content), memoryview(into))
    assert into[size:] == bytes(7)
    return bytes(into[:size])


# -- the RFC's trace ---------------------------------------------------------------------------------------------------


def test_the_trace_of_rfc_8448_is_sealed_to_the_byte() -> None:
    client, server = Keys(of("TLS_AES_128_GCM_SHA256"), BY_CLIENT), Keys(of("TLS_AES_128_GCM_SHA256"), BY_SERVER)
    assert client.seal(APPLICATION, COUNTED) == CLIENT_SAYS
    assert client.seal(ALERT, b"\x01\x00") == CLIENT_ENDS
    server.seal(HANDSHAKE, b"a ticket")
    assert server.seal(APPLICATION, COUNTED) == SERVER_SAYS


def test_the_trace_of_rfc_8448_opens() -> None:
    client, server = Keys(of("TLS_AES_128_GCM_SHA256"), BY_CLIENT), Keys(of("TLS_AES_128_GCM_SHA256"), BY_SERVER)
    assert opened(client, CLIENT_SAYS) == COUNTED + b"\x17"
    assert opened(client, CLIENT_ENDS) == b"\x01\x00\x15"
    server.sequence = 1
    assert opened(server, SERVER_SAYS) == COUNTED + b"\x17"


def test_the_other_hand_agrees_with_the_trace() -> None:
    hand = Hand("TLS_AES_128_GCM_SHA256", BY_CLIENT)
    assert hand.seal(sealing.DATA, COUNTED) + hand.seal(sealing.ALERT, b"\x01\x00") == CLIENT_SAYS + CLIENT_ENDS


# -- by two hands ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", sealing.SUITES)
@pytest.mark.parametrize("seal", [lambda keys, data: keys.seal(APPLICATION, data), sealed_into], ids=["seal", "into"])
def test_what_is_sealed_opens_by_another_hand(suite: str, seal: Callable[[Keys, bytes], bytes]) -> None:
    keys, hand = Keys(of(suite), secret(suite)), Hand(suite, secret(suite))
    for turn in range(4):
        for size in SIZES:
            content = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
            record = seal(keys, content)
            assert len(record) == size + OVERHEAD_BYTES
            assert hand.open(record) == Plain(sealing.DATA, content), turn
        keys.update()
        hand.update()
        assert keys.sequence == 0


@pytest.mark.parametrize("suite", sealing.SUITES)
@pytest.mark.parametrize("open_it", [opened, Keys.open], ids=["into", "open"])
def test_what_another_hand_seals_opens(suite: str, open_it: Callable[[Keys, bytes], bytes]) -> None:
    keys, hand = Keys(of(suite), secret(suite)), Hand(suite, secret(suite))
    for _ in range(4):
        for size in SIZES:
            for padding in (0, 1, 239):
                record = hand.seal(sealing.DATA, b"x" * size, padding)
                assert open_it(keys, record) == b"x" * size + b"\x17" + bytes(padding)
        keys.update()
        hand.update()


@pytest.mark.parametrize("kind", [ALERT, HANDSHAKE, APPLICATION])
def test_all_that_is_ever_said_is_told_apart_only_inside(kind: int) -> None:
    suite = "TLS_AES_128_GCM_SHA256"
    record = Keys(of(suite), secret(suite)).seal(kind, b"abc")
    assert record[:5] == b"\x17\x03\x03\x00\x14"
    assert Hand(suite, secret(suite)).open(record) == Plain(kind, b"abc")


def test_each_suite_has_a_cipher_of_its_own() -> None:
    said = {Keys(of(suite), secret(suite)).seal(APPLICATION, b"abc") for suite in sealing.SUITES}
    assert set(SUITES) == set(sealing.SUITES)
    assert len(said) == 3


# -- what does not open ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", sealing.SUITES)
def test_a_record_with_any_bit_changed_does_not_open(suite: str) -> None:
    record = Hand(suite, secret(suite)).seal(sealing.DATA, b"abc")
    for at in range(len(record)):
        for bit in range(8):
            changed = bytearray(record)
            changed[at] ^= 1 << bit
            for open_it in (opened, Keys.open):
                with pytest.raises(BadRecord):
                    open_it(Keys(of(suite), secret(suite)), bytes(changed))


@pytest.mark.parametrize("suite", sealing.SUITES)
def test_a_record_opens_only_at_its_place_and_under_its_keys(suite: str) -> None:
    hand = Hand(suite, secret(suite))
    first, second = hand.seal(sealing.DATA, b"first"), hand.seal(sealing.DATA, b"second")
    hand.update()
    later = hand.seal(sealing.DATA, b"later")
    for wrong in (second, later, first[:5] + second[5:]):
        with pytest.raises(BadRecord):
            Keys(of(suite), secret(suite)).open(wrong)
    for wrong in (first, later):
        keys = Keys(of(suite), secret(suite))
        opened(keys, first)
        with pytest.raises(BadRecord):
            opened(keys, wrong)
    with pytest.raises(BadRecord):  # the other direction's
        opened(Keys(of(suite), secret(suite, 1)), first)
    keys = Keys(of(suite), secret(suite))
    keys.update()
    with pytest.raises(BadRecord):
        opened(keys, first)


@pytest.mark.parametrize("suite", sealing.SUITES)
@pytest.mark.parametrize("size", [0, 1, 16, 31, 33, 47, 49])
def test_a_secret_of_another_length_than_the_hashs_makes_no_keys(suite: str, size: int) -> None:
    """Above all none at all: from that everybody could make them."""
    with pytest.raises(ValueError):
        Keys(of(suite), bytes(size))


# -- nonces ------------------------------------------------------------------------------------------------------------


class Spy:
    """A cipher that notes under which key and nonce it seals."""

    used: list[tuple[bytes, bytes]]

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._cipher = AESGCM(key)

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
        self.used.append((self._key, nonce))
        return self._cipher.encrypt(nonce, data, associated_data)

    def encrypt_into(self, nonce: bytes, data: bytes, associated_data: bytes, buf: memoryview) -> int:
        self.used.append((self._key, nonce))
        return self._cipher.encrypt_into(nonce, data, associated_data, buf)

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
        raise InvalidTag

    def decrypt_into(self, nonce: bytes, data: memoryview, associated_data: memoryview, buf: memoryview) -> int:
        raise InvalidTag


def test_no_nonce_is_used_twice_under_one_key() -> None:
    Spy.used = []
    keys = Keys(Suite(Spy, 16, SHA256()), bytes(32))
    for _ in range(3):
        for number in range(300):
            if number % 3:
                keys.seal(HANDSHAKE if number % 2 else ALERT, b"x")
            else:
                sealed_into(keys, b"y")
        keys.update()
    assert len(Spy.used) == len(set(Spy.used)) == 900
    assert len({key for key, _ in Spy.used}) == 3
    assert all(len(nonce) == 12 for _, nonce in Spy.used)


def test_a_seal_that_fails_spends_its_number() -> None:
    """What a cipher has begun to seal may have been seen: the number is not given to other content."""
    suite = "TLS_AES_128_GCM_SHA256"
    keys = Keys(of(suite), secret(suite))
    with pytest.raises(ValueError):
        keys.seal_into(memoryview(b"abc"), memoryview(bytearray(7)))
    assert keys.sequence == 1


@pytest.mark.parametrize("number", [255, 256, 65_535, 65_536, (1 << 24) - 1, 1 << 24, (1 << 32) - 1, 1 << 32])
def test_the_number_is_in_the_nonce_at_its_full_width(number: int) -> None:
    suite = "TLS_CHACHA20_POLY1305_SHA256"
    keys, hand = Keys(of(suite), secret(suite)), Hand(suite, secret(suite))
    keys.sequence = hand.records = number
    assert hand.open(keys.seal(APPLICATION, b"abc")).content == b"abc"
    assert hand.open(sealed_into(keys, b"def")).content == b"def"
