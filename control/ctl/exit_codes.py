"""What the command ends with: a number for scripts, and lines for people. Pure.

Who raises: everything below ``control.ctl``. Only ``control.ctl.cli`` turns one into an exit code. Nobody matches its
text.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Exit(IntEnum):
    """Exit codes, which are documented and do not change their meaning."""

    DONE = 0
    NOT = 1
    USAGE = 2
    UNREACHED = 3
    FORBIDDEN = 4
    CONFLICT = 5
    INTERRUPTED = 130
    PIPE = 141


MEANINGS: Final = {
    Exit.DONE: "done; with `diff`: there is no difference",
    Exit.NOT: "not found, not accepted (each problem has a line), or with `diff`: there are differences",
    Exit.USAGE: "the command line, the configuration or a file of yours can't be used",
    Exit.UNREACHED: "the control plane or the proxy could not be reached, or can't answer now; try again",
    Exit.FORBIDDEN: "the token is not taken, or its role may not do that",
    Exit.CONFLICT: "somebody else changed it meanwhile, or it has to be confirmed",
    Exit.INTERRUPTED: "ended by Ctrl-C",
    Exit.PIPE: "whoever read the output has gone",
}


class Failed(Exception):
    """It can't be done. ``lines`` go to standard error as they are; each names what to do."""

    def __init__(self, code: Exit, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.code = code
        self.lines = lines
