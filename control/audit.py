"""The audit log: who asked for what, and what came of it; a line of JSON each, appended and never changed.

Who calls it: ``control.gate``, once per call that changes something and once per refusal, before the answer leaves.

**A line is written at once, by the caller's own task**, not through a queue. A queue has a bound, and at the bound one
either loses lines, which is what an attacker would bring about, or waits, which is what this does anyway. A line is
one ``write`` to a file opened with O_APPEND: some microseconds, and it is in the kernel when the process is killed. It
is not forced to the disk line by line: a power cut may cost the last seconds of the log, and the store, which is
forced, still knows what was granted. **What can't be written down is not granted**: a full disk makes every change
fail.

Nothing secret comes here: tokens go by their ids, requests for certificates not at all.
"""

from __future__ import annotations

import logging
import os
import stat
import time

import msgspec

from sidecar.errors import StartError

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
    """The log in a file, or, without one, in the application log. ``reopen`` is for log rotation."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = _open(path) if path else -1

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

    def reopen(self) -> None:
        """Goes on in a new file of the same name; in the old one where that can't be opened."""
        if self._descriptor < 0:
            return
        try:
            fresh = _open(self._path)
        except StartError as error:
            _log.error("%s; going on in the old file", error)
            return
        os.close(self._descriptor)
        self._descriptor = fresh

    def close(self) -> None:
        """No line is written afterwards."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def moment(now: float) -> str:
    """``now`` as the log has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"


def _open(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise StartError(f"--audit-log: {path} can't be opened ({error.strerror}); name a file of ours") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StartError(f"--audit-log: {path} is not a file; a pipe could stop the authority, so name a file")
    return descriptor
