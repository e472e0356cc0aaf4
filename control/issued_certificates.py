"""What was issued, and what was taken back.

Who calls it: ``control.certificate_authority``, which signs lists from it, and ``control.authentication``. Everything
is in the store before it counts, and in memory for each caller that asks: one process owns a store, so the two agree.

A certificate is revoked by its serial number, or with its identity. An identity that is revoked gets none until that
is lifted, and what was issued to it before stays revoked after that as well: whoever stole its key has it still. So
lifting is noted in the entry, with the time, and the entry stays for as long as such a certificate can live.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from certs.spiffe import SpiffeId
from control.store import Store

ISSUED: Final = "issued"
REVOKED: Final = "revocation"


class Issued(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One certificate. Times in seconds since the epoch."""

    serial: str  # lower-case hex
    identity: str
    issued: float
    expires: float
    generation: str  # which root's
    fingerprint: str


class Revocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry: either ``serial`` (hex) or ``identity`` is there. ``until``: when it can be forgotten; 0: never."""

    id: str
    serial: str = ""
    identity: str = ""
    at: float
    by: str
    lifted: float = 0.0
    until: float = 0.0


class Ledger:
    """See the module. ``load`` comes first."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._issued: dict[str, Issued] = {}
        self._serials: dict[str, str] = {}  # fingerprint -> serial
        self._counts: Counter[str] = Counter()  # of what was issued, by identity
        self._revoked: dict[str, Revocation] = {}
        self._followers: list[Callable[[], None]] = []

    def follow(self, follower: Callable[[], None]) -> None:
        """Called after each revocation, and when one is lifted. It must not wait."""
        self._followers.append(follower)

    async def load(self) -> None:
        """Takes everything from the store."""
        for entry in (await self._store.list(ISSUED)).entries:
            self._remember(msgspec.json.decode(entry.value, type=Issued))
        for entry in (await self._store.list(REVOKED)).entries:
            self._revoked[entry.name] = msgspec.json.decode(entry.value, type=Revocation)

    async def ping(self) -> None:
        """Raises StoreFailed where the store does not answer."""
        await self._store.get(ISSUED, "")

    async def note(self, issued: Issued) -> None:
        """Writes down what is about to be handed out."""
        await self._store.put(ISSUED, issued.serial, msgspec.json.encode(issued))
        self._remember(issued)

    async def revoke(self, revocation: Revocation) -> None:
        """Writes it down; a serial number or an identity that is revoked already stays so."""
        await self._store.put(REVOKED, revocation.id, msgspec.json.encode(revocation))
        self._revoked[revocation.id] = revocation
        for follower in self._followers:
            follower()

    async def lift(self, entry: Revocation, now: float, longest: float) -> None:
        """Lets an identity be issued for again; ``longest`` is how long (s) a certificate can live."""
        await self.revoke(msgspec.structs.replace(entry, lifted=now, until=now + longest))

    async def has_room(self, identity: SpiffeId, most: int, now: float) -> bool:
        """Whether fewer than ``most`` certificates of this identity are good."""
        if self._counts[str(identity)] >= most:
            await self.purge(now)
        return self._counts[str(identity)] < most

    def revocation(self, entry_id: str) -> Revocation | None:
        """The entry, lifted or not."""
        return self._revoked.get(entry_id)

    def revocations(self) -> list[Revocation]:
        """All that hold, oldest first."""
        return sorted((entry for entry in self._revoked.values() if not entry.lifted), key=lambda entry: entry.at)

    def blocked(self, identity: SpiffeId) -> bool:
        """Whether nothing is issued for it."""
        entry = self._revoked.get(identity_entry(identity))
        return entry is not None and not entry.lifted

    def revoked_certificate(self, fingerprint: str) -> bool:
        """Whether the certificate with this SHA-256 (hex) was issued here and taken back."""
        serial = self._serials.get(fingerprint)
        return serial is not None and self._since(self._issued[serial]) is not None

    def ended(self, fingerprint: str, now: float) -> bool:
        """Whether that one was taken back, or is over. One that we don't know may be good: of before a restore."""
        issued = self.by_fingerprint(fingerprint)
        return issued is not None and (issued.expires <= now or self._since(issued) is not None)

    def revoked_serials(self, generation: str) -> Iterator[tuple[int, float]]:
        """(serial number, since when) for the list of one root: its own, and those that we don't know the root of."""
        for serial, issued in self._issued.items():
            since = self._since(issued)
            if since is not None and issued.generation == generation:
                yield int(serial, 16), since
        for entry in self._revoked.values():
            if entry.serial and entry.serial not in self._issued:
                yield int(entry.serial, 16), entry.at

    def find(self, serial: str) -> Issued | None:
        """The certificate with this number."""
        return self._issued.get(serial)

    def by_fingerprint(self, fingerprint: str) -> Issued | None:
        """The certificate with this SHA-256 (hex), where it was issued here."""
        serial = self._serials.get(fingerprint)
        return None if serial is None else self._issued[serial]

    def live(self, now: float) -> Iterator[Issued]:
        """Certificates that are good."""
        return (one for one in self._issued.values() if one.expires > now and self._since(one) is None)

    def last_expiry(self, generation: str) -> float:
        """When the last certificate under this root ends; 0 where there is none."""
        return max((one.expires for one in self._issued.values() if one.generation == generation), default=0.0)

    async def purge(self, now: float) -> None:
        """Forgets what is over."""
        for issued in [one for one in self._issued.values() if one.expires <= now]:
            await self._store.delete(ISSUED, issued.serial)
            del self._issued[issued.serial]
            self._serials.pop(issued.fingerprint, None)
            self._counts[issued.identity] -= 1
        self._counts = +self._counts  # without those that have none
        for entry in [one for one in self._revoked.values() if one.until and one.until <= now]:
            await self._store.delete(REVOKED, entry.id)
            del self._revoked[entry.id]

    def _remember(self, issued: Issued) -> None:
        self._counts[issued.identity] += 1
        self._issued[issued.serial] = issued
        self._serials[issued.fingerprint] = issued.serial

    def _since(self, issued: Issued) -> float | None:
        """Since when it is revoked."""
        by_serial = self._revoked.get(serial_entry(issued.serial))
        if by_serial is not None:
            return by_serial.at
        by_identity = self._revoked.get(_identity_entry(issued.identity))
        if by_identity is None or (by_identity.lifted and issued.issued > by_identity.lifted):
            return None
        return by_identity.at


def serial_entry(serial: str) -> str:
    """The name of the entry for a serial number (lower-case hex)."""
    return f"serial-{serial}"


def identity_entry(identity: SpiffeId) -> str:
    """The name of the entry for an identity: a digest, since it stands in the path of a call."""
    return _identity_entry(str(identity))


def _identity_entry(identity: str) -> str:
    return f"id-{hashlib.sha256(identity.encode()).hexdigest()[:32]}"
