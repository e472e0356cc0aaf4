"""The command ``sidecar-control``: words -> Settings -> run, and what the exit code means.

0: it was asked to end, and did (or did what one of ``control.commands`` does, or printed what it was asked to print).
2: it can't do what it was told to; a line on standard error for each thing that is wrong says how, and what to write
instead. Anything else is a bug of ours.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from control import flag_parser, logging_setup, settings
from control.commands import COMMANDS, Task
from sidecar import __version__
from sidecar.errors import StartError

EXIT_CANNOT_START = 2
EXTRA = ("hypercorn", "jwt", "starlette")  # what only the control plane needs
_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with the arguments given (default: the process's own); returns the exit code."""
    logging_setup.configure("info", "text")
    words = list(sys.argv[1:] if argv is None else argv)
    task, wrong = None, list[str]()
    if words and words[0] in COMMANDS:
        task, words, wrong = COMMANDS[words[0]](words[1:])
    given = flag_parser.split(words)
    if (given.help or given.version) and not given.problems:
        sys.stdout.write(flag_parser.help_text() if given.help else f"sidecar-control {__version__}\n")
        return 0
    told, problems = settings.examine(given.flags, earlier=[*wrong, *given.problems])
    if told is None:
        for problem in problems:
            _log.error("%s", problem)
        return EXIT_CANNOT_START
    logging_setup.configure(told.log_level, told.log_format)
    for sentence in settings.unknown_twins():
        _log.warning("%s", sentence)
    try:
        return _run(told, task)
    except StartError as error:
        _log.error("%s", error)
        return EXIT_CANNOT_START


def _run(told: settings.Settings, task: Task | None) -> int:
    try:
        from control import app  # not before: neither --help nor a wrong flag needs an event loop
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in EXTRA:
            raise
        raise StartError(f"{error.name} is not installed; pip install 'sidecar-mesh[control]'") from None
    if task is None:
        return app.run(told)
    task(told)
    return 0
