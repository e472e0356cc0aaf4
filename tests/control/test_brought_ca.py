"""A CA that was brought: taken, refused, and how one root follows another there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from certs import issue, keys, pem
from certs.issue import Issuer
from sidecar.errors import StartError
from tests.control.plane import csr, running

LONG = 365 * 86400.0


def write(path: Path, issuer: Issuer, *more: Issuer) -> dict[str, str]:
    """The two files, as settings."""
    cert, key = path / "ca.pem", path / "ca.key"
    cert.write_text(pem.to_pem([*issuer.chain, *(one.root for one in more)]))
    key.touch(0o600)
    key.write_bytes(keys.key_to_pem(issuer.key))
    return {"ca_cert": str(cert), "ca_key": str(key)}


def root(now: float, domain: str = "cluster.local") -> Issuer:
    return issue.new_root(domain, keys.new_key(), keys.new_serial(), now, LONG)


def under(above: Issuer, now: float) -> Issuer:
    return issue.new_intermediate(above, keys.new_key(), keys.new_serial(), now, LONG)


@pytest.mark.parametrize("depth", [1, 2], ids=["a root", "an authority under a root"])
async def test_it_issues(tmp_path: Path, depth: int) -> None:
    issuer = root(time.time()) if depth == 1 else under(root(time.time()), time.time())
    async with running(tmp_path, **write(tmp_path, issuer)) as plane:
        reply = await plane.ask("POST", "/v1/certificates", await plane.token(), csr())
        assert reply.status == 201
        assert len(pem.from_pem(reply.json["chain"])) == depth
        assert pem.from_pem(reply.json["bundle"]) == (issuer.root,)
        rotated = await plane.ask("POST", "/v1/ca:rotate", plane.operator, {"voidTokens": True})
        assert rotated.status == 409 and "--ca-cert" in rotated.json["detail"]
        assert not (tmp_path / "ca" / "authority.json").exists()


async def test_further_roots_behind_its_own_are_trusted_too(tmp_path: Path) -> None:
    old, new = root(time.time()), root(time.time())
    async with running(tmp_path, **write(tmp_path, under(old, time.time()), new)) as plane:
        bundle = (await plane.ask("GET", "/v1/bundle", plane.operator)).json
        assert set(pem.from_pem(bundle["bundle"])) == {old.root, new.root}
    async with running(tmp_path, **write(tmp_path, under(old, time.time()))) as plane:
        after = (await plane.ask("GET", "/v1/bundle", plane.operator)).json
        assert pem.from_pem(after["bundle"]) == (old.root,)
        assert int(after["version"].split(".")[1]) > int(bundle["version"].split(".")[1])


async def refused(path: Path, words: str, told: dict[str, str]) -> None:
    with pytest.raises(StartError, match=words):
        async with running(path, **told):
            raise AssertionError("it started")


async def test_what_can_not_be_used_is_one_line_that_names_the_flag(tmp_path: Path) -> None:
    now = time.time()
    issuer = under(root(now), now)
    told = write(tmp_path, issuer)
    await refused(tmp_path, "^--ca-key: .* can't be used: No such file", told | {"ca_key": str(tmp_path / "none")})
    await refused(tmp_path, "^--ca-cert: .* can't be used: No such file", told | {"ca_cert": str(tmp_path / "none")})
    await refused(tmp_path, "^--ca-key: .* can't be used: no PEM private key", told | {"ca_key": told["ca_cert"]})
    (tmp_path / "ca.key").write_bytes(keys.key_to_pem(keys.new_key()))
    await refused(tmp_path, "^--ca-cert: .* the key is not that of", told)
    write(tmp_path, issuer)
    (tmp_path / "ca.pem").write_text(pem.to_pem(issuer.intermediates))
    await refused(tmp_path, "^--ca-cert: ", told)
    old = root(now - 2 * LONG)
    await refused(tmp_path, "^--ca-cert: .*expired", write(tmp_path, old))
    await refused(tmp_path, "^--ca-cert: .*other.example", write(tmp_path, root(now, "other.example")))
