"""``--mesh FILE``: read at start, then watched; each good one becomes the Snapshot, a bad one is refused whole.

Who calls it: ``app`` (``start`` before it listens, ``watch`` as a task while it serves).

Theory of operation. Once a second the file's identity, size and times are looked at. A file is read when they differ
from those of what was judged last, and have stayed as they are for one look: a file that is being written in place is
let settle, and one that was put there by rename (the way of editors, of Kubernetes and of whoever is careful) comes a
second later than it could. Should it change while it is read, it is read again. Reading and judging happen in a thread,
since libyaml takes half a second for ten thousand services; the loop only swaps one reference for another.

What can't be taken, or is not there, leaves the last good one in force; it is complained of once, and counted.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from hashlib import sha256
from time import time
from typing import Final

import trio

from sidecar.errors import StartError
from sidecar.feed.current import Current
from sidecar.resources.load import MAX_BYTES, Loaded, load_mesh
from sidecar.resources.snapshot import Me, Version

LOOK_SECONDS: Final = 1.0
COMPLAINTS: Final = 20  # lines in the log for one file; all are in ``Current.refusal``
_log = logging.getLogger(__name__)

Mark = tuple[int, ...]  # device, inode, size and times; empty where there is no file


class MeshFile:
    """The file at ``path``, for ``current``. ``clock`` gives seconds since the epoch."""

    def __init__(self, path: str, me: Me, current: Current, clock: Callable[[], float] = time) -> None:
        self._path = path
        self._me = me
        self._current = current
        self._clock = clock
        self._seen: Mark = ()  # at the last look
        self._judged: Mark = ()  # of what was taken or refused
        self._digest = b""  # of what was taken

    def start(self) -> None:
        """Reads it the first time. Raises StartError with the last problem where it can't be taken; those before it are
        logged, a line each. Blocks."""
        mark, digest, loaded = self._load()
        if loaded.snapshot is None:
            for problem in loaded.problems[:-1]:
                _log.error("--mesh: %s", problem)
            raise StartError(f"--mesh: {loaded.problems[-1]}")
        self._seen = mark
        self._settle(mark, digest, loaded)

    async def watch(self) -> None:
        """Looks after it until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """One look; takes or refuses what is new, if it has settled."""
        mark = _mark(self._path)
        settled, self._seen = mark == self._seen, mark
        if mark == self._judged or not settled:
            return
        after, digest, loaded = await trio.to_thread.run_sync(self._load)
        if after == mark == _mark(self._path):
            self._settle(mark, digest, loaded)

    def _settle(self, mark: Mark, digest: bytes, loaded: Loaded) -> None:
        self._judged = mark
        if loaded.snapshot is None:
            self._current.refuse(loaded.problems, self._clock())
            for problem in loaded.problems[:COMPLAINTS]:
                _log.error("--mesh: %s", problem)
            _log.error("--mesh: refused; version %s stays in force", self._current.snapshot.version)
            return
        if digest == self._digest and self._current.refusal is None:
            return  # touched, or written again as it was
        self._digest = digest
        for note in loaded.notes:
            _log.warning("--mesh: %s", note)
        self._current.take(loaded.snapshot, self._clock())
        services = len(loaded.snapshot.services)
        _log.info("--mesh: %s, version %s: %d services", self._path, loaded.snapshot.version, services)

    def _load(self) -> tuple[Mark, bytes, Loaded]:
        """What is there now, judged; with the mark of what was read. Blocks."""
        return _load(self._path, self._me, Version(0, self._current.snapshot.version.n + 1))


def check(path: str, me: Me) -> Loaded:
    """What a start with this file would find. Blocks."""
    return _load(path, me, Version(0, 1))[2]


def _load(path: str, me: Me, version: Version) -> tuple[Mark, bytes, Loaded]:
    try:
        mark, content = _read(path)
    except OSError as error:
        return (), b"", Loaded(problems=(f"{path}: {error.strerror or error}",))
    return mark, sha256(content).digest(), load_mesh(content, path, me, version)


def _read(path: str) -> tuple[Mark, bytes]:
    """The mark and the bytes of a regular file, one more than MAX_BYTES at most. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not hold us
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return _mark_of(found), file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def _mark(path: str) -> Mark:
    try:
        return _mark_of(os.stat(path))
    except OSError:
        return ()


def _mark_of(found: os.stat_result) -> Mark:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
