"""Regular expressions in documents: RE2's, which takes time linear in the text, whatever the expression. Pure.

google-re2 is imported at the first call: a proxy whose documents have no regex never loads it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from sidecar.resources.validation import shown

LONGEST: Final = 1024  # characters; Istio's bound
LARGE: Final = 500  # instructions; beyond it RE2 may need 10 us for each byte of a text
_ESCAPE: Final = re.compile(r"\\(.?)", re.DOTALL)


@lru_cache(maxsize=4096)
def regex_problem(text: str) -> str:
    """Return why this is no regular expression of RE2; empty if it is one."""
    if not text:
        return "is empty; write a regular expression"
    if len(text) > LONGEST:
        return f"is longer than {LONGEST} characters"
    _, why = _compiled(text)
    return f"{shown(text)} does not compile: {why} (RE2 syntax)" if why else ""


@lru_cache(maxsize=4096)
def instructions(text: str) -> int:
    """Return of how many instructions RE2's program for an expression is, which compiles: linear time is a multiple
    of them. Repetitions are written out: ``.{900}`` has thousands."""
    import re2

    return int(re2.compile(text).programsize)


def replacement_problem(match: str, rewrite: str) -> str:
    """Return why ``rewrite`` can't replace what ``match``, which compiles, finds: a ``\\N`` without its group."""
    groups, _ = _compiled(match)
    for found in _ESCAPE.finditer(rewrite):
        escaped = found[1]
        if escaped != "\\" and not (escaped.isascii() and escaped.isdigit()):
            return f"{shown(rewrite)} has a \\ that is neither \\\\ nor followed by the number of a group"
        if escaped.isdigit() and int(escaped) > groups:
            return f"{shown(rewrite)} has \\{escaped}, and the expression has {groups} groups"
    return ""


def _compiled(text: str) -> tuple[int, str]:
    """How many groups an expression has, and why it does not compile."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options).groups, ""
    except re2.error as error:
        why = error.args[0]
        return 0, ascii(why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why))[1:-1]
