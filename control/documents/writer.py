"""Changes of documents, one after the other: judged against all that is there, and written whole or not at all.

Who calls it: ``api``. There is one turn: the call that has it judges against the newest state, writes, and waits until
the table has what was written: the next one judges against that, and a reader after the answer sees it. The write
names the version of each entry that it replaces; should another process write to the same store, the loser judges
anew, and is told 409 when that happens again and again. What is judged is pure, and runs in a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import trio

from control.documents import changes, parse
from control.documents.changes import DELETED, Order, Plan, Tombstone
from control.documents.parse import Read
from control.documents.state import State
from control.documents.stored_document import HISTORY, generation_of, name_of
from control.documents.table import Documents
from control.problems import Invalid
from control.store import Change, Conflict, Store
from sidecar.resources.documents import Key

TRIES: Final = 3
GONE: Final = 1000  # documents that are gone whose history is kept; the oldest go first
INLINE: Final = 4096  # bytes of a body that are read without a thread: a millisecond
Check = Callable[[State], None]


class Writer:
    """See the module."""

    def __init__(self, store: Store, documents: Documents, clock: Callable[[], float]) -> None:
        self._store = store
        self._documents = documents
        self._clock = clock
        self._turn = trio.Lock()

    async def read(self, body: bytes, content_type: str, namespace: str = "") -> Read:
        """See ``text.read``."""
        if len(body) <= INLINE:
            return parse.read(body, content_type, namespace)
        return await trio.to_thread.run_sync(parse.read, body, content_type, namespace)

    async def apply(self, order: Order, check: Check | None = None, *, dry_run: bool = False) -> tuple[Plan, int]:
        """Does it, or raises Invalid; returns what was done, and the store's version with it.

        ``check`` looks at the state that is judged, and may raise Invalid. With ``dry_run`` nothing is written.
        """
        async with self._turn:
            for _ in range(TRIES):
                state = self._documents.state
                if check is not None:
                    check(state)
                timed = msgspec.structs.replace(order, now=self._clock(), last=await self._last(state, order))
                plan = await trio.to_thread.run_sync(changes.planned, state, timed)
                if dry_run or not plan.changes:
                    return plan, state.version
                try:
                    version = await self._store.write([*plan.changes, *await self._forgotten(timed)])
                except Conflict:
                    await self._documents.newer(state)
                    continue
                await self._documents.reached(version)
                return plan, version
        raise Invalid("others change the same documents all the time; try again", 409, kind="conflict")

    async def _last(self, state: State, order: Order) -> dict[Key, int]:
        """The last generation of what is not there now, where there was one."""
        found: dict[Key, int] = {}
        missing = changes.unknown(state, order)
        if not missing:
            return found
        gone = {entry.name: entry.value for entry in (await self._store.list(DELETED)).entries}
        for key in missing:
            if key in state.held:  # it can't be read, so its history says
                entries = (await self._store.list(HISTORY, f"{name_of(key)}/")).entries
                found[key] = max((generation_of(entry.name) for entry in entries), default=0)
            elif (value := gone.get(name_of(key))) is not None:
                found[key] = msgspec.json.decode(value, type=Tombstone).generation
        return found

    async def _forgotten(self, order: Order) -> list[Change]:
        """The history of those that are gone for longest, where there are too many."""
        if not order.gone:
            return []
        entries = (await self._store.list(DELETED)).entries
        more = len(entries) + len(order.gone) - GONE
        if more <= 0:
            return []
        asked = {name_of(key) for key in order.gone}
        oldest = sorted(
            (msgspec.json.decode(entry.value, type=Tombstone).time, entry.name)
            for entry in entries
            if entry.name not in asked
        )
        found: list[Change] = []
        for _, name in oldest[:more]:
            found.append(Change(DELETED, name, None))
            history = (await self._store.list(HISTORY, f"{name}/")).entries
            found += (Change(HISTORY, entry.name, None) for entry in history)
        return found
