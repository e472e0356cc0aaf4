"""What the store keeps for watchers and takes into one commit is bounded; a commit that fails leaves nobody waiting."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from control.store import Change, Event, StoreFailed, TooOld
from control.store.group_commit import MOST_BYTES, MOST_WRITES, GroupCommit, Written
from control.store.watch_log import WatchLog


def event(version: int, size: int, kind: str = "k") -> tuple[Event, ...]:
    return (Event(kind, str(version), bytes(size), version),)


@pytest.mark.parametrize(("size", "kept"), [(10, 5), (25, 4), (60, 1), (1000, 1)])
def test_what_is_kept_is_bounded_by_count_and_by_bytes(size: int, kept: int) -> None:
    recent = WatchLog(7, most_events=5, most_bytes=100)
    for version in range(8, 28):
        recent.add(version, event(version, size))
        recent.next(version - min(kept, version - 7), {"k"})
        for older in range(7, version - kept):
            with pytest.raises(TooOld):
                recent.next(older, {"k"})
    with pytest.raises(TooOld):
        recent.next(6, {"another kind"})  # before it was opened nothing is known of any
    assert recent.next(7, {"another kind"}) == (27, ())


class Disk:
    """Commits at once, a list at a time, and remembers how many were in each; fails where it is told to."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.fails: BaseException | None = None
        self.version = 0
        self.told: list[int] = []
        self.commits = GroupCommit(self.commit, lambda written: self.told.append(written.version))

    async def commit(self, writes: Sequence[Sequence[Change]]) -> list[Written]:
        self.sizes.append(len(writes))
        await trio.lowlevel.checkpoint()
        if self.fails is not None:
            raise self.fails
        return [self.do(changes) for changes in writes]

    def do(self, changes: Sequence[Change]) -> Written:
        self.version += 1
        return Written(self.version, tuple(Event(one.kind, one.name, one.value, self.version) for one in changes))


@pytest.mark.parametrize(("size", "most"), [(1, MOST_WRITES), (MOST_BYTES // 4, 4)])
async def test_a_commit_takes_all_that_wait_up_to_a_bound(size: int, most: int) -> None:
    disk = Disk()
    value = bytes(size)
    async with trio.open_nursery() as nursery:
        for who in range(most * 2 + 2):
            nursery.start_soon(disk.commits.write, [Change("k", str(who), value)])
    assert sorted(disk.sizes) == [1, 1, most, most] or disk.sizes == [1, most, most, 1]
    assert disk.told == list(range(1, most * 2 + 3)), "in order"


async def test_what_a_commit_fails_of_is_told_to_all_of_it_and_to_nobody_else() -> None:
    disk = Disk()
    outcomes: list[str] = []

    async def write() -> None:
        try:
            await disk.commits.write([Change("k", "x", b"")])
            outcomes.append("done")
        except StoreFailed as error:
            outcomes.append(str(error))

    disk.fails = StoreFailed("full")
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(write)
    assert outcomes == ["full"] * 4 and disk.sizes == [1, 3] and disk.told == []
    disk.fails = None
    await write()
    assert outcomes[-1] == "done"


async def test_a_mistake_of_ours_reaches_who_committed_and_leaves_nobody_waiting() -> None:
    disk = Disk()
    disk.fails = ZeroDivisionError()
    raised: list[str] = []

    async def write() -> None:
        try:
            await disk.commits.write([Change("k", "x", b"")])
        except (StoreFailed, ZeroDivisionError) as error:
            raised.append(type(error).__name__)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(write)
    assert sorted(raised) == ["StoreFailed", "StoreFailed", "ZeroDivisionError", "ZeroDivisionError"]
