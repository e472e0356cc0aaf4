"""docs/from-istio.md has each difference from Envoy that is on purpose, and no other one."""

from __future__ import annotations

import re
from pathlib import Path

from tests.peer.test_route_verdicts import INTENDED

PAGE = Path(__file__).parents[2] / "docs" / "from-istio.md"


def test_each_difference_on_purpose_stands_there_and_no_other_one() -> None:
    words = re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(words) == sorted(INTENDED)
