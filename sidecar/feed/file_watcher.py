"""What is read from files at start, then watched: each good one becomes the Snapshot, a bad one is refused whole.

Who calls it: ``mesh_file`` and ``config_files`` say what is read; ``mesh_runtime`` runs ``start`` before the proxy
listens, and ``watch`` as a task while it serves.

Theory of operation. Once a second the files' identities, sizes and times are looked at. They are read when these differ
from those of what was judged last, and have stayed as they are for one look: a file that is being written in place is
let settle, and one that was put there by rename (the way of editors, of Kubernetes and of whoever is careful) comes a
second later than it could. Should anything change while it is read, it is read again. Reading and judging happen in a
thread, since libyaml takes half a second for ten thousand services; the loop only swaps one reference for another.

What can't be taken, or is not there, leaves the last good one in force; it is complained of once, and counted.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from time import time
from typing import Final, NamedTuple, Protocol

import trio

from sidecar.errors import StartError
from sidecar.feed.snapshot_holder import SnapshotHolder
from sidecar.resources.load import MAX_BYTES, Loaded
from sidecar.resources.snapshot import Version

LOOK_SECONDS: Final = 1.0
COMPLAINTS: Final = 20  # lines in the log for one reading; all are in ``SnapshotHolder.refusal``
_log = logging.getLogger(__name__)

Mark = tuple[object, ...]  # of each file device, inode, size and times; empty where there is none


class Reading(NamedTuple):
    """What was there, with the mark of what was read and a hash of it."""

    mark: Mark
    digest: bytes
    loaded: Loaded


class Source(Protocol):
    """What is watched. Both block."""

    def mark(self) -> Mark:
        """How it looks from outside."""

    def read(self, version: Version) -> Reading:
        """What is there now, judged."""


class FileWatcher:
    """The ``source`` that ``flag`` named as ``path``, for ``current``. ``clock`` gives seconds since the
    epoch."""

    def __init__(
        self, flag: str, path: str, source: Source, current: SnapshotHolder, clock: Callable[[], float] = time
    ) -> None:
        self._flag = flag
        self._path = path
        self._source = source
        self._current = current
        self._clock = clock
        self._seen: Mark = ()  # at the last look
        self._judged: Mark = ()  # of what was taken or refused
        self._digest = b""  # of what was taken

    def start(self) -> None:
        """Reads it the first time. Raises StartError with the last problem where it can't be taken; those before it are
        logged, a line each. Blocks."""
        found = self._read()
        if found.loaded.snapshot is None:
            for problem in found.loaded.problems[:-1]:
                _log.error("%s: %s", self._flag, problem)
            raise StartError(f"{self._flag}: {found.loaded.problems[-1]}")
        self._seen = found.mark
        self._settle(found.mark, found)

    async def watch(self) -> None:
        """Looks after it until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """One look; takes or refuses what is new, if it has settled."""
        mark = self._source.mark()
        settled, self._seen = mark == self._seen, mark
        if mark == self._judged or not settled:
            return
        found = await trio.to_thread.run_sync(self._read)
        if found.mark == mark == self._source.mark():
            self._settle(mark, found)

    def _settle(self, mark: Mark, found: Reading) -> None:
        self._judged = mark
        loaded = found.loaded
        if loaded.snapshot is None:
            self._current.refuse(loaded.problems, self._clock())
            for problem in loaded.problems[:COMPLAINTS]:
                _log.error("%s: %s", self._flag, problem)
            _log.error("%s: refused; version %s stays in force", self._flag, self._current.snapshot.version)
            return
        if found.digest == self._digest and self._current.refusal is None:
            return  # touched, or written again as it was
        self._digest = found.digest
        for note in loaded.notes:
            _log.warning("%s: %s", self._flag, note)
        self._current.take(loaded.snapshot, self._clock())
        services, policies = len(loaded.snapshot.services), len(loaded.snapshot.policies)
        told = f"{services} services, {policies} policies for this proxy" if policies else f"{services} services"
        _log.info("%s: %s, version %s: %s", self._flag, self._path, loaded.snapshot.version, told)

    def _read(self) -> Reading:
        return self._source.read(Version(0, self._current.snapshot.version.n + 1))


def mark_of(path: str) -> tuple[int, ...]:
    """Of one file; empty where there is none. Blocks."""
    try:
        return _mark(os.stat(path))
    except OSError:
        return ()


def read_file(path: str) -> tuple[tuple[int, ...], bytes]:
    """The mark and the bytes of a regular file, one more than MAX_BYTES at most. Raises OSError. Blocks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not hold us
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return _mark(found), file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def _mark(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
