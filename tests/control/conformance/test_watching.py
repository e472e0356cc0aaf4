"""Watchers: nothing missed, nothing twice, and no memory without bound."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from control.store import Change, Conflict, Event, Store, TooOld


async def take(watcher, events: int) -> list[tuple[Event, ...]]:
    """Whole writes, until there were so many events."""
    found: list[tuple[Event, ...]] = []
    with trio.fail_after(30):
        while sum(map(len, found)) < events:
            found.append(await anext(watcher))
    return found


async def test_a_watcher_is_told_of_its_kinds_from_its_version_on(store: Store) -> None:
    await store.put("a", "before", b"")
    since = (await store.list("a")).version
    await store.put("a", "x", b"1")
    async with store.watch({"a", "b"}, since) as watcher:
        await store.put("c", "none of theirs", b"")
        await store.write(
            [Change("a", "x", None), Change("c", "y", b""), Change("b", "z", b"2"), Change("b", "no", None)]
        )
        await store.put("b", "z", b"2")
        assert await take(watcher, 4) == [
            (Event("a", "x", b"1", 2),),
            (Event("a", "x", None, 4), Event("b", "z", b"2", 4)),
            (Event("b", "z", b"2", 5),),
        ]
    async with store.watch({"a"}, 5) as watcher:
        await store.delete("a", "x")
        await store.put("a", "x", b"3", if_version=0)
        assert await take(watcher, 1) == [(Event("a", "x", b"3", 6),)], "what changed nothing is no event"


async def test_a_watcher_waits_and_the_write_wakes_it(store: Store) -> None:
    found: list[tuple[Event, ...]] = []

    async def watch(kinds: set[str]) -> None:
        async with store.watch(kinds, 0) as watcher:
            found.append(await anext(watcher))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(watch, {"a"})
            await wait_all_tasks_blocked()
            await store.put("b", "x", b"")
            await wait_all_tasks_blocked()
            assert found == []
            await store.put("a", "x", b"")
    assert found == [(Event("a", "x", b"", 2),)] * 3


async def test_a_wait_that_is_cancelled_loses_nothing(store: Store) -> None:
    async with store.watch({"a"}, 0) as watcher:
        for turn in range(5):
            with trio.move_on_after(0):
                await anext(watcher)
                raise AssertionError("there was nothing")
            await store.put("a", str(turn), b"")
            await store.put("a", str(turn), b"more")
            assert [event.name for write in await take(watcher, 2) for event in write] == [str(turn)] * 2


@dataclass
class Follower:
    """Lists one kind, at some moment, and then watches it until an entry is named "last"."""

    kind: str
    began: int = 0
    have: dict[str, bytes] = field(default_factory=dict)
    versions: list[int] = field(default_factory=list)

    async def follow(self, store: Store, checkpoints: int) -> None:
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        listing = await store.list(self.kind)
        self.began = listing.version
        self.have = {entry.name: entry.value for entry in listing.entries}
        async with store.watch({self.kind}, self.began) as watcher:
            while "last" not in self.have:
                self.take(await anext(watcher))

    def take(self, events: tuple[Event, ...]) -> None:
        assert {event.version for event in events} == {events[0].version} and {e.kind for e in events} == {self.kind}
        self.versions.append(events[0].version)
        for event in events:
            self.have.pop(event.name, None)
            if event.value is not None:
                self.have[event.name] = event.value


@pytest.mark.parametrize("seed", range(6))
async def test_watchers_miss_nothing_and_double_nothing(store: Store, seed: int) -> None:
    """What a watcher was told, on top of the list that it began with, is what is there; and the versions that it was
    told of are those of all writes to its kind since, once and in order."""
    chance = random.Random(seed)
    followers = [Follower(chance.choice("ab")) for _ in range(12)]
    kinds_of: dict[int, set[str]] = {}

    async def write() -> None:
        for _ in range(30):
            keys = {(chance.choice("ab"), str(chance.randrange(6))) for _ in range(chance.randrange(1, 4))}
            changes = [Change(*key, chance.randbytes(4)) for key in sorted(keys)]
            kinds_of[await store.write(changes)] = {key[0] for key in keys}
            kind, name = chance.choice("ab"), str(chance.randrange(6))
            held = await store.get(kind, name)
            if held is not None:
                with suppress(Conflict):
                    kinds_of[await store.write([Change(kind, name, None, held.version)])] = {kind}

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for one in followers:
                nursery.start_soon(one.follow, store, chance.randrange(300))
            async with trio.open_nursery() as writers:
                for _ in range(8):
                    writers.start_soon(write)
            last = await store.write([Change("a", "last", b""), Change("b", "last", b"")])
            kinds_of[last] = {"a", "b"}
    for one in followers:
        assert one.have == {entry.name: entry.value for entry in (await store.list(one.kind)).entries}
        wrote = [v for v in range(one.began + 1, last + 1) if one.kind in kinds_of[v]]
        assert one.versions == wrote


async def test_what_was_forgotten_is_too_old_and_what_was_not_is_not(store: Store) -> None:
    heard: list[Event] = []

    async def listen() -> None:
        async with store.watch({"quiet"}, 0) as quiet:
            while len(heard) < 2:
                heard.extend(await anext(quiet))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery, store.watch({"a"}, 0) as slow:
            nursery.start_soon(listen)
            await store.put("quiet", "x", b"")
            for turn in range(64):
                last = await store.write([Change("a", f"{turn}-{at}", b"") for at in range(1000)])
                await wait_all_tasks_blocked()
            with pytest.raises(TooOld):
                await anext(slow)
            await store.put("quiet", "y", b"")
    assert [event.name for event in heard] == ["x", "y"], "who was not slow misses nothing by the noise of others"
    with pytest.raises(TooOld):
        async with store.watch({"a"}, 0) as late:
            await anext(late)
    async with store.watch({"a"}, (await store.list("a")).version) as again:
        await store.put("a", "z", b"")
        assert await take(again, 1) == [(Event("a", "z", b"", last + 2),)]


async def test_a_version_that_never_was_is_not_waited_for(store: Store) -> None:
    await store.put("a", "x", b"")
    with pytest.raises(TooOld):
        async with store.watch({"a"}, 1000) as watcher:
            await anext(watcher)
