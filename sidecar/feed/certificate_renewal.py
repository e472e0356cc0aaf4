"""Keeps this proxy's identity: gets a certificate, renews it, and hears of new roots and of what was taken back.

Who calls it: ``feed.wiring``. Three tasks, each of which goes on through whatever the control plane does:

- *renewal*. A key is made for each request, in this process, and leaves it only for ``--identity-dir``. An answer is
  taken when it is for our id and our key, under roots that we trust, and lasts; else what we have stays. The next one
  is due at half of what is left, on the monotonic clock; at once where the wall clock says that ours has ended.
- *the bundle* and *the lists*, by long polls: each change is a new generation, or cuts connections.

Failures are ``feed.retrying_client``'s to count, to tell and to follow by another try. When the certificate ends before
one succeeds, ``Identity.require`` refuses by itself.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import partial
from typing import Final

import msgspec
import trio
from cryptography import x509

from certs import pem
from certs.bundle import Bundle, Bundles
from certs.errors import IdentityError, Refusal
from certs.keys import PrivateKey, key_from_pem, key_to_pem, new_key
from certs.renew import renew_at
from certs.request import new_request
from certs.spiffe import SpiffeId
from certs.verify import Peer, check_own, recheck
from sidecar.feed import control_responses
from sidecar.feed.bootstrap_trust import pinned
from sidecar.feed.control_client import Way
from sidecar.feed.control_responses import BundleAnswer, CertificateAnswer, ListsAnswer, Malformed, Version
from sidecar.feed.identity_dir import IdentityDir, Kept
from sidecar.feed.retrying_client import RetryingClient
from sidecar.identity import Credentials, Identity

LOOK: Final = 5.0  # s between two looks at the wall clock while a certificate is good
BUNDLE_BYTES: Final = 1024 * 1024
LISTS_BYTES: Final = 8 * 1024 * 1024
_log = logging.getLogger(__name__)


class FetchCounters:
    """What is told of it: ``renewals`` by outcome; ``next_renewal`` in seconds since the epoch; ``overdue``: a list has
    not been followed by its next one."""

    def __init__(self) -> None:
        self.renewals: dict[str, int] = {}
        self.next_renewal = 0.0
        self.bundle_version: Version | None = None
        self.lists_version: Version | None = None
        self.overdue = False


class IdentityFeed:
    """``caller`` asks the control plane."""

    def __init__(self, identity: Identity, caller: RetryingClient, directory: IdentityDir | None = None) -> None:
        self.tally = FetchCounters()
        self._identity = identity
        self._caller = caller
        self._contact = caller.contact
        self._directory = directory
        self._clock = caller.clock
        self._steady = caller.steady
        self._chance = caller.chance
        self._due = 0.0  # of the next renewal, on the monotonic clock
        self._hurry = trio.Event()  # what we have is not good any more
        self._looked = False  # for what was kept
        self._lists: ListsAnswer | None = None
        self._peer: Peer | None = None  # ourselves, as others judge us

    @property
    def control_id(self) -> SpiffeId:
        """Who the control plane has to be."""
        return self._contact.control_id

    async def run(self) -> None:
        """Until it is cancelled."""
        self.take_kept()
        persist = self._caller.persist
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(persist, "certificate", self._renew, pressing=self._left, failed=self._count))
            nursery.start_soon(persist, "bundle", self._poll_bundle)
            nursery.start_soon(persist, "crl", self._poll_lists)

    def renew_now(self) -> None:
        """Has the next certificate asked for at once."""
        self._hurry.set()

    def _count(self, outcome: str) -> None:
        self.tally.renewals[outcome] = self.tally.renewals.get(outcome, 0) + 1

    def _left(self) -> float | None:
        return self._caller.left()

    # -- the certificate ---------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        """Waits until one is due, and gets it."""
        await self._wait_due()
        if self._contact.known() is None:
            await self._contact.first()  # the token says in which trust domain we are
        ours, key = self._contact.ours(), new_key()
        body = msgspec.json.encode({"csr": new_request(key, ours)})
        answer, by = await self._caller.ask("POST", "/v1/certificates", body, most=BUNDLE_BYTES, once=True)
        told = control_responses.decode(answer.body, CertificateAnswer)
        bundle = self._bundle(ours.trust_domain, told.bundle, told.bundle_version, by)
        self._take(ours, pem.from_pem(told.chain), key, bundle)
        self._count("ok")
        self._keep()
        _log.info("certificate: %s, until %s", ours, _moment(self._current().not_after))

    async def _wait_due(self) -> None:
        while (left := self._due - self._steady()) > 0 and (self._left() or 0.0) > 0 and not self._hurry.is_set():
            with trio.move_on_after(min(left, LOOK)):
                await self._hurry.wait()
        self._hurry = trio.Event()
        self._due = min(self._due, self._steady())  # however often it fails: it stays due

    def _take(self, ours: SpiffeId, chain: tuple[x509.Certificate, ...], key: PrivateKey, bundle: Bundle) -> None:
        """Raises IdentityError where it is not good for us; then nothing has changed."""
        generation = self._identity.generation
        bundles = (generation.credentials.bundles if generation else Bundles()).replaced(bundle)
        now = self._clock()
        peer = check_own(chain, key.public_key(), ours, bundles, now)
        left = peer.not_after - now
        if left < control_responses.SHORTEST_LEFT:
            raise IdentityError(Refusal.EXPIRED, f"the new certificate lasts {left:.1f} s, which is too short")
        steady = self._steady()
        self._due = renew_at(steady, left, self._chance())
        self.tally.next_renewal = now + self._due - steady
        self.tally.bundle_version = bundle.version
        credentials = Credentials(ours, chain, key, bundles, peer.not_after, self.tally.next_renewal)
        self._peer = peer
        self._identity.install(credentials)

    def _current(self) -> Credentials:
        assert self._identity.generation is not None
        return self._identity.generation.credentials

    # -- whom to trust -----------------------------------------------------------------------------------------------

    def _held(self) -> Bundle | None:
        if self._identity.generation is None:
            return None
        return self._current().bundles.get(self._current().spiffe_id.trust_domain)

    def _bundle(self, trust_domain: str, text: str, version: str, way: Way) -> Bundle:
        """The bundle to go on with: this one, or ours where that is not older. Raises IdentityError, Malformed."""
        held, told = self._held(), control_responses.version(version)
        same_epoch = held is not None and held.trust_domain == trust_domain and held.version[0] == told[0]
        if held is not None and same_epoch and told <= held.version:
            return held
        bundle = Bundle.from_pem(trust_domain, text, told)
        if way.pins and not same_epoch:
            pinned(bundle.roots, way.pins)  # plain HTTP proves nobody: the join token says what root there must be
        return bundle

    async def _poll_bundle(self) -> None:
        await self._caller.wait_certificate()
        began = self._steady()
        await self._ask_bundle(self._caller.patience())
        await self._caller.pace(began)

    async def _ask_bundle(self, wait: float) -> None:
        held = self.tally.bundle_version
        answer, way = await self._caller.ask("GET", _since("/v1/bundle", held, wait), most=BUNDLE_BYTES, wait=wait)
        if answer.status == 200:
            told = control_responses.decode(answer.body, BundleAnswer)
            ours = self._current()
            if told.trust_domain != ours.spiffe_id.trust_domain:
                raise IdentityError(Refusal.UNKNOWN_TRUST_DOMAIN, "a bundle of another trust domain")
            if control_responses.older(control_responses.version(told.version), held):
                raise Malformed("older_version", "a bundle that is older than the one in use")
            bundle = self._bundle(told.trust_domain, told.bundle, told.version, way)
            if bundle is not self._held():
                self._take_bundle(bundle)

    def _take_bundle(self, bundle: Bundle) -> None:
        ours = self._current()
        self._identity.install(msgspec.structs.replace(ours, bundles=ours.bundles.replaced(bundle)))
        self.tally.bundle_version = bundle.version
        _log.info("bundle: version %d.%d, %d roots", *bundle.version, len(bundle.roots))
        self._check_ours()
        self._keep()

    async def _poll_lists(self) -> None:
        await self._caller.wait_certificate()
        began, wait = self._steady(), self._caller.patience()
        held = self.tally.lists_version
        answer, _ = await self._caller.ask("GET", _since("/v1/crl", held, wait), most=LISTS_BYTES, wait=wait)
        if answer.status == 200:
            told = control_responses.decode(answer.body, ListsAnswer)
            if control_responses.older(control_responses.version(told.version), held):
                raise Malformed("older_version", "revocation lists that are older than those in use")
            try:
                self._take_lists(told)
            except IdentityError as refused:
                if refused.reason is not Refusal.UNKNOWN_AUTHORITY:
                    raise
                await self._ask_bundle(0.0)  # signed under a new root, which comes by the other poll and may come later
                self._take_lists(told)
            self._keep()
        self._watch_overdue()
        await self._caller.pace(began)

    def _take_lists(self, told: ListsAnswer) -> None:
        bundle = self._held()
        assert bundle is not None
        taken = control_responses.revocations(told, self._identity.revocations, bundle, self._clock())
        self.tally.lists_version = control_responses.version(told.version)
        self._lists = told
        if taken != self._identity.revocations:
            self._identity.revoke(taken)
            self._check_ours()

    def _watch_overdue(self) -> None:
        overdue = self._identity.revocations.overdue(self._clock())
        if overdue and not self.tally.overdue:
            _log.warning("a revocation list is overdue; the last one goes on being used")
        self.tally.overdue = overdue

    def _check_ours(self) -> None:
        """Nobody else will take ours where we would not: then another one is due now."""
        assert self._peer is not None
        try:
            recheck(self._peer, self._current().bundles, self._identity.revocations, self._clock())
        except IdentityError as refused:
            _log.warning("our own certificate is not good any more (%s); asking for another", refused.detail)
            self.renew_now()

    # -- what a restart keeps ----------------------------------------------------------------------------------------

    def _keep(self) -> None:
        bundle = self._held()
        if self._directory is None or bundle is None:
            return
        ours = self._current()
        lists = self._lists
        kept = Kept(
            control_id=str(self._contact.control_id),
            spiffe_id=str(ours.spiffe_id),
            chain=pem.to_pem(ours.chain),
            key=key_to_pem(ours.key).decode("ascii"),
            bundle=bundle.to_pem(),
            bundle_version="{}.{}".format(*bundle.version),
            lists_version=lists.version if lists else "",
            lists=lists.lists if lists else (),
        )
        try:
            self._directory.store(kept)
        except OSError as error:
            self._caller.failed("identity_dir", "not_written", f"--identity-dir: {error.strerror}")

    def take_kept(self) -> None:
        """Goes on with what was kept, where there is something good; ``run`` begins with it, if nobody did before."""
        kept = self._directory.load() if self._directory is not None and not self._looked else None
        self._looked = True
        if kept is None or self._directory is None:
            return
        try:
            self._contact.remember(kept.control_id)
            ours = self._contact.ours()
            if kept.spiffe_id != str(ours):
                raise IdentityError(Refusal.WRONG_IDENTITY, "it is of another workload")
            version = control_responses.version(kept.bundle_version)
            bundle = Bundle.from_pem(ours.trust_domain, kept.bundle, version)
            self._take(ours, pem.from_pem(kept.chain), key_from_pem(kept.key.encode()), bundle)
            if kept.lists_version:
                self._take_lists(ListsAnswer(kept.lists_version, kept.lists))
        except (IdentityError, Malformed) as refused:
            _log.warning("--identity-dir: what it keeps is not used: %s", refused.detail)
            if self._identity.generation is None:
                self._directory.remove()
            return
        _log.info("certificate: %s, kept from before, until %s", ours, _moment(self._current().not_after))


def _since(path: str, version: Version | None, wait: float) -> str:
    return path if version is None else f"{path}?version={version[0]}.{version[1]}&wait={wait:.1f}s"


def _moment(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds")
