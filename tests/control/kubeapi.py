"""Kubernetes as far as the control plane sees it: keys, tokens signed by them, and a server that reviews tokens."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "sidecar-control"
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())


def jwks(**keys: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """The document with the public halves; by default an RSA key and a P-256 key."""
    members = []
    for kid, key in (keys or {"rsa": RSA, "ec": EC}).items():
        if isinstance(key, rsa.RSAPrivateKey):
            member = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        else:
            member = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        members.append({**member, "kid": kid, "use": "sig"})
    return json.dumps({"keys": members}).encode()


def claims(**more: object) -> dict[str, object]:
    """What a service-account token says."""
    told: dict[str, object] = {
        "iss": "https://kubernetes.default.svc",
        "sub": "system:serviceaccount:shop:billing",
        "aud": [AUDIENCE],
        "exp": int(time.time()) + 600,
        "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "billing", "uid": "1"}},
    }
    return {name: value for name, value in {**told, **more}.items() if value is not None}


def token(
    key: Any = RSA, algorithm: str = "RS256", kid: str = "rsa", more: dict[str, object] | None = None, **told: object
) -> str:
    """A token that is right in all that is not said."""
    return jwt.encode(claims(**(more or {}), **told), key, algorithm, headers={"kid": kid})


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned(algorithm: str) -> str:
    return f"{part({'alg': algorithm, 'kid': 'rsa', 'typ': 'JWT'})}.{part(claims())}."


class KubeApi:
    """What the server answers, and what it was asked."""

    def __init__(self) -> None:
        self.answer: tuple[int, bytes] = (201, b"")
        self.asked: list[tuple[str, str, bytes]] = []
        self.url = ""

    def approve(self, **status: Any) -> None:
        """``status`` is laid over an approval of the service account shop/billing."""
        self.answer = verdict(**status)

    def answer_to(self, body: bytes) -> tuple[int, bytes]:
        """The status and the body of the answer to a request with this one."""
        return self.answer


def verdict(**status: Any) -> tuple[int, bytes]:
    """An answer to a TokenReview: an approval of the service account shop/billing, with ``status`` laid over it."""
    told = {
        "authenticated": True,
        "audiences": [AUDIENCE],
        "user": {"username": "system:serviceaccount:shop:billing"},
    }
    return 201, json.dumps({"kind": "TokenReview", "status": {**told, **status}}).encode()


A = TypeVar("A", bound=KubeApi)


@contextmanager
def serving(api: A) -> Iterator[A]:
    """A server on loopback; its thread ends with this."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            api.asked.append((self.path, self.headers.get("authorization", ""), body))
            self._answer(body)

        def do_GET(self) -> None:
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            status, data = api.answer_to(body)
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
