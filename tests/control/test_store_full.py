"""A full disk, for real: a small file system, at the start and while the store is in use."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from control.store import StoreFailed
from control.store.sqlite import SqliteStore, open_store
from sidecar.errors import StartError
from tests.control.plane import csr, running


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, in memory."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    """Takes all the room that there is."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


async def write_until_it_fails(store: SqliteStore) -> int:
    for turn in range(10_000):
        try:
            await store.put("k", str(turn), bytes(3000))
        except StoreFailed:
            return turn
    raise AssertionError("there was room for all")


async def test_a_store_whose_disk_is_full_goes_on_when_there_is_room(small: Path) -> None:
    ballast = small / "ballast"
    ballast.write_bytes(bytes(512 * 1024))
    store = open_store(str(small / "store.db"), 1.0)
    done = await write_until_it_fails(store)
    assert done > 0
    failed = 0

    async def put(who: int) -> None:
        nonlocal failed
        try:
            await store.put("more", str(who), bytes(3000))
        except StoreFailed:
            failed += 1

    async with trio.open_nursery() as nursery:  # those that share a commit fail together, and each is told
        for who in range(20):
            nursery.start_soon(put, who)
    assert failed == 20
    listing = await store.list("k")
    assert len(listing.entries) == listing.version == done and (await store.list("more")).entries == ()
    ballast.unlink()
    async with store.watch({"k"}, done) as watcher:
        assert await store.put("k", "again", b"") == done + 1
        assert [event.name for event in await anext(watcher)] == ["again"]
    store.close()
    again = open_store(str(small / "store.db"), 1.0)
    assert len((await again.list("k")).entries) == done + 1
    again.close()


def test_no_room_for_a_new_store_is_one_line_and_leaves_nothing(small: Path) -> None:
    ballast = fill(small)
    with pytest.raises(StartError, match=r"--store: .*/store\.db can't be (made|written)") as raised:
        open_store(str(small / "store.db"), 1.0)
    assert "\n" not in str(raised.value)
    assert list(small.iterdir()) == [ballast]
    ballast.unlink()
    open_store(str(small / "store.db"), 1.0).close()


async def test_no_room_to_open_a_store_is_one_line_and_loses_nothing(small: Path) -> None:
    store = open_store(str(small / "store.db"), 1.0)
    await store.put("k", "x", b"1")
    store.close()
    ballast = fill(small)
    with pytest.raises(StartError, match=r"--store: .* can't be written \(.*\); make room on its disk"):
        open_store(str(small / "store.db"), 1.0)
    ballast.unlink()
    again = open_store(str(small / "store.db"), 1.0)
    entry = await again.get("k", "x")
    assert entry is not None and entry.value == b"1"
    again.close()


async def test_no_room_for_a_backup_leaves_none(small: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store.db"), 1.0)
    await store.put("k", "x", bytes(2 * 1024 * 1024))
    with pytest.raises(StoreFailed, match="copy can't be written"):
        await store.backup(str(small / "copy"))
    assert list(small.iterdir()) == []  # noqa: ASYNC240
    store.close()


async def test_calls_are_503_while_the_disk_is_full_and_nothing_is_granted(small: Path, tmp_path: Path) -> None:
    path = small / "store.db"
    async with running(tmp_path, store=str(path)) as plane:
        token, single = await plane.token(), await plane.token(singleUse=True)
        ballast = fill(small)
        statuses: list[int] = []
        while 503 not in statuses:  # what is left of the last page
            assert len(statuses) < 60
            statuses.append((await plane.ask("POST", "/v1/certificates", token, csr())).status)
            await trio.sleep(0.1 if 429 in statuses[-1:] else 0)
        assert set(statuses) <= {201, 429, 503}
        assert (await plane.ask("POST", "/v1/certificates", single, csr())).status == 503
        assert (await plane.ask("POST", "/v1/revocations", plane.operator, {"serial": "1"})).status == 503
        assert (await plane.ask("GET", "/v1/revocations", plane.operator)).json["revocations"] == [], "reading goes on"
        figures = (await plane.ask("GET", "/metrics")).body.decode()
        assert 'sidecar_control_calls_total{call="revocations.add",verdict="failed"} 1.0' in figures
        ballast.unlink()
        assert (await plane.ask("POST", "/v1/certificates", single, csr())).status == 201
        assert (await plane.ask("POST", "/v1/revocations", plane.operator, {"serial": "1"})).status == 201
    fill(small)
    with pytest.raises(StartError, match=r"--store: .*; make room"):
        async with running(tmp_path, store=str(path)):
            raise AssertionError("it started")
