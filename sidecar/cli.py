"""The command ``sidecar``: words -> Settings -> run, and what the exit code means.

0: it was asked to end, and did (or it printed what it was asked to print). 1: ``sidecar wait`` waited in vain. 2: it
can't do what it was told to; a line on standard error for each setting that is wrong says how, and what to write
instead. Anything else is a bug of ours.

The commands beside the proxy itself are in ``sidecar.commands``, a module each, imported when asked for.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Sequence

from sidecar import __version__, flag_parser, logging_setup, settings
from sidecar.errors import StartError

EXIT_CANNOT_START = 2

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with the arguments given (default: the process's own); returns the exit code."""
    logging_setup.configure("info", "text")
    words = sys.argv[1:] if argv is None else argv
    try:
        return _command(words[0])(words[1:]) if words and words[0] in flag_parser.COMMANDS else _serve(words)
    except StartError as error:
        _log.error("%s", error)
        return EXIT_CANNOT_START


def _command(name: str) -> Callable[[Sequence[str]], int]:
    run: Callable[[Sequence[str]], int] = importlib.import_module(f"sidecar.commands.{name.replace('-', '_')}").run
    return run


def _serve(words: Sequence[str]) -> int:
    given = flag_parser.split(words)
    if (given.help or given.version) and not given.problems:
        sys.stdout.write(flag_parser.help_text() if given.help else f"sidecar {__version__}\n")
        return 0
    told, problems = settings.examine(given.flags, earlier=given.problems)
    if told is None:
        for problem in problems:
            _log.error("%s", problem)
        return EXIT_CANNOT_START
    logging_setup.configure(told.log_level, told.log_format)
    for sentence in settings.oddities(told):
        _log.warning("%s", sentence)
    from sidecar import app  # not before: neither --help nor a wrong flag needs an event loop

    return app.run(told, settings.in_force(given.flags))
