"""``sidecar-control restore`` and ``new-epoch``: what an operator does after a disaster, and what must hold then."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from control import cli
from control.version import Version
from tests.control.plane import Plane, csr, running


async def command(path: Path, *words: str) -> int:
    """The command's exit code. In a thread, since it has a loop of its own."""
    return await trio.to_thread.run_sync(cli.main, [*words, "--ca-dir", str(path / "ca")])


def issued(plane: Plane, token: str):
    return plane.ask("POST", "/v1/certificates", token, csr())


async def version_of(plane: Plane) -> Version:
    return Version.parse((await plane.ask("GET", "/v1/crl", plane.operator)).json["version"])


def kept_in(path: Path) -> list[Path]:
    return list((path / "ca").glob("store.db.replaced-*"))


async def test_after_a_restore_the_mesh_goes_on_in_a_later_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    async with running(tmp_path) as plane:
        lasting, _ = await plane.token(), await plane.token()
        single, spent = await plane.token(singleUse=True), await plane.token(singleUse=True)
        assert (await issued(plane, spent)).status == 201
        await plane.ask("POST", "/v1/revocations", plane.operator, {"serial": "abc"})
        await plane.control.store.backup(str(copy))
        later = await plane.token()
        assert (await issued(plane, single)).status == 201  # so it is good once more in the copy
        assert (await plane.ask("DELETE", f"/v1/tokens/{await id_of(plane, 1)}", plane.operator)).status == 204
        await plane.ask("POST", "/v1/revocations", plane.operator, {"serial": "def"})
        before = await version_of(plane)
    assert await command(tmp_path, "restore", str(copy)) == 0
    said = capsys.readouterr().err
    assert "1 single-use tokens are void: they may have been used after the copy was made" in said
    assert re.search(r"\d tokens are good, also where they were deleted after the copy was made; --void-tokens", said)
    assert "revocations after that copy are forgotten" in said and "another root" in said
    (kept,) = kept_in(tmp_path)
    assert f"what was there is in {kept}" in said
    async with running(tmp_path) as plane:
        after = await version_of(plane)
        assert after.epoch > before.epoch
        statuses = [(await issued(plane, token)).status for token in (lasting, single, spent, later)]
        assert statuses == [201, 401, 401, 401]
        revoked = (await plane.ask("GET", "/v1/revocations", plane.operator)).json["revocations"]
        assert [entry["serial"] for entry in revoked] == ["abc"]


async def id_of(plane: Plane, at: int) -> str:
    tokens = (await plane.ask("GET", "/v1/tokens", plane.operator)).json["tokens"]
    return str([token for token in tokens if token["role"] == "workload"][at]["id"])


async def test_void_tokens_leaves_none_and_the_operator_gets_another(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        token, operator = await plane.token(), plane.operator
        await plane.control.store.backup(str(tmp_path / "copy"))
    assert await command(tmp_path, "restore", str(tmp_path / "copy"), "--void-tokens") == 0
    async with running(tmp_path) as plane:
        assert (await issued(plane, token)).status == 401
        assert (await plane.ask("GET", "/v1/tokens", operator)).status == 401 and plane.operator != operator
        assert (await plane.ask("GET", "/v1/tokens", plane.operator)).status == 200


async def test_a_new_epoch_without_a_restore(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await command(tmp_path, "new-epoch") == 2
    assert "there is none at" in capsys.readouterr().err
    async with running(tmp_path) as plane:
        before, token = await version_of(plane), await plane.token(singleUse=True)
    assert await command(tmp_path, "new-epoch") == 0
    async with running(tmp_path) as plane:
        after = await version_of(plane)
        assert after.epoch > before.epoch and after.n > before.n
        assert (await issued(plane, token)).status == 201


REFUSED = [
    (["restore"], "restore: names no file; write sidecar-control restore FILE"),
    (["restore", "--void-tokens"], "restore: names no file"),
    (["restore", "none"], "none can't be copied to .*(No such file or directory)"),
    (["restore", "text"], "text is not a database that can be used"),
    (["restore", "other"], "other is a database of another program"),
    (["restore", "copy", "--store", "memory"], "--store: memory keeps nothing that could be replaced"),
    (["restore", "copy", "--lisen", "1"], "--lisen: is not a flag; did you mean --listen?"),
    (["restore", "copy", "more"], "more: is not a flag"),
    (["new-epoch", "--store", "memory"], "--store: memory keeps nothing"),
]


@pytest.mark.parametrize(
    ("words", "line"), REFUSED, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
async def test_what_can_not_be_done_is_one_line_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], line: str
) -> None:
    async with running(tmp_path) as plane:
        await plane.control.store.backup(str(tmp_path / "copy"))
    (tmp_path / "text").write_text("shopping list")
    with closing(sqlite3.connect(tmp_path / "other")) as connection:
        connection.execute("CREATE TABLE shopping (list TEXT)")
    before = (tmp_path / "ca" / "store.db").read_bytes()
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert await command(tmp_path, *words) == 2
    said = capsys.readouterr().err
    assert re.search(line.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?"), said), said
    assert said.count("\n") == 1
    assert (tmp_path / "ca" / "store.db").read_bytes() == before and kept_in(tmp_path) == []
