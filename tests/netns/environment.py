"""What the processes of a pod run: an interpreter, the libraries, and the code, all readable by any uid.

The checkout, and the interpreter of the tests, may lie where only their owner can go. So the libraries are in a virtual
environment in /var/tmp, made once per interpreter and lock, and the code is copied when a bed begins.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROXY_ID = 1337
APP_ID = 1000
_PLACE = Path("/var/tmp")
_PACKAGES = ("sidecar", "init", "certs")
_GOOD_ENOUGH = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"


@dataclass(frozen=True, slots=True)
class Environment:
    """``python`` runs the libraries and, by ``variables``, the code; ``code`` is the directory of the copy."""

    python: Path
    code: Path

    @property
    def variables(self) -> dict[str, str]:
        """The whole environment of a process in a pod."""
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(self.code),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def inside(self, program: str) -> list[str]:
        """The command line of a program of ``inside/``; it needs no library, and starts the faster without."""
        return [str(self.python), "-IS", str(self.code / "inside" / f"{program}.py")]


def credentials(uid: int) -> list[str]:
    """The command that runs another one as this uid and gid; any but root has no capability and can't get one."""
    command = ["setpriv", "--pdeathsig", "KILL"]
    if uid:
        command += [f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"]
        command += ["--inh-caps=-all", "--bounding-set=-all"]
    return command


def prepare(directory: Path, tree: Path = ROOT) -> Environment:
    """Make the virtual environment, where there is none yet, and copy the tree's code into ``directory``.

    Raises AssertionError where there is no interpreter that other uids may run.
    """
    return Environment(_environment(tree) / "bin" / "python", _copy(tree, directory / "code"))


def _copy(tree: Path, code: Path) -> Path:
    for package in _PACKAGES:
        if (tree / package).is_dir():
            shutil.copytree(tree / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(__file__).parent / "inside", code / "inside", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([_interpreter(), "-m", "compileall", "-q", str(code)], check=True)
    for path in (code, *code.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return code


def _environment(tree: Path) -> Path:
    lock = _lock(tree)
    python = _interpreter()
    key = hashlib.sha256(python.encode() + lock.read_bytes()).hexdigest()[:12]
    target = _PLACE / f"sidecar-netns-{os.geteuid()}-{key}"
    target.mkdir(mode=0o755, exist_ok=True)
    assert target.stat().st_uid == os.geteuid(), f"{target} is somebody else's; remove it"
    with (target / "in-use").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # another run may be making it
        if not (target / "made").exists():
            pip = [str(target / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
            subprocess.run([python, "-m", "venv", str(target)], check=True, umask=0o022)
            subprocess.run([*pip, "--require-hashes", "--requirement", str(lock)], check=True, umask=0o022)
            (target / "made").touch()
    return target


def _lock(tree: Path) -> Path:
    """The libraries' versions: those of the tests' own environment if it was resolved for itself (make test-latest),
    otherwise the tree's, or the project's where the tree has none."""
    places = [Path(sys.prefix, "requirements"), tree / "requirements", ROOT / "requirements"]
    return next(found for place in places if (found := place / "run.txt").exists())


def _interpreter() -> str:
    """One that uid 1337 may run and that can make virtual environments: the tests' own, or else the system's."""
    for python in (str(Path(sys.base_prefix, "bin", "python3").resolve()), "/usr/bin/python3"):
        command = [*credentials(PROXY_ID), python, "-c", _GOOD_ENOUGH]
        if subprocess.run(command, cwd="/", capture_output=True, check=False).returncode == 0:
            return python
    raise AssertionError("there is no Python 3.11 that other uids may run: apt-get install python3-venv")
