"""Tasks beside requests, which end with the proxy: the copies of mirrors. One per process.

``app`` runs it in its nursery; ``mirror`` starts tasks. A task must not raise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import trio


class Background:
    """See the module. ``active`` is for those that start tasks, to hold them to bounds: how many there are, by name."""

    __slots__ = ("_nursery", "active")

    def __init__(self) -> None:
        self.active: Counter[str] = Counter()
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run what is started, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def start(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Start a task; return False if the proxy is not running, or ends."""
        if self._nursery is None:
            return False
        self._nursery.start_soon(work)
        return True
