"""How often the API server of Kubernetes is asked about tokens that may be bad: bounded, and in a fair order.

Who calls it: ``control.kubernetes_tokens``, before and after each TokenReview. Anyone who reaches the port can send
tokens, and each costs the API server a call. Callers can't be told apart before that call: pods with ``hostNetwork``,
and those behind one translated address, share their address with neighbours whose tokens are bad. So:

- A token that was refused is remembered by its hash for a while, and refused again without a call. This covers the
  common case, one pod that tries the same bad token for ever.
- Reviews of one address, and of all together, have a budget. A good token gives back what it took, so any number of
  good ones pass, and only bad ones use the budget up.
- A share of the budget is for addresses that have used nothing of their own, so that some addresses which send bad
  tokens all the time do not keep out the rest.
- A review that finds no budget waits a moment. The newest goes first, and takes the place of the oldest where too many
  wait: after a burst of bad tokens a good one is next, and the burst holds no room that others need.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import Final

import trio

from control.problems import Refused
from control.rate_limits import Buckets, Rate

OF_AN_ADDRESS: Final = Rate(20.0, 50)  # bad tokens that are reviewed
OF_ALL: Final = Rate(70.0, 140)
RESERVED: Final = Rate(30.0, 60)  # for addresses that have sent no bad token for a while
WAITING: Final = 64  # reviews that wait for budget: a quarter of the calls at work
WAITING_OF_AN_ADDRESS: Final = 16
WAIT_SECONDS: Final = 4.0
POLL_SECONDS: Final = 0.05
REMEMBERED: Final = 10_000  # refused tokens; about 2 MB
REMEMBERED_SECONDS: Final = 10.0  # a token that becomes good later, as its pod's does, waits no longer than this
_ALL: Final = ""


class Reviews:
    """The bounds. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._addresses = Buckets(OF_AN_ADDRESS)
        self._all = Buckets(OF_ALL)
        self._reserved = Buckets(RESERVED)
        self._refused: OrderedDict[bytes, tuple[float, str]] = OrderedDict()  # hash -> (until when, why)
        self._lines: dict[str, list[int]] = {}  # address -> the reviews that wait, oldest first
        self._numbers = count()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._lines.values()))

    def known_bad(self, token: str) -> str:
        """Why this token was refused a moment ago; empty where it was not."""
        until, why = self._refused.get(_hash(token), (0.0, ""))
        return why if until > self._clock() else ""

    def was_bad(self, token: str, why: str) -> None:
        """Remember that it was refused, for a while."""
        key = _hash(token)
        self._refused[key] = self._clock() + REMEMBERED_SECONDS, why
        self._refused.move_to_end(key)
        if len(self._refused) > REMEMBERED:
            self._refused.popitem(last=False)

    def was_good(self, address: str, taken: Buckets) -> None:
        """Give back what ``enter`` took for ``address``, out of what it returned."""
        self._addresses.give_back(address, self._clock())
        taken.give_back(_ALL, self._clock())

    async def enter(self, address: str) -> Buckets:
        """Take budget for one review for a caller from ``address``, once there is some; return what it was taken from
        beside the budget of the address. Raises Refused (429) when there is none in time, or when newer ones took its
        place."""
        if address not in self._lines and (taken := self._take(address)):
            return taken
        number = self._join(address)
        try:
            with trio.move_on_after(WAIT_SECONDS):
                while number in (line := self._lines.get(address, [])):
                    if line[-1] == number and (taken := self._take(address)):
                        return taken
                    await trio.sleep(POLL_SECONDS)
        finally:
            self._leave(address, number)
        raise Refused(429, "too many tokens from its address are being reviewed", 1.0)

    def _take(self, address: str) -> Buckets | None:
        now = self._clock()
        of_all = self._all
        if of_all.empty(_ALL, now) and self._addresses.untouched(address, now):
            of_all = self._reserved
        if of_all.empty(_ALL, now) or self._addresses.take(address, now):
            return None
        of_all.take(_ALL, now)
        return of_all

    def _join(self, address: str) -> int:
        """A place in line. The oldest may go for it: of this address, or of the one with the longest line."""
        line = self._lines.setdefault(address, [])
        if len(line) >= WAITING_OF_AN_ADDRESS:
            line.pop(0)
        elif self.waiting >= WAITING:
            max(self._lines.values(), key=len).pop(0)
        number = next(self._numbers)
        line.append(number)
        return number

    def _leave(self, address: str, number: int) -> None:
        line = self._lines.get(address, [])
        if number in line:
            line.remove(number)
        if not line:
            self._lines.pop(address, None)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
