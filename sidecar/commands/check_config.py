"""``sidecar check-config [FLAG ...]``: what flags and environment amount to, or all that is wrong with them at once.

Nothing is bound or looked up, and nothing opened but the file of ``--mesh``, which is judged as at a start. Exit code 0
where a sidecar would start with this, as far as that can tell; else 2.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from sidecar import settings
from sidecar.flags import split

_USAGE = "usage: sidecar check-config [FLAG ...]\n\nTakes the flags of sidecar itself; see sidecar --help.\n"
_log = logging.getLogger(__name__)


def run(words: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    given = split(words)
    if given.help and not given.problems:
        sys.stdout.write(_USAGE)
        return 0
    told, problems = settings.examine(given.flags, earlier=given.problems)
    notes: tuple[str, ...] = ()
    if told is not None and told.mesh:
        from sidecar.feed.mesh_file import check  # not before: most have no such file

        loaded = check(told.mesh, told.me)
        problems, notes = [f"--mesh: {each}" for each in loaded.problems], loaded.notes
    if told is None or problems:
        for problem in problems:
            _log.error("%s", problem)
        return 2
    for sentence in settings.oddities(told):
        _log.warning("%s", sentence)
    for note in notes:
        _log.warning("--mesh: %s", note)
    sys.stdout.write(_table([(each.flag, each.text, each.source) for each in settings.in_force(given.flags)]))
    return 0


def _table(rows: list[tuple[str, str, str]]) -> str:
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "".join(f"{flag:{first}}  {text:{second}}  {source}\n" for flag, text, source in rows)
