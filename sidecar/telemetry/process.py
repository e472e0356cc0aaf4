"""What this process looks like from outside: resident memory, descriptors, and how late its event loop is.

Who calls it: the sweeper (``LoopLag.note``), the memory guard, and the admin server's ``/memory``.
"""

from __future__ import annotations

import os
import resource

from sidecar.telemetry.timings import Seconds

_PAGE = resource.getpagesize()


def resident_bytes(statm: str = "/proc/self/statm") -> int:
    """The resident set of this process (proc(5), statm, second field), in bytes."""
    with open(statm, "rb") as file:
        return int(file.read().split()[1]) * _PAGE


def open_descriptors(directory: str = "/proc/self/fd") -> int:
    """How many descriptors this process has open, without the one that looking takes."""
    return len(os.listdir(directory)) - 1


class LoopLag:
    """How much later than due the event loop ran a task that wakes regularly: what a peer's bytes wait in the worst
    case beside the network. Seconds."""

    __slots__ = ("last", "times")

    def __init__(self) -> None:
        self.last = 0.0
        self.times = Seconds()

    @property
    def max(self) -> float:
        """The longest since the start or a reset."""
        return self.times.longest

    def note(self, due: float, now: float) -> None:
        """A regular wake-up was due at ``due`` and happened at ``now``, both on the monotonic clock."""
        late = now - due
        self.last = late if late > 0.0 else 0.0
        self.times.note(self.last)

    def reset(self) -> None:
        """Forgets all but the last one."""
        self.times.reset()
