"""The authority: what it issues, to whom it says what is trusted, and how one root follows another.

Who calls it: ``control.api`` for callers, the composition root for the control plane's own certificate. What is decided
is decided elsewhere: who a caller is (``control.authentication``), what a request may say (``certs.request``), when a
root is used (``control.ca_rotation``); here it is brought together, written down, and then done.

**Order.** A certificate is in the ledger before it is handed out, so that it can be revoked with its identity; a
revocation is in the store before anyone is told that it holds; a generation is on the disk before the bundle shows it.
One lock keeps issuing, revoking and rotating apart: "nothing is issued any more" is true when the answer leaves.

**Lists.** Each root's authority signs its own list of what it took back. A list that is old makes proxies complain, so
all are signed anew every LIST_SECONDS, and at each change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import trio
from cryptography import x509

from certs import facts, issue, keys, pem
from certs.errors import IdentityError
from certs.issue import Issuer
from certs.keys import PublicKey
from certs.request import read_request
from certs.spiffe import SpiffeId
from control import ca_rotation
from control.bundle_acks import BundleAcks
from control.ca_rotation import Generation, Generations, Phase, RotationRefused
from control.issued_certificates import Issued, Ledger, Revocation, identity_entry, serial_entry
from control.keyring import Keyring
from control.problems import Invalid, Refused, unauthenticated
from control.store import Store, StoreFailed
from control.version import Version
from control.watchable import Watchable
from sidecar.errors import StartError

ROOT_SECONDS: Final = 10 * 365 * 86400.0
LIST_SECONDS: Final = 3600.0  # how often lists are signed anew; they say that a newer one comes within a day
LIST_GOOD_SECONDS: Final = 86400.0
RETRY_SECONDS: Final = 5.0
# Of one identity, good at once: 3,000 replicas, each with its own and those that it renewed or forgot. A token that was
# stolen fills no disk.
MOST_CERTIFICATES: Final = 10_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Granted:
    """A certificate and what its holder needs. ``chain`` and ``roots`` are PEM; ``expires`` is in seconds since the
    epoch."""

    chain: str
    roots: str
    bundle_version: Version
    expires: float
    serial: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class SignedList:
    """One authority's list of what it took back, and its certificates up to below the root. Both PEM."""

    crl: str
    chain: str


class Authority:
    """See the module. ``extra_roots`` are there where the CA was brought, which can't be rotated here: what else is
    trusted. :meth:`start` comes first."""

    def __init__(
        self,
        control_id: SpiffeId,
        store: Store,
        ledger: Ledger,
        keyring: Keyring,
        generations: Generations,
        leaf_ttl: float,
        clock: Callable[[], float],
        extra_roots: tuple[x509.Certificate, ...] | None = None,
    ) -> None:
        self.control_id = control_id
        self.leaf_ttl = leaf_ttl
        self.generations = generations
        self.bundle = Watchable("", Version(store.epoch, 0))
        self.lists: Watchable[tuple[SignedList, ...]] = Watchable((), Version(store.epoch, 0))
        self._store = store
        self._ledger = ledger
        self._keyring = keyring
        self._clock = clock
        self._extra_roots = extra_roots
        self._confirmations = BundleAcks()
        self._turn = trio.Lock()
        self._look = trio.Event()  # there may be a step to take
        self._signed = 0.0  # when the lists were
        self._published = False  # whether the bundle and the lists are those of ``generations``

    # -- what is issued ----------------------------------------------------------------------------------------------

    def read(self, csr: str, identity: SpiffeId) -> PublicKey:
        """The key in a request that ``identity`` may make; Refused (401) for any other request, whatever is wrong."""
        if identity == self.control_id:
            raise unauthenticated("the control plane's own identity is issued to nobody")
        try:
            return read_request(csr, identity)
        except IdentityError as error:
            raise unauthenticated(f"its request: {error.reason.word}") from None

    async def issue(self, identity: SpiffeId, key: PublicKey, replaces: str = "") -> Granted:
        """A certificate for a workload; Refused (401) where its identity is revoked, (429) where it has too many.
        ``replaces``: the fingerprint of the one that the caller showed."""
        async with self._turn:
            if identity == self.control_id or self._ledger.blocked(identity):
                raise unauthenticated("nothing is issued for its identity")
            if not await self._ledger.has_room(identity, MOST_CERTIFICATES, self._clock()):
                raise Refused(429, f"{identity} has {MOST_CERTIFICATES} good certificates", 60.0)
            granted = await self._sign(identity, key)
            self._confirmations.renewed(replaces, granted.fingerprint, self._clock())
            return granted

    async def issue_own(self, key: PublicKey) -> Granted:
        """The control plane's own certificate, for what stands in front of the API. ``chain`` ends with the root, so
        that a client which has only a token can find the root that the token names."""
        async with self._turn:
            granted = await self._sign(self.control_id, key)
            root = pem.to_pem([self.issuer.root])
            return replace(granted, chain=granted.chain + root)

    async def _sign(self, identity: SpiffeId, key: PublicKey) -> Granted:
        now, serial = self._clock(), keys.new_serial()
        leaf = issue.leaf(self.issuer, key, identity, serial, now, self.leaf_ttl)
        expires = leaf.not_valid_after_utc.timestamp()
        generation, fingerprint = ca_rotation.issuing(self.generations).id, facts.digest_of(leaf).hex()
        await self._ledger.note(Issued(f"{serial:x}", str(identity), now, expires, generation, fingerprint))
        chain = pem.to_pem([leaf, *self.issuer.intermediates])
        return Granted(chain, self.bundle.value, self.bundle.version, expires, f"{serial:x}", fingerprint)

    @property
    def issuer(self) -> Issuer:
        """Who signs now."""
        return ca_rotation.issuing(self.generations).issuer

    def pins(self) -> tuple[bytes, ...]:
        """SHA-256 of the public keys of the roots that the control plane proves itself by, now and next."""
        shown = [one for one in self.generations if one.phase is not Phase.RETIRING]
        return tuple(facts.key_id_of(one.issuer.root) for one in shown)

    # -- what is taken back ------------------------------------------------------------------------------------------

    async def revoke_serial(self, serial: str, by: str) -> Revocation:
        """Takes one certificate back. ``serial`` in lower-case hex; one that we don't know is listed all the same."""
        async with self._turn:
            found, now = self._ledger.find(serial), self._clock()
            until = found.expires if found else now + self.leaf_ttl
            return await self._revoke(Revocation(id=serial_entry(serial), serial=serial, at=now, by=by, until=until))

    async def revoke_identity(self, identity: SpiffeId, by: str) -> Revocation:
        """Takes back all that an identity has, and issues nothing for it until that is lifted."""
        if identity == self.control_id:
            raise Invalid("that is the control plane's own identity; rotate the root instead")
        async with self._turn:
            entry = identity_entry(identity)
            return await self._revoke(Revocation(id=entry, identity=str(identity), at=self._clock(), by=by))

    async def lift(self, entry_id: str) -> Revocation | None:
        """Issues for an identity again; None where nothing was revoked under this id."""
        async with self._turn:
            entry = self._ledger.revocation(entry_id)
            if entry is None or entry.lifted:
                return None
            if entry.serial:
                raise Invalid("a certificate that was revoked stays so; its holder gets another one", 409)
            await self._ledger.lift(entry, self._clock(), self.leaf_ttl)
            return entry

    async def _revoke(self, revocation: Revocation) -> Revocation:
        held = self._ledger.revocation(revocation.id)
        if held is not None and not held.lifted:
            return held
        await self._ledger.revoke(revocation)
        await self._sign_lists()
        self._look.set()  # a rotation need not wait for it any more
        return revocation

    async def _sign_lists(self) -> None:
        version = Version(self._store.epoch, await self._store.put("crl", "current", b""))
        now = self._signed = self._clock()
        self.lists.publish(
            tuple(
                SignedList(
                    issue.crl(
                        one.issuer,
                        dict(self._ledger.revoked_serials(one.id)),
                        now,
                        version.number,
                        now + LIST_GOOD_SECONDS,
                    ),
                    pem.to_pem(one.issuer.intermediates),
                )
                for one in self.generations
            ),
            version,
        )

    # -- which roots -------------------------------------------------------------------------------------------------

    async def rotate(self, deadline: float) -> Generation:
        """Publishes a new root, to be used once every proxy knows it or ``deadline`` (s) has passed. Invalid (409)."""
        async with self._turn:
            if self._extra_roots is not None:
                raise Invalid("the CA was brought with --ca-cert, and is replaced there: see the documentation", 409)
            now = self._clock()
            fresh = made(self.control_id.trust_domain, now)
            try:
                changed = ca_rotation.begin(self.generations, fresh, now, deadline)
            except RotationRefused as error:
                raise Invalid(str(error), 409) from None
            await self._become(changed)
            self._look.set()
            return fresh

    def confirm(self, key: str, identity: SpiffeId, version: Version, *, by_certificate: bool = True) -> None:
        """Notes which bundle a proxy says that it holds."""
        self._confirmations.note(key, str(identity), version, self._clock(), by_certificate=by_certificate)
        if ca_rotation.coming(self.generations) is not None:
            self._look.set()

    def unconfirmed(self) -> list[str]:
        """The identities that a rotation waits for."""
        now = self._clock()
        live = {one.identity for one in self._ledger.live(now)} - {str(self.control_id)}
        return self._confirmations.missing(
            self.bundle.version, live, now, lambda fingerprint: self._ledger.ended(fingerprint, now)
        )

    async def _become(self, generations: Generations) -> None:
        await trio.to_thread.run_sync(self._keyring.save, generations)
        self.generations = generations
        await self._publish()

    async def _publish(self) -> None:
        """The bundle, under a new version only where it is another one than was published last."""
        self._published = False
        ordered = sorted(self.generations, key=lambda one: one.phase is not Phase.ISSUING)
        trusted = [one.issuer.root for one in ordered] + list(self._extra_roots or ())
        roots = {facts.digest_of(root): root for root in trusted}
        held = await self._store.get("bundle", "current")
        value = b"".join(sorted(roots))
        n = held.version if held and held.value == value else await self._store.put("bundle", "current", value)
        self.bundle.publish(pem.to_pem(roots.values()), Version(self._store.epoch, n))
        await self._sign_lists()
        self._published = True

    # -- as time goes by ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Publishes what there is; before anyone asks."""
        async with self._turn:
            await self._publish()

    async def run(self) -> None:
        """Takes each step when it is due, and keeps the lists fresh; until cancelled."""
        while True:
            self._look = trio.Event()
            try:
                await self._step()
                if self._clock() - self._signed >= LIST_SECONDS:
                    await self._refresh()
                due = min(self._signed + LIST_SECONDS, ca_rotation.next_step(self.generations) or float("inf"))
            except (StoreFailed, OSError) as error:
                _log.error("the authority can't go on, and tries again in %g s: %s", RETRY_SECONDS, error)
                due = self._clock() + RETRY_SECONDS
            with trio.move_on_after(max(0.0, due - self._clock())):
                await self._look.wait()

    async def _step(self) -> None:
        async with self._turn:
            if not self._published:
                await self._publish()
            now = self._clock()
            waiting = ca_rotation.coming(self.generations)
            confirmed = waiting is not None and not self.unconfirmed()
            last = max(self._ledger.last_expiry(ca_rotation.issuing(self.generations).id), now + self.leaf_ttl)
            changed = ca_rotation.step(self.generations, now, confirmed, last)
            if changed is self.generations:
                return
            if waiting is not None and ca_rotation.issuing(changed).id == waiting.id:
                late = "" if confirmed else f"; not confirmed by {len(self.unconfirmed())} identities"
                _log.warning("certificates are issued from the root %s now%s", waiting.id, late)
            await self._become(changed)

    async def _refresh(self) -> None:
        async with self._turn:
            now = self._clock()
            self._confirmations.forget(now)
            await self._ledger.purge(now)
            await self._sign_lists()


def made(trust_domain: str, now: float) -> Generation:
    """A new root and the authority under it. The root's key ends with this call: it signs once."""
    root = issue.new_root(trust_domain, keys.new_key(), keys.new_serial(), now, ROOT_SECONDS)
    issuer = issue.new_intermediate(root, keys.new_key(), keys.new_serial(), now, ROOT_SECONDS)
    return generation_of(issuer, now)


def generation_of(issuer: Issuer, now: float) -> Generation:
    """The generation of an authority, named after its root's key."""
    return Generation(facts.key_id_of(issuer.root).hex()[:16], issuer, Phase.ISSUING, now)


def first(keyring: Keyring, trust_domain: str, now: float) -> Generations:
    """The generations that the keyring has, or a new one, saved. StartError where it can't be."""
    held = keyring.load(now)
    if held:
        return held
    generations = (made(trust_domain, now),)
    try:
        keyring.save(generations)
    except OSError as error:
        raise StartError(f"--ca-dir: the authority can't be saved ({error.strerror})") from None
    return generations
