"""The store: versions that rise, writes that one of many wins, and what is on the disk when it says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from control.store import Conflict, Entry, StoreFailed
from control.store.sqlite import SqliteStore, open_store
from sidecar.errors import StartError


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteStore]:
    made = open_store("" if request.param == "memory" else str(tmp_path / "store.db"), 1000.5)
    yield made
    made.close()


async def test_what_was_put_is_there(store: SqliteStore) -> None:
    assert store.epoch == 1_000_500
    assert await store.get("a", "x") is None and (await store.list("a")).entries == ()
    first = await store.put("a", "x", b"1")
    second = await store.put("b", "x", b"2")
    third = await store.put("a", "x", b"3")
    assert first < second < third
    assert await store.get("a", "x") == Entry("x", b"3", third)
    assert await store.list("a") == (third, (Entry("x", b"3", third),))
    assert await store.list("b") == (third, (Entry("x", b"2", second),)), "the store's version, to watch from"


async def test_one_of_many_wins(store: SqliteStore) -> None:
    version = await store.put("a", "x", b"1", if_version=0)
    for wrong in (0, version - 1, version + 1):
        with pytest.raises(Conflict):
            await store.put("a", "x", b"2", if_version=wrong)
        with pytest.raises(Conflict):
            await store.delete("a", "x", if_version=wrong)
    assert (await store.list("a")).version == version, "who lost has changed nothing"
    again = await store.put("a", "x", b"2", if_version=version)
    assert await store.delete("a", "x", if_version=again)


async def test_a_deletion_is_a_change(store: SqliteStore) -> None:
    version = await store.put("a", "x", b"1")
    assert await store.delete("a", "x") and not await store.delete("a", "x")
    assert await store.list("a") == (version + 1, ())
    assert await store.put("a", "x", b"1", if_version=0) > version + 1


async def test_it_is_there_after_the_process_is_gone(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    store = open_store(path, 1.0)
    version = await store.put("a", "x", b"1")
    store.close()
    again = open_store(path, 2.0)
    assert again.epoch == 1000 and await again.get("a", "x") == Entry("x", b"1", version)
    assert await again.put("a", "y", b"") > version
    again.close()


async def test_two_at_once_are_one_too_many(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    store = open_store(path, 1.0)
    await store.put("a", "x", b"1")
    with pytest.raises(StartError, match="locked"):
        open_store(path, 1.0)
    store.close()


async def test_a_store_that_fails_says_so_and_changes_nothing(store: SqliteStore) -> None:
    version = await store.put("a", "x", b"1")
    store._opened.writing.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreFailed):
        await store.put("a", "x", b"2")
    store._opened.writing.execute("PRAGMA query_only = OFF")
    assert await store.get("a", "x") == Entry("x", b"1", version)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    store = open_store(path, 1.0)
    store._opened.writing.execute("PRAGMA user_version = 7")
    store.close()
    with pytest.raises(StartError, match="newer version"):
        open_store(path, 1.0)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"--store: .*/none/store\.db can.t be made"):
        open_store(str(tmp_path / "none" / "store.db"), 1.0)
