"""Tables of what is made as it is asked for, bounded in number.

Used by ``proxy.inbound``, for the ports of the app that captured connections wanted to reach, and by ``cluster``, for
the endpoints that requests name themselves. Beyond MOST entries those that are not used make room. Those in use are
never refused: there are no more of them than connections, which are bounded elsewhere. Were they counted here, a caller
that tries all ports of a pod, and stays, would keep all others out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, ItemsView, ValuesView
from typing import Final, Generic, Protocol, TypeVar

MOST: Final = 1024  # kept while they are not used
ROOM: Final = 64  # made at a time, since looking for it walks all of them


class Led(Protocol):
    """What a table keeps: something that leads to connections, and knows whether it is used."""

    @property
    def at_rest(self) -> bool: ...

    def close(self) -> None:
        """Close idle connections, for good."""
        ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Led)


def make_room(known: dict[K, V]) -> int:
    """Drop the oldest of more than MOST entries that are not used, with their idle connections. Return the size at
    which it is time to look again."""
    wanted = len(known) - MOST + ROOM
    at_rest = [key for key, each in known.items() if each.at_rest]
    for key in at_rest[:wanted]:
        known.pop(key).close()
    return max(MOST, len(known) + ROOM)


class BoundedTable(Generic[K, V]):
    """See the module. ``make`` makes the entry of a key."""

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make
        self._known: dict[K, V] = {}
        self._look_at = MOST  # entries at which some make room

    def get(self, key: K) -> V | None:
        """Return the entry that is there already."""
        return self._known.get(key)

    def find(self, key: K) -> V:
        """Return the entry that is there, or a new one."""
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= self._look_at:
                self._look_at = make_room(self._known)
            found = self._known[key] = self._make(key)
        return found

    def items(self) -> ItemsView[K, V]:
        """All of them, by key."""
        return self._known.items()

    def values(self) -> ValuesView[V]:
        """All of them."""
        return self._known.values()
