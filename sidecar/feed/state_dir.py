"""``--state-dir``: the last good Snapshot, as it came, for a start without the control plane.

Who calls it: ``feed.snapshot_feed``, in a thread, after each Snapshot that was taken, and once at the start. The file
is replaced as a whole: its first line says which version it is, for whom, and the hash of what follows. It decides whom
we trust to serve what, so it and its directory must be ours, and nobody else may write them. What is damaged, of others
or for somebody else is not used, and stays until the next good one takes its place.
"""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from sidecar.errors import StartError

NAME: Final = "snapshot"
HEAD_BYTES: Final = 4096
MOST: Final = 16 * 1024 * 1024  # of a Snapshot; see ``snapshot_feed``


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line. ``version`` is ``EPOCH.N``, ``proxy`` a SPIFFE id."""

    version: str
    proxy: str
    sha256: str


class Unusable(Exception):
    """What is there can't be used; the text is a clause that says why."""


class StateDir:
    """Raises StartError where ``path`` can't be made, or where others may write in it."""

    def __init__(self, path: str) -> None:
        self._directory = Path(path)
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            found = self._directory.lstat()
        except OSError as error:
            raise StartError(
                f"--state-dir: {path} can't be made or read ({error.strerror}); name one that can"
            ) from None
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise StartError(
                f"--state-dir: {path} is not a directory of this user that others can't write; chown it, chmod 700 it"
            )

    def load(self) -> tuple[Kept, bytes] | None:
        """What is kept; None where there is nothing. Raises Unusable."""
        try:
            descriptor = os.open(self._directory / NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unusable(f"it can't be read ({error.strerror})") from None
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise Unusable("it is not a file of this user alone")
            try:
                return _read(file.readline(HEAD_BYTES), file.read(MOST + 1))
            except OSError as error:
                raise Unusable(f"it can't be read ({error.strerror})") from None

    def store(self, version: str, proxy: str, body: bytes) -> None:
        """Replaces it, and returns when that is on the disk. Raises OSError; then what was there before is."""
        head = msgspec.json.encode(Kept(version, proxy, sha256(body).hexdigest()))
        beside = self._directory / f".{NAME}.new"
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(head + b"\n")
                file.write(body)
                file.flush()
                os.fsync(descriptor)
            beside.rename(self._directory / NAME)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        self._sync()

    def _sync(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(line: bytes, body: bytes) -> tuple[Kept, bytes]:
    try:
        kept = msgspec.json.decode(line, type=Kept)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unusable("it is damaged") from None
    if len(body) > MOST or sha256(body).hexdigest() != kept.sha256:
        raise Unusable("it is damaged")
    return kept, body
