"""Long work in short steps: others have their turn between them.

Who calls it: ``control.distribution.push``, after each identity and each service. A look costs under a microsecond.
"""

from __future__ import annotations

import time
from typing import Final

import trio

STEP_SECONDS: Final = 0.003  # of CPU, before others have a turn


class CooperativeSteps:
    """One piece of work. ``spent`` is the CPU (s) that it took of the thread until the last look."""

    def __init__(self) -> None:
        self.spent = 0.0
        self.longest = 0.0
        self._since = time.thread_time()

    async def look(self) -> None:
        """Lets others go first, where this has had its step."""
        if time.thread_time() - self._since >= STEP_SECONDS:
            self.stop()
            await trio.lowlevel.checkpoint()
            self._since = time.thread_time()

    def stop(self) -> None:
        """Counts what was spent since the last turn."""
        now = time.thread_time()
        step, self._since = now - self._since, now
        self.spent += step
        self.longest = max(self.longest, step)
