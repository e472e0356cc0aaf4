"""Entries, versions, writes: one caller at a time."""

from __future__ import annotations

import random

import pytest

from control.store import Change, Conflict, Entry, Store

LONG = bytes(64 * 1024 * 1024 + 1)
NAMES = [
    "", "a", "a/b", "a/b/c", "a0", "A", "ä", "ａ", "\U0001f600", "\U0010ffff", "\ufffe", "a\0b", "a%b", "a_b", "a*",
    "a[b]", "'", '"', ";--", " ", "\n", "/", "//", "x" * 5000,
]  # fmt: skip


async def test_what_was_put_is_there_at_the_version_of_its_write(store: Store) -> None:
    assert store.epoch == 1_000_500
    assert await store.get("a", "x") is None and (await store.list("a")) == (0, ())
    first = await store.put("a", "x", b"1")
    second = await store.put("b", "x", b"2")
    third = await store.put("a", "x", b"3")
    assert 0 < first < second < third
    assert await store.get("a", "x") == Entry("x", b"3", third)
    assert await store.list("a") == (third, (Entry("x", b"3", third),))
    assert await store.list("b") == (third, (Entry("x", b"2", second),)), "versions are the store's, not a kind's"


async def test_a_deletion_is_a_change_and_no_change_is_none(store: Store) -> None:
    version = await store.put("a", "x", b"1")
    assert await store.delete("a", "x") and not await store.delete("a", "x")
    assert await store.list("a") == (version + 1, ())
    assert await store.write([Change("a", "x", None)]) == await store.write([]) == version + 1
    assert await store.put("a", "x", b"1", if_version=0) > version + 1


async def test_a_version_that_is_not_the_entrys_changes_nothing(store: Store) -> None:
    version = await store.put("a", "x", b"1", if_version=0)
    for wrong in (0, version - 1, version + 1):
        with pytest.raises(Conflict):
            await store.put("a", "x", b"2", if_version=wrong)
        with pytest.raises(Conflict):
            await store.delete("a", "x", if_version=wrong)
    with pytest.raises(Conflict):
        await store.delete("a", "y", if_version=version)
    assert await store.list("a") == (version, (Entry("x", b"1", version),))
    assert not await store.delete("a", "y", if_version=0)
    again = await store.put("a", "x", b"2", if_version=version)
    assert await store.delete("a", "x", if_version=again)


async def test_a_write_is_all_or_nothing(store: Store) -> None:
    held = await store.put("a", "x", b"1")
    with pytest.raises(Conflict):
        await store.write([Change("a", "y", b"2"), Change("a", "x", None), Change("b", "z", b"3", if_version=held)])
    assert await store.list("a") == (held, (Entry("x", b"1", held),)) and (await store.list("b")).entries == ()
    version = await store.write([Change("a", "y", b"2", 0), Change("a", "x", None, held), Change("b", "z", b"3")])
    assert version > held
    assert await store.list("a") == (version, (Entry("y", b"2", version),))
    assert await store.list("b") == (version, (Entry("z", b"3", version),)), "one version for all of it"


@pytest.mark.parametrize(
    "changes",
    [
        [Change("a", "x", b"1"), Change("a", "x", None)],
        [Change("a", "\ud800", b"")],
        [Change("a", "x", bytes(2**26 + 1))],
    ],
    ids=["an entry twice", "no text", "too long"],
)
async def test_what_no_store_takes_is_the_callers_fault(store: Store, changes: list[Change]) -> None:
    with pytest.raises(ValueError):
        await store.write(changes)
    assert await store.list("a") == (0, ())


async def test_names_are_any_text_in_order_of_code_points(store: Store) -> None:
    for at, name in enumerate(NAMES):
        await store.put("k", name, str(at).encode(), if_version=0)
        await store.put(f"k/{name}", "other", b"")
    listed = (await store.list("k")).entries
    assert [entry.name for entry in listed] == sorted(NAMES)
    for entry in listed:
        assert await store.get("k", entry.name) == entry and entry.value == str(NAMES.index(entry.name)).encode()
    for prefix in NAMES:
        found = [entry.name for entry in (await store.list("k", prefix)).entries]
        assert found == sorted(name for name in NAMES if name.startswith(prefix)), repr(prefix)
    assert (await store.list("k", "none")).entries == () == (await store.list("none")).entries


async def test_values_are_any_bytes_up_to_a_megabyte_and_more(store: Store) -> None:
    values = [b"", b"\0", bytes(range(256)), random.Random(1).randbytes(1024 * 1024), bytes(3 * 1024 * 1024)]
    await store.write([Change("k", str(at), value) for at, value in enumerate(values)])
    assert [entry.value for entry in (await store.list("k")).entries] == values
