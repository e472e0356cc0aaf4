"""A file, from what is found at a path to two connections that can be used; or one line that says why not.

Who calls it: ``control.store.sqlite`` at the start, and ``control.store.database_restore``. Nothing that is found is
changed before it is known to be ours, whole, and in no process's use; and what is not is left as it is.

A store that is new is made under another name and put in place when it is complete. So a file that is empty, or whose
journal is there without it, is one that was cut short, and never taken for a new one: the tokens and revocations that
were in it would be forgotten without a word.

**One process at a time**, by a lock (``flock``) on the file itself: a second one would hand out single-use tokens
twice, and what it wrote no watcher here would see.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from pathlib import Path
from typing import Final, NamedTuple

from control.store import schema
from control.store.online_backup import copy_to
from sidecar.errors import StartError

_NO_ROOM: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
_MAGIC: Final = b"SQLite format 3\0"
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_MENDS: Final = "put back a copy (sidecar-control restore FILE), or name another file"


class Opened(NamedTuple):
    """What a store holds. In memory the two connections are one, and there is neither a lock nor a path."""

    writing: sqlite3.Connection
    reading: sqlite3.Connection
    lock: int | None = None
    path: Path | None = None

    def close(self) -> None:
        """Lets go of it; once."""
        self.writing.close()
        self.reading.close()
        if self.lock is not None:
            os.close(self.lock)


def connect(path: str) -> sqlite3.Connection:
    """A connection in autocommit mode that any thread may use, one at a time."""
    return sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)


def hold(path: Path) -> int:
    """A descriptor that holds the lock of the file until it is closed. StartError where there is no file of ours alone,
    which nobody uses; FileNotFoundError where there is none at all.

    It must outlive the connections: closing any descriptor of a file drops the locks that SQLite has on it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StartError(
            f"--store: {path.absolute()} can't be opened ({error.strerror}); name a file of ours"
        ) from None
    try:
        _judge(os.fstat(descriptor), path)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StartError(f"--store: {path} is locked: another process uses it; end that one") from None
    except StartError:
        os.close(descriptor)
        raise
    return descriptor


def _judge(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise StartError(f"--store: {path} is not a file; name one")
    if found.st_uid != os.geteuid():
        raise StartError(f"--store: {path} belongs to somebody else; chown it, or name another file")
    if found.st_mode & 0o077:
        raise StartError(f"--store: {path} can be read by others; look who read it, then chmod 600 it")


def open_file(path: Path, now: float) -> Opened:
    """The store at ``path``, made where there is none. Raises StartError."""
    try:
        held = hold(path)
    except FileNotFoundError:
        _make(path, now)
        held = hold(path)
    connections: list[sqlite3.Connection] = []
    try:
        if os.fstat(held).st_size == 0:
            raise StartError(f"--store: {path} is empty, so it was cut short; delete it for a new one, or {_MENDS}")
        if not is_database(held):  # SQLite would fill it from a journal that is there
            raise damaged(path, "file is not a database")
        connections.append(connect(str(path)))
        prepare(connections[0], path)
        connections.append(connect(str(path)))
        connections[1].execute("PRAGMA query_only = ON")
        connections[1].execute("SELECT epoch FROM meta").fetchone()  # what it needs on the disk, it has now
    except (sqlite3.Error, StartError) as error:
        for one in connections:
            one.close()
        os.close(held)
        raise failure(error, path) from None
    return Opened(connections[0], connections[1], held, path)


def failure(error: sqlite3.Error | StartError, path: Path) -> StartError:
    """What is said of it."""
    if isinstance(error, StartError):
        return error
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says where exactly
    if code in _NO_ROOM:
        return StartError(f"--store: {path} can't be written ({error}); make room on its disk, or name another file")
    if code in _DAMAGED:
        return damaged(path, str(error))
    return StartError(f"--store: {path} can't be used ({error}); {_MENDS}")


def damaged(path: Path, why: str) -> StartError:
    """What is said of a file that can't be read, or not all of it."""
    return StartError(f"--store: {path} is not a database that can be used ({why}); {_MENDS}")


def prepare(connection: sqlite3.Connection, path: Path, keep: bool = True) -> None:
    """Checks a database that was opened, and brings it to our schema; as it was it is kept beside ``path``.

    Raises sqlite3.Error and StartError."""
    application, found = schema.identify(connection)
    if application != schema.APPLICATION:
        raise StartError(f"--store: {path} is a database of another program; name another file")
    if found > schema.SCHEMA:
        raise StartError(
            f"--store: {path} was written by a newer version (schema {found}; ours is {schema.SCHEMA}); use that"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise damaged(path, verdict.splitlines()[-1])
    if found < schema.SCHEMA:
        if keep:
            _keep(connection, path, found)
        schema.migrate(connection, found)


def _keep(connection: sqlite3.Connection, path: Path, found: int) -> None:
    before = beside(path, f".schema{found}")
    try:
        before.unlink(missing_ok=True)  # of an earlier attempt
        copy_to(connection, before)
    except OSError as error:
        raise StartError(f"--store: {before} can't be written ({error.strerror}), so {path} stays as it is") from None


def is_database(descriptor: int) -> bool:
    """Whether a file begins as SQLite's do."""
    return os.pread(descriptor, len(_MAGIC), 0) == _MAGIC


def beside(path: Path, end: str) -> Path:
    """The file of the same name with something behind it."""
    return path.with_name(path.name + end)


def _make(path: Path, now: float) -> None:
    """A new store, put in place when it is whole."""
    if beside(path, "-wal").exists():
        raise StartError(
            f"--store: {path} is gone, but {path.name}-wal, its journal, is there; put it back, or {_MENDS}"
        )
    try:
        memory = connect(":memory:")
        schema.make(memory, int(now * 1000))
        try:
            copy_to(memory, path)
        finally:
            memory.close()
    except OSError as error:
        raise StartError(
            f"--store: {path.absolute()} can't be made ({error.strerror}); name a file in a directory of ours"
        ) from None
    except sqlite3.Error as error:
        raise failure(error, path) from None
