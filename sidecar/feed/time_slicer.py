"""Work that would hold the loop for long, done in slices between which all others have their turn; each is measured.

Who calls it: ``feed.snapshot_feed``. The work is a generator that yields wherever it may be interrupted. Between two
slices whoever serves requests has the loop for nineteen times as long as the slice took. A busy proxy whose loop is
taken for a fifth of the time answers a fifth later, one request in a hundred at least; so it is a twentieth, and ten
thousand endpoints take a second. Where nobody is served yet, there is no such rest. Times are of this thread's CPU:
what a machine does beside does not count.

The collector would look at what the work has made in one go, after tens of thousands of objects, which takes longer
than all that is here; so it is asked to after each thousand, as a part of the slice. Most of what it sees are tuples of
texts and numbers, which it then forgets for good. If much else was made (rules of routes have functions and lists), it
is told to forget that as well when the work is done: it would look at all of it in one go the next time. What goes
later goes by its last reference; no request or connection leaves a cycle behind that would be kept for it.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from time import thread_time
from typing import Final, TypeVar

import trio

SLICE: Final = 0.0005  # s; it ends with the first step after that
REST: Final = 19  # times as long as the slice: a twentieth of the loop's time
YOUNG: Final = 1000  # objects
MUCH: Final = 20_000  # objects, which the collector looks at in some milliseconds

T = TypeVar("T")


class TimeSlicer:
    """Of all work: how many, the longest and the sum, in seconds of CPU; ``last`` is the sum of the work of now, and
    ``applied`` that of the last one that was taken."""

    def __init__(self) -> None:
        self.count = 0
        self.longest = 0.0
        self.total = 0.0
        self.last = 0.0
        self.applied = 0.0
        self.made = 0  # objects that the collector knows, by the work of now

    def begin(self) -> None:
        """Another work begins."""
        self.last = 0.0
        self.made = 0

    def settle(self) -> None:
        """The work is done, and what it has made stays."""
        if self.made >= MUCH:
            gc.freeze()

    def note(self, seconds: float) -> None:
        """One slice."""
        self.count += 1
        self.longest = max(self.longest, seconds)
        self.total += seconds
        self.last += seconds

    def forget_longest(self) -> None:
        """The longest is one of those to come."""
        self.longest = 0.0


async def drive(work: Generator[None, None, T], slices: TimeSlicer, *, gently: bool) -> T:
    """What the work returns. Cancelling it leaves the work undone."""
    while True:
        began = thread_time()
        try:
            while thread_time() - began < SLICE:
                next(work)
        except StopIteration as done:
            slices.note(thread_time() - began)
            result: T = done.value
            return result
        made = gc.get_count()[0]
        if made > YOUNG:
            gc.collect(0)
            slices.made += made
        spent = thread_time() - began
        slices.note(spent)
        if gently:
            await trio.sleep(spent * REST)
        else:
            await trio.lowlevel.checkpoint()


def at_once(work: Generator[None, None, T]) -> T:
    """The same without interruption, before there is a loop."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: T = done.value
            return result
