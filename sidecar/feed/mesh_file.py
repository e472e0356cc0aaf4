"""``--mesh FILE``: one file in the form of ``resources.schema``, watched as ``watched`` tells."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from time import time

from sidecar.feed.current import Current
from sidecar.feed.watched import LOOK_SECONDS, Mark, Reading, Watched, mark_of, read_file
from sidecar.resources.load import Loaded, load_mesh
from sidecar.resources.snapshot import Me, Version

__all__ = ["LOOK_SECONDS", "MeshFile", "check"]


class MeshFile(Watched):
    """The file at ``path``, for ``current``."""

    def __init__(self, path: str, me: Me, current: Current, clock: Callable[[], float] = time) -> None:
        super().__init__("--mesh", path, _File(path, me), current, clock)


class _File:
    """See ``watched.Source``."""

    def __init__(self, path: str, me: Me) -> None:
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


def check(path: str, me: Me) -> Loaded:
    """What a start with this file would find. Blocks."""
    return _File(path, me).read(Version(0, 1)).loaded
