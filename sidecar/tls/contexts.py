"""TLS contexts: our certificate, the roots that we trust, and the parts of TLS that we allow. One pair per generation.

Called by ``identity``, whenever certificate or bundle change: a context that was used can't be changed, so each change
makes new ones. OpenSSL reports the secrets of a handshake through its key log. Here they go to the
:class:`HandshakeState` of that one connection, whose records are ours (``tls.records``), and nowhere else: nothing can
redirect them to a file, and nothing reads the environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509

from certs.errors import Refusal
from certs.keys import PrivateKey

DEPTH: Final = 8  # the most certificates of a chain
_OPTIONS: Final = SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION

# All suites of TLS 1.3 worth having. The client's order counts; the first costs least here for the same safety.
_SUITES: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

# OpenSSL's X509_V_ERR_..., by number, as our own reasons; others are UNKNOWN_AUTHORITY.
_RULES: Final = {
    7: Refusal.BAD_SIGNATURE,
    9: Refusal.NOT_YET_VALID,
    10: Refusal.EXPIRED,
    23: Refusal.REVOKED,
    24: Refusal.NOT_AN_AUTHORITY,
    25: Refusal.PATH_LENGTH,
    26: Refusal.BAD_EXTENDED_KEY_USAGE,
    32: Refusal.NOT_AN_AUTHORITY,
    34: Refusal.UNKNOWN_CRITICAL,
    47: Refusal.NAME_CONSTRAINTS,
    48: Refusal.NAME_CONSTRAINTS,
    66: Refusal.BAD_KEY,
    67: Refusal.BAD_KEY,
    68: Refusal.WEAK_SIGNATURE,
    79: Refusal.NOT_AN_AUTHORITY,
}


class AlpnMismatch(Exception):
    """The error for a client that offers only protocols that we don't know. Raised in OpenSSL's callback, it ends the
    handshake with the alert no_application_protocol, and ``do_handshake`` raises it."""


class HandshakeState:
    """What a handshake leaves behind: why the peer's certificate was refused, and the secrets that protect what either
    side sends after it (RFC 8446 section 7.1). It is the connection's ``app_data``."""

    __slots__ = ("by_client", "by_server", "refused")

    def __init__(self) -> None:
        self.refused: Refusal | None = None
        self.by_client = b""
        self.by_server = b""


def server_context(
    chain: Sequence[x509.Certificate],
    key: PrivateKey,
    roots: Sequence[x509.Certificate],
    alpn: Sequence[bytes],
    *,
    certificate_needed: bool,
) -> SSL.Context:
    """Return the context for peers that connect to us. The first name that a client offers and that is in ``alpn`` is
    selected. If it offers names and none is in ``alpn``, the handshake fails (RFC 7301 section 3.2). If it offers no
    names, none is selected.

    ``certificate_needed`` False: a client may show no certificate, but a bad one is still refused.
    """
    context = _context(chain, key, roots)
    needed = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if certificate_needed else 0
    context.set_verify(SSL.VERIFY_PEER | needed, _as_judged)
    served = frozenset(alpn)

    def select(_: SSL.Connection, offered: list[bytes]) -> bytes:
        for name in offered:
            if name in served:
                return name
        raise AlpnMismatch

    context.set_alpn_select_callback(select)
    return context


def client_context(
    chain: Sequence[x509.Certificate], key: PrivateKey, roots: Sequence[x509.Certificate]
) -> SSL.Context:
    """Return the context for peers that we call."""
    context = _context(chain, key, roots)
    context.set_verify(SSL.VERIFY_PEER, _as_judged)
    return context


def first_contact_context() -> SSL.Context:
    """Return the context for calling the control plane before there is a certificate, or a bundle. OpenSSL only proves
    that the peer has its leaf's key. The caller's ``judge`` gets the chain as it was presented and has to check all of
    it, including signatures (``certs.verify.verify_peer``)."""
    context = _bare()
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    return context


def _context(chain: Sequence[x509.Certificate], key: PrivateKey, roots: Sequence[x509.Certificate]) -> SSL.Context:
    context = _bare()
    context.use_certificate(chain[0])
    for intermediate in chain[1:]:
        context.add_extra_chain_cert(intermediate)
    context.use_privatekey(key)
    context.check_privatekey()
    store = context.get_cert_store()
    assert store is not None
    for root in roots:
        store.add_cert(X509.from_cryptography(root))
    return context


def _bare() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(_OPTIONS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # with OP_NO_TICKET; either alone still resumes
    context.set_tls13_ciphersuites(_SUITES)
    context.set_verify_depth(DEPTH)
    context.set_keylog_callback(_take_secret)
    return context


def _take_secret(connection: SSL.Connection, line: bytes) -> None:
    """Keep a secret of the key log. ``line`` has its label, the client's random number and the secret; the last two are
    in hex."""
    shaking = connection.get_app_data()
    if isinstance(shaking, HandshakeState):
        label, _, secret = line.split(b" ")
        if label == b"CLIENT_TRAFFIC_SECRET_0":
            shaking.by_client = bytes.fromhex(secret.decode())
        elif label == b"SERVER_TRAFFIC_SECRET_0":
            shaking.by_server = bytes.fromhex(secret.decode())


def _as_judged(connection: SSL.Connection, _: X509, code: int, depth: int, ok: int) -> bool:
    """Return OpenSSL's own verdict, because any other value would overwrite it. Keep the rule for the record."""
    if not ok:
        shaking = connection.get_app_data()
        if isinstance(shaking, HandshakeState) and shaking.refused is None:
            shaking.refused = _RULES.get(code, Refusal.UNKNOWN_AUTHORITY)
    return bool(ok)
