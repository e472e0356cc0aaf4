"""A copy put in the place of a store, and a new epoch for one.

Who calls it: ``control.store_recovery``, for an operator. Nothing else uses the store meanwhile; its lock is held.

The copy is checked and made ready under another name beside the place where it goes: so a copy that can't be used, a
full disk or a process that was killed leaves what was there. That is kept: it gets another name, and the copy takes the
place in one step (``rename``).

**A new epoch**, higher than those of the copy and of what was there, since versions are counted on from the copy's:
the same number would stand for two states. Where what was there is gone or can't be read, the time sees to that: an
epoch is the millisecond in which it began.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
from pathlib import Path

from control.store import open_database, schema
from control.store.online_backup import sync
from control.store.open_database import beside
from control.store.tables import Tables
from sidecar.errors import StartError


def make_ready(copy: Path, path: Path, now: float) -> Path:
    """A copy of ``copy`` beside ``path``, in our schema and with a new epoch; to be changed further, then put in place.
    ``path``'s lock is held, where it is there. Raises StartError: it is no store, or damaged; no room for it."""
    ready = path.with_name(f".{path.name}.restored")
    discard(ready)
    try:
        if copy.stat().st_size == 0:
            raise StartError(f"{copy} is empty, so it was cut short; take another copy")
        _take(copy, ready)
        if beside(copy, "-wal").exists():  # no backup has one; a file that somebody copied while it was in use may
            _take(beside(copy, "-wal"), beside(ready, "-wal"))
    except BlockingIOError:
        discard(ready)
        raise StartError(f"{copy} is in use by another process; make a backup of it, and restore that") from None
    except OSError as error:
        discard(ready)
        raise StartError(f"{copy} can't be copied to {path.parent} ({error.strerror})") from None
    try:
        with contextlib.closing(open_database.connect(str(ready))) as connection:
            open_database.prepare(connection, copy, keep=False)
            _renew(connection, now, _epoch_at(path))
    except (sqlite3.Error, StartError) as error:
        discard(ready)
        raise StartError(str(open_database.failure(error, copy)).replace("--store: ", "", 1)) from None
    return ready


def put_in_place(ready: Path, path: Path, kept: Path) -> bool:
    """``ready``, which nobody uses, becomes ``path``; what was there becomes ``kept``, whole by itself where it is a
    database, else as it is, with its journal beside it. Says whether anything was there.

    Raises StartError, and nothing has changed then.
    """
    there = path.exists()
    try:
        _fold(ready)
        sync(ready)
        if there:
            with contextlib.suppress(sqlite3.Error):  # damaged: what can't be mended is kept as well
                _fold(path)
            os.link(path, kept)
        for end in ("-wal", "-shm"):  # a journal that could not be folded in must not meet the new one
            if beside(path, end).exists():
                beside(path, end).rename(beside(kept, end))
        ready.rename(path)
        sync(path.parent)
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StartError(f"--store: {path} can't be replaced ({why})") from None
    return there


def discard(ready: Path) -> None:
    """Away with it, and with what is beside it."""
    for end in ("", "-wal", "-shm"):
        beside(ready, end).unlink(missing_ok=True)


def renew_epoch(path: Path, now: float) -> int:
    """Gives the store at ``path`` a new epoch, which it returns. Raises StartError."""
    opened = open_database.open_file(path, now)
    try:
        return _renew(opened.writing, now, 0)
    except sqlite3.Error as error:
        raise open_database.failure(error, path) from None
    finally:
        opened.close()


def _renew(connection: sqlite3.Connection, now: float, other: int) -> int:
    held, _ = Tables(connection).state()
    epoch = max(int(now * 1000), held + 1, other + 1)
    connection.execute("UPDATE meta SET epoch = ?", (epoch,))
    return epoch


def _take(source: Path, target: Path) -> None:
    """Copies bytes, where nobody writes them at this moment (BlockingIOError: a store that is in use)."""
    with source.open("rb") as out:
        fcntl.flock(out.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as into:
            shutil.copyfileobj(out, into)


def _epoch_at(path: Path) -> int:
    """That of what is there; 0 where there is nothing, or nothing of ours that can be read."""
    if not _is_database(path):
        return 0
    try:
        with contextlib.closing(open_database.connect(str(path))) as connection:
            ours = schema.identify(connection)[0] == schema.APPLICATION
            return Tables(connection).state()[0] if ours else 0
    except (sqlite3.Error, TypeError):  # TypeError: there is no row
        return 0


def _fold(path: Path) -> None:
    """Brings the journal's contents into the file of a store, so that it is whole by itself. Raises sqlite3.Error."""
    if not _is_database(path):
        return
    with contextlib.closing(open_database.connect(str(path))) as connection:
        if schema.identify(connection)[0] == schema.APPLICATION:
            connection.execute("PRAGMA journal_mode = DELETE")


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return open_database.is_database(file.fileno())
    except OSError:
        return False
