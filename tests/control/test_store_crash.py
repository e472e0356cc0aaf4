"""A process that is killed while it writes has lost nothing that it acknowledged, and has done nothing by halves."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from control.store.sqlite import open_store
from tests import soak_store
from tests.support.process import ROOT
from tests.support.store_writer import WRITERS

KILLS = 12


def run_and_kill(path: Path, lines: int) -> list[int]:
    """Lets one acknowledge so many writes, and kills it with others under way; each writer's last acknowledged turn."""
    last = [0] * WRITERS
    command = [sys.executable, "-m", "tests.support.store_writer", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(lines):
            line = process.stdout.readline()
            assert line, "it ended by itself"
            note(line, last)
        process.kill()
        for line in process.stdout:
            note(line, last)
    return last


def note(line: bytes, last: list[int]) -> None:
    if line.endswith(b"\n"):
        who, turn = map(int, line.split())
        last[who] = max(last[who], turn)


async def test_no_acknowledged_write_is_lost_and_none_is_half_done(tmp_path: Path) -> None:
    chance, path = random.Random(6), tmp_path / "store.db"
    before, version = [0] * WRITERS, 0
    for _ in range(KILLS):
        acknowledged = run_and_kill(path, chance.randrange(1, 400))
        store = open_store(str(path), 0.0)
        left = {entry.name: int(entry.value) for entry in (await store.list("left")).entries}
        right = {entry.name: int(entry.value) for entry in (await store.list("right")).entries}
        turns = await store.list("turn")
        store.close()
        assert left == right
        now = [left.get(str(who), 0) for who in range(WRITERS)]
        # One write of each may have been done and not been told.
        assert all(
            told <= here <= max(told, was) + 1 for told, here, was in zip(acknowledged, now, before, strict=True)
        )
        expected = {
            f"{who}/{turn}" for who in range(WRITERS) for turn in range(1, now[who] + 1)
            if turn % 3 != 2 or turn == now[who]
        }  # fmt: skip
        assert {entry.name for entry in turns.entries} == expected
        assert turns.version == sum(now) > version, "a version for each write, and none twice"
        before, version = now, turns.version


def test_the_whole_process_likewise_through_its_calls() -> None:
    """``python -m tests.soak store`` in short."""
    assert soak_store.kills(2).startswith("2 kills")
