"""Which records somebody wants to see: the parameters of ``/requests`` and ``/tap``, as a test of a record.

Pure. Paths are compared in the form in which they are shown, so that nobody finds out a hidden value by asking for
longer and longer beginnings of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from sidecar.errors import Reason
from sidecar.telemetry import redact
from sidecar.telemetry.history import KEPT
from sidecar.telemetry.record import Record

Wanted = Callable[[Record], bool]

NAMES = ("status", "flag", "path", "source", "reason", "direction", "limit")
_STATUS = re.compile(r"[1-5](?:[0-9]{2}|xx)|0", re.ASCII)
_FLAGS = {reason.flag for reason in Reason} | {"-"}
_REASONS = {reason.word for reason in Reason}
_LONGEST = 512  # characters of a value; a path prefix above all


def wanted(parameters: Mapping[str, str]) -> Wanted:
    """The test that all parameters together make. Raises ValueError with a sentence that repeats nothing of them."""
    tests: list[Wanted] = []
    for name, value in parameters.items():
        if len(value) > _LONGEST:
            raise ValueError(f"a value has at most {_LONGEST} characters")
        make = _TESTS.get(name)
        if make is not None:
            tests.append(make(value))
        elif name not in ("limit", "format"):
            raise ValueError(f"there is no such parameter; there are {', '.join(NAMES)}")
    return lambda record: all(test(record) for test in tests)


def limit(parameters: Mapping[str, str], default: int) -> int:
    """How many are wanted. Raises ValueError."""
    text = parameters.get("limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= KEPT):
        raise ValueError(f"limit= is a number from 1 to {KEPT}")
    return int(text)


def _status(value: str) -> Wanted:
    if not _STATUS.fullmatch(value):
        raise ValueError("status= is a status, as 503, or a class, as 5xx; 0 is no status at all")
    if value.endswith("xx"):
        hundred = int(value[0])
        return lambda record: record.status // 100 == hundred
    status = int(value)
    return lambda record: record.status == status


def _flag(value: str) -> Wanted:
    if value not in _FLAGS:
        raise ValueError(f"flag= is one of {', '.join(sorted(_FLAGS))}")
    return lambda record: value in record.flags.split(",")


def _reason(value: str) -> Wanted:
    if value not in _REASONS:
        raise ValueError(f"reason= is one of {', '.join(sorted(_REASONS))}")
    return lambda record: record.reason is not None and record.reason.word == value


def _direction(value: str) -> Wanted:
    if value not in ("inbound", "outbound"):
        raise ValueError("direction= is inbound or outbound")
    return lambda record: record.direction == value


def _path(value: str) -> Wanted:
    prefix = value.encode("utf-8", "surrogateescape")
    return lambda record: redact.target(record.path).startswith(prefix)


def _source(value: str) -> Wanted:
    prefix = value.removeprefix("[")
    return lambda record: record.client.removeprefix("[").startswith(prefix)


_TESTS: dict[str, Callable[[str], Wanted]] = {
    "status": _status,
    "flag": _flag,
    "path": _path,
    "source": _source,
    "reason": _reason,
    "direction": _direction,
}
