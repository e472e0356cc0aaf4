"""``sidecar check-config [FLAG ...]``: what flags and environment amount to, or all that is wrong with them at once.

Nothing is bound or looked up, and nothing opened but the files of ``--mesh`` and ``--config``, judged as at a start.
Exit code 0 where a sidecar would start with this, as far as that can tell; else 2.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from sidecar import settings
from sidecar.flag_parser import split

_USAGE = "usage: sidecar check-config [FLAG ...]\n\nTakes the flags of sidecar itself; see sidecar --help.\n"
_log = logging.getLogger(__name__)


def run(words: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    given = split(words)
    if given.help and not given.problems:
        sys.stdout.write(_USAGE)
        return 0
    told, problems = settings.examine(given.flags, earlier=given.problems)
    notes: list[str] = []
    if told is not None:
        problems, notes = _files(told)
    if told is None or problems:
        for problem in problems:
            _log.error("%s", problem)
        return 2
    for sentence in settings.oddities(told):
        _log.warning("%s", sentence)
    for note in notes:
        _log.warning("%s", note)
    sys.stdout.write(_table([(each.flag, each.text, each.source) for each in settings.in_force(given.flags)]))
    return 0


def _files(told: settings.Settings) -> tuple[list[str], list[str]]:
    """What is wrong with the files of the mesh, and what is odd."""
    # Imported where they are used: most have no such file.
    if told.config:
        from sidecar.feed import config_files

        flag, loaded = "--config", config_files.check(told.config, told.me, told.trust_domain, told.alone)
    elif told.mesh:
        from sidecar.feed import mesh_file

        flag, loaded = "--mesh", mesh_file.check(told.mesh, told.me)
    else:
        return [], []
    return [f"{flag}: {each}" for each in loaded.problems], [f"{flag}: {each}" for each in loaded.notes]


def _table(rows: list[tuple[str, str, str]]) -> str:
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "".join(f"{flag:{first}}  {text:{second}}  {source}\n" for flag, text, source in rows)
