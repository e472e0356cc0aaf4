"""A value that has a version and that others wait for: the bundle, the lists of what is revoked, a snapshot.

Who calls it: ``control.certificate_authority`` and ``control.distribution`` set, ``control.long_poll`` waits. A waiter
is woken by the change itself; nothing is asked again and again. Waiters are bounded together, since each holds a
connection and a task; who comes when there are too many is told to come later, and still has what it holds.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

import trio

from control.problems import Refused
from control.version import Version

MOST: Final = 4096  # waiters, where descriptors allow it
SHARE: Final = 4  # no caller has more than a quarter of them
_T = TypeVar("_T")


class Waiters:
    """All that wait for anything here."""

    def __init__(self, most: int | None = None) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        half = MOST if soft == resource.RLIM_INFINITY else max(SHARE, soft // 2)
        self.most = min(MOST, half) if most is None else most
        self._by_caller: Counter[str] = Counter()
        self.waiting = 0
        self.closing = trio.Event()

    def close(self) -> None:
        """Everyone's wait is over, now and from now on."""
        self.closing.set()

    @contextmanager
    def one(self, caller: str) -> Iterator[None]:
        """The room for one; Refused (503) where there is none."""
        if self.waiting >= self.most or self._by_caller[caller] >= max(1, self.most // SHARE):
            raise Refused(503, "too many wait already", 5.0)
        self.waiting += 1
        self._by_caller[caller] += 1
        try:
            yield
        finally:
            self.waiting -= 1
            self._by_caller[caller] -= 1
            if not self._by_caller[caller]:
                del self._by_caller[caller]


class Watchable(Generic[_T]):
    """One such value; there is always one."""

    def __init__(self, value: _T, version: Version) -> None:
        self.value = value
        self.version = version
        self._changed = trio.Event()

    @property
    def changed(self) -> trio.Event:
        """Set by the next ``publish``. To be taken before one looks at what there is."""
        return self._changed

    def publish(self, value: _T, version: Version) -> None:
        """Replaces it, and wakes whoever waits. ``version`` is higher than the one before."""
        self.value, self.version = value, version
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def wait_other_than(self, held: Collection[Version], waiters: Waiters) -> bool:
        """Waits until the version is none of these; False where waiting was ended by ``waiters``.

        To be cancelled by whoever has a limit; nothing is left behind.
        """
        while self.version in held:
            if waiters.closing.is_set():
                return False
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_after, waiters.closing, nursery.cancel_scope)
                await self._changed.wait()
                nursery.cancel_scope.cancel()
        return True


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
