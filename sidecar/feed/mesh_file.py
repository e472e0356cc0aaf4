"""``--mesh FILE``: one file in the form of ``resources.schema``, watched as ``file_watcher`` tells."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from time import time

from sidecar.feed.file_watcher import LOOK_SECONDS, FileWatcher, Mark, Reading, mark_of, read_file
from sidecar.feed.snapshot_holder import SnapshotHolder
from sidecar.resources.load import Loaded, load_mesh
from sidecar.resources.snapshot import Node, Version

__all__ = ["LOOK_SECONDS", "MeshFile", "check"]


class MeshFile(FileWatcher):
    """The file at ``path``, for ``current``."""

    def __init__(self, path: str, me: Node, current: SnapshotHolder, clock: Callable[[], float] = time) -> None:
        super().__init__("--mesh", path, _File(path, me), current, clock)


class _File:
    """See ``watched.Source``."""

    def __init__(self, path: str, me: Node) -> None:
        self._path = path
        self._me = me

    def mark(self) -> Mark:
        return mark_of(self._path)

    def read(self, version: Version) -> Reading:
        try:
            mark, content = read_file(self._path)
        except OSError as error:
            return Reading((), b"", Loaded(problems=(f"{self._path}: {error.strerror or error}",)))
        return Reading(mark, sha256(content).digest(), load_mesh(content, self._path, self._me, version))


def check(path: str, me: Node) -> Loaded:
    """What a start with this file would find. Blocks."""
    return _File(path, me).read(Version(0, 1)).loaded
