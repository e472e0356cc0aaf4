"""The store in one file of SQLite, or in memory.

Who makes it: the composition root. WAL, since readers then never wait for a writer, and ``synchronous FULL``, since an
answer that says "revoked" must hold after the power failed. Two connections, each with one thread at a time: one reads,
one commits, for all that wait at once (``control.store.group_commit``). The store in memory has one, and no threads, as
it never waits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TypeVar

import trio

from control.store import Change, Entry, Event, Listing, StoreFailed, TooOld, open_database, schema
from control.store.changes import check
from control.store.group_commit import GroupCommit, Result, Written
from control.store.online_backup import copy_to
from control.store.open_database import Opened
from control.store.tables import Tables
from control.store.watch_log import Watcher, WatchLog

_T = TypeVar("_T")


class SqliteStore:
    """See ``control.store.Store``. Made by :func:`open_store`."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._writer, self._reader = Tables(opened.writing), Tables(opened.reading)
        self._writing, self._reading, self._copying = (trio.CapacityLimiter(1) for _ in range(3))
        self._closed = False
        self._epoch, version = self._writer.state()
        self._recent = WatchLog(version)
        self._commits = GroupCommit(self._commit, lambda written: self._recent.add(written.version, written.events))

    @property
    def epoch(self) -> int:
        """See ``control.version``."""
        return self._epoch

    async def list(self, kind: str, prefix: str = "") -> Listing:
        """See ``control.store.Store``."""
        return await self._read(lambda: self._reader.entries(kind, prefix))

    async def get(self, kind: str, name: str) -> Entry | None:
        """See ``control.store.Store``."""
        return await self._read(lambda: self._reader.get(kind, name))

    async def put(self, kind: str, name: str, value: bytes, if_version: int | None = None) -> int:
        """See ``control.store.Store``."""
        return await self.write([Change(kind, name, value, if_version)])

    async def delete(self, kind: str, name: str, if_version: int | None = None) -> bool:
        """See ``control.store.Store``."""
        return bool((await self._write([Change(kind, name, None, if_version)])).events)

    async def write(self, changes: Sequence[Change]) -> int:
        """See ``control.store.Store``."""
        return (await self._write(changes)).version

    @asynccontextmanager
    async def watch(self, kinds: Collection[str], since: int) -> AsyncIterator[AsyncIterator[tuple[Event, ...]]]:
        """See ``control.store.Store``."""
        if since > self._recent.version + self._commits.under_way:
            raise TooOld(f"version {since} is none of this store's")
        yield Watcher(self._recent, kinds, since)

    async def backup(self, path: str) -> None:
        """See ``control.store.Store``."""
        try:
            if self._opened.path is not None:
                await trio.to_thread.run_sync(self._copy, self._opened.path, Path(path), limiter=self._copying)
            else:
                await trio.lowlevel.checkpoint()
                copy_to(self._opened.writing, Path(path))
        except OSError as error:
            raise StoreFailed(f"{path} can't be written: {error.strerror}") from error
        except sqlite3.Error as error:
            raise StoreFailed(f"{path} can't be written: {error}") from error

    def close(self) -> None:
        """See ``control.store.Store``. Those that watch get StoreFailed."""
        if self._closed:
            return
        self._closed = True
        self._recent.close()
        self._opened.close()

    async def _write(self, changes: Sequence[Change]) -> Written:
        check(changes)
        return await self._commits.write(tuple(changes))

    async def _commit(self, writes: Sequence[Sequence[Change]]) -> Sequence[Result]:
        return await self._run(lambda: self._writer.commit(writes), self._writing)

    async def _read(self, work: Callable[[], _T]) -> _T:
        return await self._run(work, self._reading)

    async def _run(self, work: Callable[[], _T], thread: trio.CapacityLimiter) -> _T:
        try:
            if self._opened.path is not None and not self._closed:
                return await trio.to_thread.run_sync(work, limiter=thread)
            await trio.lowlevel.checkpoint()
            return work()
        except sqlite3.Error as error:
            raise StoreFailed("the store is closed" if self._closed else f"the store failed: {error}") from error

    def _copy(self, source: Path, path: Path) -> None:
        with closing(open_database.connect(str(source))) as connection:
            copy_to(connection, path, trio.from_thread.check_cancelled)


def open_store(path: str, now: float) -> SqliteStore:
    """The store at ``path`` (empty: in memory), made where there is none, with ``now`` (s) as its epoch.

    Raises StartError: a directory that is not there, a file of somebody else, a damaged or a newer one, a full disk.
    Such a file is left as it is.
    """
    if path:
        return SqliteStore(open_database.open_file(Path(path), now))
    connection = open_database.connect(":memory:")
    schema.make(connection, int(now * 1000))
    return SqliteStore(Opened(connection, connection))
