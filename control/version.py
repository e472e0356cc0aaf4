"""Versions of what is handed out: pairs (epoch, n). Pure.

Who uses them: the store makes them, the API compares and prints them. ``n`` only rises within an epoch; an epoch
belongs to one store from its making to its end, so a store that is new has a new one. Of two epochs the later one is
larger: they are the millisecond in which the store was made.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TEXT = re.compile(r"([0-9]{1,15})\.([0-9]{1,15})", re.ASCII)


class Version(NamedTuple):
    """As text ``EPOCH.N``."""

    epoch: int
    n: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.n}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """The inverse of ``str``; ValueError for anything else."""
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError("a version is written EPOCH.N, as it was given")
        return cls(int(found[1]), int(found[2]))

    @property
    def number(self) -> int:
        """One number that rises over epochs as well: what a revocation list is numbered with."""
        return (self.epoch << 50) | self.n
