"""What an authority signs: it passes the rules that peers are held to, and nothing outlives its issuer."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs import keys
from certs.bundle import Bundle, Bundles
from certs.errors import IdentityError, Refusal
from certs.issue import BACKDATE, Issuer, crl, leaf, new_intermediate, new_root, open_issuer
from certs.revocation import Revocations, read_crl
from certs.spiffe import SpiffeId, parse, trust_domain_id
from certs.verify import verify_peer
from tests.unit.certs.forge import AUTHORITY, DAY, MIDDLE, NOW, ROOT, key, make, self_signed

WEB = parse("spiffe://cluster.local/ns/default/sa/web")
YEAR = 365 * DAY
ROOT_ISSUER = new_root("cluster.local", key("a root"), keys.new_serial(), NOW, YEAR)
ISSUER = new_intermediate(ROOT_ISSUER, key("an issuer"), keys.new_serial(), NOW, 30 * DAY)
BUNDLE = Bundle("cluster.local", (ROOT_ISSUER.root,))


def issue(issuer: Issuer = ISSUER, now: float = NOW, ttl: float = DAY) -> x509.Certificate:
    return leaf(issuer, key("leaf").public_key(), WEB, 77, now, ttl)


def refusal(caught: pytest.ExceptionInfo[IdentityError]) -> Refusal:
    return caught.value.reason


def test_a_leaf_has_what_the_contract_says() -> None:
    made = issue()
    by_kind = {type(each.value): each for each in made.extensions}
    names = by_kind[x509.SubjectAlternativeName]
    assert names.critical and list(names.value) == [x509.UniformResourceIdentifier(str(WEB))]
    basic = by_kind[x509.BasicConstraints]
    assert basic.critical and basic.value.ca is False
    usage = by_kind[x509.KeyUsage]
    assert usage.critical and usage.value.digital_signature and not usage.value.key_cert_sign
    purposes = by_kind[x509.ExtendedKeyUsage].value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    issuer_key = ISSUER.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert by_kind[x509.AuthorityKeyIdentifier].value.key_identifier == issuer_key.digest
    assert by_kind[x509.SubjectKeyIdentifier].value == x509.SubjectKeyIdentifier.from_public_key(made.public_key())
    assert len(by_kind) == 6
    assert (list(made.subject), made.serial_number, made.version) == ([], 77, x509.Version.v3)
    assert made.not_valid_before_utc.timestamp() == NOW - BACKDATE
    assert made.not_valid_after_utc.timestamp() == NOW + DAY


@pytest.mark.parametrize("issuer", [ISSUER, ROOT_ISSUER])
def test_what_is_issued_is_taken(issuer: Issuer) -> None:
    peer = verify_peer(
        [issue(issuer), *issuer.intermediates], Bundles.of(BUNDLE), Revocations(), NOW, expected=frozenset({WEB})
    )
    assert (peer.serial, peer.subject) == (77, "")


def test_nothing_outlives_its_issuer() -> None:
    late = new_intermediate(ROOT_ISSUER, key("late"), keys.new_serial(), NOW + YEAR - DAY, 30 * DAY)
    assert late.not_after == ROOT_ISSUER.not_after == NOW + YEAR
    assert issue(late, NOW + YEAR - 10).not_valid_after_utc.timestamp() == NOW + YEAR
    early = new_root("cluster.local", key("early"), keys.new_serial(), NOW, DAY)
    assert issue(early, NOW - 100).not_valid_before_utc.timestamp() == early.not_before
    with pytest.raises(IdentityError) as ended:
        issue(now=NOW + 30 * DAY)
    assert refusal(ended) is Refusal.EXPIRED
    with pytest.raises(IdentityError) as ahead:
        issue(now=NOW - BACKDATE - 1)
    assert refusal(ahead) is Refusal.NOT_YET_VALID


def test_seconds_are_whole_and_round_down() -> None:
    made = issue(now=NOW + 0.9, ttl=20.5)
    assert made.not_valid_after_utc.timestamp() == NOW + 21
    assert made.not_valid_before_utc.timestamp() == NOW - BACKDATE


@pytest.mark.parametrize(
    ("public_key", "spiffe_id", "reason"),
    [
        (ISSUER.key.public_key(), WEB, Refusal.BAD_KEY),
        (key("leaf").public_key(), trust_domain_id("cluster.local"), Refusal.BAD_SPIFFE_ID),
        (key("leaf").public_key(), parse("spiffe://other.example/web"), Refusal.UNKNOWN_TRUST_DOMAIN),
    ],
)
def test_leaves_that_are_not_signed(public_key: keys.PublicKey, spiffe_id: SpiffeId, reason: Refusal) -> None:
    with pytest.raises(IdentityError) as caught:
        leaf(ISSUER, public_key, spiffe_id, 1, NOW, DAY)
    assert refusal(caught) is reason


def test_an_intermediate_has_none_below_it() -> None:
    with pytest.raises(IdentityError) as caught:
        new_intermediate(ISSUER, keys.new_key(), 1, NOW, DAY)
    assert refusal(caught) is Refusal.PATH_LENGTH


def test_two_roots_never_share_a_name() -> None:
    other = new_root("cluster.local", key("other"), keys.new_serial(), NOW, YEAR)
    assert other.root.subject != ROOT_ISSUER.root.subject


def test_no_key_is_shown() -> None:
    assert "key" not in repr(ISSUER)
    assert "PRIVATE" not in ISSUER.to_pem()


def test_a_stored_authority_is_opened() -> None:
    for issuer in (ISSUER, ROOT_ISSUER):
        assert open_issuer(issuer.chain, issuer.key, NOW, trust_domain="cluster.local") == issuer
        assert open_issuer(issuer.chain, issuer.key, NOW) == issuer


def test_a_brought_authority_may_name_no_domain() -> None:
    brought = open_issuer([self_signed(ROOT.but(uris=()))], key("root"), NOW, trust_domain="cluster.local")
    assert issue(brought).issuer == brought.certificate.subject


MADE = make(MIDDLE, ROOT)
NO_CA = make(MIDDLE.but(ca=False, path_length=None), ROOT)


@pytest.mark.parametrize(
    ("chain", "name", "now", "reason"),
    [
        ([], "root", NOW, Refusal.NO_CERTIFICATE),
        ([self_signed(ROOT)], "other", NOW, Refusal.BAD_KEY),
        ([MADE], "middle", NOW, Refusal.UNKNOWN_AUTHORITY),
        ([MADE, self_signed(ROOT.but(key="other"))], "middle", NOW, Refusal.BAD_SIGNATURE),
        ([NO_CA, self_signed(ROOT)], "middle", NOW, Refusal.NOT_AN_AUTHORITY),
        ([self_signed(ROOT.but(usage=AUTHORITY[:1]))], "root", NOW, Refusal.NOT_AN_AUTHORITY),
        ([make(ROOT, ROOT, signer="other")], "root", NOW, Refusal.BAD_SIGNATURE),
        ([self_signed(ROOT)], "root", NOW + DAY + 1, Refusal.EXPIRED),
        ([self_signed(ROOT)], "root", NOW - 301, Refusal.NOT_YET_VALID),
        ([MADE, self_signed(ROOT.but(path_length=0))], "middle", NOW, Refusal.PATH_LENGTH),
        ([self_signed(ROOT.but(uris=("spiffe://other.example",)))], "root", NOW, Refusal.UNKNOWN_TRUST_DOMAIN),
    ],
)  # fmt: skip
def test_what_is_no_authority(chain: list[x509.Certificate], name: str, now: float, reason: Refusal) -> None:
    with pytest.raises(IdentityError) as caught:
        open_issuer(chain, key(name), now, trust_domain="cluster.local")
    assert refusal(caught) is reason


def revoked(issuer: Issuer = ISSUER, number: int = 1, now: float = NOW) -> str:
    return crl(issuer, {77: NOW - 5, 78: NOW - 4}, now, number, now + 60)


def test_a_list_is_read_back() -> None:
    for issuer in (ISSUER, ROOT_ISSUER):
        found = read_crl(revoked(issuer), issuer.intermediates, BUNDLE, NOW)
        assert (found.number, found.next_update) == (1, NOW + 60)
        assert found.serials == {77, 78}
        assert not found.overdue(NOW + 60)
        assert found.overdue(NOW + 61)


def test_a_revoked_leaf_is_refused() -> None:
    crls = Revocations().replaced(read_crl(revoked(), ISSUER.intermediates, BUNDLE, NOW))
    presented = [issue(), *ISSUER.intermediates]
    with pytest.raises(IdentityError) as caught:  # long overdue, and still used
        verify_peer(presented, Bundles.of(BUNDLE), crls, NOW + 3600, expected=None)
    assert refusal(caught) is Refusal.REVOKED
    assert crls.overdue(NOW + 3600)


def test_a_list_only_becomes_newer() -> None:
    first, second = (read_crl(revoked(number=n), ISSUER.intermediates, BUNDLE, NOW) for n in (1, 2))
    crls = Revocations().replaced(second).replaced(second)
    assert len(crls.lists) == 1
    with pytest.raises(IdentityError) as caught:
        crls.replaced(first)
    assert refusal(caught) is Refusal.OLDER_LIST
    of_root = read_crl(revoked(ROOT_ISSUER), (), BUNDLE, NOW)
    assert len(crls.replaced(of_root).lists) == 2


FORGED = Issuer(ISSUER.chain, key("other"))


@pytest.mark.parametrize(
    ("text", "chain", "now", "reason"),
    [
        ("", ISSUER.intermediates, NOW, Refusal.BAD_LIST),
        ("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", ISSUER.intermediates, NOW, Refusal.BAD_LIST),
        (revoked() + revoked(), ISSUER.intermediates, NOW, Refusal.BAD_LIST),
        (revoked() + " " * 4_194_304, ISSUER.intermediates, NOW, Refusal.BAD_LIST),
        (revoked(now=NOW + 301), ISSUER.intermediates, NOW, Refusal.BAD_LIST),
        (revoked(FORGED), ISSUER.intermediates, NOW, Refusal.BAD_SIGNATURE),
        (revoked(), (), NOW, Refusal.UNKNOWN_AUTHORITY),
        (revoked(), ISSUER.intermediates, NOW + 30 * DAY + 1, Refusal.EXPIRED),
    ],
)  # fmt: skip
def test_lists_that_are_refused(text: str, chain: tuple[x509.Certificate, ...], now: float, reason: Refusal) -> None:
    with pytest.raises(IdentityError) as caught:
        read_crl(text, chain, BUNDLE, now)
    assert refusal(caught) is reason


def test_a_list_of_another_trust_domains_authority_is_refused() -> None:
    other = Bundle("cluster.local", (self_signed(ROOT),))
    with pytest.raises(IdentityError) as caught:
        read_crl(revoked(), ISSUER.intermediates, other, NOW)
    assert refusal(caught) is Refusal.UNKNOWN_AUTHORITY


def test_a_signer_without_crl_sign_is_refused() -> None:
    mute = Issuer((self_signed(ROOT.but(usage=AUTHORITY[:1])),), key("root"))
    with pytest.raises(IdentityError) as caught:
        read_crl(revoked(mute), (), Bundle("cluster.local", mute.chain), NOW)
    assert refusal(caught) is Refusal.NOT_AN_AUTHORITY
