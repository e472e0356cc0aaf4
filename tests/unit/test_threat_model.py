"""The threat model: each test that it names is there, and each of its parts names some."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "threat-model.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ATTACKERS = (
    "Somebody on the network", "A trace that is opened later", "In a pod", "In the app", "With a stolen token",
    "With a stolen leaf key", "With the control plane's disk", "As an impostor of the control plane",
    "As a peer with a valid certificate",
)  # fmt: skip


def missing(text: str) -> list[str]:
    """The tests that a text names and that are not there."""
    return [f"{path}::{name}" for path, name in NAMED.findall(text) if name not in known_in(ROOT / path)]


def known_in(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    found = ast.parse(path.read_text()).body
    functions = [each for each in found if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {each.name for each in functions if each.name.startswith("test_")}


def parts() -> dict[str, str]:
    """The sections of the page, by their titles."""
    _, *found = PAGE.read_text().split("\n## ")
    return {title: text for title, _, text in (each.partition("\n") for each in found)}


def test_every_test_that_it_names_is_there() -> None:
    assert missing(PAGE.read_text()) == []
    assert len(NAMED.findall(PAGE.read_text())) > 50


def test_nothing_that_looks_like_a_test_is_named_in_another_way() -> None:
    """Else a slip of the pen would not be looked at."""
    text = PAGE.read_text()
    assert text.count("tests/") == text.count("::") == len(NAMED.findall(text))


@pytest.mark.parametrize(
    "named", ["tests/unit/test_nothing.py::test_x", "tests/unit/test_threat_model.py::test_that_nobody_wrote",
              "tests/unit/test_threat_model.py::missing"],
)  # fmt: skip
def test_one_that_is_not_there_is_seen(named: str) -> None:
    assert missing(f"It is so (`{named}`).") == [named]


@pytest.mark.parametrize("who", ATTACKERS)
def test_what_each_attacker_can_not_do_is_shown(who: str) -> None:
    assert NAMED.search(parts()[who])


def test_each_line_of_a_table_of_what_can_not_be_done_is_shown() -> None:
    lines = re.findall(r"^\| can't \| shown by \|\n\| --- \| --- \|\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE)
    rows = [row for table in lines for row in table.splitlines()]
    assert len(rows) > 10
    assert [row for row in rows if not NAMED.search(row.split(" | ")[1])] == []


def test_what_is_not_protected_is_said() -> None:
    assert parts()["What is not protected"].count("\n- **") >= 8
