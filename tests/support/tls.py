"""A ClientHello made by hand: what a TLS client says first, with any bytes as server name (RFC 8446 section 4.1.2)."""

from __future__ import annotations

import struct


def _vector(data: bytes, width: int) -> bytes:
    return len(data).to_bytes(width, "big") + data


def client_hello(name: str | bytes, alpn: tuple[bytes, ...] = (b"http/1.1",)) -> bytes:
    """One record with one ClientHello: SNI, ALPN, and padding up to what post-quantum clients send."""
    raw = name.encode() if isinstance(name, str) else name
    sni = _vector(b"\x00" + _vector(raw, 2), 2)
    protocols = _vector(b"".join(_vector(one, 1) for one in alpn), 2)
    extensions = b"".join(
        struct.pack(">H", kind) + _vector(data, 2)
        for kind, data in ((0, sni), (43, b"\x02\x03\x04"), (21, bytes(1200)), (16, protocols))
    )
    body = (
        b"\x03\x03" + bytes(range(32)) + _vector(b"", 1) + _vector(b"\x13\x01\x13\x02", 2) + _vector(b"\x00", 1)
        + _vector(extensions, 2)
    )  # fmt: skip
    return b"\x16\x03\x01" + _vector(b"\x01" + _vector(body, 3), 2)
