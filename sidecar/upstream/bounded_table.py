"""Tables whose entries are made on demand, bounded in number.

Used by ``proxy.inbound``, for the ports of the app that are original destinations, and by ``cluster``, for the
endpoints that requests name explicitly. Beyond MOST entries, unused entries make room. Entries in use are never
refused: there are no more of them than connections, which are bounded elsewhere. If they counted here, a caller that
connects to all ports of a pod, and stays, would lock all others out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, ItemsView, ValuesView
from typing import Final, Generic, Protocol, TypeVar

MOST: Final = 1024  # entries kept while they are not used
ROOM: Final = 64  # entries dropped at a time, since finding unused ones walks the whole table


class Led(Protocol):
    """An entry of a table: it has connections, and reports whether it is in use."""

    @property
    def at_rest(self) -> bool: ...

    def close(self) -> None:
        """Close idle connections, for good."""
        ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Led)


def make_room(known: dict[K, V]) -> int:
    """Drop the oldest unused entries beyond MOST, with their idle connections. Return the size at which to call this
    again."""
    wanted = len(known) - MOST + ROOM
    at_rest = [key for key, each in known.items() if each.at_rest]
    for key in at_rest[:wanted]:
        known.pop(key).close()
    return max(MOST, len(known) + ROOM)


class BoundedTable(Generic[K, V]):
    """A bounded table; see the module. ``make`` makes the entry of a key."""

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make
        self._known: dict[K, V] = {}
        self._look_at = MOST  # entries at which some make room

    def get(self, key: K) -> V | None:
        """Return the existing entry, or None."""
        return self._known.get(key)

    def find(self, key: K) -> V:
        """Return the existing entry, or a new one."""
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= self._look_at:
                self._look_at = make_room(self._known)
            found = self._known[key] = self._make(key)
        return found

    def items(self) -> ItemsView[K, V]:
        """Return all entries, by key."""
        return self._known.items()

    def values(self) -> ValuesView[V]:
        """Return all entries."""
        return self._known.values()
