"""The store in one file of SQLite, or in memory.

Who makes it: the composition root. WAL, since readers then never wait for a writer, and ``synchronous FULL``, since an
answer that says "revoked" must hold after the power failed. One connection, one call at a time: writes are rare here
(tokens, revocations, a line per certificate) and SQLite has one writer anyway. Calls run in a thread, as ``fsync`` may
take long; those of the store in memory do not, as they never wait.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from typing import TypeVar

import trio

from control.store import Conflict, Entry, Listing, StoreFailed
from sidecar.errors import StartError

APPLICATION = 0x73636370  # "sccp": tells our files from other people's databases
SCHEMA = 1
_TABLES = """
CREATE TABLE meta (epoch INTEGER NOT NULL, version INTEGER NOT NULL);
CREATE TABLE kinds (kind TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (
    kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (kind, name)
) WITHOUT ROWID;
"""
_T = TypeVar("_T")


class SqliteStore:
    """A store in the file ``path``; the empty path is memory. Made by :func:`open_store`."""

    def __init__(self, connection: sqlite3.Connection, epoch: int, threaded: bool) -> None:
        self._connection = connection
        self._epoch = epoch
        self._threaded = threaded
        self._turn = trio.Lock()

    @property
    def epoch(self) -> int:
        """See ``control.version``."""
        return self._epoch

    async def list(self, kind: str) -> Listing:
        """See ``control.store.Store``."""
        return await self._run(lambda: self._list(kind))

    async def get(self, kind: str, name: str) -> Entry | None:
        """See ``control.store.Store``."""
        return await self._run(lambda: self._get(kind, name))

    async def put(self, kind: str, name: str, value: bytes, if_version: int | None = None) -> int:
        """See ``control.store.Store``."""
        return await self._run(lambda: self._put(kind, name, value, if_version))

    async def delete(self, kind: str, name: str, if_version: int | None = None) -> bool:
        """See ``control.store.Store``."""
        return await self._run(lambda: self._delete(kind, name, if_version))

    def close(self) -> None:
        """See ``control.store.Store``."""
        self._connection.close()

    async def _run(self, work: Callable[[], _T]) -> _T:
        async with self._turn:
            try:
                return await trio.to_thread.run_sync(work) if self._threaded else work()
            except sqlite3.Error as error:
                raise StoreFailed(f"the store failed: {error}") from error

    def _list(self, kind: str) -> Listing:
        # One statement after the other sees one state: no other connection writes (see open_store).
        row = self._connection.execute("SELECT version FROM kinds WHERE kind = ?", (kind,)).fetchone()
        rows = self._connection.execute(
            "SELECT name, value, version FROM entries WHERE kind = ? ORDER BY name", (kind,)
        )
        return Listing(row[0] if row else 0, tuple(Entry(*found) for found in rows))

    def _get(self, kind: str, name: str) -> Entry | None:
        row = self._connection.execute(
            "SELECT name, value, version FROM entries WHERE kind = ? AND name = ?", (kind, name)
        ).fetchone()
        return Entry(*row) if row else None

    def _put(self, kind: str, name: str, value: bytes, if_version: int | None) -> int:
        with self._connection:  # commits, or rolls back where something is raised
            self._connection.execute("BEGIN IMMEDIATE")
            self._expect(kind, name, if_version)
            version = self._next_version(kind)
            self._connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", (kind, name, value, version))
        return version

    def _delete(self, kind: str, name: str, if_version: int | None) -> bool:
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._expect(kind, name, if_version)
            if self._get(kind, name) is None:
                return False
            self._next_version(kind)
            self._connection.execute("DELETE FROM entries WHERE kind = ? AND name = ?", (kind, name))
        return True

    def _expect(self, kind: str, name: str, if_version: int | None) -> None:
        if if_version is None:
            return
        found = self._get(kind, name)
        if (found.version if found else 0) != if_version:
            raise Conflict(f"{kind} {name} is not at version {if_version}")

    def _next_version(self, kind: str) -> int:
        (version,) = self._connection.execute("UPDATE meta SET version = version + 1 RETURNING version").fetchone()
        self._connection.execute("INSERT OR REPLACE INTO kinds VALUES (?, ?)", (kind, version))
        return int(version)


def open_store(path: str, now: float) -> SqliteStore:
    """The store at ``path`` (empty: in memory), made where there is none, with ``now`` (s) as its epoch.

    Raises StartError: a directory that is not there, a file of somebody else, a damaged or a newer one. Such a file is
    left as it is.
    """
    if path:
        _touch(path)
    try:
        connection = sqlite3.connect(path or ":memory:", timeout=1, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise StartError(f"--store: {path} can't be opened: {error}") from None
    try:
        epoch = _prepare(connection, path, now)
    except (sqlite3.Error, StartError) as error:
        connection.close()
        if isinstance(error, StartError):
            raise
        raise StartError(
            f"--store: {path} is not a database that can be used ({error}); name another file, or put back a copy"
        ) from None
    return SqliteStore(connection, epoch, threaded=bool(path))


def _touch(path: str) -> None:
    """Makes the file where there is none; SQLite gives the two beside it the same mode."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"--store: {os.path.abspath(path)} can't be opened ({error.strerror}); name a file in a directory of ours"
        ) from None
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise StartError(f"--store: {path} is not a file; name one")
    if found.st_mode & 0o077:
        raise StartError(f"--store: {path} can be read by others; chmod 600 it")


def _prepare(connection: sqlite3.Connection, path: str, now: float) -> int:
    """Checks the file or fills an empty one; returns its epoch."""
    application, schema = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    made = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
    if made and application != APPLICATION:
        raise StartError(f"--store: {path} is a database of another program; name another file")
    if made and schema != SCHEMA:
        raise StartError(f"--store: {path} was written by another version (schema {schema}, ours is {SCHEMA})")
    # One process at a time: a second one would hand out versions and single-use tokens twice.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
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
    return int(connection.execute("SELECT epoch FROM meta").fetchone()[0])
