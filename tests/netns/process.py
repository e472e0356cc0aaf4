"""A process in a pod: what it prints is kept in files, and is shown when a test fails."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

from tests.support.upstream import wait_until

_UNSEEN = re.compile(r"Traceback|Error\b.*:|Exception|Task was destroyed|ResourceWarning")


class PodProcess:
    """Started with its name and command; ``output`` and ``errors`` are what it has printed so far.

    It leads a session of its own and dies with the thread that made it, so make it in a thread that lasts.
    """

    def __init__(self, name: str, command: list[str], environment: dict[str, str], directory: Path) -> None:
        self.name = name
        self._out, self._err = directory / f"{name}.out", directory / f"{name}.err"
        with self._out.open("ab") as out, self._err.open("ab") as err:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True
            )
        self.pid = self._process.pid

    @property
    def output(self) -> str:
        return self._out.read_text(errors="backslashreplace")

    @property
    def errors(self) -> str:
        return self._err.read_text(errors="backslashreplace")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, words: str, deadline: float = 20.0) -> None:
        """Until it has printed these words, to either; AssertionError where it ends before or takes too long."""
        wait_until(
            lambda: words in self.errors or words in self.output or not self.running, f"{self.name}: {words}", deadline
        )
        assert words in self.errors + self.output, f"{self.name} ended with {self._process.returncode}: {self.errors}"

    def wait(self, deadline: float = 30.0) -> int:
        """Its exit code; TimeoutExpired where it does not end in time."""
        return self._process.wait(deadline)

    def signal(self, number: signal.Signals) -> None:
        """To the process alone."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, to all that it started as well, and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(10)

    def stop(self, deadline: float = 45.0) -> None:
        """SIGTERM; exit code 0, and no exception on standard error that nobody handled."""
        assert self.running, f"{self.name} ended early with {self._process.returncode}: {self.errors[-4000:]}"
        self.signal(signal.SIGTERM)
        code = self.wait(deadline)
        assert code == 0, f"{self.name} ended with {code}: {self.errors[-4000:]}"
        self.check_errors()

    def check_errors(self) -> None:
        """No exception went by that nobody handled."""
        bad = [line for line in self.errors.splitlines() if _UNSEEN.search(line)]
        assert not bad, f"{self.name} on standard error: {self.errors[-4000:]}"

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        parts = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")
