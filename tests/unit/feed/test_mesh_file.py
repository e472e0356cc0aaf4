"""--mesh FILE: each good one is taken whole, whatever is not leaves the last good one in force, and is told."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from sidecar.errors import StartError
from sidecar.feed.mesh_file import LOOK_SECONDS, MeshFile, check
from sidecar.feed.snapshot_holder import SnapshotHolder
from sidecar.resources.snapshot import Node, Snapshot


def services(*names: str) -> str:
    return "services:\n" + "".join(
        f"- {{name: {name}, serviceAccounts: [x], ports: [{{port: 80}}]}}\n" for name in names
    )


class Fed:
    """A file, what it feeds, and what followed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text(services("a"))
        self.current = SnapshotHolder()
        self.followed: list[Snapshot] = []
        self.current.follow(self.followed.append)
        self.file = MeshFile(str(path), Node(), self.current, lambda: 1000.0)
        self.file.start()

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.current.snapshot.services]

    def replace(self, text: str) -> None:
        """By rename, as careful writers do."""
        new = self.path.with_name("new")
        new.write_text(text)
        new.rename(self.path)

    async def look(self, times: int = 2) -> None:
        for _ in range(times):
            await self.file.look()


@pytest.fixture
def fed(tmp_path: Path) -> Fed:
    return Fed(tmp_path / "mesh.yaml")


def test_the_first_reading(fed: Fed) -> None:
    current = fed.current
    assert (fed.names, str(current.snapshot.version), current.snapshot.source) == (["a"], "0.1", "file")
    assert (current.accepted, current.refused, current.refusal, current.taken_at) == (1, 0, None, 1000.0)
    assert fed.followed == [current.snapshot]


async def test_a_new_file_is_taken_at_the_second_look_and_the_old_snapshot_stays_as_it_was(fed: Fed) -> None:
    old = fed.current.snapshot
    fed.replace(services("b", "c"))
    await fed.look(1)
    assert fed.current.snapshot is old
    await fed.look(1)
    assert (fed.names, str(fed.current.snapshot.version)) == (["b", "c"], "0.2")
    assert [name for _, name in old.services] == ["a"]
    assert fed.followed == [old, fed.current.snapshot]


async def test_a_file_that_is_being_written_is_let_settle(fed: Fed) -> None:
    with fed.path.open("w") as file:
        for name in ("b", "c", "d"):
            file.write(services(name) if name == "b" else services(name).partition("\n")[2])
            file.flush()
            await fed.look(1)
            assert fed.names == ["a"]
    await fed.look(1)
    assert fed.names == ["b", "c", "d"]


async def test_a_half_of_a_file_is_refused_whole_and_the_last_good_one_stays(
    fed: Fed, caplog: pytest.LogCaptureFixture
) -> None:
    fed.replace(services("b", "c")[:-12])
    await fed.look(5)
    assert fed.names == ["a"]
    assert (fed.current.accepted, fed.current.refused) == (1, 1)  # complained of once, not at each look
    assert fed.current.refusal is not None and fed.current.refusal.at == 1000.0
    (problem,) = fed.current.refusal.problems
    assert problem.startswith(f"{fed.path}:4: this is no YAML")
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert told == [f"--mesh: {problem}", "--mesh: refused; version 0.1 stays in force"]
    fed.replace(services("b"))
    await fed.look()
    assert (fed.names, str(fed.current.snapshot.version)) == (["b"], "0.2")
    assert (fed.current.accepted, fed.current.refused) == (2, 1)
    assert not fed.current.refusal


async def test_going_back_to_what_was_in_force_ends_the_refusal(fed: Fed) -> None:
    fed.replace("services: [")
    await fed.look()
    assert fed.current.refusal is not None
    fed.replace(services("a"))
    await fed.look()
    assert fed.current.refusal is None
    assert fed.names == ["a"]


async def test_an_empty_file_takes_no_service_away(fed: Fed) -> None:
    fed.path.write_text("")
    await fed.look()
    assert fed.names == ["a"]
    assert fed.current.refusal is not None
    assert fed.current.refusal.problems == (f"{fed.path}: there is nothing in it",)


async def test_a_file_that_is_gone_is_told_once_and_taken_when_it_is_back(fed: Fed) -> None:
    fed.path.unlink()
    await fed.look(4)
    assert (fed.names, fed.current.refused) == (["a"], 1)
    assert fed.current.refusal is not None
    assert fed.current.refusal.problems == (f"{fed.path}: No such file or directory",)
    fed.replace(services("b"))
    await fed.look()
    assert fed.names == ["b"]
    assert not fed.current.refusal


async def test_what_says_the_same_is_not_a_new_snapshot(fed: Fed) -> None:
    before = fed.current.snapshot
    os.utime(fed.path)
    await fed.look()
    fed.replace(services("a"))
    await fed.look()
    assert fed.current.snapshot is before
    assert fed.current.accepted == 1


async def test_a_change_of_the_same_length_is_seen(fed: Fed) -> None:
    fed.path.write_text(services("z"))
    await fed.look()
    assert fed.names == ["z"]


async def test_a_link_that_is_turned_elsewhere_is_followed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mesh.yaml").write_text(services(name))
    (tmp_path / "data").symlink_to("one")
    current = SnapshotHolder()
    file = MeshFile(str(tmp_path / "data" / "mesh.yaml"), Node(), current)
    file.start()
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(tmp_path / "data")
    await file.look()
    await file.look()
    assert ("default", "two") in current.snapshot.services


async def test_it_is_looked_at_once_a_second(fed: Fed, autojump_clock: MockClock) -> None:
    taken = trio.Event()
    fed.current.follow(lambda _: taken.set())
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fed.file.watch)
        fed.replace(services("b"))
        await taken.wait()
        assert trio.current_time() - began == pytest.approx(2 * LOOK_SECONDS)
        nursery.cancel_scope.cancel()
    assert fed.names == ["b"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("services:\n- {}\n", ":2: services[0]: ports is missing"),
        (None, ": No such file or directory"),
    ],
)
def test_a_start_with_a_bad_file_names_file_and_line(
    tmp_path: Path, content: str | None, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mesh.yaml"
    if content is not None:
        path.write_text(content)
    current = SnapshotHolder()
    with pytest.raises(StartError) as raised:
        MeshFile(str(path), Node(), current).start()
    assert str(raised.value) == f"--mesh: {path}{problem}"
    others = [record.getMessage() for record in caplog.records]
    assert others == ([f"--mesh: {path}:2: services[0]: name is missing"] if content else [])
    assert current.accepted == 0
    assert check(str(path), Node()).problems[-1] == f"{path}{problem}"


def test_what_is_no_file_does_not_hold_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        path = str(tmp_path / name)
        assert check(path, Node()).problems == (f"{path}: is not a regular file",)
