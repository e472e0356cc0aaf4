"""The words of a command line -> the flags that were given, and what there is to say about them: ``--help``.

Who calls it: ``sidecar.cli`` and its commands. The words are split here and not by argparse, which stops at the first
mistake and costs a start half a megabyte; values are read by ``sidecar.settings``, since they may as well stand in the
environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from sidecar.option_table import OPTIONS, Option

_ABOUT = ("--help", "-h", "--version")
_NUMBER = re.compile(r"-[0-9]", re.ASCII)
_WIDTH = 116
_COLUMN = 28

# name -> (what follows it, what it does)
COMMANDS = {
    "wait": ("[--admin | --scrape ADDR:PORT] [--timeout S]", "wait until a sidecar is ready; for postStart hooks"),
    "check-config": ("[FLAG ...]", "say what flags and environment amount to, or all that is wrong with them"),
    "completion": ("bash|zsh|fish", "print a script that completes commands, flags and values in that shell"),
}
_HEAD = """\
usage: sidecar --upstream HOST:PORT [FLAG ...]
       sidecar COMMAND [...]

A service-mesh sidecar: a proxy in front of one app, and in front of what the app calls.
"""
_FOOT = """\

Durations: 10, 10s, 250ms, 5m, 1h. Sizes: 65536, 64KiB, 10MB. Each setting can stand in the environment under the
name given; the flag wins.
"""


class Given(msgspec.Struct):
    """What was found: {field: text} of the flags, which of --help and --version were asked for, and what is wrong."""

    flags: dict[str, str]
    help: bool = False
    version: bool = False
    problems: list[str] = []


def split(words: Sequence[str], options: Sequence[Option] = OPTIONS) -> Given:
    """Reads ``--flag VALUE`` and ``--flag=VALUE``; of a flag that is given twice the last counts, or
    they add up where its value is a list."""
    given = Given({})
    by_flag = {option.flag: option for option in options}
    at = 0
    while at < len(words):
        flag, equals, text = words[at].partition("=")
        at += 1
        value = text if equals else None
        if not flag.startswith("-"):
            given.problems.append(_stray(words[at - 1]))
            continue
        if flag in _ABOUT:
            if equals:
                given.problems.append(f"{flag}: takes no value; leave it out")
            given.help |= flag != "--version"
            given.version |= flag == "--version"
            continue
        if not equals and at < len(words) and _is_value(words[at]):
            value = words[at]
            at += 1
        option = by_flag.get(flag)
        if option is None:
            given.problems.append(_unknown(flag, by_flag))
        elif value is None and option.bare is None:
            given.problems.append(f"{flag}: needs a value; write {flag} {option.example}")
        else:
            text = str(option.bare) if value is None else value
            again = option.repeatable and option.field in given.flags
            given.flags[option.field] = f"{given.flags[option.field]},{text}" if again else text
    return given


def _is_value(word: str) -> bool:
    """``-`` stands for standard output, and ``-1`` is a number, if a wrong one."""
    return not word.startswith("-") or word == "-" or _NUMBER.match(word) is not None


def _unknown(flag: str, known: Iterable[str]) -> str:
    return f"{flag if flag.isprintable() else repr(flag)}: is not a flag; {nearest(flag, [*known, *_ABOUT])}"


def _stray(word: str) -> str:
    return f"{word!r}: is neither a flag nor a command; {nearest(word, list(COMMANDS))}"


def nearest(word: str, known: list[str]) -> str:
    """The clause that helps whoever mistyped a word."""
    import difflib  # only where something is wrong

    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else "see sidecar --help"


def help_text() -> str:
    """What ``--help`` prints."""
    parts = [_HEAD, "\nCommands:\n", *(_entry(f"{name} {form}", text) for name, (form, text) in COMMANDS.items())]
    for group in dict.fromkeys(option.group for option in OPTIONS):
        parts.append(f"\n{group}:\n")
        parts.extend(
            _entry(f"{option.flag} {form(option)}", _help(option)) for option in OPTIONS if option.group == group
        )
    parts.append("\nAbout:\n")
    parts.append(_entry("--version", "print the version and end"))
    parts.append(_entry("--help, -h", "print this and end"))
    return "".join(parts) + _FOOT


def form(option: Option) -> str:
    """How its value is written; in brackets where it can be left out."""
    return option.metavar if option.bare is None else f"[{option.metavar}]"


def _help(option: Option) -> str:
    default = f"default: {option.default}; " if option.default else ""
    return f"{option.help} ({default}{option.twin})"


def _entry(left: str, right: str) -> str:
    """Two columns, the right one broken between words."""
    lines = [""]
    for word in right.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > _WIDTH - _COLUMN:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    head = f"  {left}"
    gap = " " * (_COLUMN - len(head)) if len(head) < _COLUMN - 1 else "\n" + " " * _COLUMN
    return head + gap + ("\n" + " " * _COLUMN).join(lines) + "\n"
