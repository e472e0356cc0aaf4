"""The audit log: who asked for what, and what came of it; a line of JSON each, appended and never changed.

Who calls it: ``control.middleware``, once per call that changes something and once per refusal, before the answer
leaves.

**A line is written at once, by the caller's own task**, not through a queue. A queue has a bound, and at the bound one
either loses lines, which is what an attacker would bring about, or waits, which is what this does anyway. A line is
one ``write`` to a file opened with O_APPEND: some microseconds, and it is in the kernel when the process is killed. It
is not forced to the disk line by line: a power cut may cost the last seconds of the log, and the store, which is
forced, still knows what was granted. **What can't be written down is not granted**: a full disk makes every change
fail.

**It has a bound.** Any workload may register and take back as often as its rate lets it, a gigabyte of lines a day; a
disk that this fills would stop every change. So a file that is FILE_BYTES long becomes ``FILE.1``, the one before
``FILE.2``, and what was the last of KEPT goes: its bytes are counted, and the application log says so. Whoever must
keep all of them takes the files away in time.

Nothing secret comes here: tokens go by their ids, requests for certificates not at all.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from sidecar.errors import StartError

FILE_BYTES: Final = 256 << 20  # some 800,000 lines
KEPT: Final = 4  # older files beside the one that is written
AGAIN_BYTES: Final = 1 << 20  # after how much more it is tried again where that failed
_log = logging.getLogger(__name__)


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. Empty members are left out."""

    time: str  # UTC, RFC 3339
    id: str  # the request's, as in x-request-id
    who: str  # an identity, "token:ID", or "nobody"
    peer: str  # where from: an address, or "socket"
    what: str  # the call's name, such as "certificates.issue"
    verdict: str  # "granted", "refused", "invalid" or "failed"
    status: int
    reason: str = ""  # of a refusal
    subject: str = ""  # whom or what it was about: an identity, a serial number, a token's id
    unwritten: int = 0  # refusals since the last line that were too many to be written


class AuditFailed(Exception):
    """The line could not be written."""


class AuditLog:
    """The log in a file, or, without one, in the application log. ``reopen`` is for log rotation by others; ``dropped``
    is called with how many bytes of old lines went."""

    def __init__(
        self, path: str, dropped: Callable[[int], object] = lambda _: None, file_bytes: int = FILE_BYTES
    ) -> None:
        self._path = path
        self._dropped = dropped
        self._file_bytes = file_bytes
        self._descriptor = _open(path) if path else -1
        self._size, self._turn_at = self._begun()

    def write(self, line: Line) -> None:
        """Appends the line, or raises AuditFailed."""
        data = msgspec.json.encode(line) + b"\n"
        if self._descriptor < 0:
            _log.info("audit %s", data.decode().rstrip())
            return
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            raise AuditFailed(f"--audit-log: {self._path} can't be written: {error.strerror}") from error
        if written != len(data):
            raise AuditFailed(f"--audit-log: {self._path} took a part of a line only")
        self._size += written
        if self._size >= self._turn_at:
            self._turn()

    def reopen(self) -> None:
        """Goes on in a new file of the same name; in the old one where that can't be opened."""
        if self._descriptor < 0:
            return
        try:
            fresh = _open(self._path)
        except StartError as error:
            _log.error("%s; going on in the old file", error)
            return
        self._go_on_in(fresh)

    def close(self) -> None:
        """No line is written afterwards."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _turn(self) -> None:
        """The file is long enough: goes on in a new one. Where that can't be, in the same, and tries again later.
        Nothing is moved before the new one is there: else each attempt would cost an older one."""
        fresh, coming = -1, f"{self._path}.new"
        try:
            fresh = _open(coming)
            oldest = _length(f"{self._path}.{KEPT}")
            for number in range(KEPT, 1, -1):
                with suppress(FileNotFoundError):
                    os.replace(f"{self._path}.{number - 1}", f"{self._path}.{number}")
            with suppress(FileNotFoundError):  # somebody else has moved it away
                os.replace(self._path, f"{self._path}.1")
            os.replace(coming, self._path)
        except (OSError, StartError) as error:
            if fresh >= 0:
                os.close(fresh)
            _log.error("--audit-log: no new file can be begun, and %s goes on: %s", self._path, error)
            self._turn_at = self._size + AGAIN_BYTES
            return
        self._go_on_in(fresh)
        if oldest:
            self._dropped(oldest)
            _log.warning("--audit-log: the oldest of %d files went, with %d bytes of lines", KEPT + 1, oldest)

    def _go_on_in(self, descriptor: int) -> None:
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._size, self._turn_at = self._begun()

    def _begun(self) -> tuple[int, int]:
        """How long the file is, and at which length another begins."""
        return (0 if self._descriptor < 0 else os.fstat(self._descriptor).st_size), self._file_bytes


def moment(now: float) -> str:
    """``now`` as the log has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"


def _length(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _open(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise StartError(f"--audit-log: {path} can't be opened ({error.strerror}); name a file of ours") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StartError(f"--audit-log: {path} is not a file; a pipe could stop the authority, so name a file")
    return descriptor
