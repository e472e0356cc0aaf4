"""Rounds: what changed becomes, for each identity that it concerns, another content with a version. See the package.

Who makes it: the composition root; who asks it: ``control.distribution.api``. ``run`` makes the rounds, ``member``
places whoever asks for the first time; one lock keeps the two apart, so that every table has one writer at a time,
while calls only read what was published.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import trio

from certs.spiffe import SpiffeId
from control.distribution.content import Content, Snapshot, rules_of
from control.distribution.cooperative_steps import CooperativeSteps
from control.distribution.invalidation import Affected, affected
from control.distribution.metrics import RoundFigures
from control.distribution.subscriptions import Member, Subscriptions, View
from control.distribution.tables import DocumentTable, EndpointTable
from control.problems import Refused
from control.store import Store, StoreFailed
from control.version import Version
from control.watchable import Watchable
from sidecar.resources.documents import Key
from sidecar.resources.mesh_documents import Mesh, Place
from sidecar.resources.visibility import (
    Visibility,
    backend_policy_spec,
    destination_rule_spec,
    entry_spec,
    limit_policy_spec,
    policy_spec,
    scope_of,
    service_spec,
    virtual_service_spec,
)

BATCH_SECONDS: Final = 0.1  # from the first change to the round
RETRY_SECONDS: Final = 1.0  # after a store that failed
MOST: Final = 10_000  # identities; each has its rules, a version, and a share in a view
SILENT_SECONDS: Final = 300.0  # then an identity that nobody asks for is forgotten
LARGE: Final = 500  # documents, whose tables take some milliseconds
NUMBERS: Final = "distribution"  # the kind under which a number is taken from the store
_MADE: Final[dict[str, Callable[[Mesh, Place], msgspec.Struct]]] = {  # of documents alone
    "ServiceEntry": entry_spec,
    "AuthorizationPolicy": policy_spec,
    "RateLimitPolicy": limit_policy_spec,
    "VirtualService": virtual_service_spec,
    "DestinationRule": destination_rule_spec,
    "BackendTrafficPolicy": backend_policy_spec,
}
_log = logging.getLogger(__name__)


class SnapshotPush:
    """See the module. ``open`` comes first, when both tables are loaded, then ``run``, which ends by being cancelled.

    ``clock`` is the time of day (s), ``monotonic`` one that never goes back.
    """

    def __init__(
        self,
        documents: DocumentTable,
        registry: EndpointTable,
        store: Store,
        trust_domain: str,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        figures: RoundFigures,
        most: int = MOST,
    ) -> None:
        self._documents, self._registry, self._store = documents, registry, store
        self._trust_domain, self._clock, self._monotonic = trust_domain, clock, monotonic
        self._figures = figures
        self._most = most
        self._turn = trio.Lock()
        self._changed = trio.Event()
        self._keys: set[Key] = set()  # documents that changed since the last round
        self._places: set[tuple[str, str]] = set()  # services whose endpoints did
        self._late: set[Member] = set()  # whom a store that failed left without a version
        self._since: float | None = None  # the first of these changes
        self._version = 0  # the highest that was seen or given
        self._made = 0  # that of the last round
        self._mesh = self._warmed = Mesh()  # that of the last round, and the one whose tables are made
        self.audience = Subscriptions(self._encode)

    def open(self) -> None:
        """Takes the tables as they are, and follows them."""
        self._mesh = self._documents.mesh
        self._made = self._version = max(self._documents.version, self._registry.version)
        self._documents.follow(self._documents_changed)
        self._registry.follow(self._endpoints_changed)

    async def run(self) -> None:
        """Makes rounds."""
        while True:
            with trio.move_on_after(SILENT_SECONDS / 5):
                await self._changed.wait()
            if self._changed.is_set():
                await trio.sleep(BATCH_SECONDS)
                try:
                    await self._round()
                except StoreFailed as error:
                    _log.error("a change is not told to proxies yet: %s", error)
                    await trio.sleep(RETRY_SECONDS)
                    self._changed.set()
            await self._forget_silent()

    async def member(self, identity: SpiffeId) -> Member:
        """The identity that asks, with what it is to be told. Refused (503) where there are too many."""
        found = self.audience.members.get(str(identity)) or await self._admit(identity)
        found.asked = self._monotonic()
        return found

    @contextmanager
    def waiting(self, member: Member) -> Iterator[None]:
        """While a call of its waits; it is not forgotten meanwhile."""
        member.waiting += 1
        try:
            yield
        finally:
            member.waiting -= 1
            member.asked = self._monotonic()

    # -- what changed ------------------------------------------------------------------------------------------------

    def _documents_changed(self, keys: frozenset[Key], version: int) -> None:
        self._keys |= keys
        self._note(version)

    def _endpoints_changed(self, places: frozenset[tuple[str, str]], version: int) -> None:
        self._places |= places
        self._note(version)

    def _note(self, version: int) -> None:
        self._version = max(self._version, version)
        if self._since is None:
            self._since = self._monotonic()
        self._changed.set()

    # -- a round -----------------------------------------------------------------------------------------------------

    async def _round(self) -> None:
        async with self._turn:
            turns, since = CooperativeSteps(), self._since
            self._changed, self._since = trio.Event(), None
            keys, self._keys = self._keys, set()
            places, self._places = self._places, set()
            before, self._mesh, version = self._mesh, self._documents.mesh, self._version
            await self._warm()
            found = affected(keys, before, self._mesh)
            touched = await self._rescope(found, turns)
            touched |= await self._renew(self._stale(found, places), turns)
            published = await self._publish(touched | self._late, version, turns)
            self._made = max(self._made, version)
            turns.stop()
            self._figures.round(turns.spent, turns.longest, published, self._monotonic() - (since or self._monotonic()))

    async def _warm(self) -> None:
        """Makes the tables of a mesh, which for a large one takes too long to be done here at once."""
        mesh = self._mesh
        if mesh is not self._warmed and len(mesh) >= LARGE:
            await trio.to_thread.run_sync(scope_of, mesh, "", "")
        self._warmed = mesh

    async def _rescope(self, found: Affected, turns: CooperativeSteps) -> set[Member]:
        """Places everybody anew whose scope may be another one; who is told something else by that."""
        touched = set()
        for member in self._concerned(found):
            if member.identity in self.audience.members:
                scope = scope_of(self._mesh, member.namespace, member.account)
                view = await self._filled(scope, turns)
                rules = rules_of(scope)
                if view is not member.view or rules != member.rules:
                    self.audience.move(member, view)
                    member.rules = rules
                    touched.add(member)
            await turns.look()
        return touched

    def _concerned(self, found: Affected) -> Collection[Member]:
        members = self.audience.members
        if found.everybody:
            return list(members.values())
        accounts = {f"spiffe://{self._trust_domain}/ns/{namespace}/sa/{name}" for namespace, name in found.accounts}
        named = (members.get(identity) for identity in found.identities | accounts)
        return {*self.audience.in_namespaces(found.namespaces), *(each for each in named if each is not None)}

    def _stale(self, found: Affected, places: Iterable[tuple[str, str]]) -> list[Key]:
        """The pieces to make anew, of those that anybody sees."""
        keys = found.pieces | {("Service", *place) for place in places}
        seen = self.audience.seen(keys)
        for namespace in found.selecting:
            seen += [key for key in self.audience.seen_in("ServiceEntry", namespace) if key not in keys]
        return seen

    async def _renew(self, keys: Iterable[Key], turns: CooperativeSteps) -> set[Member]:
        views: set[View] = set()
        for key in keys:
            views |= self.audience.renew(key)
            await turns.look()
        touched: set[Member] = set()
        for view in views:
            self.audience.gather(view)
            touched |= view.members
            await turns.look()
        return touched

    async def _publish(self, members: Collection[Member], version: int, turns: CooperativeSteps) -> int:
        """Gives a version to each of these whose content is another one than it was told; how many were."""
        self._late = set(members)
        published = 0
        for member in members:
            content = member.content
            if content != member.published.value.content:
                if version <= member.published.version.n:
                    version = await self._number()
                member.published.publish(self._snapshot(member.identity, content), Version(self._store.epoch, version))
                published += 1
            self._made = max(self._made, version)
            self._late.discard(member)
            await turns.look()
        return published

    async def _number(self) -> int:
        """A version that was never given; StoreFailed where there is none to be had. See the package."""
        number = await self._store.put(NUMBERS, "number", b"")
        self._version = max(self._version, number)
        return number

    def _snapshot(self, identity: str, content: Content) -> Snapshot:
        return Snapshot(identity, self._trust_domain, self._clock(), content)

    def _encode(self, key: Key) -> bytes:
        kind, *place = key
        namespace, name = place
        made = _MADE.get(kind)
        if made is not None:
            return msgspec.json.encode(made(self._mesh, (namespace, name)))
        live, virtual = self._registry.live(namespace, name), self._registry.virtual(namespace, name)
        return msgspec.json.encode(service_spec(self._mesh, (namespace, name), live, virtual))

    # -- who comes, and who goes -------------------------------------------------------------------------------------

    async def _admit(self, identity: SpiffeId) -> Member:
        workload = identity.workload()
        assert workload is not None, "only workloads ask for a snapshot"
        async with self._turn:
            known = self.audience.members.get(str(identity))
            if known is not None:
                return known
            self._make_room()
            await self._warm()
            turns, version = CooperativeSteps(), self._made
            scope = scope_of(self._mesh, *workload)
            view = await self._filled(scope, turns)
            rules = rules_of(scope)
            content = msgspec.structs.replace(view.content, rules=rules)
            published = Watchable(self._snapshot(str(identity), content), Version(self._store.epoch, version))
            member = Member(str(identity), *workload, view, rules, published, self._monotonic())
            self.audience.add(member)
            turns.stop()
            self._figures.admitted(turns.spent, turns.longest)
            return member

    async def _filled(self, scope: Visibility, turns: CooperativeSteps) -> View:
        """The view of a scope, with its pieces."""
        view, steps = self.audience.view(scope)
        try:
            for _ in steps:
                await turns.look()
        except BaseException:
            self.audience.abandon(view)
            raise
        return view

    def _make_room(self) -> None:
        members = self.audience.members
        if len(members) < self._most:
            return
        idle = [member for member in members.values() if not member.waiting]
        if not idle:
            raise Refused(503, "too many identities ask for a snapshot", 5.0)
        self.audience.remove(min(idle, key=lambda member: member.asked))

    async def _forget_silent(self) -> None:
        async with self._turn:
            silent = self._monotonic() - SILENT_SECONDS
            for member in list(self.audience.members.values()):
                if member.asked < silent and not member.waiting:
                    self.audience.remove(member)
