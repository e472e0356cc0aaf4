"""The examples of docs/traffic.md and docs/retries.md are typed into a shell, and what comes is held against what
stands there. Each example of the first page goes on from that page's beginning."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.netns.conftest import MakePod
from tests.netns.environment import ROOT
from tests.netns.typed import example, type_in

TRAFFIC = ROOT / "docs" / "traffic.md"
RETRIES = ROOT / "docs" / "retries.md"


@pytest.mark.parametrize("section", ["A canary", "A/B by header and by User-Agent", "Faults on purpose", "Mirrors"])
def test_routes_can_be_typed(make_pod: MakePod, tmp_path: Path, section: str) -> None:
    beginning, steps = example(TRAFFIC, "Two versions of an app"), example(TRAFFIC, section)
    assert len(beginning) > 5 and len(steps) > 5
    type_in(make_pod("a"), [*beginning, *steps, ("kill $(jobs -p); wait", [])], tmp_path)


def test_retries_and_timeouts_can_be_typed(make_pod: MakePod, tmp_path: Path) -> None:
    sections = ("An app that fails", "Retries within a budget", "Timeouts")
    steps = [step for section in sections for step in example(RETRIES, section)]
    assert len(steps) > 20
    type_in(make_pod("a"), steps, tmp_path)
