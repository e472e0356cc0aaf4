"""Tokens: made, kept as hashes, looked up, voided.

Who calls it: ``control.authentication`` (is this one good?), ``control.api`` (what operators do with them) and the
composition root (the operator's own).

**A token is stored as the SHA-256 of its secret**, without salt and without a slow hash: those protect secrets that
people choose, which can be guessed. This one is 256 random bits; there is nothing to try in the hash but the secret
itself. The comparison takes the same time wherever the two differ, and an id that is not there is compared as well.

A reusable workload token is good until it expires. A single-use one is good until the first certificate was issued with
it: ``spend`` is a write that only one caller can win, on disk before the certificate is.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

import msgspec

from certs.jointoken import PREFIX, SECRET_BYTES, JoinToken, parse
from certs.spiffe import SpiffeId, workload
from control.problems import Invalid, unauthenticated
from control.routes import Role
from control.store import Conflict, Entry, Store

KIND: Final = "token"
LONGEST: Final = 400 * 86400.0
MOST: Final = 10_000  # tokens at once: a bound on what one list holds
_NOBODY: Final = hashlib.sha256(b"").hexdigest()


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token as it is stored. Times in seconds since the epoch; pins in hex."""

    id: str
    hash: str
    role: str
    namespace: str = ""
    service_account: str = ""
    created: float
    created_by: str
    expires: float
    single_use: bool = False
    spent: bool = False
    pins: tuple[str, ...]
    addresses: tuple[str, ...] = ()  # networks in which its workload may register beside where its calls come from


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A token that was shown and is good, and the version of its entry."""

    token: Token
    version: int

    @property
    def role(self) -> Role:
        """What its holder may do."""
        return Role(self.token.role)

    def spiffe_id(self, trust_domain: str) -> SpiffeId | None:
        """The identity that it is bound to, where it is a workload's."""
        if self.role is not Role.WORKLOAD:
            return None
        return workload(trust_domain, self.token.namespace, self.token.service_account)


class TokenStore:
    """All tokens. ``trust_domain`` and ``control_id`` are whom they are for."""

    def __init__(self, store: Store, control_id: SpiffeId) -> None:
        self._store = store
        self._control_id = control_id

    async def check(self, text: str, now: float) -> StoredToken:
        """The token that this text is. Refused (401) where it is not, has expired, or was spent."""
        try:
            shown = parse(text)
        except ValueError as error:
            raise unauthenticated(f"not a token: {error}") from None
        entry = await self._store.get(KIND, shown.id)
        token = _read(entry) if entry else None
        expected = token.hash if token else _NOBODY
        equal = hmac.compare_digest(hashlib.sha256(shown.secret).hexdigest(), expected)
        if entry is None or token is None:
            raise unauthenticated("no such token")
        if not equal:
            raise unauthenticated(f"token {token.id}: wrong secret")
        if token.expires <= now:
            raise unauthenticated(f"token {token.id}: expired")
        if token.spent:
            raise unauthenticated(f"token {token.id}: single-use, and used before")
        return StoredToken(token, entry.version)

    async def spend(self, held: StoredToken) -> None:
        """Makes a single-use token worthless; Refused (401) for all but the first. Others stay as they are."""
        if not held.token.single_use:
            return
        spent = msgspec.structs.replace(held.token, spent=True)
        try:
            await self._store.put(KIND, spent.id, msgspec.json.encode(spent), if_version=held.version)
        except Conflict:
            raise unauthenticated(f"token {spent.id}: single-use, and used before") from None

    async def create(
        self,
        role: Role,
        pins: tuple[bytes, ...],
        by: str,
        now: float,
        ttl: float,
        *,
        bound_to: tuple[str, str] = ("", ""),
        single_use: bool = False,
        addresses: tuple[str, ...] = (),
    ) -> tuple[Token, str]:
        """A new token, and its text, which nobody will know again. ``bound_to``: (namespace, service account).

        Invalid: a workload's without a name, or with the control plane's own; another role's with one; too long a life.
        """
        self._check_binding(role, bound_to, single_use or bool(addresses))
        if not 0 < ttl <= LONGEST:
            raise Invalid(f"a token lives at most {LONGEST / 86400:g} days")
        if len((await self._store.list(KIND)).entries) >= MOST:
            raise Invalid(f"there are {MOST} tokens; delete some", 409)
        secret = secrets.token_bytes(SECRET_BYTES)
        shown = JoinToken(secrets.token_hex(8), secret, pins, str(self._control_id))
        token = Token(
            id=shown.id,
            hash=hashlib.sha256(secret).hexdigest(),
            role=role.value,
            namespace=bound_to[0],
            service_account=bound_to[1],
            created=now,
            created_by=by,
            expires=now + ttl,
            single_use=single_use,
            pins=tuple(pin.hex() for pin in pins),
            addresses=addresses,
        )
        await self._store.put(KIND, token.id, msgspec.json.encode(token), if_version=0)
        return token, str(shown)

    async def live(self, now: float) -> list[Token]:
        """Those that are still good for something, oldest first."""
        tokens = [_read(entry) for entry in (await self._store.list(KIND)).entries]
        return sorted((t for t in tokens if t.expires > now and not t.spent), key=lambda token: token.created)

    async def addresses(self, namespace: str, service_account: str, now: float) -> tuple[str, ...]:
        """The networks that any token of this workload names, until it expires or is voided: also a single-use one that
        was spent, since what it was spent for is the certificate."""
        tokens = [_read(entry) for entry in (await self._store.list(KIND)).entries]
        own = (namespace, service_account)
        return tuple(
            network
            for token in tokens
            if token.expires > now and (token.namespace, token.service_account) == own
            for network in token.addresses
        )

    async def void(self, token_id: str) -> bool:
        """Makes it worthless at once; says whether there was one."""
        return await self._store.delete(KIND, token_id)

    async def repin(self, token: Token, pins: tuple[bytes, ...]) -> None:
        """Notes that the holder's text has other pins now."""
        again = msgspec.structs.replace(token, pins=tuple(pin.hex() for pin in pins))
        await self._store.put(KIND, token.id, msgspec.json.encode(again))

    async def purge(self, now: float) -> None:
        """Forgets those that have expired."""
        for entry in (await self._store.list(KIND)).entries:
            if _read(entry).expires <= now:
                await self._store.delete(KIND, entry.name)

    def _check_binding(self, role: Role, bound_to: tuple[str, str], more: bool) -> None:
        """``more``: it was said what only a workload's token can be."""
        if role is not Role.WORKLOAD:
            if any(bound_to) or more:
                what = "is bound to no workload, is not single-use and has no addresses"
                raise Invalid(f"a token for the role {role.value} {what}")
            return
        if not all(bound_to):
            raise Invalid("a workload's token needs a namespace and a serviceAccount")
        if workload(self._control_id.trust_domain, *bound_to) == self._control_id:
            raise Invalid("that is the control plane's own identity, which no workload gets")


def looks_like_ours(text: str) -> bool:
    """Whether it is meant to be a token of this module."""
    return text.startswith(f"{PREFIX}.")


def _read(entry: Entry) -> Token:
    return msgspec.json.decode(entry.value, type=Token)
