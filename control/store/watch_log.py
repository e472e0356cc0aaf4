"""What has changed of late, kept for those who watch.

Who calls it: the stores; they add each write once it is on disk, and hand out its watchers. There is one memory for
all, and a watcher is no more than a place in it: nobody's slowness makes it grow, and a write costs the same whoever
watches. Whoever is so late that a change of a kind that it watches has been dropped is told so (TooOld), and lists
again. A watcher is woken by the write itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

import trio

from control.store import Event, StoreFailed, TooOld

MOST_EVENTS = 20_000
MOST_BYTES = 32 * 1024 * 1024  # of values; the last write is kept whatever its size


class WatchLog:
    """The latest writes of a store that was at ``version`` when it was opened."""

    def __init__(self, version: int, most_events: int = MOST_EVENTS, most_bytes: int = MOST_BYTES) -> None:
        self._most_events, self._most_bytes = most_events, most_bytes
        self._opened_at = self._version = version
        self._writes: dict[int, Sequence[Event]] = {}  # by version, of which none is left out
        self._first = version + 1
        self._events = self._bytes = 0
        self._dropped: dict[str, int] = {}  # kind -> the last version of which something was dropped
        self._changed = trio.Event()
        self._closed = False

    @property
    def version(self) -> int:
        """That of the last write that was added."""
        return self._version

    @property
    def changed(self) -> trio.Event:
        """Set by what happens next; to be taken before one looks."""
        return self._changed

    def add(self, version: int, events: Sequence[Event]) -> None:
        """Notes a write, the one after the last; and wakes whoever watches."""
        assert version == self._version + 1, "a write was not told"
        self._version = version
        self._writes[version] = events
        self._events += len(events)
        self._bytes += _bytes_of(events)
        while self._first < version and (self._events > self._most_events or self._bytes > self._most_bytes):
            self._drop()
        self._wake()

    def next(self, at: int, kinds: Collection[str]) -> tuple[int, tuple[Event, ...]]:
        """The first write after the version ``at`` that has events of these kinds, and those; or how far there is none.

        Raises TooOld where one may be missing; StoreFailed when the store was closed.
        """
        if self._closed:
            raise StoreFailed("the store is closed")
        if at < self._opened_at or any(self._dropped.get(kind, 0) > at for kind in kinds):
            raise TooOld(f"changes after version {at} are not all known any more")
        for version in range(max(at + 1, self._first), self._version + 1):
            events = tuple(event for event in self._writes[version] if event.kind in kinds)
            if events:
                return version, events
        return max(at, self._version), ()

    def close(self) -> None:
        """Nothing comes any more: all watchers end."""
        self._closed = True
        self._writes.clear()
        self._wake()

    def _drop(self) -> None:
        events = self._writes.pop(self._first)
        for event in events:
            self._dropped[event.kind] = self._first
        self._events -= len(events)
        self._bytes -= _bytes_of(events)
        self._first += 1

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


class Watcher(AsyncIterator[tuple[Event, ...]]):
    """A place in it. Cancelling a wait loses nothing: the next one gets what that one would have got."""

    def __init__(self, recent: WatchLog, kinds: Collection[str], since: int) -> None:
        self._recent = recent
        self._kinds = frozenset(kinds)
        self._at = since
        recent.next(since, self._kinds)  # whether it is too old already

    async def __anext__(self) -> tuple[Event, ...]:
        """The events of the next write. See ``control.store.Store.watch``."""
        await trio.lowlevel.checkpoint()
        while True:
            changed = self._recent.changed
            self._at, events = self._recent.next(self._at, self._kinds)
            if events:
                return events
            await changed.wait()


def _bytes_of(events: Sequence[Event]) -> int:
    return sum(len(event.value or b"") for event in events)
