"""Many writers, one fsync.

Who calls it: the store in SQLite. A commit waits for the disk, which takes as long for a hundred writes as for one. So
whoever comes while a commit is under way queues, and the next commit takes all that wait. Each is judged by itself: one
that finds a conflict fails alone. What the disk refuses fails all of its commit, and the next commit tries anew.

**Who commits.** No task of its own: the first that waits does it for those behind it as well, and hands that on to the
first that is left when its own write is done. So nobody works for others for longer than one commit takes.

**Cancelling.** A write that is cancelled while it queues leaves the queue, and nothing has happened. Once a commit has
taken it the wait can't be cancelled: it ends with the outcome, and the caller is cancelled at its next checkpoint. So
whoever is told "cancelled" knows that nothing was changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import trio

from control.store import Change, Conflict, Event, StoreFailed

MOST_WRITES = 512  # in one commit, so that the first of them does not wait for thousands
MOST_BYTES = 8 * 1024 * 1024


class Written(NamedTuple):
    """What became of a write: the version of the store after it, and what it changed, which may be nothing."""

    version: int
    events: tuple[Event, ...]


Result = Written | Conflict
Commit = Callable[[Sequence[Sequence[Change]]], Awaitable[Sequence[Result]]]


@dataclass(eq=False, slots=True)
class _Waiting:
    changes: Sequence[Change]
    task: trio.lowlevel.Task = field(default_factory=trio.lowlevel.current_task)
    result: Result | StoreFailed | None = None


class GroupCommit:
    """The queue. ``commit`` writes all of a list or raises StoreFailed; ``tell`` is told of each write that is done, in
    order, before its writer is."""

    def __init__(self, commit: Commit, tell: Callable[[Written], None]) -> None:
        self._commit = commit
        self._tell = tell
        self._queue: dict[_Waiting, None] = {}  # in order
        self._busy = False
        self.under_way = 0  # writes in the commit that is under way: the disk may have them, nobody was told

    async def write(self, changes: Sequence[Change]) -> Written:
        """Does it, with others or alone. Raises Conflict and StoreFailed."""
        await trio.lowlevel.checkpoint_if_cancelled()
        mine = _Waiting(changes)
        self._queue[mine] = None
        if self._busy:
            await self._wait(mine)
        if mine.result is None:  # it is our turn to commit
            await self._commit_those_that_wait()
        if isinstance(mine.result, Written):
            return mine.result
        assert mine.result is not None
        raise mine.result

    async def _wait(self, mine: _Waiting) -> None:
        """Until there is a result, or it is our turn."""

        def leave(_: object) -> trio.lowlevel.Abort:
            if mine not in self._queue:
                return trio.lowlevel.Abort.FAILED  # a commit has it
            del self._queue[mine]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    async def _commit_those_that_wait(self) -> None:
        self._busy = True
        taken = self._take()
        me = trio.lowlevel.current_task()
        try:
            await self._do(taken)
        finally:
            for one in taken:
                if one.task is not me:
                    trio.lowlevel.reschedule(one.task)
            self.under_way = 0
            self._busy = bool(self._queue)
            if self._queue:
                trio.lowlevel.reschedule(next(iter(self._queue)).task)

    def _take(self) -> list[_Waiting]:
        """Those at the front, the first of which is the one that asks."""
        taken: list[_Waiting] = []
        size = 0
        while self._queue and len(taken) < MOST_WRITES and size < MOST_BYTES:
            first = next(iter(self._queue))
            del self._queue[first]
            taken.append(first)
            size += sum(len(change.value or b"") for change in first.changes)
        self.under_way = len(taken)
        return taken

    async def _do(self, taken: list[_Waiting]) -> None:
        """Gives each a result."""
        why = "it did not come to an end"
        try:
            with trio.CancelScope(shield=True):
                results = await self._commit([one.changes for one in taken])
        except StoreFailed as error:
            why = str(error)
        else:
            for one, result in zip(taken, results, strict=True):
                one.result = result
                if isinstance(result, Written) and result.events:
                    self._tell(result)
        finally:
            for one in taken:
                one.result = one.result or StoreFailed(why)
