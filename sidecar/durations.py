"""Durations as people write them: ``10``, ``10s``, ``250ms``, ``5m``, ``1h``, ``1h30m``. Pure.

Used by ``value_parsers`` for flags and by ``resources`` for documents. Digits are ASCII digits: ``float`` would also
take "nan", "1_000" and the digits of other scripts.
"""

from __future__ import annotations

import re
from typing import Final

_NUMBER: Final = r"[0-9]{1,9}(?:\.[0-9]{1,6})?"
_DURATION: Final = re.compile(rf"{_NUMBER}|(?:{_NUMBER}(?:ms|[smh])){{1,8}}", re.ASCII)
_PART: Final = re.compile(rf"({_NUMBER})(ms|[smh])?", re.ASCII)
_SECONDS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str) -> float:
    """Return seconds; zero is a duration. Raises ValueError, with a clause that names the text."""
    if _DURATION.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a duration")
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def positive_duration(text: str) -> float:
    """Return seconds, above zero. Raises ValueError."""
    seconds = duration(text)
    if seconds <= 0:
        raise ValueError(f"{text!r} is not above zero")
    return seconds
