"""Tokens as operators make, list and delete them."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs import jointoken, pem
from tests.control.plane import BILLING, Reply, csr, running


async def test_a_token_tells_its_holder_whom_to_trust(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        shown = jointoken.parse(await plane.token())
        root = pem.from_pem((await plane.ask("GET", "/v1/bundle", plane.operator)).json["bundle"])[0]
        digest = hashes.Hash(hashes.SHA256())
        digest.update(root.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        assert shown.pins == (digest.finalize(),)
        assert shown.control_id == "spiffe://cluster.local/ns/sidecar-system/sa/sidecar-control"


async def test_the_list_shows_everything_but_the_secret(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        shown = jointoken.parse(await plane.token(ttl="1h", singleUse=True))
        listed = await plane.ask("GET", "/v1/tokens", plane.operator)
        (found,) = [token for token in listed.json["tokens"] if token["id"] == shown.id]
        operator = jointoken.parse(plane.operator).id
        assert found.pop("created") < found.pop("expires")
        assert found == {
            "id": shown.id, "role": "workload", "namespace": "shop", "serviceAccount": "billing",
            "singleUse": True, "createdBy": f"token:{operator}",
        }  # fmt: skip


async def test_a_reusable_token_is_good_until_it_expires(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        token = await plane.token(ttl="10m")
        for _ in range(3):
            assert (await plane.ask("POST", "/v1/certificates", token, csr())).status == 201
        plane.clock.ahead += 599
        assert (await plane.ask("POST", "/v1/certificates", token, csr())).status == 201
        plane.clock.ahead += 2
        assert (await plane.ask("POST", "/v1/certificates", token, csr())).status == 401


async def test_of_many_at_once_one_gets_a_certificate_for_a_single_use_token(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        token = await plane.token(singleUse=True)
        replies: list[Reply] = []

        async def ask() -> None:
            replies.append(await plane.ask("POST", "/v1/certificates", token, csr()))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
        assert sorted(reply.status for reply in replies) == [201] + [401] * 9
        assert len({reply.told for reply in replies if reply.status == 401}) == 1


async def test_a_single_use_token_stays_spent_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        token = await plane.token(singleUse=True)
        assert (await plane.ask("POST", "/v1/certificates", token, csr())).status == 201
    async with running(tmp_path) as plane:
        assert (await plane.ask("POST", "/v1/certificates", token, csr())).status == 401


WRONG = [
    ({"role": "root"}, "role: one of"),
    ({"role": "workload"}, "needs a namespace and a serviceAccount"),
    ({"namespace": "shop"}, "needs a namespace and a serviceAccount"),
    ({"namespace": "Shop", "serviceAccount": "billing"}, "namespace is no DNS label"),
    ({"namespace": "a/sa/b", "serviceAccount": "billing"}, "namespace is no DNS label"),
    ({"namespace": "sidecar-system", "serviceAccount": "sidecar-control"}, "the control plane's own identity"),
    ({"role": "reader", "namespace": "shop", "serviceAccount": "billing"}, "is bound to no workload"),
    ({"role": "operator", "singleUse": True}, "is not single-use"),
    ({"role": "reader", "ttl": "0s"}, "ttl: "),
    ({"role": "reader", "ttl": "10000h"}, "at most 400 days"),
    ({"role": "reader", "labels": {}}, "unknown field"),
    (b"{", "the body is not what this call takes"),
    (b"", "the body is not what this call takes"),
    (b"\xff", "the body is not what this call takes"),
]


@pytest.mark.parametrize(("body", "words"), WRONG)
async def test_an_operator_is_told_what_is_wrong(tmp_path: Path, body: object, words: str) -> None:
    async with running(tmp_path) as plane:
        reply = await plane.ask("POST", "/v1/tokens", plane.operator, body)
        assert reply.status == 400
        assert reply.headers["content-type"] == "application/problem+json"
        assert words in reply.json["detail"]
        assert len((await plane.ask("GET", "/v1/tokens", plane.operator)).json["tokens"]) == 1


async def test_an_operator_who_deletes_a_token_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        reply = await plane.ask("DELETE", "/v1/tokens/0123", plane.operator)
        assert (reply.status, reply.json["detail"]) == (404, "there is no token with this id")


async def test_an_operators_token_can_make_another_operator(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        made = await plane.ask("POST", "/v1/tokens", plane.operator, {"role": "operator", "ttl": "1h"})
        assert (await plane.ask("GET", "/v1/ca", made.json["token"])).status == 200
        assert (await plane.ask("POST", "/v1/certificates", made.json["token"], csr(BILLING))).status == 403
