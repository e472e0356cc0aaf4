"""Counts of requests by key: token buckets, sliding windows, and shares of a total. Pure: the time is an argument.

Used by ``policy.ratelimit``, through ``Buckets``. Several processes can share these counts once another class
implements that interface.

A token bucket is one number, the time at which it will be full again (the "theoretical arrival time" of the generic
cell rate algorithm, ITU-T I.371): each request moves it on by ``interval``, and a request that would move it beyond
``now + burst * interval`` has to wait. A sliding window is two counters: those of the current period and of the one
before, which is weighted by the part of it that the last ``per`` seconds still cover. The sum is rounded, so that a
source which always asks for more gets exactly its rate.

A table keeps only buckets that are not full, ``most`` of them at a time. A key that finds no room shares one bucket,
OTHERS, with all such keys. Only full buckets make room, which are as good as new ones: so no key ever gets a fresh
bucket because another one was dropped, and a flood of keys limits only its own newcomers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Final, Generic, Protocol, TypeVar

Key = Hashable
OTHERS: Final[Key] = ("other keys",)
ALL: Final[Key] = ()
ROOM_STEPS: Final = 8  # buckets looked at for each newcomer to a full table
SWEEP_STEPS: Final = 4000  # and at each tick of the sweeper, of all limits together: some 0.5 ms
_EXACT: Final = 1e-9  # seconds, which floating-point numbers may be off

S = TypeVar("S")


class Buckets(Protocol):
    """The counts of one rate, by key. Times are seconds on one monotonic clock."""

    @property
    def size(self) -> int:
        """The number of requests that a full bucket admits at once."""
        ...

    def slot(self, key: Key, now: float) -> Key:
        """Return the key under which requests of ``key`` are counted: itself, or OTHERS if there is no room."""
        ...

    def wait(self, key: Key, now: float) -> float:
        """Return the seconds until one more request is within the rate; 0.0: it is now. ``key`` is a slot."""
        ...

    def take(self, key: Key, now: float) -> None:
        """Count a request."""
        ...

    def left(self, key: Key, now: float) -> float:
        """Return how many requests are left."""
        ...

    def full_in(self, key: Key, now: float) -> float:
        """Return the seconds until all are left again."""
        ...

    def __len__(self) -> int: ...

    def sweep(self, now: float, steps: int) -> int:
        """Look at so many of the buckets at most, in turn, and forget those that are full. Return how many were looked
        at."""
        ...


class _Table(ABC, Generic[S]):
    """The states of buckets by key, bounded; see the module."""

    __slots__ = ("_hand", "_most", "_states")

    def __init__(self, most: int) -> None:
        self._most = most
        self._states: dict[Key, S] = {}
        self._hand: list[Key] = []  # keys that are still to be looked at in this round

    def __len__(self) -> int:
        return len(self._states)

    def slot(self, key: Key, now: float) -> Key:
        """See ``Buckets``."""
        states = self._states
        if key in states or len(states) < self._most:
            return key
        self.sweep(now, ROOM_STEPS)
        return key if len(states) < self._most else OTHERS

    def sweep(self, now: float, steps: int) -> int:
        """See ``Buckets``."""
        states = self._states
        if not self._hand:
            self._hand = list(reversed(states))  # the oldest at its end: it is full most likely
        hand = self._hand
        looked = min(steps, len(hand))
        for _ in range(looked):
            key = hand.pop()
            state = states.get(key)
            if state is not None and self._is_full(state, now):
                del states[key]
        return looked

    @abstractmethod
    def _is_full(self, state: S, now: float) -> bool:
        """Return whether a bucket in this state is as good as a new one."""


class TokenBuckets(_Table[float]):
    """Buckets of ``burst`` tokens, filled with ``requests`` in each ``per`` seconds."""

    __slots__ = ("_interval", "_slack", "size")

    def __init__(self, requests: int, per: float, burst: int, most: int) -> None:
        super().__init__(most)
        self.size = burst
        self._interval = per / requests
        self._slack = (burst - 1) * self._interval

    def wait(self, key: Key, now: float) -> float:
        """See ``Buckets``."""
        full_at = self._states.get(key)
        if full_at is None:
            return 0.0
        wait = full_at - self._slack - now
        return wait if wait > _EXACT else 0.0

    def take(self, key: Key, now: float) -> None:
        """See ``Buckets``."""
        full_at = self._states.get(key, now)
        self._states[key] = (full_at if full_at > now else now) + self._interval

    def left(self, key: Key, now: float) -> float:
        """See ``Buckets``."""
        return max(0.0, self.size - self.full_in(key, now) / self._interval)

    def full_in(self, key: Key, now: float) -> float:
        """See ``Buckets``."""
        return max(0.0, self._states.get(key, now) - now)

    def _is_full(self, state: float, now: float) -> bool:
        return state <= now


Window = tuple[int, int, int]
"""The number of a period since the clock's zero, the requests in it, and those in the period before."""


class SlidingWindows(_Table[Window]):
    """Windows of ``per`` seconds, with ``requests`` in each."""

    __slots__ = ("_per", "size")

    def __init__(self, requests: int, per: float, most: int) -> None:
        super().__init__(most)
        self.size = requests
        self._per = per

    def _read(self, key: Key, now: float) -> tuple[float, int, int]:
        """Return how far the current period has gone (0 to 1), the requests in it, and those in the one before."""
        position = now / self._per
        number = math.floor(position)
        known = self._states.get(key)
        if known is None or known[0] < number - 1:
            return position - number, 0, 0
        if known[0] == number:
            return position - number, known[1], known[2]
        return position - number, 0, known[1]

    def wait(self, key: Key, now: float) -> float:
        """See ``Buckets``."""
        gone, current, before = self._read(key, now)
        most = self.size - 0.5  # requests that may be in the window already
        if before * (1.0 - gone) + current <= most + _EXACT:
            return 0.0
        if current <= most:  # then enough of the period before has to leave the window
            return (1.0 - (most - current) / before - gone) * self._per
        return (2.0 - most / current - gone) * self._per  # likewise, once the current period is the one before

    def take(self, key: Key, now: float) -> None:
        """See ``Buckets``."""
        _, current, before = self._read(key, now)
        self._states[key] = math.floor(now / self._per), current + 1, before

    def left(self, key: Key, now: float) -> float:
        """See ``Buckets``."""
        gone, current, before = self._read(key, now)
        return max(0.0, self.size - current - before * (1.0 - gone))

    def full_in(self, key: Key, now: float) -> float:
        """See ``Buckets``."""
        gone, current, before = self._read(key, now)
        return (2.0 - gone if current else 1.0 - gone if before else 0.0) * self._per

    def _is_full(self, state: Window, now: float) -> bool:
        return state[0] < math.floor(now / self._per) - 1


class Shares(_Table[float]):
    """Equal shares of a total of ``requests`` in ``per`` seconds, whose bucket holds ``burst``.

    A key is active while it has used a part of its share. Of ``n`` active keys, each has the rate of the total divided
    by ``n``, and a burst of half of the total's divided by ``n``. The other half of the total's bucket is for requests
    beyond a share. They are admitted only while that half is not used up, and so they never take what keys within their
    shares can claim.
    """

    __slots__ = ("_interval", "_slack", "reserve")

    def __init__(self, requests: int, per: float, burst: int, most: int) -> None:
        super().__init__(most)
        self._interval = per / requests
        self.reserve = burst / 2  # of the total's tokens, for keys within their shares
        self._slack = self.reserve * self._interval

    def _own_interval(self, key: Key) -> float:
        return self._interval * (len(self._states) + (key not in self._states))

    def within(self, key: Key, now: float) -> bool:
        """Return whether one more request of ``key`` is within its share."""
        full_at = self._states.get(key)
        if full_at is None or full_at <= now:
            return True
        interval = self._own_interval(key)
        return full_at + interval - now <= max(self._slack, interval) + _EXACT

    def take(self, key: Key, now: float) -> None:
        """Count a request that is within the share."""
        interval = self._own_interval(key)
        self._states[key] = max(self._states.get(key, now), now) + interval

    def _is_full(self, state: float, now: float) -> bool:
        return state <= now
