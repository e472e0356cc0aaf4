"""The process that has the authority's key: no core dumps of it, and no look into it by others of its user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The command, up to where the event loop would begin: what is in force then is told in place of it.
TOLD = """
import ctypes, resource, sys, trio
from control import cli
def told(*_):
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
    return 0
trio.run = told
sys.exit(cli.main(sys.argv[1:]))
"""


def test_nobody_else_looks_into_the_process(tmp_path: Path) -> None:
    """PR_GET_DUMPABLE is 0, as is the limit of core dumps, before there is a key."""
    done = subprocess.run(
        [sys.executable, "-c", TOLD, "--listen", "127.0.0.1:0", "--ca-dir", str(tmp_path / "ca")],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "0 0 0\n"), done.stderr
