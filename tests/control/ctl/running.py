"""``sidecarctl`` as it is run: a process, with a home of its own, whose output and exit code are looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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

    def ok(self, *words: str, text: str = "", **environ: str) -> str:
        """What a command that has to succeed says on standard output."""
        done = self(*words, text=text, **environ)
        assert done.code == 0, done
        return done.out


def operator(control: ControlProcess, home: Path) -> Ctl:
    """Whoever may do everything, over TLS."""
    token = control.directory / "ca" / "operator-token"
    return Ctl(home, "--server", control.url, "--token-file", str(token))
