"""The file of a store: what is found at its path, from an older schema to ours, copies, and copies put in place."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio

from control.store import Change, Entry, StoreFailed
from control.store import schema as schemas
from control.store.database_restore import make_ready, put_in_place, renew_epoch
from control.store.sqlite import open_store
from sidecar.errors import StartError

RECORDED = Path(__file__).parent / "data" / "store-schema1.sql"
NOW = 2_000_000_000.0


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def recorded(path: Path) -> Path:
    """A file that an older version has left."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(RECORDED.read_text())
        connection.execute("PRAGMA journal_mode = WAL")
    path.chmod(0o600)
    return path


async def filled(path: Path, entries: int = 40) -> Path:
    """A store with so many entries, in several pages; closed."""
    store = open_store(str(path), 1.0)
    for at in range(entries):
        await store.put("k", str(at), b"%d" % at * 500)
    store.close()
    return path


def files(path: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in path.iterdir() if one.is_file()}


async def held(path: Path) -> dict[str, tuple[bytes, int]]:
    store = open_store(str(path), NOW)
    entries = (await store.list("k")).entries
    store.close()
    return {entry.name: (entry.value, entry.version) for entry in entries}


# -- opening -----------------------------------------------------------------------------------------------------------


async def test_it_is_there_after_the_process_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = open_store(str(path), 1.0)
    version = await store.put("a", "x", b"1")
    store.close()
    again = open_store(str(path), 2.0)
    assert again.epoch == 1000 and await again.get("a", "x") == Entry("x", b"1", version)
    assert await again.put("a", "y", b"") > version
    assert {mode(tmp_path / name) for name in files(tmp_path)} == {0o600}
    again.close()


async def test_two_at_once_are_one_too_many(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    store = open_store(path, 1.0)
    await store.put("a", "x", b"1")
    with pytest.raises(StartError, match="locked: another process uses it"):
        open_store(path, 1.0)
    store.close()


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"--store: .*/none/store\.db can't be made \(No such file or directory\)"):
        open_store(str(tmp_path / "none" / "store.db"), 1.0)


def scribble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[5000:9000] = b"\xff" * 4000
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def text(path: Path) -> None:
    path.write_text("shopping list\n" * 1000)


def text_with_a_journal(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM entries WHERE name = '7'")
        connection.commit()
        journal = path.with_name("store.db-wal").read_bytes()
    text(path)
    path.with_name("store.db-wal").write_bytes(journal)
    assert journal


def other_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 7")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {schemas.SCHEMA + 1}")


def show(path: Path) -> None:
    path.chmod(0o640)


def give_away(path: Path) -> None:
    os.chown(path, 65534, 65534)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def gone_but_its_journal(path: Path) -> None:
    path.rename(path.with_name("store.db-wal"))


SPOILED = [
    (scribble, "is not a database that can be used"),
    (cut, "is not a database that can be used"),
    (cut_to_nothing, "is empty, so it was cut short; delete it for a new one, or put back a copy"),
    (text_with_a_journal, r"is not a database that can be used \(file is not a database\); put back a copy"),
    (text, r"is not a database that can be used \(file is not a database\); put back a copy"),
    (other_program, "is a database of another program; name another file"),
    (newer, r"was written by a newer version \(schema 3; ours is 2\); use that"),
    (show, "can be read by others"),
    (give_away, "belongs to somebody else"),
    (a_directory, r"can't be opened \(Is a directory\)"),
    (a_pipe, "is not a file"),
    (gone_but_its_journal, "is gone, but store.db-wal, its journal, is there"),
]


@pytest.mark.parametrize(("spoil", "words"), SPOILED, ids=lambda value: getattr(value, "__name__", ""))
async def test_what_can_not_be_used_is_one_line_and_stays_as_it_is(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    path = await filled(tmp_path / "store.db")
    spoil(path)
    before = files(tmp_path)
    with pytest.raises(StartError, match=words) as raised:
        open_store(str(path), 1.0)
    assert "\n" not in str(raised.value) and str(raised.value).startswith("--store: ")
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) <= {"store.db-shm", "store.db-wal"}


# -- schemas -----------------------------------------------------------------------------------------------------------


async def test_a_file_of_schema_1_is_brought_to_ours_and_kept(tmp_path: Path) -> None:
    path = recorded(tmp_path / "store.db")
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT kind, name, value, version FROM entries ORDER BY kind, name").fetchall()
    store = open_store(str(path), NOW)
    assert store.epoch == 1747731600125
    found = [(kind, *entry) for kind in ("bundle", "crl", "issued", "revocation", "token") for entry in
             (await store.list(kind)).entries]  # fmt: skip
    assert found == rows and len(rows) == 5
    assert await store.put("k", "x", b"") == 9
    store.close()
    assert mode(tmp_path / "store.db.schema1") == 0o600
    with closing(sqlite3.connect(tmp_path / "store.db.schema1")) as connection:
        assert schemas.identify(connection) == (schemas.APPLICATION, 1)
        assert connection.execute("SELECT kind, name, value, version FROM entries").fetchall() == rows
    open_store(str(path), NOW).close()  # once is enough


async def test_what_was_migrated_is_what_is_made_new(tmp_path: Path) -> None:
    open_store(str(recorded(tmp_path / "old.db")), NOW).close()
    open_store(str(tmp_path / "new.db"), NOW).close()
    shapes = []
    for name in ("old.db", "new.db"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
            shapes.append([(t, connection.execute(f"PRAGMA table_info({t})").fetchall(),
                            connection.execute(f"PRAGMA index_list({t})").fetchall()) for (t,) in tables])  # fmt: skip
            assert schemas.identify(connection) == (schemas.APPLICATION, schemas.SCHEMA)
    assert shapes[0] == shapes[1]


def test_a_step_that_fails_leaves_the_file_and_its_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recorded(tmp_path / "store.db")
    monkeypatch.setitem(schemas.STEPS, 1, "DROP TABLE kinds; DROP TABLE none;")
    with pytest.raises(StartError, match=r"^--store: .*store\.db can't be used \(.+\); "):
        open_store(str(path), NOW)
    for name in ("store.db", "store.db.schema1"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            assert schemas.identify(connection)[1] == 1
            assert connection.execute("SELECT count(*) FROM kinds").fetchone() == (5,)


# -- copies ------------------------------------------------------------------------------------------------------------


async def test_a_backup_is_of_one_moment_while_others_write(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store.db"), 1.0)
    await store.write([Change("fill", str(at), bytes(4000)) for at in range(2000)])
    turn = 0

    async def write() -> None:
        nonlocal turn
        while True:
            turn += 1
            await store.write([Change("k", name, b"%d" % turn) for name in ("left", "right")])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for copy in range(5):
            before = turn
            await store.backup(str(tmp_path / f"copy{copy}"))
            assert turn > before, "writers go on"
        nursery.cancel_scope.cancel()
    store.close()
    seen = [await held(tmp_path / f"copy{copy}") for copy in range(5)]
    assert all(one.get("left") == one.get("right") for one in seen)
    assert sorted(one["left"][1] for one in seen[1:]) == [one["left"][1] for one in seen[1:]]


async def test_a_backup_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store.db"), 1.0)
    await store.write([Change("fill", str(at), bytes(100_000)) for at in range(300)])
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.backup, str(tmp_path / "copy"))
            await trio.lowlevel.checkpoint()
            scope.cancel()
    assert scope.cancelled_caught
    assert sorted(files(tmp_path)) == ["store.db", "store.db-shm", "store.db-wal"]
    store.close()


async def test_a_store_that_fails_says_so_and_goes_on(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store.db"), 1.0)
    version = await store.put("a", "x", b"1")
    store._opened.writing.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreFailed, match=r"^the store failed: .+"):
        await store.put("a", "x", b"2")
    store._opened.writing.execute("PRAGMA query_only = OFF")
    assert await store.get("a", "x") == Entry("x", b"1", version)
    assert await store.put("a", "x", b"2") == version + 1
    store.close()


# -- putting one back --------------------------------------------------------------------------------------------------


async def test_a_copy_takes_the_place_with_a_higher_epoch_and_what_was_there_is_kept(tmp_path: Path) -> None:
    path, copy, kept = tmp_path / "store.db", tmp_path / "copy", tmp_path / "kept"
    store = open_store(str(path), 3_000_000_000.0)  # the clock went back since
    await store.put("k", "x", b"then")
    await store.backup(str(copy))
    await store.put("k", "x", b"now")
    store.close()
    assert put_in_place(make_ready(copy, path, NOW), path, kept)
    again = open_store(str(path), NOW)
    assert again.epoch == 3_000_000_000_001 and await again.get("k", "x") == Entry("x", b"then", 1)
    again.close()
    assert (await held(kept))["x"] == (b"now", 2)
    assert {mode(one) for one in (path, copy, kept)} == {0o600}
    assert renew_epoch(path, NOW) == 3_000_000_000_002
    assert renew_epoch(path, 4_000_000_000.0) == 4_000_000_000_000


async def test_a_copy_of_an_older_schema_or_with_its_journal_can_be_put_back(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    assert not put_in_place(make_ready(recorded(tmp_path / "old"), path, NOW), path, tmp_path / "kept")
    store = open_store(str(path), NOW)
    assert len((await store.list("token")).entries) == 1 and store.epoch == int(NOW * 1000)
    await store.put("k", "x", b"in the journal")
    for end in ("", "-wal"):
        (tmp_path / f"copied{end}").write_bytes((tmp_path / f"store.db{end}").read_bytes())
    with pytest.raises(StartError, match="is in use by another process; make a backup of it"):
        make_ready(path, tmp_path / "other.db", NOW)
    store.close()
    put_in_place(make_ready(tmp_path / "copied", path, NOW), path, tmp_path / "kept")
    assert (await held(path))["x"][0] == b"in the journal"


async def test_over_a_damaged_store_with_a_journal_that_is_kept_and_not_mixed_in(tmp_path: Path) -> None:
    path, kept = tmp_path / "store.db", tmp_path / "kept"
    copy = await filled(tmp_path / "copy")
    wanted = await held(copy)
    await filled(path, 60)
    store = open_store(str(path), 1.0)
    await store.put("k", "0", b"in the journal")
    journal = (tmp_path / "store.db-wal").read_bytes()
    store.close()
    text(path)
    (tmp_path / "store.db-wal").write_bytes(journal)
    put_in_place(make_ready(copy, path, NOW), path, kept)
    assert await held(path) == wanted
    assert kept.read_text().startswith("shopping list")
    assert (tmp_path / "kept-wal").read_bytes() == journal


@pytest.mark.parametrize("spoil", [scribble, cut, cut_to_nothing, text, other_program, newer, Path.unlink])
async def test_a_copy_that_can_not_be_used_changes_nothing(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = await filled(tmp_path / "store.db", 3)
    spoil(copy := await filled(tmp_path / "copy"))
    before = path.read_bytes()
    with pytest.raises(StartError, match=f"^{copy} "):
        make_ready(copy, path, NOW)
    assert path.read_bytes() == before
    assert set(files(tmp_path)) <= {"store.db", "copy"}
