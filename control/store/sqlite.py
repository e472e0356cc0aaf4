"""The store in one file of SQLite, or in memory.

Who makes it: the composition root. WAL, since readers then never wait for a writer, and ``synchronous FULL``, since an
answer that says "revoked" must hold after the power failed. Two connections, each with one thread at a time: one reads,
one commits, for all that wait at once (``control.store.commits``). The store in memory has one, and no threads, as it
never waits.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from control.store import Change, Entry, Event, Listing, StoreFailed, TooOld
from control.store.commits import Commits, Result, Written
from control.store.recent import Recent, Watcher
from control.store.tables import Tables
from sidecar.errors import StartError

APPLICATION = 0x73636370  # "sccp": tells our files from other people's databases
SCHEMA = 1
MOST_VALUE = 64 * 1024 * 1024
_TABLES = """
CREATE TABLE meta (epoch INTEGER NOT NULL, version INTEGER NOT NULL);
CREATE TABLE kinds (kind TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (
    kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (kind, name)
) WITHOUT ROWID;
"""
_T = TypeVar("_T")


class SqliteStore:
    """See ``control.store.Store``. Made by :func:`open_store`. ``reading`` is ``writing`` where it is in memory;
    ``lock`` is closed with it."""

    def __init__(self, writing: sqlite3.Connection, reading: sqlite3.Connection, lock: int | None = None) -> None:
        self._connections = (writing, reading)
        self._writer, self._reader = Tables(writing), Tables(reading)
        self._threaded = reading is not writing
        self._writing, self._reading = trio.CapacityLimiter(1), trio.CapacityLimiter(1)
        self._lock = lock
        self._closed = False
        self._epoch, version = self._writer.state()
        self._recent = Recent(version)
        self._commits = Commits(self._commit, lambda written: self._recent.add(written.version, written.events))

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
        raise StoreFailed("no backup yet")

    def close(self) -> None:
        """See ``control.store.Store``. Those that watch get StoreFailed."""
        self._closed = True
        self._recent.close()
        for connection in self._connections:
            connection.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _write(self, changes: Sequence[Change]) -> Written:
        check(changes)
        return await self._commits.write(tuple(changes))

    async def _commit(self, writes: Sequence[Sequence[Change]]) -> Sequence[Result]:
        return await self._run(lambda: self._writer.commit(writes), self._writing)

    async def _read(self, work: Callable[[], _T]) -> _T:
        return await self._run(work, self._reading)

    async def _run(self, work: Callable[[], _T], thread: trio.CapacityLimiter) -> _T:
        try:
            if self._threaded and not self._closed:
                return await trio.to_thread.run_sync(work, limiter=thread)
            await trio.lowlevel.checkpoint()
            return work()
        except sqlite3.Error as error:
            raise StoreFailed("the store is closed" if self._closed else f"the store failed: {error}") from error


def check(changes: Sequence[Change]) -> None:
    """What no store takes, and would fail others with: ValueError. A name is any text that can be written as UTF-8."""
    if len({(change.kind, change.name) for change in changes}) != len(changes):
        raise ValueError("a write names an entry twice")
    for change in changes:
        change.name.encode()
        if change.value is not None and len(change.value) > MOST_VALUE:
            raise ValueError(f"a value has at most {MOST_VALUE} bytes")


def open_store(path: str, now: float) -> SqliteStore:
    """The store at ``path`` (empty: in memory), made where there is none, with ``now`` (s) as its epoch.

    Raises StartError: a directory that is not there, a file of somebody else, a damaged or a newer one. Such a file is
    left as it is.
    """
    lock = _touch(path) if path else None
    try:
        connection = _connect(path or ":memory:")
    except sqlite3.Error as error:
        raise StartError(f"--store: {path} can't be opened: {error}") from None
    try:
        _prepare(connection, path, now)
    except (sqlite3.Error, StartError) as error:
        connection.close()
        if isinstance(error, StartError):
            raise
        raise StartError(
            f"--store: {path} is not a database that can be used ({error}); name another file, or put back a copy"
        ) from None
    return SqliteStore(connection, _connect(path) if path else connection, lock)


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)


def _touch(path: str) -> int:
    """Makes the file where there is none; SQLite gives the two beside it the same mode. Returns what holds its lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"--store: {os.path.abspath(path)} can't be opened ({error.strerror}); name a file in a directory of ours"
        ) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise StartError(f"--store: {path} is not a file; name one")
    if found.st_mode & 0o077:
        raise StartError(f"--store: {path} can be read by others; chmod 600 it")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise StartError(f"--store: {path} is locked: another process uses it") from None
    return descriptor


def _prepare(connection: sqlite3.Connection, path: str, now: float) -> None:
    """Checks the file or fills an empty one."""
    application, schema = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    made = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
    if made and application != APPLICATION:
        raise StartError(f"--store: {path} is a database of another program; name another file")
    if made and schema != SCHEMA:
        raise StartError(f"--store: {path} was written by another version (schema {schema}, ours is {SCHEMA})")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if made:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
    else:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLES} INSERT INTO meta VALUES ({int(now * 1000)}, 0);"
            f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA}; COMMIT;"
        )
