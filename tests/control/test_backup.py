"""GET /v1/backup: a copy of everything, and nothing that is left over."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import trio

from control import backup
from tests.control.documents import get, path_of, put, service
from tests.control.plane import running

WEB = service()


async def test_a_copy_is_a_store_that_can_be_put_in_its_place(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await put(plane, WEB)
        copy = await plane.ask("GET", "/v1/backup", plane.operator)
        assert (copy.status, copy.headers["content-type"]) == (200, "application/vnd.sqlite3")
        assert int(copy.headers["content-length"]) == len(copy.body)
        line = plane.audit()[-1]
        assert (line["what"], line["verdict"], line["subject"]) == ("backup.get", "granted", f"{len(copy.body)} bytes")
        await plane.ask("DELETE", path_of(WEB), plane.operator)
        assert list(plane.directory.glob("backup-*")) == []
    file = tmp_path / "copy.db"
    file.write_bytes(copy.body)
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    connection.close()
    file.chmod(0o600)
    second = tmp_path / "second"
    second.mkdir()
    async with running(second, store=str(file)) as plane:
        assert (await get(plane, path_of(WEB))).json["document"] == WEB


async def test_there_are_few_at_once_and_whoever_goes_away_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "PIECE_BYTES", 16)
    async with running(tmp_path) as plane:
        for number in range(200):
            await put(plane, service(f"s{number}", serviceAccounts=[f"account-{each}" for each in range(500)]))
        head = f"GET /v1/backup HTTP/1.1\r\nhost: c\r\nauthorization: Bearer {plane.operator}\r\n\r\n"
        streams = []
        for _ in range(backup.AT_ONCE):
            streams.append(await plane.connect())
            await streams[-1].send_all(head.encode())
            assert await streams[-1].receive_some(1)
        refused = await plane.ask("GET", "/v1/backup", plane.operator)
        assert refused.status == 503 and refused.headers["retry-after"] == "5"
        for stream in streams:
            await stream.aclose()
        monkeypatch.undo()
        with trio.fail_after(30):
            while (await plane.ask("GET", "/v1/backup", plane.operator)).status != 200:
                pass  # they are on their way out


async def test_what_a_killed_process_left_is_taken_away(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        left = plane.directory / "backup-0123"
        left.write_bytes(b"x")
    async with running(tmp_path):
        assert not left.exists()


async def test_a_store_that_can_not_be_copied_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as plane:
        with monkeypatch.context() as patched:
            patched.setattr(backup, "_PREFIX", "gone/backup-")  # in a directory that is not there
            for _ in range(backup.AT_ONCE + 1):
                assert (await plane.ask("GET", "/v1/backup", plane.operator)).status == 503
        assert (await plane.ask("GET", "/v1/backup", plane.operator)).status == 200
