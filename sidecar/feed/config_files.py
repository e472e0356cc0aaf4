"""``--config FILE|DIR``: documents, from a file or from those of a directory, watched as ``file_watcher`` tells.

Of a directory all ``*.yaml``, ``*.yml`` and ``*.json`` are read, in the order of their names, and none below it; names
that begin with a dot are passed over. So a ConfigMap works as Kubernetes mounts it: its files are symbolic links that
go through ``..data``, which is put in place by one rename, and each then leads to another inode.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from time import time
from typing import Final

from sidecar.feed.file_watcher import FileWatcher, Mark, Reading, mark_of, read_file
from sidecar.feed.snapshot_holder import SnapshotHolder
from sidecar.resources.document_files import load_config
from sidecar.resources.load import Loaded
from sidecar.resources.snapshot import Node, Version

MAX_FILES: Final = 1000  # whose marks are looked at each second, in 2 ms; documents have room for many in one file
MAX_BYTES: Final = 32 << 20  # of all together
SUFFIXES: Final = (".yaml", ".yml", ".json")


class ConfigFiles(FileWatcher):
    """The documents at ``path``, for ``current``. ``trust_domain`` is that of the service accounts in them; ``alone``
    as in ``load_config``."""

    def __init__(
        self,
        path: str,
        me: Node,
        trust_domain: str,
        current: SnapshotHolder,
        clock: Callable[[], float] = time,
        alone: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__("--config", path, _Files(path, me, trust_domain, alone), current, clock)


class _Files:
    """See ``watched.Source``."""

    def __init__(self, path: str, me: Node, trust_domain: str, alone: Mapping[str, str] | None) -> None:
        self._path = path
        self._alone = alone
        self._me = me
        self._trust_domain = trust_domain

    def mark(self) -> Mark:
        try:
            paths = _paths(self._path)
        except OSError:
            return ()
        return tuple((path, *mark_of(path)) for path in paths[: MAX_FILES + 1])

    def read(self, version: Version) -> Reading:
        marks: list[tuple[object, ...]] = []
        files: list[tuple[str, bytes]] = []
        problems: list[str] = []
        size = 0
        try:
            paths = _paths(self._path)
        except OSError as error:
            return Reading((), b"", Loaded(problems=(f"{self._path}: {error.strerror or error}",)))
        if not paths:
            problems.append(f"{self._path}: there is no file in it whose name ends with {', '.join(SUFFIXES)}")
        if len(paths) > MAX_FILES:
            problems.append(f"{self._path}: has more than {MAX_FILES} files; a file may have any number of documents")
        for path in paths[: MAX_FILES + 1]:
            try:
                mark, content = read_file(path)
            except OSError as error:
                marks.append((path, *mark_of(path)))
                problems.append(f"{path}: {error.strerror or error}")
                continue
            marks.append((path, *mark))
            size += len(content)
            if size <= MAX_BYTES:
                files.append((path, content))
        if size > MAX_BYTES:
            problems.append(f"{self._path}: its files are longer than {MAX_BYTES >> 20} MiB together")
        digest = sha256(b"".join(sha256(path.encode() + b"\0" + content).digest() for path, content in files)).digest()
        if problems:
            return Reading(tuple(marks), digest, Loaded(problems=tuple(problems)))
        return Reading(tuple(marks), digest, load_config(files, self._me, self._trust_domain, version, self._alone))


def check(path: str, me: Node, trust_domain: str, alone: Mapping[str, str] | None = None) -> Loaded:
    """What a start with these files would find. Blocks."""
    return _Files(path, me, trust_domain, alone).read(Version(0, 1)).loaded


def _paths(path: str) -> list[str]:
    """The files that ``path`` stands for. Raises OSError."""
    if not os.path.isdir(path):
        return [path]
    names = sorted(name for name in os.listdir(path) if name.endswith(SUFFIXES) and not name.startswith("."))
    return [os.path.join(path, name) for name in names]
