"""Who could not be reached a moment ago is asked last. Pure: the time is handed in.

Called by ``mesh`` and ``entry``, for a port with several endpoints. One that is gone, and that nobody has told us of
yet, costs the first caller a second; the others go past it for a while. It is no judgement on an endpoint that answers.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Final, Generic, TypeVar

AVOIDED_SECONDS: Final = 10.0
MOST: Final = 256  # that are remembered of a port

E = TypeVar("E", bound=Hashable)


class Failures(Generic[E]):
    """Of one port."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[E, float] = {}

    def note(self, endpoint: E, now: float) -> None:
        """It could not be reached just now."""
        if len(self._until) >= MOST:
            self._until = {each: until for each, until in self._until.items() if until > now}
        if len(self._until) < MOST:
            self._until[endpoint] = now + AVOIDED_SECONDS

    def in_turn(self, endpoints: Sequence[E], turn: int, now: float) -> Iterator[E]:
        """All of them, from number ``turn`` on and around, those that failed a moment ago after all others."""
        count, avoided = len(endpoints), []
        for number in range(count):
            endpoint = endpoints[(turn + number) % count]
            if self._until and self._until.get(endpoint, 0.0) > now:
                avoided.append(endpoint)
            else:
                yield endpoint
        yield from avoided
