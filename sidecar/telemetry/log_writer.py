"""A file or pipe that log lines go to without the event loop ever waiting for it.

Who calls it: the access log, and the application log once the process serves. Everything but ``_run`` and what it calls
happens on the event loop, or under one lock of its caller's.

Theory of operation. The loop appends lines to a block. A block is handed to one writer thread, through a queue that
the thread sleeps on, when it has reached 64 KiB or when ``tick`` finds it old enough; so there is no task, no lock and
no system call per line, and no wake-up where nothing was logged. Standard output may be a pipe that nobody empties and
a disk may be full: then the thread waits, the loop goes on, and whatever would raise the bytes that wait above
``MAX_PENDING`` is dropped and counted, a block at a time.

Two counts are kept instead of a lock: ``_handed`` is written by the loop only, ``_done`` by the thread only, and each
reads the other's, at worst a moment late.

Every block holds whole lines. A write that the kernel cut short goes on where it stopped. Where the file is reopened
in between, the line that was cut begins again in the new file.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from queue import SimpleQueue

from sidecar.errors import StartError

BLOCK_SIZE = 65_536  # as much as a pipe holds: larger blocks would not be written in one go
MAX_PENDING = 4_194_304  # some 16,000 lines: seconds of full load, and small beside the process
FLUSH_SECONDS = 0.1
RETRY_SECONDS = 1.0  # between two attempts on a full disk
MODE = 0o640  # paths and queries are nobody else's business


class LogWriter:
    """Takes lines, writes them to ``path`` (``-``: the descriptor ``standard``) from a thread of its own.

    ``dropped`` is the number of lines that were lost, ``errors`` that of writes and opens that failed. Raises
    StartError when the file can't be opened.
    """

    def __init__(
        self, path: str, *, standard: int = 1, max_pending: int = MAX_PENDING, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self._path = path
        self._max_pending = max_pending
        self._retry_seconds = retry_seconds
        self._fd = standard if path == "-" else _open_first(path)
        self._block = bytearray()
        self._next_flush = 0.0
        self._queue: SimpleQueue[bytearray | None] = SimpleQueue()
        self._handed = 0
        self._done = 0
        self._dropped_by_loop = 0
        self._dropped_by_thread = 0
        self._errors = 0
        self._closing = False
        self._reopen = False
        self._nudge = threading.Event()  # ends the wait between two attempts
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    # -- on the event loop -------------------------------------------------------------------------------------------

    @property
    def dropped(self) -> int:
        return self._dropped_by_loop + self._dropped_by_thread

    @property
    def errors(self) -> int:
        return self._errors

    @property
    def pending(self) -> int:
        """Bytes that were taken and are not written yet."""
        return self._handed - self._done + len(self._block)

    def put(self, line: bytes) -> None:
        """Takes one line, which ends with its newline. Never blocks."""
        block = self._block
        block += line
        if len(block) >= BLOCK_SIZE:
            self.hand_over()

    def tick(self, now: float) -> None:
        """Hands over what has waited for FLUSH_SECONDS; ``now`` is on the monotonic clock. Call it often."""
        if self._block and now >= self._next_flush:
            self._next_flush = now + FLUSH_SECONDS
            self.hand_over()

    def reopen(self) -> None:
        """From the next block on, the file is the one that now has the name: for log rotation. Keeps the old one where
        that fails. Does nothing for standard output."""
        if self._path != "-":
            self._reopen = True
            self._nudge.set()
            self._queue.put(bytearray())

    def close(self, seconds: float) -> bool:
        """Writes what is left, for at most ``seconds``, during which the caller waits; says whether all was written.

        Nothing may be put afterwards.
        """
        self.hand_over()
        self._closing = True
        self._queue.put(None)
        self._nudge.set()
        self._thread.join(seconds)
        return not self._thread.is_alive() and not self._dropped_by_thread

    def hand_over(self) -> None:
        """What was put goes on to the file now. Never blocks."""
        block = self._block
        if not block:
            return
        if self._handed - self._done + len(block) > self._max_pending:
            self._dropped_by_loop += block.count(b"\n")
            block.clear()
            return
        self._handed += len(block)
        self._queue.put(block)
        self._block = bytearray()

    # -- on the writer's thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (block := self._queue.get()) is not None:
            size = len(block)
            self._open_again()
            self._write(block)
            self._done += size
        if self._path != "-":
            os.close(self._fd)

    def _write(self, block: bytearray) -> None:
        at = 0
        view = memoryview(block)
        while at < len(block):
            try:
                at += os.write(self._fd, view[at:])
            except BlockingIOError:
                # Standard output was made non-blocking by whoever shares it with us.
                self._wait_writable()
            except OSError as error:
                self._errors += 1
                if error.errno in (errno.EPIPE, errno.EBADF):
                    self._dropped_by_thread += block.count(b"\n", at)  # nobody reads it any more
                    return
                self._wait_retry()
            if self._open_again():
                at = block.rfind(b"\n", 0, at) + 1

    def _wait_writable(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll(1000)

    def _wait_retry(self) -> None:
        """A full disk may become free: tries again later, more often once the process wants to end."""
        self._nudge.wait(self._retry_seconds if not self._closing else min(0.05, self._retry_seconds))
        self._nudge.clear()

    def _open_again(self) -> bool:
        if not self._reopen:
            return False
        self._reopen = False
        try:
            fd = _open(self._path)
        except OSError:
            self._errors += 1
            return False
        old, self._fd = self._fd, fd
        os.close(old)
        return True


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)


def _open_first(path: str) -> int:
    try:
        return _open(path)
    except OSError as error:
        raise StartError(
            f"--access-log-file {path}: {error.strerror}; name a file in a directory that can be written to, or -"
        ) from None
