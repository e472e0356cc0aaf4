"""What happens again and again, said in the application log now and then: a line per kind and 10 s, with a count.

Who calls it: ``Telemetry``, for each refusal that was for want of room, and for numbers that should not rise. An
overload is when a log line per refusal would make things worse, and when no line at all leaves whoever is woken without
a clue.
"""

from __future__ import annotations

import logging
from typing import Final

EVERY: Final = 10.0  # seconds
_log = logging.getLogger(__name__)


class _Kind:
    __slots__ = ("count", "next", "sentence")

    def __init__(self) -> None:
        self.count = 0
        self.next = 0.0
        self.sentence = ""


class ThrottledLog:
    """The first of a kind is said at once; those that follow are counted, and said together when 10 s are over."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def note(self, kind: str, sentence: str, now: float, count: int = 1) -> None:
        """It happened, ``count`` times. ``kind`` is one of few words of ours; ``now`` is on the monotonic clock."""
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = _Kind()
        known.count += count
        known.sentence = sentence
        if now >= known.next:
            _say(kind, known, now)

    def tick(self, now: float) -> None:
        """Says what was only counted, where it is time."""
        for kind, known in self._kinds.items():
            if known.count and now >= known.next:
                _say(kind, known, now)


def _say(kind: str, known: _Kind, now: float) -> None:
    times = f" ({known.count} times)" if known.count > 1 else ""
    _log.warning("%s: %s%s", kind, known.sentence, times)
    known.count = 0
    known.next = now + EVERY
