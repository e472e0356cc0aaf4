"""A whole copy of a database in one new file, while others write.

Who calls it: the store for ``backup``, and whoever is about to change a file for good. The copy is that of one moment:
the connection that is read from keeps its view of that moment (WAL), so writers neither wait nor make it begin again.
It appears under its name when it is complete and on the disk, and nothing is ever replaced by it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

STEP: Final = 256  # pages, 1 MiB: after as many it looks whether it is to go on


def copy_to(source: sqlite3.Connection, path: Path, look: Callable[[], None] = lambda: None) -> None:
    """``look`` is called now and then, and ends it by raising. No transaction is open on ``source``, which nobody else
    uses meanwhile. Raises OSError (FileExistsError where there is something) and sqlite3.Error; nothing is left then.
    """
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)  # of a process that was killed
    os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    try:
        _fill(source, beside, look)
        os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)


def _fill(source: sqlite3.Connection, beside: Path, look: Callable[[], None]) -> None:
    with contextlib.closing(sqlite3.connect(beside, isolation_level=None)) as target:
        target.execute("PRAGMA journal_mode = OFF")  # it is of no use before it is whole
        target.execute("PRAGMA synchronous = OFF")
        source.execute("BEGIN")
        try:
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on the view is that of now
            source.backup(target, pages=STEP, progress=lambda *_: look())
        finally:
            if source.in_transaction:
                source.execute("ROLLBACK")
        target.execute("PRAGMA journal_mode = DELETE")  # one file, which needs no other beside it
    sync(beside)


def sync(path: Path) -> None:
    """A file, or the names in a directory, are on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
