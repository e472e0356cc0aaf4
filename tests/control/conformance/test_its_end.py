"""A store that is closed, and a copy of one."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from control.store import Store, StoreFailed


async def test_after_it_was_closed_nothing_is_waited_for(store: Store) -> None:
    await store.put("a", "x", b"")

    async def watch() -> None:
        async with store.watch({"a"}, 1) as watcher:
            with pytest.raises(StoreFailed):
                await anext(watcher)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await wait_all_tasks_blocked()
            store.close()
    for call in (lambda: store.get("a", "x"), lambda: store.list("a"), lambda: store.put("a", "y", b"")):
        with pytest.raises(StoreFailed):
            await call()


async def test_a_backup_is_a_new_file_for_this_user_alone(store: Store, tmp_path: Path) -> None:
    await store.put("a", "x", b"1")
    await store.backup(str(tmp_path / "copy"))
    data = (tmp_path / "copy").read_bytes()
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600 and data
    for path in ("copy", "none/copy"):
        with pytest.raises(StoreFailed):
            await store.backup(str(tmp_path / path))
    assert (tmp_path / "copy").read_bytes() == data
    assert await store.put("a", "x", b"2") == 2
