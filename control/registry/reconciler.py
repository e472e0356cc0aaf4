"""What keeps the registry true as time passes and documents change: ageing, endpoints of services that are no more,
virtual addresses.

Who runs it: the composition root, one of each. Every removal names the version that it was decided on, so whoever
registers at the same moment wins. A store that fails is tried again with the next round; until then all stays as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import trio

from certs import spiffe
from certs.errors import IdentityError
from certs.spiffe import SpiffeId
from control.documents.state import State
from control.documents.table import Documents
from control.metrics import Figures
from control.registry import liveness, serving_rights
from control.registry.endpoint_table import ENDPOINT, Key, Registry, entry_name
from control.registry.liveness import Lateness
from control.registry.virtual_addresses import Addresses
from control.store import Change, Conflict, Store, StoreFailed
from sidecar.resources.documents import Key as DocumentKey
from sidecar.resources.kinds import Service

_AT_ONCE = 500  # services judged between two turns of everybody else: about a millisecond
_IN_A_WRITE = 500  # removals
_RETRY_SECONDS = 1.0
_LACKING_SECONDS = 60.0  # after which services that got no virtual address are looked at again
_log = logging.getLogger(__name__)


class Ageing:
    """Drops who is gone, by the rules of ``control.registry.liveness``."""

    def __init__(self, store: Store, registry: Registry, figures: Figures, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._registry = registry
        self._monotonic = monotonic
        self._dropped = figures.counter(
            "sidecar_control_endpoints_dropped", "Endpoints that were dropped for their silence."
        )

    async def run(self) -> None:
        """A round a second, until it is cancelled."""
        planned = self._monotonic()
        while True:
            now = self._monotonic()
            late = liveness.lateness(planned, now)
            if late is Lateness.AWAY:
                _log.warning(
                    "this process was held up for %.1f s; nobody is taken for silent because of it", now - planned
                )
                self._registry.begin_anew()
            elif late is Lateness.ON_TIME:
                await self.round(now)
            planned = self._monotonic() + liveness.ROUND
            await trio.sleep(liveness.ROUND)

    async def round(self, now: float) -> None:
        """Judges all, and drops those that are gone. A round that takes long is for the next one no lateness."""
        gone = await self._gone(now)
        if not gone:
            return
        with self._registry.drop(change.name for change in gone):
            try:
                dropped = await remove(self._store, self._registry, gone)
            except StoreFailed as error:
                _log.error("endpoints that are silent stay for now: %s", error)
                return
        self._dropped.inc(len(dropped))
        for name in dropped:
            _log.info("endpoint %s was not heard in time, though others of its service were, and is dropped", name)

    async def _gone(self, now: float) -> list[Change]:
        """The removals of those that are gone."""
        registry = self._registry
        services = registry.services()
        mesh_heard = any(liveness.mesh_is_heard(registry.hearings(*key), now) for key in services)
        found: list[Change] = []
        for number, key in enumerate(services):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
            for silent in liveness.gone(registry.hearings(*key), now, mesh_heard):
                known = registry.find(*key, silent)
                if known is not None:
                    found.append(Change(ENDPOINT, entry_name(*key, silent), None, if_version=known[1]))
        return found


class Following:
    """Follows the documents: endpoints go with the service, or with the permission to serve it; virtual addresses come
    and go with services that name none. ``blocked``: whether an identity is revoked, and so serves nothing."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        documents: Documents,
        trust_domain: str,
        monotonic: Callable[[], float],
        blocked: Callable[[SpiffeId], bool],
    ) -> None:
        self._store = store
        self._registry = registry
        self._documents = documents
        self._trust_domain = trust_domain
        self._blocked = blocked
        self._addresses = Addresses(store, registry, monotonic)
        self._dirty: set[Key] = set()
        self._woken = trio.Event()
        documents.follow(self._document_changed)
        registry.follow(self._endpoint_changed)

    @property
    def lacking(self) -> Collection[Key]:
        """Services that got no virtual address."""
        return self._addresses.lacking

    async def run(self) -> None:
        """Looks at all once, then at what changes, until it is cancelled."""
        every = {*serving_rights.services(self._documents.state.effective), *self._registry.services()}
        self._mark(every | set(self._registry.virtuals()))
        while True:
            with trio.move_on_after(_RETRY_SECONDS if self._dirty else _LACKING_SECONDS):
                await self._woken.wait()
            keys, self._dirty, self._woken = self._dirty, set(), trio.Event()
            try:
                await self.settle(keys)
            except (StoreFailed, Conflict) as error:
                _log.error("the registry is not in step with the documents, and tries again: %s", error)
                self._dirty |= keys

    async def settle(self, keys: Collection[Key]) -> None:
        """Brings these services in step with their documents. Raises StoreFailed or Conflict, and is to be called again
        then."""
        state = self._documents.state
        readable = [key for key in sorted(keys) if not _unreadable(state, key)]
        strangers = [change for key in readable for change in self._strangers(state, key)]
        for change in await remove(self._store, self._registry, strangers):
            _log.info("endpoint %s may not serve any more, and is removed", change)
        await self._addresses.settle(readable, state.effective)

    def _strangers(self, state: State, key: Key) -> Iterator[Change]:
        """Removals of the endpoints of those who may not serve."""
        service = serving_rights.service_of(state.effective, key)
        verdicts: dict[str, bool] = {}
        for each in self._registry.endpoints(*key):
            if each.identity not in verdicts:
                verdicts[each.identity] = service is not None and self._may_serve(service, key[0], each.identity)
            found = None if verdicts[each.identity] else self._registry.find(*key, each.key)
            if found is not None:
                yield Change(ENDPOINT, entry_name(*key, each.key), None, if_version=found[1])

    def _may_serve(self, service: Service, namespace: str, identity: str) -> bool:
        try:
            parsed = spiffe.parse(identity)
            return serving_rights.may_serve(service, namespace, parsed, self._trust_domain) and not self._blocked(
                parsed
            )
        except IdentityError:
            return False

    def look_again(self) -> None:
        """Somebody was revoked."""
        self._mark(self._registry.services())

    def _document_changed(self, keys: frozenset[DocumentKey], version: int) -> None:
        self._mark((namespace, name) for kind, namespace, name in keys if kind == "Service")

    def _endpoint_changed(self, keys: frozenset[Key], version: int) -> None:
        self._mark(keys)  # one that was judged by a document that has changed since

    def _mark(self, keys: Iterable[Key]) -> None:
        self._dirty.update(keys)
        if self._dirty:
            self._woken.set()


async def remove(store: Store, registry: Registry, changes: Sequence[Change]) -> list[str]:
    """Removes those that are still at the version that was judged; returns their names, once the table knows."""
    removed: list[str] = []
    for start in range(0, len(changes), _IN_A_WRITE):
        part = changes[start : start + _IN_A_WRITE]
        for group in (part,) if len(part) == 1 else (part, *([change] for change in part)):
            try:
                reached = await store.write(group)
            except Conflict:
                continue  # of a group: one by one then; of one: it was written meanwhile, and stays
            await registry.reached(reached)
            removed += [change.name for change in group]
            if group is part:
                break
    return removed


def _unreadable(state: State, key: Key) -> bool:
    """A document that this version can't read says something, and not that all are to go."""
    held = state.held.get(("Service", *key))
    return held is not None and held.document is None
