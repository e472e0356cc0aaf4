"""Writers at the same time: one wins, nobody else is hurt, and who is cancelled has done nothing."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
import trio

from control.store import Change, Conflict, Store


async def test_of_many_that_race_exactly_one_wins(store: Store) -> None:
    async def race(who: int, held: int, won: list[int]) -> None:
        with suppress(Conflict):
            await store.put("k", "x", str(who).encode(), if_version=held)
            won.append(who)

    held = 0
    for _ in range(10):
        won: list[int] = []
        async with trio.open_nursery() as nursery:
            for who in range(40):
                nursery.start_soon(race, who, held, won)
        entry = await store.get("k", "x")
        assert entry is not None and [entry.value] == [str(who).encode() for who in won]
        assert entry.version == held + 1, "who lost has used no version"
        held = entry.version


async def test_each_of_many_writers_gets_a_version_of_its_own_and_conflicts_alone(store: Store) -> None:
    await store.put("k", "taken", b"")
    versions: list[int] = []
    conflicts: list[int] = []

    async def write(who: int) -> None:
        for turn in range(10):
            try:
                wrong = (who + turn) % 5 == 0
                versions.append(await store.put("k", "taken" if wrong else f"{who}-{turn}", b"", if_version=0))
            except Conflict:
                conflicts.append(who)

    async with trio.open_nursery() as nursery:
        for who in range(50):
            nursery.start_soon(write, who)
    assert len(conflicts) == 100 and sorted(versions) == list(range(2, 402))
    assert len((await store.list("k")).entries) == 401


@pytest.mark.parametrize("seed", range(4))
async def test_counters_that_many_raise_lose_nothing(store: Store, seed: int) -> None:
    """Read, and write if nobody was faster: what is there at the end is the number of those that were told "done"."""
    chance = random.Random(seed)
    done = dict.fromkeys("abc", 0)

    async def raise_counters() -> None:
        for _ in range(5):
            names = chance.sample("abc", chance.randrange(1, 4))
            while True:
                held = {name: await store.get("k", name) for name in names}
                changes = [
                    Change("k", name, b"%d" % (int(one.value) + 1 if one else 1), one.version if one else 0)
                    for name, one in held.items()
                ]
                with suppress(Conflict):
                    await store.write(changes)
                    break
            for name in names:
                done[name] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(raise_counters)
    assert {entry.name: int(entry.value) for entry in (await store.list("k")).entries} == {
        k: v for k, v in done.items() if v
    }


@pytest.mark.parametrize("seed", range(4))
async def test_who_is_cancelled_has_done_nothing_and_who_returns_has_done_it(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    done: set[str] = set()

    async def write(who: int) -> None:
        with trio.CancelScope() as scope:
            for turn in range(6):
                if chance.random() < 0.3:
                    scope.cancel()
                name = f"{who}-{turn}"
                await store.write([Change("k", name, b""), Change("l", name, b"")])
                done.add(name)

    async def cancel_some(nursery: trio.Nursery) -> None:
        for _ in range(chance.randrange(5)):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for who in range(30):
            nursery.start_soon(write, who)
    async with trio.open_nursery() as nursery:
        for who in range(30, 60):
            nursery.start_soon(write, who)
        nursery.start_soon(cancel_some, nursery)
    for kind in "kl":
        assert {entry.name for entry in (await store.list(kind)).entries} == done
    assert await store.put("k", "after", b"") == len(done) + 1
