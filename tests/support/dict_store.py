"""A store in a dict: what the protocol says and nothing else, to hold the conformance suite to the protocol."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from control.store import Change, Conflict, Entry, Event, Listing, StoreFailed, TooOld
from control.store.changes import check

KEPT = 5000  # events


class DictStore:
    """See ``control.store.Store``."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self._entries: dict[tuple[str, str], tuple[bytes, int]] = {}
        self._version = 0
        self._writes: deque[tuple[Event, ...]] = deque()
        self._changed = trio.Event()
        self._closed = False

    async def list(self, kind: str, prefix: str = "") -> Listing:
        await self._look()
        found = sorted(key for key in self._entries if key[0] == kind and key[1].startswith(prefix))
        return Listing(self._version, tuple(Entry(key[1], *self._entries[key]) for key in found))

    async def get(self, kind: str, name: str) -> Entry | None:
        await self._look()
        held = self._entries.get((kind, name))
        return Entry(name, *held) if held else None

    async def put(self, kind: str, name: str, value: bytes, if_version: int | None = None) -> int:
        return await self.write([Change(kind, name, value, if_version)])

    async def delete(self, kind: str, name: str, if_version: int | None = None) -> bool:
        before = self._version
        return await self.write([Change(kind, name, None, if_version)]) > before

    async def write(self, changes: Sequence[Change]) -> int:
        check(changes)
        await self._look()
        for change in changes:
            held = self._entries.get((change.kind, change.name), (b"", 0))[1]
            if change.if_version not in (None, held):
                raise Conflict(change.name)
        does = [one for one in changes if one.value is not None or (one.kind, one.name) in self._entries]
        if not does:
            return self._version
        self._version += 1
        for one in does:
            if one.value is None:
                del self._entries[one.kind, one.name]
            else:
                self._entries[one.kind, one.name] = (one.value, self._version)
        self._writes.append(tuple(Event(one.kind, one.name, one.value, self._version) for one in does))
        while sum(map(len, self._writes)) > KEPT:
            self._writes.popleft()
        self._wake()
        return self._version

    @asynccontextmanager
    async def watch(self, kinds: Collection[str], since: int) -> AsyncIterator[AsyncIterator[tuple[Event, ...]]]:
        if since > self._version:
            raise TooOld(str(since))
        yield _Watch(self, kinds, since)

    async def after(self, at: int) -> Sequence[tuple[Event, ...]]:
        """The writes after that version, once there are any."""
        while True:
            await self._look()
            first = self._version - len(self._writes)
            if at < first:
                raise TooOld(str(at))
            if at < self._version:
                return tuple(self._writes)[at - first :]
            await self._changed.wait()

    async def backup(self, path: str) -> None:
        await self._look()
        entries = [[*key, value.hex(), version] for key, (value, version) in self._entries.items()]
        try:
            _write(Path(path), json.dumps(entries))
        except OSError as error:
            raise StoreFailed(str(error)) from error

    def close(self) -> None:
        self._closed = True
        self._wake()

    async def _look(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise StoreFailed("closed")

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


class _Watch(AsyncIterator[tuple[Event, ...]]):
    def __init__(self, store: DictStore, kinds: Collection[str], at: int) -> None:
        self._store, self._kinds, self._at = store, kinds, at

    async def __anext__(self) -> tuple[Event, ...]:
        while True:
            for write in await self._store.after(self._at):
                self._at = write[0].version
                found = tuple(event for event in write if event.kind in self._kinds)
                if found:
                    return found


def _write(path: Path, text: str) -> None:
    path.touch(0o600, exist_ok=False)
    path.write_text(text)
