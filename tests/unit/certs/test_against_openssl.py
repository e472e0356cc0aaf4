"""What our authority signs, judged by OpenSSL at its strictest; and the words, as docs/identity.md has them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from OpenSSL import crypto

from certs import keys
from certs.errors import Refusal
from certs.issue import crl, leaf, new_intermediate, new_root
from certs.spiffe import workload
from tests.unit.certs.forge import DAY, NOW

PAGE = Path(__file__).parents[3] / "docs" / "identity.md"
X509_V_ERR_CERT_REVOKED = 23  # of OpenSSL's x509_vfy.h


@pytest.mark.parametrize("revoked", [False, True])
def test_openssl_takes_what_is_issued_and_sees_what_is_revoked(revoked: bool) -> None:
    root = new_root("cluster.local", keys.new_key(), keys.new_serial(), NOW, DAY)
    issuer = new_intermediate(root, keys.new_key(), keys.new_serial(), NOW, DAY)
    made = leaf(issuer, keys.new_key().public_key(), workload("cluster.local", "default", "web"), 7, NOW, 20)
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(root.root))
    for text in (crl(root, {}, NOW, 1, NOW + 60), crl(issuer, {7: NOW} if revoked else {8: NOW}, NOW, 1, NOW + 60)):
        store.add_crl(x509.load_pem_x509_crl(text.encode()))
    flags = crypto.X509StoreFlags
    store.set_flags(flags.X509_STRICT | flags.CRL_CHECK | flags.CRL_CHECK_ALL)
    store.set_time(datetime.fromtimestamp(NOW, UTC))
    context = crypto.X509StoreContext(
        store,
        crypto.X509.from_cryptography(made),
        [crypto.X509.from_cryptography(each) for each in issuer.intermediates],
    )
    if revoked:
        with pytest.raises(crypto.X509StoreContextError) as refused:
            context.verify_certificate()
        assert refused.value.errors[0] == X509_V_ERR_CERT_REVOKED
    else:
        context.verify_certificate()


@pytest.mark.parametrize("refusal", Refusal)
def test_each_word_is_explained(refusal: Refusal) -> None:
    assert f"`{refusal.word}`" in PAGE.read_text()
