"""Which proxies have said that they hold a bundle. Pure.

Who calls it: ``control.certificate_authority``, while a new root waits to be used. A proxy says so by asking for what
is newer than the version that it holds. Everyone whose certificate is good is waited for, by identity; and every
replica that was heard of lately, by its certificate, as two of one identity may hold different versions. A replica
whose certificate was taken back or has ended is not waited for: it has no identity until it has another, which comes
with the bundle of then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from control.version import Version

LATELY: Final = 90.0  # s: a long poll takes up to 60, and a proxy comes back at once


@dataclass(frozen=True, slots=True)
class _Held:
    identity: str
    version: Version
    heard: float
    by_certificate: bool


class BundleAcks:
    """See the module. Bounded by the callers that were heard of within LATELY, and by what was renewed within twice
    that."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._successors: dict[str, tuple[str, float]] = {}  # a certificate -> the one after it, and since when

    def note(self, key: str, identity: str, version: Version, now: float, *, by_certificate: bool = True) -> None:
        """``key`` (a replica, or by a token all that have it) of ``identity`` holds ``version``."""
        while key in self._successors:  # it asked before its other certificate had come
            key = self._successors[key][0]
        held = self._held.get(key)
        self._held[key] = _Held(identity, max(version, held.version) if held else version, now, by_certificate)

    def renewed(self, key: str, by: str, now: float) -> None:
        """The replica that was known by ``key`` is known by ``by`` from now on: it has another certificate. Else its
        former self would be waited for, which nobody hears of again."""
        if key:
            self._successors[key] = by, now
        held = self._held.pop(key, None)
        if held is not None:
            self._held[by] = held

    def missing(
        self, version: Version, identities: Iterable[str], now: float, ended: Callable[[str], bool] = lambda _: False
    ) -> list[str]:
        """The identities that have not said that they hold ``version`` or newer; empty: all have. ``ended``: whether
        the certificate that a replica is known by is no longer good."""
        shown: dict[str, float] = {}  # when an identity was last heard of by a certificate
        for held in self._held.values():
            if held.by_certificate:
                shown[held.identity] = max(held.heard, shown.get(held.identity, 0.0))
        behind = {
            held.identity
            for key, held in self._held.items()
            if held.version < version and self._recent(held, now) and not _gone(key, held, shown, ended)
        }
        have = {held.identity for held in self._held.values() if held.version >= version}
        return sorted(behind | (set(identities) - have))

    def forget(self, now: float) -> None:
        """Drops those that were not heard of lately."""
        self._held = {key: held for key, held in self._held.items() if self._recent(held, now)}
        self._successors = {key: one for key, one in self._successors.items() if now - one[1] < 2 * LATELY}

    def _recent(self, held: _Held, now: float) -> bool:
        return now - held.heard < LATELY


def _gone(key: str, held: _Held, shown: dict[str, float], ended: Callable[[str], bool]) -> bool:
    """Whether nobody will be heard of under this key again. Who asked by a token, and has a certificate now, asks by
    that; and who has none yet gets it with the bundle of then."""
    return ended(key) if held.by_certificate else shown.get(held.identity, -1.0) >= held.heard
