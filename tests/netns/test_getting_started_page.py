"""docs/getting-started.md, and its short form in the README, are typed into a shell, and what comes is held against
what stands there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.netns.conftest import MakePod
from tests.netns.environment import ROOT
from tests.netns.typed import example, type_in

PAGE = ROOT / "docs" / "getting-started.md"
README = ROOT / "README.md"


def test_two_apps_talk_as_the_page_says(make_pod: MakePod, tmp_path: Path) -> None:
    steps = example(PAGE, "Two apps of your own")
    assert len(steps) > 30
    type_in(make_pod("a"), steps, tmp_path)


def test_a_caller_and_an_app_talk_as_the_readme_says(make_pod: MakePod, tmp_path: Path) -> None:
    steps = example(README, "Two apps of your own")
    assert len(steps) > 10
    type_in(make_pod("a"), steps, tmp_path)


def test_one_line_installs_all_that_is_typed() -> None:
    """Page and README say the same, and it names extras that there are."""
    installs = {tuple(re.findall(r"pip install (\S+)", path.read_text())) for path in (PAGE, README)}
    assert installs == {("'.[control,ctl]'",)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"control", "ctl"} <= project["optional-dependencies"].keys()
