"""Keeps the process from being killed for its memory: as the limit comes near, it takes on less.

Who calls it: the sweeper (``tick``), and whoever is about to accept a connection, to start a request or to keep a
connection alive. ``decide`` is the rule, pure.

A limit that is the cgroup's own is held against the cgroup's working set, as the kernel's killer and the kubelet do
(what is in use, less the file pages that nobody has touched lately); any other against our own resident set.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path, PurePosixPath

from sidecar.telemetry.process import resident_bytes

KEEPALIVE_OFF = 0.92
REFUSING = 0.95
RELAXED = 0.85  # well below the others, so that the state does not flap
SAMPLE_SECONDS = 0.25

logger = logging.getLogger("sidecar.memory")


class MemoryState(Enum):
    """What the process still does; the value is the word shown."""

    NORMAL = "normal"
    KEEPALIVE_OFF = "keepalive_off"
    REFUSING = "refusing"


def decide(state: MemoryState, used: int, limit: int) -> MemoryState:
    """The state that follows ``state`` when ``used`` of ``limit`` bytes are in use (limit 0: there is none).

    It gets stricter at 92 % and at 95 %, and relaxes only below 85 %, and then wholly.
    """
    if limit <= 0 or used < limit * RELAXED:
        return MemoryState.NORMAL
    if used >= limit * REFUSING:
        return MemoryState.REFUSING
    if used >= limit * KEEPALIVE_OFF and state is MemoryState.NORMAL:
        return MemoryState.KEEPALIVE_OFF
    return state


class MemoryGuard:
    """Samples the memory in use and answers what may still be taken on. ``limit`` is in bytes, 0 for none.

    ``read_used`` is for tests and for those who measure otherwise; by default it follows from the limit.
    """

    def __init__(self, limit: int, *, read_used: Callable[[], int] | None = None) -> None:
        self.limit = limit
        self.used = 0
        self.state = MemoryState.NORMAL
        self.keepalive = True  # an idle connection may stay open
        self._read_used = read_used or reader_for(limit)
        self._next_sample = 0.0

    def admits(self, active: int) -> bool:
        """Whether one more request or connection may be taken on while ``active`` are in progress.

        A process with none always takes one: nothing that it could wait for would bring its memory down.
        """
        return self.state is not MemoryState.REFUSING or active == 0

    def tick(self, now: float) -> None:
        """Samples where it is time for that; ``now`` is on the monotonic clock."""
        if self.limit <= 0 or now < self._next_sample:
            return
        self._next_sample = now + SAMPLE_SECONDS
        try:
            self.used = self._read_used()
        except (OSError, ValueError, IndexError) as error:
            logger.warning("memory in use can't be read, the last reading stays: %s", error)
            return
        if self.used >= self.limit * RELAXED:
            _give_back()  # what the allocator keeps would count as used for good
        before, self.state = self.state, decide(self.state, self.used, self.limit)
        self.keepalive = self.state is MemoryState.NORMAL
        if self.state is not before:
            logger.warning("memory %s: %d of %d bytes in use", self.state.value, self.used, self.limit)


def _give_back() -> None:
    """Has the C library return its free memory to the kernel; one that can't, does not. Some 50 us, seldom called."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl has not
    if trim is not None:
        trim(0)


def reader_for(limit: int, membership: str = "/proc/self/cgroup", mount: str = "/sys/fs/cgroup") -> Callable[[], int]:
    """How to read the memory in use that ``limit`` is about: of the cgroup that has just this limit, or our own."""
    for directory, version in _groups(membership, mount):
        name, parse = ("memory.max", _working_set_v2) if version == 2 else ("memory.limit_in_bytes", _working_set_v1)
        try:
            if int((directory / name).read_text()) == limit:
                return lambda: parse(directory)
        except (OSError, ValueError):  # not there, or "max": not the one we look for
            continue
    return resident_bytes


def _groups(membership: str, mount: str) -> Iterator[tuple[Path, int]]:
    """The directories of our cgroup and those above it, nearest first, with the version of their hierarchy."""
    try:
        lines = Path(membership).read_text().splitlines()
    except OSError:  # a kernel without cgroups
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0":
            root, version = Path(mount), 2
        elif "memory" in controllers.split(","):
            root, version = Path(mount, "memory"), 1
        else:
            continue
        # In a container the path may be the host's, of which only the mount's root exists here.
        here = PurePosixPath(group)
        for above in (here, *here.parents):
            yield root / str(above).lstrip("/"), version


def _working_set_v2(directory: Path) -> int:
    used = int((directory / "memory.current").read_text())
    return max(0, used - _stat(directory, "inactive_file"))


def _working_set_v1(directory: Path) -> int:
    used = int((directory / "memory.usage_in_bytes").read_text())
    return max(0, used - _stat(directory, "total_inactive_file"))


def _stat(directory: Path, name: str) -> int:
    for line in (directory / "memory.stat").read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
