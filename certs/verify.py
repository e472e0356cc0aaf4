"""Who a peer is. Everything here raises IdentityError or returns a value that says who it is; nothing returns a bool.

Two ways in, which judge by the same rules and differ in who checked the signatures:

- :func:`verify_handshake` after a TLS handshake, with the chain that OpenSSL *verified* (never the one that the peer
  presented). It repeats every rule but the signatures: OpenSSL matches no SPIFFE id, knows one store for all trust
  domains, and lets a leaf be what SPIFFE forbids.
- :func:`verify_peer` for everything else (a certificate in a file or an answer): the chain as presented, signatures
  included.

:func:`recheck` is for connections that are open already, :func:`leaf_rules` for a certificate's form alone, and
:func:`check_own` for what the authority has answered us.

What is wrong is told in a fixed order, so that the same chain always has the same reason: the leaf's own form, its
trust domain, its authorities and their signatures, dates, revocation, and last whether it is the one who is expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs import path
from certs.bundle import Bundle, Bundles
from certs.errors import IdentityError, Refusal
from certs.facts import Facts, Raw, digest_of, read
from certs.keys import PublicKey
from certs.memory import Memory
from certs.revocation import Revocations
from certs.rules import judge_authorities, judge_dates, judge_leaf
from certs.spiffe import SpiffeId

CHAIN_CERTIFICATES: Final = 8  # leaf and root included; a mesh has three

Presented = Sequence[Raw]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who was verified, and by what. Times in seconds since the epoch, fingerprints SHA-256 in lower-case hex."""

    spiffe_id: SpiffeId
    fingerprint: str  # of the leaf
    subject: str  # RFC 4514; empty for leaves of our own authority
    serial: int
    not_after: float  # the earliest end in its chain: the connection ends before it
    root: str  # fingerprint
    path: tuple[tuple[bytes, int], ...]  # (issuer's key as in RevocationList, serial) of each but the root


def verify_peer(
    chain: Presented,
    bundles: Bundles,
    crls: Revocations,
    now: float,
    *,
    expected: frozenset[SpiffeId] | None,
    memory: Memory | None = None,
) -> Peer:
    """The peer whose leaf is first in ``chain``, each certificate followed by its issuer; roots are the bundle's.

    A root in ``chain`` is trusted no more for being there. ``expected`` None takes anyone of a trusted domain; an empty
    set takes nobody. ``memory`` saves reading and signatures of certificates that were accepted before, no judgement.

    Raises IdentityError with the first thing that is wrong, NO_CERTIFICATE for an empty chain.
    """
    memory = path.NOTHING if memory is None else memory
    leaf = memory.read(_first(chain))
    spiffe_id = judge_leaf(leaf)
    bundle = _bundle(bundles, spiffe_id.trust_domain)
    whole = path.build(leaf, chain[1:], bundle, memory)
    peer = _judge(whole, spiffe_id, crls, now, expected)
    memory.accept(whole, signed=True)
    return peer


def verify_handshake(
    verified: Presented,
    bundles: Bundles,
    crls: Revocations,
    now: float,
    *,
    expected: frozenset[SpiffeId] | None,
    memory: Memory | None = None,
) -> Peer:
    """As :func:`verify_peer`, for the chain that OpenSSL verified in this handshake: leaf first, root last.

    ``Connection.get_verified_chain(as_cryptography=True)``; None there means close. The root must be in the bundle of
    the leaf's own trust domain. Signatures are not checked again.
    """
    memory = path.NOTHING if memory is None else memory
    leaf = memory.read(_first(verified))
    spiffe_id = judge_leaf(leaf)
    bundle = _bundle(bundles, spiffe_id.trust_domain)
    anchor = bundle.anchors.get(digest_of(verified[-1]))
    if anchor is None or len(verified) == 1:
        raise IdentityError(Refusal.UNKNOWN_AUTHORITY, "a root that is not in the bundle of the leaf's trust domain")
    whole = [leaf, *map(memory.read, verified[1:-1]), anchor]
    peer = _judge(whole, spiffe_id, crls, now, expected)
    memory.accept(whole, signed=False)
    return peer


def leaf_rules(certificate: Raw) -> SpiffeId:
    """The id of a certificate that may be a leaf: its form alone, no dates, no chain.

    Raises IdentityError: UNREADABLE, URI_SANS, BAD_SPIFFE_ID, NOT_A_LEAF, BAD_KEY_USAGE, BAD_EXTENDED_KEY_USAGE,
    UNKNOWN_CRITICAL, BAD_KEY, WEAK_SIGNATURE.
    """
    return judge_leaf(read(certificate))


def recheck(peer: Peer, bundles: Bundles, crls: Revocations, now: float) -> None:
    """For open connections when a list, a bundle or the time has changed: returns while the peer is still one.

    Raises IdentityError: UNKNOWN_TRUST_DOMAIN, UNKNOWN_AUTHORITY (its root is no longer trusted), EXPIRED, REVOKED.
    """
    bundle = _bundle(bundles, peer.spiffe_id.trust_domain)
    if bytes.fromhex(peer.root) not in bundle.anchors:
        raise IdentityError(Refusal.UNKNOWN_AUTHORITY, "its root has been taken out of the bundle")
    if now > peer.not_after:
        raise IdentityError(Refusal.EXPIRED, f"its certificate has expired {now - peer.not_after:.0f} s ago")
    _judge_revocation(peer.path, crls)


def check_own(chain: Presented, public_key: PublicKey, expected: SpiffeId, bundles: Bundles, now: float) -> Peer:
    """What the authority has answered us: a certificate for ``expected`` and for our key, good now.

    Raises IdentityError as :func:`verify_peer` (NO_CERTIFICATE: an empty chain; UNKNOWN_AUTHORITY: a too short one;
    WRONG_IDENTITY), and BAD_KEY where it is for another key.
    """
    peer = verify_peer(chain, bundles, Revocations(), now, expected=frozenset({expected}))
    leaf = read(chain[0])
    if leaf.key_id != digest_of(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)):
        raise IdentityError(Refusal.BAD_KEY, "the certificate is for another key than ours")
    return peer


def _first(chain: Presented) -> Raw:
    if not chain:
        raise IdentityError(Refusal.NO_CERTIFICATE, "no certificate")
    if len(chain) > CHAIN_CERTIFICATES:
        raise IdentityError(Refusal.PATH_LENGTH, f"a chain of more than {CHAIN_CERTIFICATES} certificates")
    return chain[0]


def _bundle(bundles: Bundles, trust_domain: str) -> Bundle:
    bundle = bundles.get(trust_domain)
    if bundle is None or not bundle.anchors:
        raise IdentityError(Refusal.UNKNOWN_TRUST_DOMAIN, f"no roots for the trust domain {trust_domain}")
    return bundle


def _judge(
    whole: list[Facts], spiffe_id: SpiffeId, crls: Revocations, now: float, expected: frozenset[SpiffeId] | None
) -> Peer:
    """All that is left once the path stands, leaf first and root last."""
    judge_authorities(whole[1:], spiffe_id.trust_domain)
    judge_dates(whole, now)
    links = tuple((issuer.key_id, child.serial) for child, issuer in pairwise(whole))
    _judge_revocation(links, crls)
    if expected is not None and spiffe_id not in expected:
        raise IdentityError(Refusal.WRONG_IDENTITY, f"{spiffe_id} is not expected here")
    leaf = whole[0]
    return Peer(
        spiffe_id=spiffe_id,
        fingerprint=leaf.digest.hex(),
        subject=leaf.text,
        serial=leaf.serial,
        not_after=min(facts.not_after for facts in whole),
        root=whole[-1].digest.hex(),
        path=links,
    )


def _judge_revocation(links: tuple[tuple[bytes, int], ...], crls: Revocations) -> None:
    for place, (issuer_key, serial) in enumerate(links):
        if crls.revokes(issuer_key, serial):
            what = "the leaf" if place == 0 else "a signing certificate"
            raise IdentityError(Refusal.REVOKED, f"{what} with serial number {serial:x} is revoked")
