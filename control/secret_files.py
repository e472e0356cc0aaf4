"""Files that are secret: read only where nobody else could, and replaced as a whole.

Who calls it: ``control.keyring`` for the authority, ``control.operator_token`` for the operator's token.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from sidecar.errors import StartError


def open_directory(path: str) -> tuple[Path, int]:
    """The directory, made where it is not there, and a descriptor whose closing lets another process have it.

    Raises StartError: it can't be made, is not ours alone, or is in use.
    """
    directory = Path(path)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except OSError as error:
        raise StartError(f"--ca-dir: {path} can't be made ({error.strerror}); name a directory of ours") from None
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise StartError(f"--ca-dir: {path} is not for this user alone; chown it and chmod 700 it, or name another")
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StartError(f"--ca-dir: {path} is used by another sidecar-control; end that, or name another") from None
    return directory, lock


def read_private(path: Path, flag: str, most: int) -> bytes | None:
    """A file that only this user can read; None where there is none.

    StartError where others can read it, or we can't.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(f"{flag}: {path} can't be read ({error.strerror})") from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise StartError(f"{flag}: {path} is not a file for this user alone; look who read it, then chmod 600 it")
        return file.read(most)


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file for this user alone, as a whole or not at all, and on the disk when this returns."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    beside.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
