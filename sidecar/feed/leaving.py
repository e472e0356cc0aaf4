"""The parts of Snapshots that are no longer in force, let go a few at a time.

Used by ``snapshot_feed``. The last reference to a Snapshot frees all that it holds, which takes thirty milliseconds
for ten thousand routes, and a request may hold that reference, or the feed. So the parts of a large Snapshot are held
here until it is gone, and are freed in slices then.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator
from typing import Any, Final

import trio

from sidecar.feed.time_slicer import TimeSlicer, drive
from sidecar.resources.snapshot import Snapshot

_PER_STEP: Final = 8
_FEW: Final = 16  # rules that are freed together with their VirtualService


class Leaving:
    """Snapshots that are to go. ``run`` frees what nothing else holds any more."""

    def __init__(self, slices: TimeSlicer) -> None:
        self._slices = slices
        self._watched: dict[int, weakref.ref[Snapshot]] = {}
        self._gone: list[list[object]] = []
        self._some = trio.Event()

    def hold(self, snapshot: Snapshot, parts: list[object]) -> None:
        """Hold the parts of a Snapshot that is about to be replaced, until it is gone."""
        if not parts:
            return

        def gone(_: weakref.ref[Snapshot]) -> None:
            del self._watched[id(parts)]
            self._gone.append(parts)
            self._some.set()

        self._watched[id(parts)] = weakref.ref(snapshot, gone)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._some.wait()
            self._some = trio.Event()
            while self._gone:
                await drive(_free(self._gone.pop()), self._slices, gently=True)


def _free(parts: list[Any]) -> Generator[None, None, None]:
    while parts:
        del parts[-_PER_STEP:]
        yield


def parts_of(snapshot: Snapshot) -> list[object]:
    """Return what takes long to free, in small pieces; those that hold others come last, and are freed first."""
    found: list[object] = [*snapshot.destination_rules]
    for spec in snapshot.virtual_services:
        if len(spec.http) > _FEW:
            found.extend(spec.http)
        found.append(spec)
    if snapshot.virtual_services and snapshot.routing is not None:
        from sidecar.policy.routing import Routing

        if isinstance(snapshot.routing, Routing):
            found.extend(snapshot.routing.parts())
    return found
