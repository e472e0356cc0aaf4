"""Who a peer is: each rule is broken alone in a chain that is good, and the reason names it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.bundle import Bundle, Bundles
from certs.errors import IdentityError, Refusal
from certs.memory import Memory
from certs.revocation import RevocationList, Revocations
from certs.spiffe import SpiffeId, parse
from certs.verify import Peer, check_own, leaf_rules, recheck, verify_handshake, verify_peer
from tests.unit.certs.forge import BOTH, DAY, LEAF, MIDDLE, NOW, ROOT, UNKNOWN, Spec, der, key, make, self_signed

WEB = parse("spiffe://cluster.local/ns/default/sa/web")
NONE = Revocations()
ROOT_CERTIFICATE = self_signed(ROOT)
BUNDLES = Bundles.of(Bundle("cluster.local", (ROOT_CERTIFICATE,)))
Chain = list[x509.Certificate]


def chain(leaf: Spec = LEAF, middle: Spec = MIDDLE, root: Spec = ROOT) -> Chain:
    return [make(leaf, middle), make(middle, root)]


GOOD = chain()


def judge(
    presented: Chain, bundles: Bundles = BUNDLES, crls: Revocations = NONE, now: float = NOW,
    expected: frozenset[SpiffeId] | None = None, memory: Memory | None = None,
) -> Peer:  # fmt: skip
    """By verify_peer, as DER and as objects, with and without memory: they never differ."""
    verdicts: list[Peer | Refusal] = []
    for given_chain in (presented, [der(each) for each in presented]):
        for remembered in (memory, None):
            try:
                verdicts.append(verify_peer(given_chain, bundles, crls, now, expected=expected, memory=remembered))
            except IdentityError as error:
                verdicts.append(error.reason)
    assert len(set(verdicts)) == 1, verdicts
    if isinstance(verdicts[0], Refusal):
        raise IdentityError(verdicts[0], "as judged")
    return verdicts[0]


def refused(act: Callable[[], object]) -> Refusal:
    with pytest.raises(IdentityError) as caught:
        act()
    return caught.value.reason


def test_a_good_chain_says_who_it_is() -> None:
    peer = judge(GOOD, expected=frozenset({WEB}))
    assert peer.spiffe_id == WEB
    assert peer.fingerprint == GOOD[0].fingerprint(hashes.SHA256()).hex()
    assert peer.root == ROOT_CERTIFICATE.fingerprint(hashes.SHA256()).hex()
    assert (peer.serial, peer.subject, peer.not_after) == (3, "", NOW + DAY)
    assert [serial for _, serial in peer.path] == [3, 2]
    assert verify_handshake([*GOOD, ROOT_CERTIFICATE], BUNDLES, NONE, NOW, expected=None) == peer


CONSTRAINED = x509.NameConstraints([x509.UniformResourceIdentifier("other.example")], None)
EXCLUDED = x509.NameConstraints(None, [x509.UniformResourceIdentifier("cluster.local")])
OF_DNS = x509.NameConstraints([x509.DNSName("cluster.local")], None)
TOO_LONG = "spiffe://cluster.local/" + "a" * 2048

# what is wrong with the leaf -> the reason
LEAVES = {
    "TLS-3 no URI SAN": (LEAF.but(uris=()), Refusal.URI_SANS),
    "TLS-3 two URI SANs": (LEAF.but(uris=(str(WEB), "spiffe://cluster.local/other")), Refusal.URI_SANS),
    "TLS-3 the same twice": (LEAF.but(uris=(str(WEB), str(WEB))), Refusal.URI_SANS),
    "TLS-3 a DNS name alone": (
        LEAF.but(uris=(), more=((x509.SubjectAlternativeName([x509.DNSName("web")]), True),)), Refusal.URI_SANS),
    "TLS-4 scheme": (LEAF.but(uris=("Spiffe://cluster.local/ns/default/sa/web",)), Refusal.BAD_SPIFFE_ID),
    "TLS-4 upper case": (LEAF.but(uris=("spiffe://Cluster.local/ns/default/sa/web",)), Refusal.BAD_SPIFFE_ID),
    "TLS-4 port": (LEAF.but(uris=("spiffe://cluster.local:1/ns/default/sa/web",)), Refusal.BAD_SPIFFE_ID),
    "TLS-4 trailing slash": (LEAF.but(uris=(f"{WEB}/",)), Refusal.BAD_SPIFFE_ID),
    "TLS-4 dots": (LEAF.but(uris=("spiffe://cluster.local/ns/../sa/web",)), Refusal.BAD_SPIFFE_ID),
    "TLS-4 percent": (LEAF.but(uris=("spiffe://cluster.local/ns/default/sa/%77eb",)), Refusal.BAD_SPIFFE_ID),
    "TLS-4 too long": (LEAF.but(uris=(TOO_LONG,)), Refusal.BAD_SPIFFE_ID),
    "TLS-4 not SPIFFE": (LEAF.but(uris=("https://cluster.local/",)), Refusal.BAD_SPIFFE_ID),
    "no path": (LEAF.but(uris=("spiffe://cluster.local",)), Refusal.BAD_SPIFFE_ID),
    "TLS-5 CA true": (LEAF.but(ca=True), Refusal.NOT_A_LEAF),
    "TLS-5 keyCertSign": (LEAF.but(ca=True, usage=("digital_signature", "key_cert_sign")), Refusal.NOT_A_LEAF),
    "TLS-5 cRLSign": (LEAF.but(usage=("digital_signature", "crl_sign")), Refusal.NOT_A_LEAF),
    "TLS-5 no KU": (LEAF.but(usage=None), Refusal.BAD_KEY_USAGE),
    "TLS-5 KU without digitalSignature": (LEAF.but(usage=("key_agreement",)), Refusal.BAD_KEY_USAGE),
    "TLS-5 EKU client": (LEAF.but(purposes=BOTH[:1]), Refusal.BAD_EXTENDED_KEY_USAGE),
    "TLS-5 EKU server": (LEAF.but(purposes=BOTH[1:]), Refusal.BAD_EXTENDED_KEY_USAGE),
    "TLS-5 EKU any": (
        LEAF.but(purposes=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)), Refusal.BAD_EXTENDED_KEY_USAGE),
    "TLS-2 unknown critical extension": (LEAF.but(more=((UNKNOWN, True),)), Refusal.UNKNOWN_CRITICAL),
    "TLS-2 expired": (LEAF.but(end=NOW - 1), Refusal.EXPIRED),
    "TLS-2 not yet valid": (LEAF.but(begin=NOW + 1), Refusal.NOT_YET_VALID),
    "RSA 1024": (LEAF.but(key="rsa1024"), Refusal.BAD_KEY),
    "P-224": (LEAF.but(key="p224"), Refusal.BAD_KEY),
    "SHA-224": (LEAF.but(digest=hashes.SHA224()), Refusal.WEAK_SIGNATURE),
    "TLS-6 another domain": (LEAF.but(uris=("spiffe://other.example/web",)), Refusal.UNKNOWN_TRUST_DOMAIN),
    "too large": (
        LEAF.but(more=((x509.UnrecognizedExtension(UNKNOWN.oid, bytes(17_000)), False),)), Refusal.UNREADABLE),
}  # fmt: skip

# what is wrong with the authority in the middle, or with the root -> the reason
MIDDLES = {
    "CA false": (MIDDLE.but(ca=False, path_length=None), Refusal.NOT_AN_AUTHORITY),
    "no basicConstraints": (MIDDLE.but(ca=None), Refusal.NOT_AN_AUTHORITY),
    "no keyCertSign": (MIDDLE.but(usage=("crl_sign",)), Refusal.NOT_AN_AUTHORITY),
    "no KU": (MIDDLE.but(usage=None), Refusal.NOT_AN_AUTHORITY),
    "an id with a path": (MIDDLE.but(uris=("spiffe://cluster.local/ca",)), Refusal.BAD_SPIFFE_ID),
    "expired": (MIDDLE.but(end=NOW - 1), Refusal.EXPIRED),
    "not yet valid": (MIDDLE.but(begin=NOW + 1), Refusal.NOT_YET_VALID),
    "unknown critical extension": (MIDDLE.but(more=((UNKNOWN, True),)), Refusal.UNKNOWN_CRITICAL),
    "may not name us": (MIDDLE.but(more=((CONSTRAINED, True),)), Refusal.NAME_CONSTRAINTS),
    "is kept from naming us": (MIDDLE.but(more=((EXCLUDED, True),)), Refusal.NAME_CONSTRAINTS),
    "constraints of DNS": (MIDDLE.but(more=((OF_DNS, True),)), Refusal.NAME_CONSTRAINTS),
    "RSA 1024": (MIDDLE.but(key="rsa1024"), Refusal.BAD_KEY),
    "SHA-224": (MIDDLE.but(digest=hashes.SHA224()), Refusal.WEAK_SIGNATURE),
}
ROOTS = {
    "expired": (ROOT.but(end=NOW - 1), Refusal.EXPIRED),
    "not yet valid": (ROOT.but(begin=NOW + 1), Refusal.NOT_YET_VALID),
    "allows no authority": (ROOT.but(path_length=0), Refusal.PATH_LENGTH),
    "may not name us": (ROOT.but(more=((CONSTRAINED, True),)), Refusal.NAME_CONSTRAINTS),
}


@pytest.mark.parametrize("fault", LEAVES)
def test_a_leaf_with_one_fault(fault: str) -> None:
    spec, reason = LEAVES[fault]
    assert refused(lambda: judge(chain(leaf=spec))) is reason
    handed = [*chain(leaf=spec), ROOT_CERTIFICATE]  # as if OpenSSL had let it pass
    assert refused(lambda: verify_handshake(handed, BUNDLES, NONE, NOW, expected=None)) is reason


@pytest.mark.parametrize("fault", MIDDLES)
def test_an_authority_with_one_fault(fault: str) -> None:
    spec, reason = MIDDLES[fault]
    assert refused(lambda: judge(chain(middle=spec))) is reason
    handed = [*chain(middle=spec), ROOT_CERTIFICATE]
    assert refused(lambda: verify_handshake(handed, BUNDLES, NONE, NOW, expected=None)) is reason


@pytest.mark.parametrize("fault", ROOTS)
def test_a_root_with_one_fault(fault: str) -> None:
    spec, reason = ROOTS[fault]
    root = self_signed(spec)
    bundles = Bundles.of(Bundle("cluster.local", (root,)))
    assert refused(lambda: judge(GOOD, bundles)) is reason
    assert refused(lambda: verify_handshake([*GOOD, root], bundles, NONE, NOW, expected=None)) is reason


OTHER = ROOT.but(key="other", name="other")
NAMESAKE = ROOT.but(key="other")


@pytest.mark.parametrize(
    ("presented", "reason"),
    [
        ([], Refusal.NO_CERTIFICATE),
        ([GOOD[0]], Refusal.UNKNOWN_AUTHORITY),  # too short
        ([GOOD[0], GOOD[0]], Refusal.UNKNOWN_AUTHORITY),
        ([make(LEAF, LEAF.but(name="x")), GOOD[1]], Refusal.UNKNOWN_AUTHORITY),  # another issuer's name
        ([self_signed(LEAF.but(name="web"))], Refusal.UNKNOWN_AUTHORITY),  # TLS-2: self-signed
        (chain(root=OTHER), Refusal.UNKNOWN_AUTHORITY),  # TLS-2: another authority
        ([*chain(root=OTHER), self_signed(OTHER)], Refusal.UNKNOWN_AUTHORITY),  # its root is there: trusted no more
        (chain(root=NAMESAKE), Refusal.BAD_SIGNATURE),  # a root of the same name
        ([*chain(root=NAMESAKE), self_signed(NAMESAKE)], Refusal.BAD_SIGNATURE),
        ([make(LEAF, MIDDLE, signer="other"), GOOD[1]], Refusal.BAD_SIGNATURE),  # TLS-2: wrong signature
        (
            [make(LEAF, ROOT.but(name="leaf2")), make(LEAF.but(name="leaf2", key="root"), ROOT)],
            Refusal.NOT_AN_AUTHORITY,
        ),
        ([GOOD[0], *[GOOD[1]] * 8], Refusal.PATH_LENGTH),  # nine of them
    ],
)
def test_chains_that_lead_nowhere(presented: Chain, reason: Refusal) -> None:
    assert refused(lambda: judge(presented)) is reason


def test_an_authority_under_one_that_allows_none() -> None:
    lower = MIDDLE.but(name="lower", key="lower")
    presented = [make(LEAF, lower), make(lower, MIDDLE), make(MIDDLE, ROOT)]
    assert refused(lambda: judge(presented)) is Refusal.PATH_LENGTH


def test_garbage_is_unreadable() -> None:
    good = der(GOOD[0])
    for bad in (b"", b"\x00", b"garbage", good[:-1], good + b"\x00", bytes(20_000)):
        with pytest.raises(IdentityError) as caught:
            verify_peer([bad], BUNDLES, NONE, NOW, expected=None)
        assert caught.value.reason is Refusal.UNREADABLE


def test_a_name_of_an_unknown_kind_of_string_is_unreadable() -> None:
    changed = bytearray(der(GOOD[0]))
    changed[changed.index(b"middle") - 2] = 0x0D
    assert refused(lambda: leaf_rules(bytes(changed))) is Refusal.UNREADABLE


@pytest.mark.parametrize("serial", [0x80, 0x00])
@pytest.mark.parametrize("loud", ["error", "ignore"])
def test_a_serial_number_that_is_not_positive_is_unreadable(serial: int, loud: Literal["error", "ignore"]) -> None:
    changed = bytearray(der(GOOD[0]))
    changed[changed.index(b"\x02\x01\x03") + 2] = serial
    with warnings.catch_warnings():
        warnings.simplefilter(loud)
        assert refused(lambda: leaf_rules(bytes(changed))) is Refusal.UNREADABLE


def test_tls_6_a_root_speaks_for_its_own_domain_alone() -> None:
    """Leaf of domain B, chained to A's root, while both A and B are trusted."""
    presented = chain(leaf=LEAF.but(uris=("spiffe://b.example/web",)))
    both = BUNDLES.replaced(Bundle("b.example", (self_signed(OTHER),)))
    assert refused(lambda: judge(presented, both)) is Refusal.UNKNOWN_AUTHORITY
    handed = [*presented, ROOT_CERTIFICATE]
    assert refused(lambda: verify_handshake(handed, both, NONE, NOW, expected=None)) is Refusal.UNKNOWN_AUTHORITY


@pytest.mark.parametrize("bundles", [Bundles(), Bundles.of(Bundle("cluster.local", ()))])
def test_an_empty_bundle_trusts_nobody(bundles: Bundles) -> None:
    assert refused(lambda: judge(GOOD, bundles)) is Refusal.UNKNOWN_TRUST_DOMAIN


@pytest.mark.parametrize(
    "leaf",
    [
        LEAF.but(purposes=None),
        LEAF.but(ca=None),
        LEAF.but(key="rsa2048"),
        LEAF.but(key="p384"),
        LEAF.but(more=((UNKNOWN, False),)),
        LEAF.but(name="CN"),
    ],
)
def test_what_a_leaf_may_be(leaf: Spec) -> None:
    assert judge(chain(leaf=leaf)).spiffe_id == WEB
    assert leaf_rules(make(leaf, MIDDLE)) == WEB


def test_what_an_authority_may_be() -> None:
    ours = x509.NameConstraints([x509.UniformResourceIdentifier("CLUSTER.local")], None)
    under = x509.NameConstraints([x509.UniformResourceIdentifier(".local")], None)
    for middle in (
        MIDDLE.but(uris=()),
        MIDDLE.but(key="p384 m"),
        MIDDLE.but(key="rsa2048 m"),
        MIDDLE.but(path_length=None),
        MIDDLE.but(more=((ours, True),)),
        MIDDLE.but(more=((under, True),)),
    ):
        assert judge(chain(middle=middle)).spiffe_id == WEB


def test_roots_of_one_name_and_roots_that_are_presented() -> None:
    """In a rotation both roots may be there, in whichever order; a trusted root may be presented as well."""
    new = self_signed(NAMESAKE)
    for roots in ((ROOT_CERTIFICATE, new), (new, ROOT_CERTIFICATE)):
        assert judge([*GOOD, ROOT_CERTIFICATE], Bundles.of(Bundle("cluster.local", roots))).spiffe_id == WEB


def test_the_first_and_the_last_second_count() -> None:
    assert judge(GOOD, now=LEAF.begin).spiffe_id == judge(GOOD, now=LEAF.end).spiffe_id == WEB
    assert refused(lambda: judge(GOOD, now=LEAF.begin - 0.5)) is Refusal.NOT_YET_VALID
    assert refused(lambda: judge(GOOD, now=LEAF.end + 0.5)) is Refusal.EXPIRED


def test_who_is_expected() -> None:
    other = parse("spiffe://cluster.local/ns/default/sa/other")
    assert judge(GOOD, expected=frozenset({WEB, other})).spiffe_id == WEB
    assert refused(lambda: judge(GOOD, expected=frozenset({other}))) is Refusal.WRONG_IDENTITY
    assert refused(lambda: judge(GOOD, expected=frozenset())) is Refusal.WRONG_IDENTITY


@pytest.mark.parametrize("serial", [3, 2])
def test_the_leaf_or_its_authority_is_revoked(serial: int) -> None:
    peer = judge(GOOD)
    issuer = {number: issuer for issuer, number in peer.path}[serial]
    crls = Revocations((RevocationList(issuer, 1, NOW, NOW + 60, frozenset({serial})),))
    assert refused(lambda: judge(GOOD, crls=crls)) is Refusal.REVOKED
    assert refused(lambda: recheck(peer, BUNDLES, crls, NOW)) is Refusal.REVOKED
    elsewhere = Revocations((RevocationList(b"another authority", 1, NOW, NOW + 60, frozenset({2, 3})),))
    assert judge(GOOD, crls=elsewhere) == peer


def test_an_open_connection_is_judged_again() -> None:
    peer = judge(GOOD)
    recheck(peer, BUNDLES, NONE, NOW)
    without = Bundles.of(Bundle("cluster.local", (self_signed(OTHER),)))
    assert refused(lambda: recheck(peer, without, NONE, NOW)) is Refusal.UNKNOWN_AUTHORITY
    assert refused(lambda: recheck(peer, Bundles(), NONE, NOW)) is Refusal.UNKNOWN_TRUST_DOMAIN
    assert refused(lambda: recheck(peer, BUNDLES, NONE, NOW + DAY + 1)) is Refusal.EXPIRED


def test_a_root_alone_is_no_handshake() -> None:
    assert refused(lambda: verify_handshake([], BUNDLES, NONE, NOW, expected=None)) is Refusal.NO_CERTIFICATE
    assert refused(lambda: verify_handshake(GOOD, BUNDLES, NONE, NOW, expected=None)) is Refusal.UNKNOWN_AUTHORITY
    assert refused(lambda: verify_handshake(GOOD[:1], BUNDLES, NONE, NOW, expected=None)) is Refusal.UNKNOWN_AUTHORITY


def test_tls_16_what_the_authority_answers() -> None:
    ours = key("leaf").public_key()
    assert check_own(GOOD, ours, WEB, BUNDLES, NOW).spiffe_id == WEB
    other = parse("spiffe://cluster.local/ns/default/sa/other")
    assert refused(lambda: check_own(GOOD, ours, other, BUNDLES, NOW)) is Refusal.WRONG_IDENTITY
    assert refused(lambda: check_own(GOOD, key("other").public_key(), WEB, BUNDLES, NOW)) is Refusal.BAD_KEY
    assert refused(lambda: check_own([], ours, WEB, BUNDLES, NOW)) is Refusal.NO_CERTIFICATE
    assert refused(lambda: check_own(GOOD[:1], ours, WEB, BUNDLES, NOW)) is Refusal.UNKNOWN_AUTHORITY
    assert refused(lambda: check_own(GOOD, ours, WEB, BUNDLES, NOW + DAY + 1)) is Refusal.EXPIRED


def test_memory_judges_nothing_and_is_bounded() -> None:
    memory = Memory(4)
    peer = judge(GOOD, memory=memory)
    assert len(memory) == 3
    crls = Revocations((RevocationList(peer.path[0][0], 1, NOW, NOW + 60, frozenset({3})),))
    assert refused(lambda: judge(GOOD, crls=crls, memory=memory)) is Refusal.REVOKED
    assert refused(lambda: judge(GOOD, now=NOW + DAY + 1, memory=memory)) is Refusal.EXPIRED
    assert refused(lambda: judge(GOOD, Bundles(), memory=memory)) is Refusal.UNKNOWN_TRUST_DOMAIN
    assert refused(lambda: judge(GOOD, expected=frozenset(), memory=memory)) is Refusal.WRONG_IDENTITY
    assert refused(lambda: judge(chain(leaf=LEAF.but(end=NOW - 1)), memory=memory)) is Refusal.EXPIRED
    assert len(memory) == 3  # what was refused is not kept
    for serial in range(10, 14):
        assert judge(chain(leaf=LEAF.but(serial=serial)), memory=memory).serial == serial
        assert len(memory) <= 4


def test_memory_takes_no_signature_from_a_handshake() -> None:
    """What OpenSSL checked is not our word: a later full check still looks at the signature."""
    memory = Memory()
    forged = [make(LEAF, MIDDLE, signer="other"), GOOD[1]]
    verify_handshake([*forged, ROOT_CERTIFICATE], BUNDLES, NONE, NOW, expected=None, memory=memory)
    with pytest.raises(IdentityError) as caught:
        verify_peer(forged, BUNDLES, NONE, NOW, expected=None, memory=memory)
    assert caught.value.reason is Refusal.BAD_SIGNATURE


@given(st.integers(0, 4096), st.integers(1, 255), st.integers(0, 1))
@settings(max_examples=300, deadline=None)
def test_no_byte_can_be_changed(place: int, flip: int, which: int) -> None:
    """Every byte of leaf and authority is covered by a signature, or is one."""
    presented = [bytearray(der(each)) for each in GOOD]
    presented[which][place % len(presented[which])] ^= flip
    with pytest.raises(IdentityError):
        verify_peer([bytes(each) for each in presented], BUNDLES, NONE, NOW, expected=frozenset({WEB}))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("unused", range(1, 8))
def test_the_octet_in_front_of_a_signature_is_covered_as_well(which: int, unused: int) -> None:
    """It has the number of unused bits, which a parser may take for another one where those bits are zero."""
    presented = [bytearray(der(each)) for each in GOOD]
    presented[which][-len(GOOD[which].signature) - 1] = unused
    with pytest.raises(IdentityError) as caught:
        verify_peer([bytes(each) for each in presented], BUNDLES, NONE, NOW, expected=frozenset({WEB}))
    assert caught.value.reason is Refusal.UNREADABLE


@given(
    st.sampled_from(sorted(LEAVES)), st.sampled_from([*sorted(MIDDLES), None]), st.sampled_from([*sorted(ROOTS), None])
)
@settings(max_examples=60, deadline=None)
def test_faults_do_not_mend_each_other(leaf: str, middle: str | None, root: str | None) -> None:
    specs = LEAVES[leaf][0], MIDDLES[middle][0] if middle else MIDDLE, ROOTS[root][0] if root else ROOT
    bundles = Bundles.of(Bundle("cluster.local", (self_signed(specs[2]),)))
    reason = refused(lambda: verify_peer(chain(*specs), bundles, NONE, NOW, expected=None))
    assert reason in {LEAVES[leaf][1], *(MIDDLES[middle][1:] if middle else ()), *(ROOTS[root][1:] if root else ())}
