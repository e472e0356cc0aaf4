"""Records of TLS 1.3: from the plain bytes of a connection to those on the wire and back, for one direction.

Called by ``tls.tls_socket``, with the secrets of a handshake by OpenSSL (``tls.handshake``). No I/O, no clock, no state
but the keys and the count of records; the ciphers are the ``cryptography`` package's.

Theory of operation (RFC 8446 sections 5 and 7). A record is a header of 5 bytes, whose type is ``application data``
whatever is inside, followed by the encrypted content and its type. Its nonce is the initial vector, combined with the
record's number; its header is authenticated with it. So a stream in which a record was changed, repeated, left out or
moved does not open. Each direction has its own secret, from which key and vector are derived. An update derives the
next secret from it; an earlier secret can't be derived from a later one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

HEADER_BYTES: Final = 5
PLAIN_BYTES: Final = 16_384  # of content in one record (RFC 8446 section 5.1)
TAG_BYTES: Final = 16  # in all suites that are allowed here
SEALED_BYTES: Final = PLAIN_BYTES + 256  # after the header, at most (section 5.2)
LEAST_BYTES: Final = TAG_BYTES + 1  # after the header: an empty content and its type
OVERHEAD_BYTES: Final = HEADER_BYTES + LEAST_BYTES  # of a record without padding
FULL_BYTES: Final = HEADER_BYTES + SEALED_BYTES
RECORDS_PER_KEY: Final = 1 << 24  # AES-GCM is safe for 2**24.5 full records of one key (section 5.5)

ALERT: Final = 21
HANDSHAKE: Final = 22
APPLICATION: Final = 23

_HEADER: Final = struct.Struct(">BHH")
_VERSION: Final = 0x0303  # as in TLS 1.2, for middleboxes (section 5.2)
_KINDS: Final = {kind: bytes([kind]) for kind in (ALERT, HANDSHAKE, APPLICATION)}


class BadRecord(Exception):
    """The error for a record that does not open under these keys."""


class Aead(Protocol):
    """The interface of a cipher of ``cryptography``; the views are as long as the result."""

    def encrypt_into(self, nonce: bytes, data: bytes, associated_data: bytes, buf: memoryview) -> int: ...
    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes: ...
    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes: ...
    def decrypt_into(self, nonce: bytes, data: memoryview, associated_data: memoryview, buf: memoryview) -> int: ...


class Suite(msgspec.Struct, frozen=True):
    """A cipher suite: its cipher, the key's length in bytes, and the hash that derives keys."""

    aead: Callable[[bytes], Aead]
    key_bytes: int
    hash: HashAlgorithm


SUITES: Final = {
    "TLS_AES_128_GCM_SHA256": Suite(AESGCM, 16, SHA256()),
    "TLS_AES_256_GCM_SHA384": Suite(AESGCM, 32, SHA384()),
    "TLS_CHACHA20_POLY1305_SHA256": Suite(ChaCha20Poly1305, 32, SHA256()),
}


class Keys:
    """One direction's keys, derived from its secret. ``sequence`` is the number of the next record under them.

    The constructor raises ValueError if ``secret`` does not have the suite's length: anyone could derive keys from an
    empty one.
    """

    __slots__ = ("_aead", "_secret", "_suite", "_vector", "sequence")

    def __init__(self, suite: Suite, secret: bytes) -> None:
        if len(secret) != suite.hash.digest_size:
            raise ValueError(f"a secret of {len(secret)} bytes")
        self._suite = suite
        self._take(secret)

    def _take(self, secret: bytes) -> None:
        self._secret = secret
        self._aead = self._suite.aead(_expand(self._suite, secret, b"key", self._suite.key_bytes))
        self._vector = int.from_bytes(_expand(self._suite, secret, b"iv", 12), "big")
        self.sequence = 0

    def update(self) -> None:
        """Change to the next keys, as both sides do at a KeyUpdate (RFC 8446 section 7.2)."""
        self._take(_expand(self._suite, self._secret, b"traffic upd", len(self._secret)))

    def seal(self, kind: int, content: bytes | memoryview) -> bytes:
        """Return the record that carries ``content``, at most PLAIN_BYTES of it."""
        header = _HEADER.pack(APPLICATION, _VERSION, len(content) + LEAST_BYTES)
        nonce = (self._vector ^ self.sequence).to_bytes(12, "big")
        self.sequence += 1
        return header + self._aead.encrypt(nonce, b"".join((content, _KINDS[kind])), header)

    def seal_into(self, content: memoryview, into: memoryview) -> int:
        """Seal application data as ``seal`` does, to the front of ``into``. Return the length of the record."""
        sealed = len(content) + LEAST_BYTES
        header = _HEADER.pack(APPLICATION, _VERSION, sealed)
        nonce = (self._vector ^ self.sequence).to_bytes(12, "big")
        self.sequence += 1
        into[:HEADER_BYTES] = header
        data = b"".join((content, _KINDS[APPLICATION]))
        self._aead.encrypt_into(nonce, data, header, into[HEADER_BYTES : HEADER_BYTES + sealed])
        return HEADER_BYTES + sealed

    def open(self, record: bytes) -> bytes:
        """Return the content of a complete record, followed by its type and padding.

        Raises BadRecord, after which nothing more can be opened.
        """
        nonce = (self._vector ^ self.sequence).to_bytes(12, "big")
        self.sequence += 1
        try:
            return self._aead.decrypt(nonce, record[HEADER_BYTES:], record[:HEADER_BYTES])
        except InvalidTag:
            raise BadRecord from None

    def open_into(self, header: memoryview, sealed: memoryview, into: memoryview) -> None:
        """Open as ``open`` does, into ``into``, which is TAG_BYTES shorter than ``sealed``."""
        nonce = (self._vector ^ self.sequence).to_bytes(12, "big")
        self.sequence += 1
        try:
            self._aead.decrypt_into(nonce, sealed, header, into)
        except InvalidTag:
            raise BadRecord from None


def _expand(suite: Suite, secret: bytes, label: bytes, length: int) -> bytes:
    """Return HKDF-Expand-Label with an empty context (RFC 8446 section 7.1)."""
    label = b"tls13 " + label
    told = struct.pack(">HB", length, len(label)) + label + b"\0"
    return HKDFExpand(suite.hash, length, told).derive(secret)
