"""Each id of the list of hostile inputs has a case or a test, and no case has an id that the list does not know."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.hostile.cases.traps import ROWS
from tests.hostile.coverage import covered

WANTED = [
    *(f"REQ-{n}" for n in range(1, 25)),
    *(f"CHK-{n}" for n in range(1, 8)),
    *(f"LIM-{n}" for n in range(1, 9)),
    *(f"UPS-{n}" for n in (1, 2, 3, 4, 8, 9)),
    *(f"HDR-{n}" for n in range(1, 7)),
    *(f"POL-{n}" for n in (*range(1, 7), 8, 9)),
    *(f"TLS-{n}" for n in (*range(1, 16), 17, 18)),
    *(f"CTL-{n}" for n in (2, 3, 4, 5, 6, 8, 9, 12, 13)),
    *ROWS,
]


def test_every_id_has_a_case() -> None:
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"tests.hostile.{path.stem}")
    assert covered() == set(WANTED)
