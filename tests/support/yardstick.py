"""How slow this machine is, for bounds on CPU that were set on another."""

from __future__ import annotations

from time import thread_time

REFERENCE = 0.0045  # s for the job below where the bounds were set, by CPython 3.11


def slowness() -> float:
    """How many times longer this machine takes than the one that bounds were set on; 1 where it is no slower."""
    return max(1.0, min(_job() for _ in range(5)) / REFERENCE)


def _job() -> float:
    began = thread_time()
    table: dict[int, tuple[int, str]] = {}
    for number in range(30_000):
        table[number] = (number, str(number))
    return thread_time() - began
