"""Carries the latest figures into `docs/performance.md`, between its two marks.

Called by ``python -m bench --write-docs``.
"""

from __future__ import annotations

import shutil
from dataclasses import astuple

from bench import report
from bench.processes import ROOT, BenchError
from bench.results import LATEST, Results, read

PAGE = ROOT / "docs" / "performance.md"
PICTURE = PAGE.parent / "images" / "performance.png"  # the site holds nothing that is not under docs/
_BEGIN = "<!-- figures: python -m bench --write-docs -->\n"
_END = "<!-- end of figures -->\n"


def write() -> None:
    """Replace what stands between the marks, and the chart; raises BenchError where figures or marks are missing."""
    results = read(LATEST)
    before, begin, rest = PAGE.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise BenchError(f"{PAGE} lacks the lines {_BEGIN.strip()!r} and {_END.strip()!r}")
    PICTURE.parent.mkdir(exist_ok=True)
    shutil.copyfile(LATEST.with_suffix(".png"), PICTURE)
    PAGE.write_text(f"{before}{_BEGIN}\n{markdown(results)}\n{_END}{after}")


def markdown(results: Results) -> str:
    """The table in Markdown, and under it what it was taken on."""
    machine = dict(results.machine)
    lines = ["| " + " | ".join(astuple(row)) + " |" for row in (report.HEADER, *report.rows(results))]
    lines.insert(1, "| --- | --- | --- | --: | --: | --: | --: | --: | --: |")
    taken = f"Taken {machine.pop('date')[:10]}, {results.rounds} rounds of {results.seconds} s, on: "
    taken += "; ".join(f"{name} {value}" for name, value in machine.items()) + "."
    return "\n".join([*lines, "", taken, "", "![Cost beside Envoy's](images/performance.png)", ""])
