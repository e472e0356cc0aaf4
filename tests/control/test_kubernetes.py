"""Kubernetes service-account tokens, by keys and by TokenReview: CTL-1's other audience, and every other trick."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from certs import pem
from tests.control import kubeapi
from tests.control.kubeapi import AUDIENCE, EC, P384, RSA, token, unsigned
from tests.control.plane import BILLING, ORDERS, Plane, Reply, csr, running


def by_keys(path: Path, data: bytes = b"") -> dict[str, object]:
    """Settings with the keys in a file."""
    file = path / "jwks.json"
    file.write_bytes(data or kubeapi.jwks())
    return {"kube_jwks": str(file), "kube_audience": AUDIENCE}


async def certificate(plane: Plane, shown: str) -> Reply:
    return await plane.ask("POST", "/v1/certificates", shown, csr(BILLING))


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(RSA, "RS256", "rsa"), (EC, "ES256", "ec")])
async def test_a_service_account_gets_its_identity(tmp_path: Path, key: object, algorithm: str, kid: str) -> None:
    async with running(tmp_path, **by_keys(tmp_path)) as plane:
        reply = await certificate(plane, token(key, algorithm, kid))
        assert reply.status == 201 and pem.from_pem(reply.json["chain"])
        other = await plane.ask("POST", "/v1/certificates", token(key, algorithm, kid), csr(ORDERS))
        assert other.status == 401
        assert plane.audit()[-2]["who"] == str(BILLING)


PUBLIC = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def hmac_with_the_public_key() -> str:
    head = {"alg": "HS256", "kid": "rsa", "typ": "JWT"}
    signed = f"{kubeapi.part(head)}.{kubeapi.part(kubeapi.claims())}"
    algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = algorithm.sign(signed.encode(), PUBLIC)
    return f"{signed}.{jwt.utils.base64url_encode(signature).decode()}"


REFUSED = {
    "another audience": lambda: token(aud=["vault"]),
    "no audience": lambda: token(aud=None),
    "expired": lambda: token(exp=int(time.time()) - 1),
    "without an end": lambda: token(exp=None),
    "not yet": lambda: token(nbf=int(time.time()) + 60),
    "without a subject": lambda: token(sub=None),
    "a person's": lambda: token(sub="alice"),
    "a node's": lambda: token(sub="system:node:shop"),
    "a name with a slash": lambda: token(sub="system:serviceaccount:shop:a/b", more={"kubernetes.io": None}),
    "claims that differ": lambda: token(sub="system:serviceaccount:shop:orders"),
    "the control plane's": lambda: token(
        sub="system:serviceaccount:sidecar-system:sidecar-control", more={"kubernetes.io": None}
    ),
    "alg none": lambda: unsigned("none"),
    "alg None": lambda: unsigned("None"),
    "HS256 with the public key": hmac_with_the_public_key,
    "another key of that name": lambda: token(EC, "ES256", "rsa"),
    "RS512": lambda: token(RSA, "RS512"),
    "PS256": lambda: token(RSA, "PS256"),
    "a key that is not there": lambda: token(kid="other"),
    "P-384, which is left out": lambda: token(P384, "ES384", "p384"),
    "changed": lambda: token()[:-6] + "AAAAAA",
    "too long": lambda: token(note="x" * 20_000),
    "no JWT": lambda: "hello",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_ctl_1_a_token_that_is_not_for_us_is_refused_like_none(tmp_path: Path, name: str) -> None:
    keys = kubeapi.jwks(rsa=RSA, ec=EC, p384=P384)
    async with running(tmp_path, **by_keys(tmp_path, keys)) as plane:
        reply = await certificate(plane, REFUSED[name]())
        nothing = await plane.ask("POST", "/v1/certificates", body=csr())
        assert (reply.status, reply.told) == (nothing.status, nothing.told) and reply.status in (401, 431)


async def test_keys_that_are_replaced_are_read_again(tmp_path: Path) -> None:
    async with running(tmp_path, **by_keys(tmp_path, kubeapi.jwks(old=RSA))) as plane:
        assert (await certificate(plane, token(EC, "ES256", "new"))).status == 401
        by_keys(tmp_path, kubeapi.jwks(new=EC))
        assert (await certificate(plane, token(EC, "ES256", "new"))).status == 201
        assert (await certificate(plane, token(kid="old"))).status == 401


async def test_keys_that_can_not_be_read_are_503_until_they_can(tmp_path: Path) -> None:
    async with running(tmp_path, **by_keys(tmp_path, b"{}")) as plane:
        assert (await certificate(plane, token())).status == 503
        by_keys(tmp_path)
        assert (await certificate(plane, token())).status == 201


async def test_keys_are_fetched_from_a_url_and_kept_while_it_is_away(tmp_path: Path) -> None:
    with kubeapi.serving(kubeapi.KubeApi()) as api:
        api.answer = (200, kubeapi.jwks())
        async with running(tmp_path, kube_jwks=api.url + "/openid/v1/jwks", kube_audience=AUDIENCE) as plane:
            assert (await certificate(plane, token())).status == 201
            api.answer = (500, b"")
            plane.clock.ahead += 3600
            assert (await certificate(plane, token())).status == 201


async def test_the_api_server_is_asked(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("our-own-token\n")
    told = {"kube_audience": AUDIENCE, "kube_api_token_file": str(tmp_path / "token")}
    with kubeapi.serving(kubeapi.KubeApi()) as api:
        api.approve()
        async with running(tmp_path, kube_api=api.url, **told) as plane:
            assert (await certificate(plane, "their-token")).status == 201
        path, authorization, body = api.asked[0]
        assert path == "/apis/authentication.k8s.io/v1/tokenreviews"
        assert authorization == "Bearer our-own-token"
        assert json.loads(body) == {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": "their-token", "audiences": [AUDIENCE]},
        }


ANSWERS = [
    ({"authenticated": False}, 401),
    ({"authenticated": "true"}, 401),
    ({"audiences": ["https://kubernetes.default.svc"]}, 401),
    ({"audiences": None}, 401),
    ({"user": {"username": "alice"}}, 401),
    ({"user": None}, 401),
    ({"user": {"username": "system:serviceaccount:sidecar-system:sidecar-control"}}, 401),
    ({"user": []}, 401),
]


@pytest.mark.parametrize(("status", "expected"), ANSWERS)
async def test_an_answer_that_is_no_approval_refuses(tmp_path: Path, status: dict[str, object], expected: int) -> None:
    with kubeapi.serving(kubeapi.KubeApi()) as api:
        api.approve(**status)
        async with running(tmp_path, kube_api=api.url, kube_audience=AUDIENCE) as plane:
            assert (await certificate(plane, "their-token")).status == expected


@pytest.mark.parametrize("answer", [(500, b""), (302, b""), (201, b"{"), (201, b"[]"), (201, b'{"status": 1}')])
async def test_without_a_verdict_nobody_is_let_in(tmp_path: Path, answer: tuple[int, bytes]) -> None:
    with kubeapi.serving(kubeapi.KubeApi()) as api:
        api.answer = answer
        async with running(tmp_path, kube_api=api.url, kube_audience=AUDIENCE) as plane:
            reply = await certificate(plane, "their-token")
            assert reply.status == 503 and b"their-token" not in (tmp_path / "audit.jsonl").read_bytes()


async def test_without_a_server_nobody_is_let_in(tmp_path: Path) -> None:
    with kubeapi.serving(kubeapi.KubeApi()) as api:
        gone = api.url
    async with running(tmp_path, kube_api=gone, kube_audience=AUDIENCE) as plane:
        assert (await certificate(plane, "their-token")).status == 503
