"""Programs that are spoken with while they run: OpenSSL's and GnuTLS's clients and servers, with their commands."""

from __future__ import annotations

import os
import select
import subprocess
import time
from types import TracebackType

from tests.peer.programs import program

DEADLINE = 30.0
NOISE = b"read R BLOCK\n"  # s_client's, where a record was not for the app


class Talking:
    """A program with its standard input held open; all that it writes is ``heard``, but for lines of NOISE, which may
    come in the middle of what its peer says. A context manager."""

    def __init__(self, name: str, *arguments: str) -> None:
        self._command = [program(name), *arguments]
        self.heard = b""

    def __enter__(self) -> Talking:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(DEADLINE)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def say(self, data: bytes) -> None:
        """In one write, as far as the pipe has room."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)

    def wait(self, words: bytes) -> bytes:
        """Until it has written these; returns all up to them, and forgets it."""
        assert self._process.stdout is not None
        until = time.monotonic() + DEADLINE
        while words not in self.heard:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"no {words!r} within {DEADLINE:g} s:\n" + self.heard[-2000:].decode("latin-1")
            data = os.read(self._process.stdout.fileno(), 65_536)
            assert data, f"it ended without {words!r}:\n" + self.heard[-2000:].decode("latin-1")
            self.heard = (self.heard + data).replace(NOISE, b"")
        before, words, self.heard = self.heard.partition(words)
        return before + words

    def command(self, word: bytes, done: bytes) -> None:
        """Gives a command of the program's own, on a line by itself, and waits until it tells that it is done."""
        self.say(word + b"\n")
        self.wait(done)
