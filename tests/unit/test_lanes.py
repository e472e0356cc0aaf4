"""The lanes of ``make test``: nothing that fails in one of them, or is forgotten between them, passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tests.lanes
from tests.lanes import ALONE, LANES, QUICK, Lane, run

PASSES = "def test_one(): pass\n"
FAILS = "def test_one(): assert False\n"
FAILS_ONCE = """
from pathlib import Path
def test_one():
    mark = Path(__file__).with_suffix(".failed")
    if not mark.exists():
        mark.touch()
        assert False
"""
KILLED = "import os\ndef test_one(): os.kill(os.getpid(), 9)\n"
INTERRUPTED = """
import pytest
@pytest.fixture(scope="session")
def it():
    yield
    assert False
def test_one(it): raise KeyboardInterrupt
"""


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The lanes run in a directory of their own, and no pytest loads what it does not need."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr(tests.lanes, "ROOT", tmp_path)
    monkeypatch.setattr(tests.lanes, "_CACHES", tmp_path / "caches")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = alone\ntestpaths = tests\n")


def outcome(place: Path, *texts: str, again: int = 0) -> int:
    """The exit code with these tests: the first lane's, the second's, and the one that is alone."""
    lanes = []
    for name, text in zip(("first", "second", "alone"), texts, strict=True):
        file = place / f"test_{name}.py"
        file.write_text(text)
        lanes.append(Lane(place / "caches" / name, ("-q", str(file))))
    return run((lanes[0], lanes[1]), lanes[2], again=again)


def test_all_is_well_where_all_is_well(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert outcome(tmp_path, PASSES, PASSES, PASSES) == 0
    assert capfd.readouterr().out.count("1 passed") == 3


@pytest.mark.parametrize("where", [0, 1, 2], ids=["first", "second", "alone"])
def test_a_failure_anywhere_is_a_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str], where: int) -> None:
    texts = [PASSES, PASSES, PASSES]
    texts[where] = FAILS
    assert outcome(tmp_path, *texts) == 1
    name = ("first", "second", "alone")[where]
    assert f"failed: 1\n  test_{name}.py::test_one\n" in capfd.readouterr().out


@pytest.mark.parametrize(("text", "code"), [(KILLED, -9), (INTERRUPTED, 3)], ids=["killed", "interrupted"])
@pytest.mark.parametrize("where", [0, 1], ids=["first", "second"])
def test_a_lane_that_does_not_end_is_a_failure_and_nothing_more_is_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], where: int, text: str, code: int
) -> None:
    texts = [FAILS_ONCE, FAILS_ONCE, PASSES]
    texts[where] = text
    assert outcome(tmp_path, *texts, again=5) == code
    out = capfd.readouterr().out
    assert "1 passed" not in out and "once more" not in out


def test_what_failed_is_run_once_more_where_it_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert outcome(tmp_path, FAILS_ONCE, PASSES, FAILS_ONCE, again=2) == 0
    out = capfd.readouterr().out
    assert "failed: 2" in out and "2 passed" in out.partition("once more, by themselves")[2]


def test_what_fails_twice_has_failed(tmp_path: Path) -> None:
    assert outcome(tmp_path, FAILS, FAILS_ONCE, PASSES, again=2) == 1


def test_more_than_a_handful_is_no_accident(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert outcome(tmp_path, FAILS_ONCE, FAILS_ONCE, PASSES, again=1) == 1
    assert "once more" not in capfd.readouterr().out


def test_what_failed_in_an_earlier_run_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    lane = Lane(tmp_path / "cache", ("-q", str(file)))
    for text, names in ((FAILS, ["test_it.py::test_one"]), (PASSES, [])):
        file.write_text(text)
        subprocess.run(lane.command(()), cwd=tmp_path, check=False, capture_output=True)
        assert lane.failed() == names


def test_every_test_is_in_one_lane(tmp_path: Path) -> None:
    """By a small tree with the rooms of this one: what each lane takes is all there is, and nothing is taken twice."""
    here = Path(__file__).parents[1]
    rooms = {"tests/" + path.parent.relative_to(here).as_posix() for path in here.rglob("test_*.py")}
    text = "import pytest\ndef test_beside(): pass\n@pytest.mark.alone\ndef test_alone(): pass\n"
    wanted = set()
    for room in (*rooms, "tests/added", "tests/added/inside"):
        file = Path(room, f"test_{room.replace('/', '_')}.py")
        (tmp_path / room).mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
        wanted |= {f"{file}::test_beside", f"{file}::test_alone"}
    found: list[str] = []
    for lane in (*LANES, ALONE):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--collect-only", "-q", *lane.arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        found += [line for line in done.stdout.splitlines() if "::" in line]
    assert sorted(found) == sorted(wanted)


def test_the_quick_lanes_need_nothing_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lanes = []
    for name, text in (("first", PASSES), ("second", PASSES)):
        (tmp_path / f"test_{name}.py").write_text(text)
        lanes.append(Lane(tmp_path / "caches" / name, ("-q", f"test_{name}.py")))
    assert run((lanes[0], lanes[1]), None) == 0
    (tmp_path / "test_second.py").write_text(FAILS)
    assert run((lanes[0], lanes[1]), None) == 1
    assert "failed: 1\n  test_second.py::test_one\n" in capfd.readouterr().out


def test_the_quick_lanes_name_what_is_there_and_nothing_twice() -> None:
    places = [word for lane in QUICK for word in lane.arguments if word.startswith("tests/")]
    root = Path(__file__).parents[2]
    assert [place for place in places if not (root / place).exists()] == []
    assert len(places) == len(set(places))
    assert {place.split("/")[1] for place in places} == {"unit", "wire", "proxy", "mesh"}
