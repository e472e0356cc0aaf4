"""The command ``sidecar``: flags -> Settings -> run, and what the exit code means.

0: it was asked to end, and did (or it printed ``--help`` or ``--version``). 2: it can't start as it was told to; one
line on standard error says which setting is wrong, how, and what to write instead. Anything else is a bug of ours.

argparse only splits the command line and prints the help, both from the table in ``sidecar.options``; values are read
by ``sidecar.settings``, since they may as well stand in the environment.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from sidecar import __version__, applog, settings
from sidecar.errors import StartError
from sidecar.machine import descriptor_limit
from sidecar.options import OPTIONS, Option

EXIT_CANNOT_START = 2

_log = logging.getLogger(__name__)
_EPILOG = """\
Durations: 10, 10s, 250ms, 5m, 1h. Sizes: 65536, 64KiB, 10MB. Each setting can stand in the environment under the
name given; the flag wins."""


class _Parser(argparse.ArgumentParser):
    """argparse, with its errors as ours."""

    def error(self, message: str) -> NoReturn:
        raise StartError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with the arguments given (default: the process's own); returns the exit code."""
    applog.configure("info", "text")
    try:
        flags = parse_flags(sys.argv[1:] if argv is None else argv)
        if flags is None:
            return 0
        told = settings.load(flags)
        applog.configure(told.log_level, told.log_format)
        _warn(told)
        from sidecar import app  # not before: neither --help nor a wrong flag needs an event loop

        return app.run(told)
    except StartError as error:
        _log.error("%s", error)
        return EXIT_CANNOT_START


def parse_flags(argv: Sequence[str]) -> dict[str, str] | None:
    """{field: text} of the flags given; None where one of them only asked for text, which is printed then.

    Raises StartError for a flag that there is not, or that lacks its value.
    """
    parser = _parser()
    try:
        found, rest = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise StartError(f"{error.argument_name}: {_lacking(error)}") from None
    if rest:
        raise StartError(_unknown(rest[0]))
    asked = vars(found)
    if asked.pop("help"):
        sys.stdout.write(parser.format_help())
        return None
    if asked.pop("version"):
        sys.stdout.write(f"sidecar {__version__}\n")
        return None
    return {field: text for field, text in asked.items() if text is not None}


def _parser() -> _Parser:
    parser = _Parser(
        prog="sidecar",
        usage="sidecar --upstream HOST:PORT [FLAG ...]",
        description="A service-mesh sidecar: a proxy in front of one app, and in front of what the app calls.",
        epilog=_EPILOG,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=116),
        allow_abbrev=False,
        add_help=False,
        exit_on_error=False,
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in OPTIONS:
        group = groups.get(option.group) or groups.setdefault(option.group, parser.add_argument_group(option.group))
        group.add_argument(
            option.flag,
            dest=option.field,
            metavar=option.metavar,
            nargs=None if option.bare is None else "?",
            const=option.bare,
            help=_help(option).replace("%", "%%"),
        )
    about = parser.add_argument_group("About")
    about.add_argument("--version", action="store_true", help="print the version and end")
    about.add_argument("--help", "-h", action="store_true", help="print this and end")
    return parser


def _help(option: Option) -> str:
    default = f"default: {option.default}; " if option.default else ""
    return f"{option.help} ({default}{option.twin})"


def _lacking(error: argparse.ArgumentError) -> str:
    """What is wrong with a flag whose value is missing, or that has one it can't have."""
    for option in OPTIONS:
        if option.flag == error.argument_name:
            return f"needs a value; write {option.flag} {option.example}"
    return "takes no value; leave it out"


def _unknown(word: str) -> str:
    flag = word.partition("=")[0]
    if not flag.startswith("-"):
        return f"{flag!r}: is not a flag, and there is nothing else to give; see sidecar --help"
    known = [option.flag for option in OPTIONS] + ["--help", "--version"]
    near = difflib.get_close_matches(flag, known, n=1)
    return f"{flag if flag.isprintable() else repr(flag)}: is not a flag; " + (
        f"did you mean {near[0]}?" if near else "see sidecar --help"
    )


def _warn(told: settings.Settings) -> None:
    """What is odd and yet no reason not to start."""
    for sentence in settings.unknown_twins():
        _log.warning("%s", sentence)
    held = descriptor_limit() // 2
    if told.max_connections > held:
        _log.warning(
            "--max-connections: %d need twice as many descriptors, and there are only enough for %d; raise the limit "
            "(ulimit -n)",
            told.max_connections,
            held,
        )
