"""``--identity-dir``: what a restart keeps of an identity, in memory that the kernel calls a file.

Who calls it: ``feed.certificate_renewal``, after each change, and once at the start. The directory must lie on tmpfs: a
key never touches a disk. It and the one file in it are for this user alone, and the file is replaced as a whole. What
can't be read, belongs to others, has ended or is another user's is not used; only what names the directory wrongly is
an error.
"""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path
from typing import Final

import msgspec

from sidecar.errors import StartError
from sidecar.feed.control_responses import ListText

NAME: Final = "identity.json"
MOST: Final = 16 * 1024 * 1024
_TMPFS: Final = 0x01021994  # statfs(2), TMPFS_MAGIC; ramfs has no owner's limits, and is not taken
_STATFS_BYTES: Final = 256  # more than struct statfs has on any Linux


class Kept(msgspec.Struct, frozen=True):
    """An identity as it is kept; PEM texts, versions as ``EPOCH.N``."""

    control_id: str
    spiffe_id: str
    chain: str
    key: str
    bundle: str
    bundle_version: str
    lists_version: str = ""
    lists: tuple[ListText, ...] = ()

    def __repr__(self) -> str:
        return f"Kept({self.spiffe_id})"


class IdentityDir:
    """Raises StartError where ``path`` can't be made, is not on tmpfs, or is not for this user alone."""

    def __init__(self, path: str) -> None:
        self._directory = Path(path)
        try:
            kind = file_system(str(self._directory if self._directory.exists() else self._directory.parent))
            if kind == _TMPFS:
                self._directory.mkdir(mode=0o700, exist_ok=True)
                found = self._directory.lstat()
        except OSError as error:
            raise StartError(
                f"--identity-dir: {path} can't be made or read ({error.strerror}); name one that can"
            ) from None
        if kind != _TMPFS:
            raise StartError(
                f"--identity-dir: {path} is not on tmpfs, and a key must not touch a disk; name one that is"
            )
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise StartError(f"--identity-dir: {path} is not a directory of this user alone; chown it, chmod 700 it")

    def load(self) -> Kept | None:
        """What is kept; None where there is nothing that may be used."""
        try:
            descriptor = os.open(self._directory / NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                    return None
                return msgspec.json.decode(file.read(MOST), type=Kept)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def store(self, kept: Kept) -> None:
        """Replaces it. Raises OSError."""
        beside = self._directory / f".{NAME}.new"
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(kept))
        beside.rename(self._directory / NAME)

    def remove(self) -> None:
        """Forgets it, if there is any."""
        (self._directory / NAME).unlink(missing_ok=True)


def file_system(path: str) -> int:
    """The magic number of the file system that ``path`` is on (statfs(2), f_type). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if libc.statfs(os.fsencode(path), buffer) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF
