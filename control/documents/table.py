"""The documents in memory, as the store has them: what everybody reads, and follows.

Who makes it: the composition root; who follows it: ``control.registry`` and ``control.distribution``. Changes come by
``store.watch``, one write after the other, each taken whole: nobody ever sees a half of an apply. What stands in a
``State`` never changes; whoever holds one, as a list that is read page by page does, has the mesh of one moment.

A document that this version can't read was written by a newer one. It is shown with the reason, logged once, and left
out; what it may have forbidden is forbidden (``placeholders``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

import trio

from control.documents import placeholders, stored_document
from control.documents.state import State
from control.documents.stored_document import KIND, Held, key_of
from control.store import Entry, Event, Store, TooOld
from sidecar.resources.documents import Document, Key
from sidecar.resources.mesh_documents import Mesh

Follower = Callable[[frozenset[Key], int], None]
AT_ONCE = 50  # entries read between two turns of everybody else: some milliseconds
_log = logging.getLogger(__name__)


class Documents:
    """See the module. ``load`` comes first, then ``run``."""

    def __init__(self, store: Store, trust_domain: str) -> None:
        self._store = store
        self._followers: list[Follower] = []
        self._changed = trio.Event()
        self.state = State(0, {}, {}, Mesh(trust_domain=trust_domain))

    @property
    def mesh(self) -> Mesh:
        """All documents that count, of this moment."""
        return self.state.mesh

    @property
    def version(self) -> int:
        """The store's version that this has come to."""
        return self.state.version

    @property
    def unreadable(self) -> int:
        """How many can't be read."""
        return sum(held.document is None for held in self.state.held.values())

    def follow(self, follower: Follower) -> None:
        """Calls it after each batch, with the keys of the documents that count and are other ones now or gone, and the
        version; not for what is there already. It must not wait, nor raise."""
        self._followers.append(follower)

    async def load(self) -> None:
        """Takes everything from the store."""
        listing = await self._store.list(KIND)
        fresh: dict[Key, Held] = {}
        for number, entry in enumerate(listing.entries):
            if number % AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            fresh[key_of(entry.name)] = self._held(entry)
        self._become(listing.version, fresh)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follows the store until it is cancelled."""
        task_status.started()
        while True:
            try:
                async with self._store.watch({KIND}, self.version) as batches:
                    async for batch in batches:
                        await self._take(batch)
            except TooOld:
                await self.load()

    async def reached(self, version: int) -> None:
        """Waits until what the store had at this version is here."""
        while self.version < version:
            await self._changed.wait()

    async def newer(self, state: State) -> None:
        """Waits until this state is not the newest any more."""
        while self.state is state:
            await self._changed.wait()

    async def _take(self, batch: tuple[Event, ...]) -> None:
        fresh = dict(self.state.held)
        for number, event in enumerate(batch):
            if number % AT_ONCE == AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
            if event.value is None:
                fresh.pop(key_of(event.name), None)
            else:
                fresh[key_of(event.name)] = self._held(Entry(event.name, event.value, event.version))
        self._become(max(event.version for event in batch), fresh)

    def _held(self, entry: Entry) -> Held:
        """The one that is here already, where its entry is the same."""
        known = self.state.held.get(key_of(entry.name))
        if known is not None and known.version == entry.version:
            return known
        fresh = stored_document.held(entry)
        if fresh.document is None:
            _log.error("document %s can't be read and is left out: %s", entry.name, fresh.why)
        return fresh

    def _become(self, version: int, held: Mapping[Key, Held]) -> None:
        before = self.state.effective
        effective = placeholders.effective(held.values())
        changed = frozenset(_differing(before, effective))
        mesh = self.state.mesh
        if changed:
            gone = [key for key in changed if key not in effective]
            mesh = mesh.changed([effective[key] for key in changed.difference(gone)], gone)
        self.state = State(version, held, effective, mesh)
        woken, self._changed = self._changed, trio.Event()
        woken.set()
        if changed:
            for follower in self._followers:
                follower(changed, version)


def _differing(before: Mapping[Key, Document], after: Mapping[Key, Document]) -> Iterable[Key]:
    """Keys whose document is another one, new or gone."""
    yield from (key for key in before if key not in after)
    for key, document in after.items():
        known = before.get(key)
        if known is not document and known != document:
            yield key
