"""The example of docs/rate-limits.md is typed into a shell, and what comes is held against what stands there."""

from __future__ import annotations

from pathlib import Path

from tests.netns.conftest import MakePod
from tests.netns.environment import ROOT
from tests.netns.typed import example, type_in

PAGE = ROOT / "docs" / "rate-limits.md"


def test_what_stands_there_can_be_typed(make_pod: MakePod, tmp_path: Path) -> None:
    steps = example(PAGE, "A noisy and a quiet caller")
    assert len(steps) > 20
    type_in(make_pod("a"), steps, tmp_path)
