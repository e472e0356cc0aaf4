"""What the control plane remembers: the protocol that every store speaks.

Entries have a kind, a name, a value (bytes; the store does not look inside) and the version of the write that made
them. The four calls are those that SQLite, etcd and the Kubernetes API have in common; ``put`` and ``delete`` with
``if_version`` are what makes "only once" and "nobody changed it meanwhile" true without a lock between processes.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Conflict(Exception):
    """The entry is not at the version that the caller named. Nothing was changed."""


class StoreFailed(Exception):
    """The store could not do it: full, gone, damaged. What was acknowledged before stands."""


class Entry(NamedTuple):
    """One entry as it was read."""

    name: str
    value: bytes
    version: int


class Listing(NamedTuple):
    """All entries of a kind by name, and the version of the last write to that kind, deletions included."""

    version: int
    entries: tuple[Entry, ...]


class Store(Protocol):
    """See the module. Every call may raise StoreFailed, and leaves what was there when it is cancelled or fails."""

    @property
    def epoch(self) -> int:
        """See ``control.version``."""

    async def list(self, kind: str) -> Listing:
        """A consistent view of one kind."""

    async def get(self, kind: str, name: str) -> Entry | None:
        """One entry."""

    async def put(self, kind: str, name: str, value: bytes, if_version: int | None = None) -> int:
        """Writes, and returns the new version, which is higher than every one before, once it is on disk.

        ``if_version``: only if the entry is at that version (0: only if there is none), else Conflict.
        """

    async def delete(self, kind: str, name: str, if_version: int | None = None) -> bool:
        """Removes; says whether there was one. ``if_version`` as for ``put``."""

    def close(self) -> None:
        """Lets go of it; no call is made afterwards."""
