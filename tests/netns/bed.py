"""The bed: a bridge, and the pods on it.

    with Bed() as bed:
        a, b = bed.pod("a"), bed.pod("b")
        b.init(), b.web(8080), b.sidecar()
        a.curl(f"http://{b.v4}:8080/")

Namespaces have no names: each is held by a process that ends when our end of its pipe is closed, so that nothing is
left even where the tests were killed. Files are in a directory that is named after the process, and the next bed
removes those of processes that are no more.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tests.netns.environment import ROOT, prepare
from tests.netns.pod import Pod

_PLACE = Path("/var/tmp")
_PREFIX = "sidecar-bed-"


class Bed:
    """A context manager; its end is the end of every pod. The pods run the code of ``tree``, a checkout."""

    def __init__(self, tree: Path = ROOT) -> None:
        assert os.geteuid() == 0, "network namespaces need root"
        remove_stale()
        self.directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_PLACE))
        self.directory.chmod(0o755)
        self.pods: list[Pod] = []
        self._tree = tree
        self._numbers = iter(range(1, 60_000))
        self._wiring: subprocess.Popen[str] | None = None

    def __enter__(self) -> Bed:
        try:
            self.environment = prepare(self.directory, self._tree)
            self._wiring = subprocess.Popen(
                [sys.executable, "-m", "tests.netns.wiring"],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            self._switch = Pod("switch", "", "", self.environment, self.directory)
            self.pods.append(self._switch)
            self._order(order="switch", switch=self._switch.pid)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def pod(self, name: str) -> Pod:
        """A pod with an address of each family, plugged in; the name is for people and may be given again."""
        number = next(self._numbers)
        v4, v6 = f"10.77.{number >> 8}.{number & 255}", f"fd77::{number:x}"
        pod = Pod(f"{number}-{name}", v4, v6, self.environment, self.directory)
        self.pods.append(pod)
        self._order(order="pod", switch=self._switch.pid, pod=pod.pid, port=f"pod{number}", v4=v4, v6=v6)
        return pod

    @contextlib.contextmanager
    def unplugged(self, pod: Pod) -> Iterator[None]:
        """Without its cable, until the end of the block."""
        port = f"pod{pod.name.partition('-')[0]}"
        self._order(order="plug", switch=self._switch.pid, port=port, plugged=False)
        try:
            yield
        finally:
            self._order(order="plug", switch=self._switch.pid, port=port, plugged=True)

    def remove(self, pod: Pod) -> None:
        """Its processes, its namespace and its files."""
        self.pods.remove(pod)
        pod.close()
        shutil.rmtree(pod.directory, ignore_errors=True)

    def story(self) -> list[tuple[str, str]]:
        """What every process of every pod printed: (who, text), the end of it where it is long."""
        return [
            (f"pod {pod.name}: {process.name}", (process.errors[-3000:] + process.output[-3000:]).strip())
            for pod in self.pods
            for process in pod.processes
        ]

    def close(self) -> None:
        for pod in reversed(self.pods):
            pod.close()
        self.pods.clear()
        if self._wiring is not None:
            self._wiring.communicate(timeout=10)
            self._wiring = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def _order(self, **order: object) -> None:
        assert self._wiring is not None and self._wiring.stdin is not None and self._wiring.stdout is not None
        print(json.dumps(order), file=self._wiring.stdin, flush=True)
        answer = json.loads(self._wiring.stdout.readline() or '{"error": "the wiring ended"}')
        assert not answer, answer["error"]


def remove_stale() -> list[Path]:
    """Directories of beds whose process is no more; returns them."""
    stale = [
        path
        for path in _PLACE.glob(f"{_PREFIX}*-*")
        if path.stat().st_uid == os.geteuid() and not Path("/proc", path.name.split("-")[2]).exists()
    ]
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)
    return stale
