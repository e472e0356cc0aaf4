"""Snapshots from the control plane: taken whole or refused whole, told to it, kept for a restart."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from certs.spiffe import workload
from sidecar.errors import StartError
from tests.proxy.fickle import EPOCH, plane_at
from tests.proxy.following import following, mesh

SNAPSHOT = "/v1/snapshot"


async def test_it_takes_what_comes_and_says_so(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, following(plane) as proxy:
        await proxy.taken(1, "web")
        assert proxy.names == ["web"] and proxy.current.snapshot.source == "control"
        await proxy.taken(2, "web", "db")
        assert proxy.names == ["web", "db"]
        await proxy.until(lambda: plane.told and plane.told[-1]["version"] == f"{EPOCH}.2")
        (last,) = plane.told[-1:]
        assert last["accepted"] is True and last["held"] == f"{EPOCH}.2" and last["problems"] == []
        assert proxy.current.accepted == 2 and not proxy.caller.errors
        assert 0 < proxy.feed.slices.longest <= proxy.feed.slices.total


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "malformed": (lambda: mesh(2, "db")[:-9], "it can't be read"),
    "an unknown field": (lambda: mesh(2, "db", quotas=[]), "quotas"),
    "an unknown type": (lambda: mesh(2, "db", services="all"), "it can't be read"),
    "another major": (lambda: mesh(2, "db", schema="2.0"), "2.0"),
    "half valid": (
        lambda: mesh(2, "db").replace(b'"services":[', b'"services":[{"name":"x","namespace":"shop","ports":[]},'), "",
    ),
    "of another workload": (lambda: mesh(2, "db", proxy=str(workload("cluster.local", "shop", "x"))), "another workl"),
    "of nobody": (lambda: mesh(2, "db", proxy=""), "for which workload"),
    "not JSON": (lambda: b"<html>", "it can't be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_wrong_is_refused_whole_told_and_not_asked_for_again(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    made, words = REFUSED[name]
    async with plane_at(tmp_path) as plane, following(plane) as proxy:
        await proxy.taken(1, "web")
        plane.etag = f'"{EPOCH}.2"'
        proxy.send(f"{EPOCH}.2", made())
        await proxy.until(lambda: plane.told and plane.told[-1]["version"] == f"{EPOCH}.2")
        told = plane.told[-1]
        assert told["accepted"] is False and told["held"] == f"{EPOCH}.1"
        assert told["problems"] and words in str(told["problems"])
        assert proxy.names == ["web"] and proxy.current.refused == 1
        assert proxy.current.refusal is not None and words in proxy.current.refusal.problems[0]
        assert any("is refused" in each and f"{EPOCH}.1 stays in force" in each for each in caplog.messages)
        plane.etag = ""
        await proxy.taken(3, "web", "db")
        assert not proxy.current.refusal
        assert plane.asked.count(SNAPSHOT) <= 4, "what was refused came again"


@pytest.mark.parametrize(
    ("body", "word"),
    [(b"{}", "bad_answer"), (b" " * (17 << 20), "too_large")],
    ids=["nobody knows which version", "too large"],
)
async def test_an_answer_that_is_no_snapshot_changes_nothing(tmp_path: Path, body: bytes, word: str) -> None:
    async with plane_at(tmp_path) as plane, following(plane) as proxy:
        await proxy.taken(1, "web")
        proxy.send("0.0", body)
        await proxy.until(lambda: ("snapshot", word) in proxy.caller.errors)
        assert proxy.names == ["web"]
        await proxy.taken(2, "db")


async def test_within_an_epoch_nothing_older_is_taken_but_another_epoch_is(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, following(plane) as proxy:
        await proxy.taken(5, "web")
        proxy.send(f"{EPOCH}.4", mesh(4, "db"))
        await proxy.until(lambda: ("snapshot", "older_version") in proxy.caller.errors)
        assert proxy.names == ["web"]
        await proxy.taken(1, "db", epoch=EPOCH - 7)
        assert proxy.names == ["db"]


async def test_a_control_plane_that_is_back_is_told_again(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, following(plane) as proxy:
        await proxy.taken(1, "web")
        await proxy.until(lambda: plane.told)
        plane.wrong[SNAPSHOT] = lambda _: (503, b"")
        plane.publish()
        await proxy.until(lambda: ("snapshot", "status_503") in proxy.caller.errors)
        plane.told.clear()
        del plane.wrong[SNAPSHOT]
        await proxy.taken(2, "web")
        await proxy.until(lambda: plane.told)


async def test_a_control_plane_that_is_back_is_told_again_before_there_is_anything_new(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, following(plane) as proxy:
        await proxy.taken(1, "web")
        await proxy.until(lambda: plane.told)
        plane.wrong[SNAPSHOT] = lambda _: (503, b"")
        plane.publish()
        await proxy.until(lambda: ("snapshot", "status_503") in proxy.caller.errors)
        plane.told.clear()
        del plane.wrong[SNAPSHOT]
        await proxy.until(lambda: plane.told)  # a poll that waits would last longer than this test may


# -- the last good one -----------------------------------------------------------------------------------------------


def kept(state: Path) -> Path:
    (found,) = state.iterdir()
    return found


async def test_a_restart_begins_with_the_last_good_one_while_the_control_plane_is_away(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with plane_at(tmp_path) as plane:
        async with following(plane, str(state)) as proxy:
            await proxy.taken(7, "web")
            await proxy.until(lambda: state.exists() and [each.name for each in state.iterdir()] == ["snapshot"])
            assert kept(state).stat().st_mode & 0o777 == 0o600 and state.stat().st_mode & 0o777 == 0o700
        plane.wrong = dict.fromkeys((SNAPSHOT, "/v1/certificates"), lambda _: (503, b""))
        async with following(plane, str(state)) as again:
            assert again.names == ["web"]
            before = again.current.snapshot
            assert before.source == "last good"
            assert str(again.current.snapshot.version) == f"{EPOCH}.7"
            plane.wrong = {}
            plane.mesh = mesh(6, "db")  # older than what was seen
            plane.mesh_version = "0.0"
            await again.until(lambda: ("snapshot", "older_version") in again.caller.errors)
            assert again.names == ["web"]
            await again.taken(8, "db")
            assert again.current.snapshot.source == "control"


async def test_what_is_still_the_newest_is_the_control_planes_again(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with plane_at(tmp_path) as plane:
        async with following(plane, str(state)) as proxy:
            await proxy.taken(7, "web")
            await proxy.until(lambda: state.exists() and [each.name for each in state.iterdir()] == ["snapshot"])
        plane.wrong[SNAPSHOT] = lambda _: (304, b"")
        async with following(plane, str(state)) as again:
            await again.until(lambda: again.current.snapshot.source == "control")
            assert again.names == ["web"] and again.current.accepted == 1


def damaged(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def of_another(file: Path) -> None:
    head, _, body = file.read_bytes().partition(b"\n")
    told = json.loads(head) | {"proxy": "spiffe://cluster.local/ns/shop/sa/orders"}
    file.write_bytes(json.dumps(told).encode() + b"\n" + body)


def readable(file: Path) -> None:
    file.chmod(0o644)


def a_link(file: Path) -> None:
    file.rename(file.with_name("other"))
    file.symlink_to(file.with_name("other"))


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


@pytest.mark.parametrize("spoil", [damaged, of_another, readable, a_link, a_pipe])
async def test_what_is_kept_and_not_right_is_not_used_and_is_replaced(
    tmp_path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    async with plane_at(tmp_path) as plane:
        async with following(plane, str(state)) as proxy:
            await proxy.taken(1, "web")
            await proxy.until(lambda: state.exists() and [each.name for each in state.iterdir()] == ["snapshot"])
        spoil(kept(state))
        plane.mesh = None
        async with following(plane, str(state)) as again:
            assert again.current.snapshot.source == "none"
            assert len([each for each in caplog.messages if "--state-dir: what it keeps is not used" in each]) == 1
            await again.taken(2, "db")
            await again.until(lambda: (state / "snapshot").is_file() and b"db" in (state / "snapshot").read_bytes())


async def test_a_disk_that_takes_nothing_is_told_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    async with plane_at(tmp_path) as plane, following(plane, str(state)) as proxy:
        state.rmdir()
        with caplog.at_level(logging.WARNING):
            await proxy.taken(1, "web")
            await proxy.until(lambda: ("state_dir", "not_written") in proxy.caller.errors)
        await proxy.taken(2, "db")
        assert any("--state-dir" in each and "all goes on without" in each for each in caplog.messages)


async def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    async with plane_at(tmp_path) as plane:
        with pytest.raises(StartError, match=r"^--state-dir: .* chmod 700"):
            async with following(plane, str(state)):
                raise AssertionError("it was taken")
