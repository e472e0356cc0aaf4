"""The statements: what a store in SQLite asks of its file, on one connection.

Who calls it: ``control.store.sqlite``, in a thread where there is a file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import takewhile

from control.store import Change, Conflict, Entry, Event, Listing
from control.store.group_commit import Result, Written

_PUT = """
INSERT INTO entries (kind, name, value, version) VALUES (?, ?, ?, ?)
ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value, version = excluded.version
"""


class Tables:
    """On a connection in autocommit mode, which nobody else uses meanwhile. All raise sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def state(self) -> tuple[int, int]:
        """(epoch, version) of the store."""
        epoch, version = self._connection.execute("SELECT epoch, version FROM meta").fetchone()
        return int(epoch), int(version)

    def entries(self, kind: str, prefix: str) -> Listing:
        """See ``control.store.Store``."""
        self._connection.execute("BEGIN")  # the version and the entries are those of one moment
        try:
            _, version = self.state()
            rows = self._connection.execute(
                "SELECT name, value, version FROM entries WHERE kind = ? AND name >= ? ORDER BY name", (kind, prefix)
            )
            return Listing(
                version, tuple(Entry(*row) for row in takewhile(lambda row: row[0].startswith(prefix), rows))
            )
        finally:
            self._end("COMMIT")

    def get(self, kind: str, name: str) -> Entry | None:
        """See ``control.store.Store``."""
        row = self._connection.execute(
            "SELECT name, value, version FROM entries WHERE kind = ? AND name = ?", (kind, name)
        ).fetchone()
        return Entry(*row) if row else None

    def commit(self, writes: Sequence[Sequence[Change]]) -> list[Result]:
        """Does all of them in order, in one transaction, each whole or not at all where it finds a conflict. Where
        this raises, none of them is done."""
        self._end("ROLLBACK")  # what a failure may have left open
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            _, before = self.state()
            results: list[Result] = []
            version = before
            for changes in writes:
                results.append(result := self._judge_and_do(changes, version))
                version = result.version if isinstance(result, Written) else version
            if version != before:
                self._connection.execute("UPDATE meta SET version = ?", (version,))
            self._connection.execute("COMMIT")
        except BaseException:
            self._end("ROLLBACK")
            raise
        return results

    def _judge_and_do(self, changes: Sequence[Change], version: int) -> Result:
        """All conflicts are looked for before anything is changed, so there is nothing to take back."""
        held = [self._version_of(change) for change in changes]
        for change, found in zip(changes, held, strict=True):
            if change.if_version is not None and change.if_version != found:
                return Conflict(f"{change.kind} {change.name} is not at version {change.if_version}")
        does = [change for change, found in zip(changes, held, strict=True) if change.value is not None or found]
        for change in does:
            if change.value is None:
                self._connection.execute("DELETE FROM entries WHERE kind = ? AND name = ?", (change.kind, change.name))
            else:
                self._connection.execute(_PUT, (change.kind, change.name, change.value, version + 1))
        events = tuple(Event(change.kind, change.name, change.value, version + 1) for change in does)
        return Written(version + 1 if events else version, events)

    def _version_of(self, change: Change) -> int:
        """0: none. Asked only where it matters."""
        if change.value is not None and change.if_version is None:
            return 0
        row = self._connection.execute(
            "SELECT version FROM entries WHERE kind = ? AND name = ?", (change.kind, change.name)
        ).fetchone()
        return int(row[0]) if row else 0

    def _end(self, how: str) -> None:
        """Ends a transaction, where SQLite has not done so itself, as it does when the disk is full."""
        if self._connection.in_transaction:
            self._connection.execute(how)
