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
    """See the module. Bounded by the callers that were heard of within LATELY."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}

    def note(self, key: str, identity: str, version: Version, now: float) -> None:
        """``key`` (a replica) of ``identity`` holds ``version``."""
        self._held[key] = _Held(identity, version, now)

    def renewed(self, key: str, by: str) -> None:
        """The replica that was known by ``key`` is known by ``by`` from now on: it has another certificate. Else its
        former self would be waited for, which nobody hears of again."""
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

    def _recent(self, held: _Held, now: float) -> bool:
        return now - held.heard < LATELY
