"""``GET /v1/backup``: the whole store, consistent, while it runs.

Who calls it: ``control.middleware``. The store makes a copy in our own directory, beside what it is a copy of; it is
opened and its name taken away at once, so that it is gone with its reader, however that ends. It goes out with
its length, so that a copy which was cut off is never taken for a whole one. What a killed process left there is taken
away by the next.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import trio

from control.middleware import CallRequest, CallResponse
from control.problems import Refused
from control.store import Store, StoreFailed

AT_ONCE: Final = 2  # copies on the disk, each as large as the store
PIECE_BYTES: Final = 256 * 1024
CONTENT_TYPE: Final = "application/vnd.sqlite3"
_PREFIX: Final = "backup-"


class Backups:
    """The call. ``directory`` is for this user alone."""

    def __init__(self, store: Store, directory: Path) -> None:
        self._store = store
        self._directory = directory
        self._open = 0
        for left in directory.glob(f"{_PREFIX}*"):
            left.unlink(missing_ok=True)

    async def backup_get(self, asked: CallRequest) -> CallResponse:
        """A copy of everything."""
        if self._open >= AT_ONCE:
            raise Refused(503, "too many backups at once", 5.0)
        self._open += 1
        try:
            descriptor = await self._copy()
        except BaseException:
            self._open -= 1
            raise
        length = os.fstat(descriptor).st_size
        headers = {"content-length": str(length), "content-disposition": 'attachment; filename="store.db"'}
        return CallResponse(
            subject=f"{length} bytes",
            content_type=CONTENT_TYPE,
            headers=headers,
            stream=_Copy(descriptor, self._closed),
        )

    async def _copy(self) -> int:
        """A descriptor of a copy that has no name any more. Raises StoreFailed."""
        path = self._directory / f"{_PREFIX}{secrets.token_hex(8)}"
        try:
            await self._store.backup(str(path))
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreFailed(f"{path} can't be read: {error.strerror}") from error
        finally:
            path.unlink(missing_ok=True)

    def _closed(self) -> None:
        self._open -= 1


class _Copy(AsyncIterator[bytes]):
    """The copy, piece by piece, once."""

    def __init__(self, descriptor: int, closed: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._closed = closed

    async def __anext__(self) -> bytes:
        piece = await trio.to_thread.run_sync(os.read, self._descriptor, PIECE_BYTES)
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Lets go of it; may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._closed()
        await trio.lowlevel.checkpoint()
