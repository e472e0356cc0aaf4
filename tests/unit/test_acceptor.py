"""What the gate remembers of handshakes: one value for equal ones, and a bounded number of them."""

from __future__ import annotations

from time import time

from certs import issue, keys, spiffe
from certs.bundle import Bundle, Bundles
from certs.verify import Peer
from sidecar.identity import CredentialEpoch, Credentials, Identity
from sidecar.net.byte_stream import Secured
from sidecar.tls.acceptor import REMEMBERED, TlsAcceptor

WEB = spiffe.workload("cluster.local", "shop", "web")


def generation(number: int) -> CredentialEpoch:
    root = issue.new_root("cluster.local", keys.new_key(), keys.new_serial(), time(), 3600.0)
    key = keys.new_key()
    leaf = issue.leaf(root, key.public_key(), WEB, keys.new_serial(), time(), 600.0)
    bundles = Bundles.of(Bundle("cluster.local", (root.certificate,)))
    return CredentialEpoch(number, Credentials(WEB, (leaf,), key, bundles, time() + 600.0))


def secured(fingerprint: str, *, alpn: bytes = b"istio") -> Secured:
    peer = Peer(spiffe.workload("cluster.local", "shop", "caller"), fingerprint, "", 1, time() + 600.0, "00", ())
    return Secured(peer, alpn, b"", "X25519", "TLSv1.3")


def test_connections_of_one_peer_share_what_was_found_out() -> None:
    acceptor, now = TlsAcceptor(Identity([]), lambda _: "STRICT", None), generation(1)
    once = secured("aa")
    first = acceptor.remember(once, now)
    assert acceptor.remember(once, now) is first
    assert first.principal == "spiffe://cluster.local/ns/shop/sa/caller" and b"Hash=aa" in first.xfcc


def test_what_differs_is_not_shared() -> None:
    acceptor, now = TlsAcceptor(Identity([]), lambda _: "STRICT", None), generation(1)
    first = acceptor.remember(secured("aa"), now)
    assert acceptor.remember(secured("bb"), now).xfcc != first.xfcc
    assert acceptor.remember(secured("aa", alpn=b"sidecar-tcp"), now).inside == "tcp"
    later = generation(2)
    assert acceptor.remember(secured("aa"), later).leaving is later.leaving


def test_many_peers_are_not_all_remembered() -> None:
    acceptor, now = TlsAcceptor(Identity([]), lambda _: "STRICT", None), generation(1)
    for number in range(3 * REMEMBERED):
        assert b"Hash=%d;" % number in acceptor.remember(secured(str(number)), now).xfcc
        assert acceptor.remembered <= REMEMBERED
