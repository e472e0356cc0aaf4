"""How much one caller may ask for. Pure: the time is an argument.

Who calls it: ``control.middleware``, before anything that costs. Token buckets by key, in a table that forgets the one
that was quiet longest; a key that is forgotten starts full, so a table of this size can't be used to be limited less by
whoever has one identity, and whoever has many is bounded by what each of them may do.

**A caller is counted twice**: by its key, which tells the replicas of one identity apart where their certificates do,
and by its name, which they share. Hundreds of replicas that send heartbeats are no crowd then, and whoever holds one
identity still can't take everything by getting certificate after certificate for it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Final

BODY_BYTES: Final = 64 * 1024  # a request for a certificate has 1 KiB; documents want more, and their calls say so
BODY_SECONDS: Final = 10.0  # from the head to the end of the body
DOCUMENT_BODY_BYTES: Final = 256 * 1024  # a document has 64 KiB as JSON, and more as people write it
APPLY_BODY_BYTES: Final = 8 << 20  # as a file for ``--config``; a thousand services as people write them have 1 MiB
ENDPOINT_BODY_BYTES: Final = 32 * 1024  # a registration with as many labels as it may have, of the longest names
SLOWEST: Final = 256 * 1024  # bytes a second that are waited for on top of that, where a call takes long bodies
REQUESTS: Final = 256  # at work at once; each costs a task and, at most, a body
LONG_BODY_BYTES: Final = 1 << 20  # a body that may be longer than this is a long one
LONG: Final = 4  # of these at once; others wait. Each may hold some hundred MB while it is read as YAML
OF_ONE_CALLER: Final = 32  # at work at once: an operator's script in parallel, and an eighth of the room
OF_ONE_NAME: Final = 128  # replicas of one identity together: half of the room
CROWD: Final = 64  # registrations and heartbeats at work at once: what one write to the disk takes along
LINE: Final = 4096  # of these that stand in line; there are no more connections
LINE_SECONDS: Final = 20.0  # by then two thousand that came at once have had their turn, on a slow machine too
KEYS: Final = 10_000  # callers remembered by a table: about 2 MB


@dataclass(frozen=True, slots=True)
class Rate:
    """So many per second in the long run, and so many at once."""

    per_second: float
    burst: int


# A workload renews at half-life, and its replicas share its name: a deployment of 100 may restart at once.
CERTIFICATES: Final = Rate(10.0, 100)
# All calls of one caller. A proxy has three long polls open, comes back after each change, and sends heartbeats.
CALLS: Final = Rate(50.0, 200)
# All calls under one name: a thousand replicas that each send a heartbeat every 5 s, and all of which may come at once
# with a few calls each when something has changed.
NAMES: Final = Rate(500.0, 5000)
# Refusals of one address that are written down: beyond that the audit log only counts them. It keeps out no caller that
# is good, since callers that share an address can't be told apart by it.
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

    def give_back(self, key: str, now: float) -> None:
        """Returns one token that was taken."""
        if key in self._levels:
            self._levels[key] = (min(float(self._rate.burst), self._tokens(key, now) + 1.0), now)

    def untouched(self, key: str, now: float) -> bool:
        """Whether nothing was taken that has not come back."""
        return self._tokens(key, now) >= self._rate.burst

    def empty(self, key: str, now: float) -> bool:
        """Whether ``take`` would refuse."""
        return self._tokens(key, now) < 1.0

    def _tokens(self, key: str, now: float) -> float:
        tokens, then = self._levels.get(key, (float(self._rate.burst), now))
        return min(float(self._rate.burst), tokens + max(0.0, now - then) * self._rate.per_second)


class Room:
    """Who is at work: so many in all, so many of one caller, and so many under one name."""

    def __init__(self) -> None:
        self.at_work = 0
        self._keys: Counter[str] = Counter()
        self._names: Counter[str] = Counter()

    def full(self) -> bool:
        """Whether there is none for anybody."""
        return self.at_work >= REQUESTS

    def enter(self, key: str, name: str) -> bool:
        """Takes a place for this caller, or says that it has enough; ``leave`` gives it back."""
        if self._keys[key] >= OF_ONE_CALLER or self._names[name] >= OF_ONE_NAME:
            self._forget(key, name)
            return False
        self._keys[key] += 1
        self._names[name] += 1
        return True

    def leave(self, key: str, name: str) -> None:
        """See ``enter``."""
        self._keys[key] -= 1
        self._names[name] -= 1
        self._forget(key, name)

    def _forget(self, key: str, name: str) -> None:
        for table, one in ((self._keys, key), (self._names, name)):
            if not table[one]:
                del table[one]


def body_seconds(most: int) -> float:
    """How long a body of at most so many bytes is waited for."""
    return BODY_SECONDS if most <= BODY_BYTES else BODY_SECONDS + most / SLOWEST
