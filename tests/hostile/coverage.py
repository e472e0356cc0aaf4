"""Which ids the tests cover: those of the data, and those that a test names with :func:`covers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tests.hostile.case import Case
from tests.hostile.cases import chk, hdr, lim, req_framing, req_head, req_target, traps, ups

ALL_CASES: list[Case] = [
    *req_framing.CASES,
    *req_head.CASES,
    *req_target.CASES,
    *chk.CASES,
    *hdr.CASES,
    *lim.CASES,
    *traps.CASES,
]
NAMED: dict[str, list[str]] = {}

F = TypeVar("F", bound=Callable[..., object])


def covers(*ids: str) -> Callable[[F], F]:
    """Mark a test as covering these ids."""

    def mark(test: F) -> F:
        for id in ids:
            NAMED.setdefault(id, []).append(f"{test.__module__}.{test.__qualname__}")
        return test

    return mark


def covered() -> set[str]:
    """Every id that has a case or a test, of the modules imported so far."""
    return {case.id for case in ALL_CASES} | {answer.id for answer in ups.ANSWERS} | set(NAMED)
