"""The words of a command line -> the flags that were given, and what there is to say about them: ``--help``.

Who calls it: ``control.cli``. The words are split here and not by argparse, which stops at the first mistake; values
are read by ``control.settings``, since they may as well stand in the environment.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Sequence

import msgspec

from control.option_table import OPTIONS, Option

_ABOUT = ("--help", "-h", "--version")
_WIDTH = 116
_COLUMN = 28
_HEAD = """\
usage: sidecar-control [FLAG ...]
       sidecar-control restore FILE [--void-tokens] [FLAG ...]
       sidecar-control new-epoch [FLAG ...]

The control plane of a mesh of sidecars: the authority that their certificates come from.
restore puts a backup of the store in its place; new-epoch is for a store that was put back by hand.
"""
_FOOT = """\

Durations: 10, 10s, 250ms, 5m, 1h. Each setting can stand in the environment under the name given; the flag wins.
"""


class Given(msgspec.Struct):
    """What was found: {field: text} of the flags, which of --help and --version were asked for, and what is wrong."""

    flags: dict[str, str]
    help: bool = False
    version: bool = False
    problems: list[str] = []


def split(words: Sequence[str]) -> Given:
    """Reads ``--flag VALUE`` and ``--flag=VALUE``; of a flag that is given twice the last counts."""
    given = Given({})
    by_flag = {option.flag: option for option in OPTIONS}
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        flag, equals, text = word.partition("=")
        if flag in _ABOUT and not equals:
            given.help |= flag != "--version"
            given.version |= flag == "--version"
            continue
        option = by_flag.get(flag)
        if option is None:
            given.problems.append(_unknown(word if not word.startswith("-") else flag, by_flag))
            if not equals and rest and word.startswith("-") and not rest[-1].startswith("-"):
                rest.pop()  # its value, which is not to be taken for another mistake
        elif equals:
            given.flags[option.field] = text
        elif rest and not rest[-1].startswith("--"):
            given.flags[option.field] = rest.pop()
        else:
            given.problems.append(f"{flag}: needs a value; write {flag} {option.example}")
    return given


def _unknown(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, [*known, *_ABOUT], n=1)
    hint = f"did you mean {near[0]}?" if near else "see sidecar-control --help"
    return f"{word if word.isprintable() else repr(word)}: is not a flag; {hint}"


def help_text() -> str:
    """What ``--help`` prints."""
    parts = [_HEAD]
    for group in dict.fromkeys(option.group for option in OPTIONS):
        parts.append(f"\n{group}:\n")
        parts.extend(_entry(f"{o.flag} {o.metavar}", _help(o)) for o in OPTIONS if o.group == group)
    parts.append("\nAbout:\n")
    parts.append(_entry("--version", "print the version and end"))
    parts.append(_entry("--help, -h", "print this and end"))
    return "".join(parts) + _FOOT


def _help(option: Option) -> str:
    return f"{option.help} (default: {option.default}; {option.twin})"


def _entry(left: str, right: str) -> str:
    """Two columns, the right one broken between words."""
    head = f"  {left}"
    gap = " " * (_COLUMN - len(head)) if len(head) < _COLUMN - 1 else "\n" + " " * _COLUMN
    lines = textwrap.wrap(right, _WIDTH - _COLUMN, break_long_words=False, break_on_hyphens=False)
    return head + gap + ("\n" + " " * _COLUMN).join(lines) + "\n"
