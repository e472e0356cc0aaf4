"""What the control plane remembers: the protocol that every store speaks.

Entries have a kind, a name, a value (bytes; the store does not look inside) and the version of the write that made
them. The calls are those that SQLite, etcd and the Kubernetes API have in common: list and watch from the version that
the list was at, and writes that happen only if nobody was faster, which makes "only once" and "nobody changed it
meanwhile" true without a lock between processes.

**Versions** only rise, over all kinds: each write has one, which all of its changes share. A version together with the
``epoch`` (see ``control.version``) names one state of the whole store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol


class Conflict(Exception):
    """An entry is not at the version that the caller named. Nothing was changed."""


class StoreFailed(Exception):
    """The store could not do it: full, gone, damaged. What was acknowledged before stands."""


class TooOld(Exception):
    """Changes since that version are not known any more, or not all of them: list again, and watch from there."""


class Entry(NamedTuple):
    """One entry as it was read."""

    name: str
    value: bytes
    version: int


class Listing(NamedTuple):
    """Entries of a kind by name, and the version of the store at that moment: to watch from."""

    version: int
    entries: tuple[Entry, ...]


class Change(NamedTuple):
    """A part of a write. ``value`` None deletes; ``if_version``: only if the entry is at that version, 0 being none."""

    kind: str
    name: str
    value: bytes | None
    if_version: int | None = None


class Event(NamedTuple):
    """What a write did to one entry; ``value`` None: it is gone."""

    kind: str
    name: str
    value: bytes | None
    version: int


class Store(Protocol):
    """See the module. Every call may raise StoreFailed, and leaves what was there when it is cancelled or fails.

    Where a commit can't be undone any more when somebody cancels, the call ends with its result, and the caller is
    cancelled at the next checkpoint. Names are any text that can be written as UTF-8; they are in order of code points.
    """

    @property
    def epoch(self) -> int:
        """See ``control.version``."""

    async def list(self, kind: str, prefix: str = "") -> Listing:
        """A consistent view of one kind, or of its entries whose name begins with ``prefix``."""

    async def get(self, kind: str, name: str) -> Entry | None:
        """One entry."""

    async def put(self, kind: str, name: str, value: bytes, if_version: int | None = None) -> int:
        """Writes, and returns the new version, which is higher than every one before, once it is on disk.

        ``if_version``: only if the entry is at that version (0: only if there is none), else Conflict.
        """

    async def delete(self, kind: str, name: str, if_version: int | None = None) -> bool:
        """Removes; says whether there was one. ``if_version`` as for ``put``."""

    async def write(self, changes: Sequence[Change]) -> int:
        """All of these, or none: Conflict where an ``if_version`` does not hold. Returns the version of all of them,
        once they are on disk. An entry is named at most once (ValueError). To delete what is not there changes nothing;
        where nothing changes no version is made, and the store's is returned.
        """

    def watch(
        self, kinds: Collection[str], since: int
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[Event, ...]]]:
        """The changes of these kinds after the version ``since``, write by write, in the order of their versions: none
        is missing, none comes twice. Raises TooOld, at once or later, where that can't be: whoever reads too slowly is
        not waited for. A wait that is cancelled loses nothing. StoreFailed when the store is closed meanwhile."""

    async def backup(self, path: str) -> None:
        """A whole, consistent copy in a new file (0600), while others go on. StoreFailed where there is a file of that
        name already; cancelled or failed, it leaves none."""

    def close(self) -> None:
        """Lets go of it, where no call is under way but watching; calls that are made afterwards raise StoreFailed."""
