"""Virtual addresses as services come and go: given, kept, taken back.

Who calls it: ``control.registry.reconciler``, alone, so that what is remembered here is what the store has. That a
number was freed is remembered for as long as this process lives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import msgspec

from control.registry import serving_rights, virtual_address_allocator
from control.registry.endpoint_table import VIRTUAL, Key, Registry
from control.registry.virtual_address_allocator import KEPT_SECONDS, Freed
from control.store import Change, Store
from sidecar.resources.documents import Document
from sidecar.resources.documents import Key as DocumentKey

IN_A_WRITE: Final = 500
_log = logging.getLogger(__name__)


class Addresses:
    """All of them. ``lacking`` are services that got none, as there was none."""

    def __init__(self, store: Store, registry: Registry, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._registry = registry
        self._monotonic = monotonic
        self._numbers: dict[int, Key] = {}
        self._freed: dict[int, Freed] = {}
        self.lacking: frozenset[Key] = frozenset()

    async def settle(self, keys: Iterable[Key], documents: Mapping[DocumentKey, Document]) -> None:
        """Gives and takes back for these services, and tries again for those that lack one. Raises StoreFailed or
        Conflict; what was written until then holds, and is not done again."""
        if not self._numbers:
            self._load()
        changes = list(self._changes({*keys, *self.lacking}, documents))
        for start in range(0, len(changes), IN_A_WRITE):
            await self._write(changes[start : start + IN_A_WRITE])

    def _load(self) -> None:
        for key, found in self._registry.virtuals().items():
            number = virtual_address_allocator.number_of(found.v4)
            if number is not None:
                self._numbers[number] = key

    def _changes(
        self, keys: Iterable[Key], documents: Mapping[DocumentKey, Document]
    ) -> Iterator[tuple[Key, int | None]]:
        """The number that each is to have, where that is another than it has; None: no longer any."""
        taken = set(self._numbers)
        lacking: set[Key] = set()
        for key in sorted(keys):
            service = serving_rights.service_of(documents, key)
            wants = service is not None and not service.addresses
            has = bool(self._registry.virtual(*key))
            if wants and not has:
                number = virtual_address_allocator.free(key, taken, self._freed, self._monotonic())
                if number is None:
                    lacking.add(key)
                else:
                    taken.add(number)
                    yield key, number
            elif has and not wants:
                yield key, None
        if lacking - self.lacking:
            _log.error("%d services get no virtual address: all are taken, or were until an hour ago", len(lacking))
        self.lacking = frozenset(lacking)

    async def _write(self, wanted: list[tuple[Key, int | None]]) -> None:
        changes = [
            Change(
                VIRTUAL,
                "/".join(key),
                None if number is None else msgspec.json.encode(virtual_address_allocator.addresses(number)),
            )
            for key, number in wanted
        ]
        before = {key: virtual_address_allocator.number_of((*self._registry.virtual(*key), "")[0]) for key, _ in wanted}
        reached = await self._store.write(changes)
        await self._registry.reached(reached)
        for key, number in wanted:
            old = before[key]
            if number is not None:
                self._numbers[number] = key
                self._freed.pop(number, None)
            elif old is not None and self._numbers.pop(old, None) is not None:
                self._freed[old] = Freed(key, self._monotonic() + KEPT_SECONDS)
        now = self._monotonic()
        self._freed = {number: freed for number, freed in self._freed.items() if freed.until > now}
