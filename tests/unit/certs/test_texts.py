"""Keys, certificates and bundles as text; the header that tells the app who called."""

from __future__ import annotations

import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from certs import keys, pem, xfcc
from certs.bundle import Bundle, Bundles
from certs.errors import IdentityError, Refusal
from certs.spiffe import parse
from tests.unit.certs.forge import LEAF, MIDDLE, ROOT, key, make, self_signed

WEB = parse("spiffe://cluster.local/ns/default/sa/web")
DB = parse("spiffe://cluster.local/ns/default/sa/db")
ROOT_PEM = pem.to_pem([self_signed(ROOT)])
KEY_PEM = keys.key_to_pem(key("a root"))


def refusal(caught: pytest.ExceptionInfo[IdentityError]) -> Refusal:
    return caught.value.reason


def test_a_key_is_p256_and_read_back() -> None:
    made = keys.new_key()
    assert made.curve.name == "secp256r1"
    assert keys.key_from_pem(keys.key_to_pem(made)).private_numbers() == made.private_numbers()


def test_serial_numbers_are_positive_and_long() -> None:
    serials = {keys.new_serial() for _ in range(50)}
    assert len(serials) == 50
    assert all(0 < serial < 1 << 159 for serial in serials)
    assert max(serials).bit_length() > 128


def other_format(name: str, encryption: serialization.KeySerializationEncryption) -> bytes:
    made = key(name)
    form = serialization.PrivateFormat.PKCS8
    return bytes(made.private_bytes(serialization.Encoding.PEM, form, encryption))


@pytest.mark.parametrize(
    "text",
    [
        b"", b"garbage", KEY_PEM[:-40], b" " * 20_000,
        other_format("a root", serialization.BestAvailableEncryption(b"x")),
        other_format("rsa2048", serialization.NoEncryption()),
        other_format("p224", serialization.NoEncryption()),
    ],
)  # fmt: skip
def test_keys_that_are_refused(text: bytes) -> None:
    with pytest.raises(IdentityError) as caught:
        keys.key_from_pem(text)
    assert refusal(caught) is Refusal.BAD_KEY


def test_a_bundle_is_read_back_and_has_each_root_once() -> None:
    bundle = Bundle.from_pem("cluster.local", ROOT_PEM * 2, (7, 3))
    assert bundle.to_pem() == ROOT_PEM
    assert bundle == Bundle("cluster.local", (self_signed_root(bundle),), (7, 3))


def self_signed_root(bundle: Bundle) -> x509.Certificate:
    return bundle.roots[0]


def test_a_bundle_is_empty_only_where_that_is_meant() -> None:
    with pytest.raises(IdentityError) as caught:
        Bundle.from_pem("cluster.local", "no certificate here")
    assert refusal(caught) is Refusal.EMPTY_BUNDLE
    assert Bundle.from_pem("cluster.local", "", allow_empty=True).roots == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ROOT_PEM + KEY_PEM.decode(), Refusal.UNREADABLE),
        (ROOT_PEM[:-30], Refusal.UNREADABLE),
        (ROOT_PEM + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", Refusal.UNREADABLE),
        (ROOT_PEM * 65, Refusal.UNREADABLE),
        (" " * (1 << 21), Refusal.UNREADABLE),
        (pem.to_pem([make(LEAF, MIDDLE)]), Refusal.NOT_AN_AUTHORITY),
        (pem.to_pem([self_signed(ROOT.but(key="rsa1024"))]), Refusal.BAD_KEY),
    ],
)
def test_bundles_that_are_refused(text: str, reason: Refusal) -> None:
    with pytest.raises(IdentityError) as caught:
        Bundle.from_pem("cluster.local", text)
    assert refusal(caught) is reason


def test_a_bundle_replaces_that_of_its_own_domain_alone() -> None:
    ours, theirs = Bundle.from_pem("cluster.local", ROOT_PEM), Bundle.from_pem("b.example", ROOT_PEM)
    newer = Bundle.from_pem("cluster.local", ROOT_PEM, (0, 1))
    bundles = Bundles.of(ours, theirs).replaced(newer)
    assert (bundles.get("cluster.local"), bundles.get("b.example"), bundles.get("c")) == (newer, theirs, None)
    assert len(list(bundles)) == 2


def test_the_header_of_a_peer_of_ours() -> None:
    assert xfcc.element(DB, "ab" * 32, "", WEB) == f'By={DB};Hash={"ab" * 32};Subject="";URI={WEB}'


def test_the_header_of_a_usual_subject() -> None:
    assert ';Subject="CN=web,O=Shop\\, Inc";' in xfcc.element(DB, "00", "CN=web,O=Shop\\, Inc", WEB)


ELEMENT = re.compile(r'By=[^;,"]+;Hash=[0-9a-f]+;Subject="((?:[^"\\]|\\[^"\\])*)";URI=[^;,"]+')


@pytest.mark.parametrize("name", ['a"b', "a\\", 'a\\"', "a\r\nx-evil: 1", "ä\x00", '";URI=spiffe://evil', "\\\\", '"'])
def test_no_subject_leaves_its_quotes(name: str) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]).rfc4514_string()
    check_element(subject)


@given(st.text(st.sampled_from('ab\\"5C;,= \r\n\x00ä'), max_size=12))
def test_no_text_leaves_its_quotes(subject: str) -> None:
    check_element(subject)


def check_element(subject: str) -> None:
    made = xfcc.element(DB, "00", subject, WEB)
    assert ELEMENT.fullmatch(made), made
    assert made.isascii() and made.isprintable()


def test_a_long_subject_is_left_out() -> None:
    assert ';Subject="";' in xfcc.element(DB, "00", "CN=" + "a" * 1100, WEB)
