"""Kubernetes service-account tokens: a JWT -> the namespace and the service account that it speaks for.

Who calls it: ``control.authentication``, for a bearer token that is not one of ours. Two ways, one of which is
configured: by the cluster's keys (``--kube-jwks``: no call per token, and a token is good until it expires), or by
asking the API server (``--kube-api``: a call per token, and a pod that was deleted is known to be gone).

By the keys: only RS256 and ES256, and only the one that fits the key itself, so that neither ``none`` nor an HMAC made
with a public key passes; the audience must be ours, ``exp`` must be there. The library is PyJWT: it has been kept up
since 2011, needs nothing but cryptography beside it, and we use it for one thing, to verify. joserfc would do too; it
brings the whole of JOSE, most of which has no place here.
"""

from __future__ import annotations

import os
import re
from http import HTTPStatus
from typing import Any, Final, Protocol

import jwt
import msgspec
import trio

from control.https_fetch import Fetcher, FetchFailed
from control.problems import Refused, unauthenticated
from control.token_reviews import Reviews

TOKEN_CHARS: Final = 16 * 1024
JWKS_BYTES: Final = 1024 * 1024
FRESH_SECONDS: Final = 600.0  # how long fetched keys are used without asking again
RETRY_SECONDS: Final = 10.0  # how often an unknown key's id makes us ask at most
LEEWAY: Final = 0
_ALGORITHMS: Final = {"RSA": "RS256", "EC": "ES256"}
_SUBJECT: Final = re.compile(r"system:serviceaccount:([^:]+):([^:]+)")
REVIEW_PATH: Final = "/apis/authentication.k8s.io/v1/tokenreviews"


class Reviewer(Protocol):
    """One of the two ways."""

    async def review(self, token: str, now: float, address: str) -> tuple[str, str]:
        """(namespace, service account); Refused where it is not good (401) or can't be judged now (429, 503).
        ``address`` is where the call came from."""


class Jwks:
    """By the cluster's keys, in a file or at a URL."""

    def __init__(self, source: str, audience: str, fetcher: Fetcher) -> None:
        self._source = source
        self._audience = audience
        self._fetcher = fetcher
        self._keys: dict[str, jwt.PyJWK] = {}
        self._loaded = float("-inf")
        self._tried = float("-inf")
        self._stamp: tuple[int, int] | None = None

    async def review(self, token: str, now: float, address: str) -> tuple[str, str]:
        """See ``Reviewer``. It costs no call to others, so nothing is counted."""
        if len(token) > TOKEN_CHARS:
            raise unauthenticated("kubernetes token: too long")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise unauthenticated("kubernetes token: not a JWT") from None
        key = await self._key(str(header.get("kid", "")), now)
        try:
            # The algorithm is the key's, whatever the token says it is; the token's must be the same.
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[_ALGORITHMS[str(key.key_type)]],
                audience=self._audience,
                leeway=LEEWAY,
                options={"require": ["exp", "sub", "aud"]},
            )
        except jwt.InvalidTokenError as error:
            raise unauthenticated(f"kubernetes token: {type(error).__name__}") from None
        return _who(claims)

    async def _key(self, kid: str, now: float) -> jwt.PyJWK:
        """The key with this id; the keys are read again where they are old, have changed, or do not have it."""
        if self._stale(kid, now):
            self._tried = now
            await self._load(now)
        key = self._keys.get(kid)
        if key is None:
            raise unauthenticated("kubernetes token: signed by a key that is not in --kube-jwks")
        return key

    def _stale(self, kid: str, now: float) -> bool:
        if "://" not in self._source:
            return self._stamp is None or self._stamp != _stamp(self._source)
        if kid in self._keys and now - self._loaded < FRESH_SECONDS:
            return False
        return now - self._tried >= RETRY_SECONDS

    async def _load(self, now: float) -> None:
        try:
            if "://" in self._source:
                data = await self._fetcher.get(self._source)
            else:
                self._stamp = _stamp(self._source)
                data = await trio.to_thread.run_sync(_read, self._source)
            self._keys = parse_jwks(data)
        except (OSError, ValueError, FetchFailed) as error:
            if not self._keys:
                raise Refused(503, f"--kube-jwks can't be read: {type(error).__name__}", 5.0) from None
            return  # those that we have are good as long as nothing says otherwise
        self._loaded = now


class TokenReview:
    """By asking the API server, as often as ``control.token_reviews`` lets it."""

    def __init__(self, url: str, audience: str, fetcher: Fetcher) -> None:
        self._url = url.rstrip("/") + REVIEW_PATH
        self._audience = audience
        self._fetcher = fetcher
        self._reviews = Reviews()

    async def review(self, token: str, now: float, address: str) -> tuple[str, str]:
        """See ``Reviewer``."""
        if len(token) > TOKEN_CHARS:
            raise unauthenticated("kubernetes token: too long")
        if why := self._reviews.known_bad(token):
            raise unauthenticated(f"{why}, as a moment ago")
        taken = await self._reviews.enter(address)
        try:
            found = await self._ask(token)
        except Refused as refused:
            if refused.status == HTTPStatus.UNAUTHORIZED:
                self._reviews.was_bad(token, refused.reason)
            raise
        self._reviews.was_good(address, taken)
        return found

    async def _ask(self, token: str) -> tuple[str, str]:
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        try:
            answer = msgspec.json.decode(await self._fetcher.post(self._url, msgspec.json.encode(asked)))
            status = answer["status"]
            good = status.get("authenticated") is True
            audiences, name = status.get("audiences") or [], (status.get("user") or {}).get("username", "")
        except (FetchFailed, msgspec.DecodeError, LookupError, TypeError, AttributeError) as error:
            raise Refused(503, f"--kube-api gave no verdict: {type(error).__name__}", 5.0) from None
        if not good:
            raise unauthenticated("kubernetes token: the API server does not know it")
        if self._audience not in audiences:
            # A server that knows nothing of audiences approves of tokens that were made for others.
            raise unauthenticated("kubernetes token: made for another audience")
        return _names(name)


def parse_jwks(data: bytes) -> dict[str, jwt.PyJWK]:
    """{key id: key} of the keys that can be used: RSA of 2048 bits and more, P-256. ValueError where there is none."""
    try:
        members = msgspec.json.decode(data)["keys"]
        found = [_usable(member) for member in members]
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError):
        raise ValueError("it is not a JWKS") from None
    keys = {str(key.key_id): key for key in found if key is not None}
    if not keys:
        raise ValueError("it has no RSA or P-256 key for signatures")
    return keys


def _usable(member: dict[str, Any]) -> jwt.PyJWK | None:
    if member.get("kty") not in _ALGORITHMS or not member.get("kid") or member.get("use", "sig") != "sig":
        return None
    if member["kty"] == "EC" and member.get("crv") != "P-256":
        return None
    try:
        key = jwt.PyJWK(member, algorithm=_ALGORITHMS[member["kty"]])
    except jwt.PyJWKError:
        return None
    return key if getattr(key.key, "key_size", 0) >= (2048 if member["kty"] == "RSA" else 256) else None


def _who(claims: dict[str, Any]) -> tuple[str, str]:
    """From the subject, with which Kubernetes' own claim must agree where it is there."""
    namespace, account = _names(str(claims["sub"]))
    told = claims.get("kubernetes.io")
    if told is not None:
        agrees = isinstance(told, dict) and told.get("namespace") == namespace
        inner = told.get("serviceaccount") if isinstance(told, dict) else None
        if not agrees or not isinstance(inner, dict) or inner.get("name") != account:
            raise unauthenticated("kubernetes token: its claims contradict each other")
    return namespace, account


def _names(subject: object) -> tuple[str, str]:
    found = _SUBJECT.fullmatch(subject) if isinstance(subject, str) else None
    if found is None:
        raise unauthenticated("kubernetes token: not a service account's")
    return found[1], found[2]


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(JWKS_BYTES)


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
