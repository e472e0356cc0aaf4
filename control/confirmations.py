"""Which proxies have said that they hold a bundle. Pure.

Who calls it: ``control.authority``, while a new root waits to be used. A proxy says so by asking for what is newer than
the version that it holds. Everyone whose certificate is good is waited for, by identity; and every replica that was
heard of lately, by its certificate, as two of one identity may hold different versions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from control.version import Version

LATELY: Final = 90.0  # s: a long poll takes up to 60, and a proxy comes back at once


@dataclass(frozen=True, slots=True)
class _Held:
    identity: str
    version: Version
    heard: float


class Confirmations:
    """See the module. Bounded by the callers that were heard of within LATELY, and by what was renewed within twice
    that."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._successors: dict[str, tuple[str, float]] = {}  # a certificate -> the one after it, and since when

    def note(self, key: str, identity: str, version: Version, now: float) -> None:
        """``key`` (a replica) of ``identity`` holds ``version``."""
        while key in self._successors:  # it asked before its other certificate had come
            key = self._successors[key][0]
        held = self._held.get(key)
        self._held[key] = _Held(identity, max(version, held.version) if held else version, now)

    def renewed(self, key: str, by: str, now: float) -> None:
        """The replica that was known by ``key`` is known by ``by`` from now on: it has another certificate. Else its
        former self would be waited for, which nobody hears of again."""
        if key:
            self._successors[key] = by, now
        held = self._held.pop(key, None)
        if held is not None:
            self._held[by] = held

    def missing(self, version: Version, identities: Iterable[str], now: float) -> list[str]:
        """The identities that have not said that they hold ``version`` or newer; empty: all have."""
        behind = {held.identity for held in self._held.values() if held.version < version and self._recent(held, now)}
        have = {held.identity for held in self._held.values() if held.version >= version}
        return sorted(behind | (set(identities) - have))

    def forget(self, now: float) -> None:
        """Drops those that were not heard of lately."""
        self._held = {key: held for key, held in self._held.items() if self._recent(held, now)}
        self._successors = {key: one for key, one in self._successors.items() if now - one[1] < 2 * LATELY}

    def _recent(self, held: _Held, now: float) -> bool:
        return now - held.heard < LATELY
