"""What the control plane's directory is worth to whoever copies it: the key that issues, and not the root's."""

from __future__ import annotations

import re
import time
from pathlib import Path

from certs import pem
from certs.bundle import Bundle, Bundles
from certs.issue import leaf, open_issuer
from certs.jointoken import parse
from certs.keys import key_from_pem, new_key, new_serial
from certs.revocation import Revocations
from certs.verify import verify_peer
from tests.control.plane import BILLING, csr, running, with_another_secret

KEYS = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)


def keys_in(directory: Path) -> list[bytes]:
    """Every private key in any file there, whether its line ends are written out or not."""
    files = [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
    return [key for data in files for key in KEYS.findall(data.replace(b"\\n", b"\n"))]


async def test_whoever_has_the_issuers_key_makes_anybody_and_no_root(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        made = await plane.ask("POST", "/v1/certificates", await plane.token(), csr())
        root = pem.from_pem((plane.directory / "root.pem").read_text())[0]
        (found,) = keys_in(plane.directory)  # one key: that of the intermediate
        chain = pem.from_pem(made.json["chain"])
        key = key_from_pem(found)
        assert key.public_key() == chain[1].public_key() != root.public_key()
        issuer = open_issuer([chain[1], root], key, time.time())
        forged = leaf(issuer, new_key().public_key(), BILLING, new_serial(), time.time(), 3600.0)
        bundles = Bundles.of(Bundle("cluster.local", (root,)))
        peer = verify_peer([forged, chain[1]], bundles, Revocations(), time.time(), expected=frozenset({BILLING}))
        assert peer.spiffe_id == BILLING


async def test_tokens_can_not_be_had_from_the_store(tmp_path: Path) -> None:
    """All that it has of a token is its id and a hash; neither is taken for the token."""
    async with running(tmp_path) as plane:
        token = await plane.token()
        kept = b"".join(path.read_bytes() for path in plane.directory.glob("store.db*"))
        assert parse(token).id.encode() in kept and parse(token).secret not in kept
        assert (await plane.ask("POST", "/v1/certificates", with_another_secret(token), csr())).status == 401
        assert (await plane.ask("POST", "/v1/certificates", token, csr())).status == 201
