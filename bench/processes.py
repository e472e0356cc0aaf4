"""Starting and ending processes: each on its core, none left behind.

Used by `app`, `load` and `proxies`. Every process leads a session of its own, so that Ctrl-C reaches only the
benchmark, and asks the kernel to be killed with it (setpriv --pdeathsig), so that not even kill -9 leaves one behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "bench" / "configs"


class BenchError(Exception):
    """The benchmark can't go on or its figures would mean nothing; the text is a sentence for people."""


def which(program: str, package: str) -> str:
    """The path of a program; raises BenchError naming the Debian package where it is missing."""
    # Debian keeps servers in sbin, which is not on every user's PATH.
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise BenchError(f"{program} is missing: apt-get install {package}")
    return found


def cores() -> tuple[int, int]:
    """The core for the proxy and the one for load and app; raises BenchError where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise BenchError("two cores are needed: one for the proxy, one for the load and the app")
    return usable[0], usable[1]


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A TCP port for a process that has to be told one: the kernel gives it to nobody else while the block lasts.

    It is bound and nobody listens on it, so that who is told it can listen there, with SO_REUSEADDR as servers do. A
    port that is found and let go may be the next one that a connection of the benchmark itself leaves from.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("0.0.0.0", 0))
        port: int = holder.getsockname()[1]
        yield port


def fill(template: str, target: Path, **values: object) -> Path:
    """Write a file of bench/configs with each @NAME@ replaced by its value; returns the target."""
    text = (CONFIGS / template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    target.write_text(text)
    return target


class Process:
    """One started process on one core; a context manager whose end is the process's end."""

    def __init__(
        self,
        argv: Sequence[str],
        core: int,
        directory: Path,
        *,
        name: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, its output going to NAME.out and NAME.err in the directory; the environment is added to ours."""
        self.name = name
        self.out = directory / f"{name}.out"
        self.err = directory / f"{name}.err"
        command = [which("setpriv", "util-linux"), "--pdeathsig", "KILL", which("taskset", "util-linux"), "-c"]
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self._popen = subprocess.Popen(
                [*command, str(core), *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def kill(self) -> None:
        """End the process and whatever it started, at once."""
        self._signal(signal.SIGKILL)
        self._popen.wait()

    def terminate(self, seconds: float) -> None:
        """Ask it to end, and wait; raises BenchError where it has not after that many seconds."""
        self._signal(signal.SIGTERM)
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.name} did not end within {seconds:g} s of SIGTERM") from None

    def wait(self, seconds: float) -> str:
        """Wait for its end and return its standard output; raises BenchError where it failed or took longer."""
        try:
            code = self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.name} did not end within {seconds:g} s") from None
        if code != 0:
            raise BenchError(f"{self.name} ended with {code}: {self.last_words()}")
        return self.out.read_text(errors="replace")

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Look at the condition until it holds; raises BenchError where the process ends or the time is up before."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self._popen.poll() is not None:
                raise BenchError(f"{self.name} ended with {self._popen.returncode}: {self.last_words()}")
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} was not ready within {seconds:g} s: {self.last_words()}")
            time.sleep(0.01)

    def last_words(self) -> str:
        """The end of what it wrote, for an error message."""
        lines = (self.err.read_text(errors="replace") + self.out.read_text(errors="replace")).splitlines()
        return "\n    ".join(["", *lines[-8:]]) if lines else "it said nothing"

    def _signal(self, number: signal.Signals) -> None:
        if self._popen.poll() is None:
            os.killpg(self.pid, number)


def listens(port: int) -> bool:
    """Whether 127.0.0.1 accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
