"""The command ``sidecarctl``: where it begins.

What it needs beside the sidecar's own libraries is the extra ``ctl``; without that it says so.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

EXTRA: Final = ("click", "rich")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with the arguments given (default: the process's own); returns the exit code."""
    try:
        from control.ctl.command import run
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        sys.stderr.write(f"sidecarctl: {error.name} is not installed; pip install 'sidecar-mesh[ctl]'\n")
        return 2
    return run(argv)
