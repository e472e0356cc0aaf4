"""``sidecarctl`` as it is run: a process, with a home of its own, whose output and exit code are looked at."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.control_process import ControlProcess
from tests.support.process import ROOT

WITHIN = 60.0  # seconds for one command, on a machine that does much else


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self
        return json.loads(self.out)


class Ctl:
    """Runs the command with ``home`` for its configuration. ``flags`` go before each command."""

    def __init__(self, home: Path, *flags: str, **environ: str) -> None:
        self.home = home
        self.flags = list(flags)
        told = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR", "XDG_"))}
        self.environ = {**told, "HOME": str(home), "PYTHONPATH": str(ROOT), **environ}

    @property
    def words(self) -> list[str]:
        return [sys.executable, "-m", "control.ctl", *self.flags]

    def __call__(self, *words: str, text: str = "", **environ: str) -> Done:
        done = subprocess.run(
            [*self.words, *words],
            cwd=self.home,
            env={**self.environ, **environ},
            input=text,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """A command that goes on; who begins it ends it. Ctrl-C reaches it as in a shell, also where these tests run
        in the background and were told to ignore it."""
        ignoring = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                [*self.words, *words], cwd=self.home, env={**self.environ, "PYTHONUNBUFFERED": "1"}, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, ignoring)

    def at_terminal(self, *words: str, typed: bytes = b"", **environ: str) -> tuple[int, str]:
        """Its exit code, and what a terminal of 100 columns shows of it; ``typed`` is what a person types."""
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        told = {**self.environ, "TERM": "xterm-256color", **environ}
        with subprocess.Popen(
            [*self.words, *words], cwd=self.home, env=told, stdin=follower, stdout=follower, stderr=follower,
            start_new_session=True,
        ) as process:  # fmt: skip
            os.close(follower)
            os.write(leader, typed)
            shown = b"".join(iter(lambda: _read(leader), b""))
            os.close(leader)
            return process.wait(WITHIN), shown.decode()

    def ok(self, *words: str, text: str = "", **environ: str) -> str:
        """What a command that has to succeed says on standard output."""
        done = self(*words, text=text, **environ)
        assert done.code == 0, done
        return done.out


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how a terminal says that nobody writes to it any more
        return b""


def operator(control: ControlProcess, home: Path) -> Ctl:
    """Whoever may do everything, over TLS."""
    token = control.directory / "ca" / "operator-token"
    return Ctl(home, "--server", control.url, "--token-file", str(token))
