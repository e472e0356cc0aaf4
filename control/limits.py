"""How much one caller may ask for. Pure: the time is an argument.

Who calls it: ``control.gate``, before anything that costs. Token buckets by key, in a table that forgets the one that
was quiet longest; a key that is forgotten starts full, so a table of this size can't be used to be limited less by
whoever has one identity, and whoever has many is bounded by what each of them may do.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

BODY_BYTES: Final = 64 * 1024  # a request for a certificate has 1 KiB; documents will want more, by a call of their own
BODY_SECONDS: Final = 10.0  # from the head to the end of the body
REQUESTS: Final = 256  # at work at once; each costs a task and, at most, a body
KEYS: Final = 10_000  # callers remembered by a table: about 2 MB


@dataclass(frozen=True, slots=True)
class Rate:
    """So many per second in the long run, and so many at once."""

    per_second: float
    burst: int


# A workload renews at half-life, and its replicas share its name: a deployment of 100 may restart at once.
CERTIFICATES: Final = Rate(10.0, 100)
# All calls of one caller. A proxy has two long polls open, and comes back after each change.
CALLS: Final = Rate(50.0, 200)
# Refusals by one address: whoever guesses is slow, and the audit log is not filled by him.
REFUSALS: Final = Rate(5.0, 50)


class Buckets:
    """A token bucket per key."""

    def __init__(self, rate: Rate, keys: int = KEYS) -> None:
        self._rate = rate
        self._keys = keys
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (tokens, when that was so)

    def take(self, key: str, now: float) -> float:
        """Takes one token: 0.0, or, where there is none, the seconds until there is one; then nothing is taken."""
        tokens = self._tokens(key, now)
        if tokens < 1.0:
            return (1.0 - tokens) / self._rate.per_second
        self._levels[key] = (tokens - 1.0, now)
        self._levels.move_to_end(key)
        if len(self._levels) > self._keys:
            self._levels.popitem(last=False)
        return 0.0

    def empty(self, key: str, now: float) -> bool:
        """Whether ``take`` would refuse."""
        return self._tokens(key, now) < 1.0

    def _tokens(self, key: str, now: float) -> float:
        tokens, then = self._levels.get(key, (float(self._rate.burst), now))
        return min(float(self._rate.burst), tokens + max(0.0, now - then) * self._rate.per_second)
