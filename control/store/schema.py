"""The tables of a file, and how those of an older file become ours.

Who calls it: ``control.store.open_database``. Each step is a script from one schema to the next, done in one
transaction, so that a file is of one schema or of the other whenever the process dies. What stands in a step is never
changed: files that were written long ago go through it.
"""

from __future__ import annotations

import sqlite3
from typing import Final

APPLICATION: Final = 0x73636370  # "sccp": tells our files from other people's databases
SCHEMA: Final = 2
_TABLES: Final = """
CREATE TABLE meta (epoch INTEGER NOT NULL, version INTEGER NOT NULL);
CREATE TABLE entries (
    kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL, UNIQUE (kind, name)
);
"""
STEPS: Final = {
    # A kind has no version of its own any more. Values may be long (documents), and stand beside the tree of names, not
    # in it.
    1: """
DROP TABLE kinds;
ALTER TABLE entries RENAME TO entries_1;
CREATE TABLE entries (
    kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL, UNIQUE (kind, name)
);
INSERT INTO entries (kind, name, value, version) SELECT kind, name, value, version FROM entries_1 ORDER BY kind, name;
DROP TABLE entries_1;
""",
}  # from this schema to the next


def make(connection: sqlite3.Connection, epoch: int) -> None:
    """Fills an empty database. Raises sqlite3.Error, and it is empty then."""
    _script(
        connection, f"PRAGMA application_id = {APPLICATION}; {_TABLES} INSERT INTO meta VALUES ({epoch}, 0);", SCHEMA
    )


def identify(connection: sqlite3.Connection) -> tuple[int, int]:
    """(application id, schema); sqlite3.Error where it is no database."""
    application, schema = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    return int(application), int(schema)


def migrate(connection: sqlite3.Connection, schema: int) -> None:
    """From an older schema to ours, step by step. Raises sqlite3.Error; the steps before the one that failed hold."""
    for step in range(schema, SCHEMA):
        _script(connection, STEPS[step], step + 1)


def _script(connection: sqlite3.Connection, text: str, schema: int) -> None:
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {text} PRAGMA user_version = {schema}; COMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
