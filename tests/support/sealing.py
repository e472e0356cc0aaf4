"""TLS 1.3 records by another hand: as RFC 8446 sections 5 and 7 say them, one after the other, and in no hurry.

A peer made of these says what it likes: any type, any padding, a record that is too long, new keys at any time.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

CCS, ALERT, HANDSHAKE, DATA = 20, 21, 22, 23
CLOSE_NOTIFY = b"\x01\x00"
UPDATE = b"\x18\x00\x00\x01\x00"  # a KeyUpdate that asks for none
UPDATE_ASKING = b"\x18\x00\x00\x01\x01"
SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")


def message(kind: int, body: bytes) -> bytes:
    """A handshake message."""
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def ticket(size: int = 200) -> bytes:
    """A NewSessionTicket, whose body has ``size`` bytes."""
    return message(4, bytes(number & 255 for number in range(size)))


def expand(digest: str, secret: bytes, label: str, size: int) -> bytes:
    """HKDF-Expand-Label without a context: RFC 5869 section 2.3 and RFC 8446 section 7.1."""
    told = struct.pack("!H", size) + bytes([6 + len(label)]) + b"tls13 " + label.encode() + b"\x00"
    out = block = b""
    count = 0
    while len(out) < size:
        count += 1
        block = hmac.new(secret, block + told + bytes([count]), digest).digest()
        out += block
    return out[:size]


@dataclass(frozen=True, slots=True)
class Plain:
    """A record, opened."""

    kind: int
    content: bytes
    padding: int = 0


class Hand:
    """One direction of one connection, for whoever seals or for whoever opens. ``records`` counts under these keys."""

    def __init__(self, suite: str, secret: bytes) -> None:
        self.suite = suite
        self._digest = "sha384" if suite.endswith("384") else "sha256"
        assert len(secret) == hashlib.new(self._digest).digest_size
        self._take(secret)

    def _take(self, secret: bytes) -> None:
        self.secret = secret
        self._key = expand(self._digest, secret, "key", 16 if "_128_" in self.suite else 32)
        self._iv = expand(self._digest, secret, "iv", 12)
        self.records = 0

    def update(self) -> None:
        """To the next secret."""
        self._take(expand(self._digest, self.secret, "traffic upd", len(self.secret)))

    def _nonce(self) -> bytes:
        number = bytes(4) + struct.pack("!Q", self.records)
        self.records += 1
        return bytes(left ^ right for left, right in zip(number, self._iv, strict=True))

    def seal(self, kind: int, content: bytes, padding: int = 0) -> bytes:
        """A record; nothing is too long."""
        return self.seal_inner(content + bytes([kind]) + bytes(padding))

    def seal_inner(self, inner: bytes) -> bytes:
        """As ``seal``; content, type and padding as one."""
        header = b"\x17\x03\x03" + struct.pack("!H", len(inner) + 16)
        nonce = self._nonce()
        if "CHACHA" in self.suite:
            return header + ChaCha20Poly1305(self._key).encrypt(nonce, inner, header)
        cipher = Cipher(algorithms.AES(self._key), modes.GCM(nonce)).encryptor()
        cipher.authenticate_additional_data(header)
        return header + cipher.update(inner) + cipher.finalize() + cipher.tag

    def open(self, record: bytes) -> Plain:
        """The next record. Raises InvalidTag."""
        header, sealed = record[:5], record[5:]
        assert header == b"\x17\x03\x03" + struct.pack("!H", len(sealed)), header
        nonce = self._nonce()
        if "CHACHA" in self.suite:
            inner = ChaCha20Poly1305(self._key).decrypt(nonce, sealed, header)
        else:
            cipher = Cipher(algorithms.AES(self._key), modes.GCM(nonce, sealed[-16:])).decryptor()
            cipher.authenticate_additional_data(header)
            inner = cipher.update(sealed[:-16]) + cipher.finalize()
        bare = inner.rstrip(b"\x00")
        return Plain(bare[-1], bare[:-1], len(inner) - len(bare))

    def open_all(self, wire: bytes, *, updates: bool = True) -> list[Plain]:
        """All records of ``wire``, which ends with one; ``updates``: keys follow the KeyUpdates in it."""
        found = []
        while wire:
            size = 5 + int.from_bytes(wire[3:5], "big")
            assert len(wire) >= size, "a part of a record"
            plain, wire = self.open(wire[:size]), wire[size:]
            found.append(plain)
            if updates and plain.kind == HANDSHAKE and plain.content in (UPDATE, UPDATE_ASKING):
                self.update()
        return found
