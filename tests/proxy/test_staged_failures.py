"""The failures of examples/failures.py, found out about as an operator does: by the admin port alone.

Each is staged with a real app, real callers and a process of its own; then /requests must lead to the requests that
failed, and /explain must give the right reason and a cure that names what to change. docs/troubleshooting.md says the
same in prose.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.failures import STAGES, App
from tests.support.ports import held_port
from tests.support.process import SidecarProcess
from tests.support.upstream import wait_until

TROUBLESHOOTING = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()


@dataclass(frozen=True)
class Found:
    """What the operator must find: (status, flag, reason) and how often; what /explain says of the last of these."""

    rows: dict[tuple[int, str, str | None], int]
    fault: str
    detail: str
    cure: str


EXPECTED = {
    "app-down": Found({(503, "UF", "connect_failed"): 3}, "upstream", "connection refused", "is the app running"),
    "app-slow": Found(
        {(0, "DC", "client_closed"): 1, (504, "UT", "upstream_timeout"): 2}, "upstream", "while waiting for 127.0.0.1:",
        "hangs or is overloaded",
    ),
    "app-resets": Found({(200, "UC", "upstream_closed"): 3}, "upstream", "went away", "crash or restart"),
    "app-resets-early": Found({(503, "UC", "upstream_closed"): 2}, "upstream", "went away", "crash or restart"),
    "bad-framing": Found(
        {(400, "DPE", "bad_framing"): 3}, "client", "both Content-Length and Transfer-Encoding", "mend the client"
    ),
    "overload": Found(
        {(200, "-", None): 2, (503, "UO", "pool_timeout"): 4, (503, "UO", "pool_full"): 14},
        "overload", "4 requests wait", "--max-app-connections",
    ),
}  # fmt: skip


@dataclass
class Operator:
    """Somebody with curl and the admin port, and nothing else."""

    process: SidecarProcess

    def ask(self, path: str) -> Any:
        status, text = self.process.admin_get(path)
        assert status == 200, (path, status, text)
        return json.loads(text)

    def requests(self) -> list[dict[str, Any]]:
        found = self.ask("/requests?format=json")
        assert isinstance(found, list)
        return found


def staged(name: str, upstream: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str]:
    """Plays a stage: the rows of /requests, the stories of all that failed (oldest first), and the text of /stats."""
    stage, expected = STAGES[name], EXPECTED[name]
    with SidecarProcess(upstream, *stage.flags) as process:
        operator = Operator(process)
        assert operator.requests() == []
        stage.play(process.inbound)
        total = sum(expected.rows.values())
        wait_until(lambda: len(operator.requests()) == total, "every request is in /requests")
        rows = operator.requests()
        failed = [row for row in reversed(rows) if row["flag"] != "-"]
        stories = [operator.ask(f"/explain/{row['request_id']}?format=json") for row in failed]
        return rows, stories, process.admin_get("/stats?usedonly")[1]


@pytest.mark.parametrize("name", STAGES)
def test_the_admin_port_says_why(name: str) -> None:
    expected = EXPECTED[name]
    answer = STAGES[name].answer
    if answer is None:
        with held_port() as gone:
            rows, stories, stats = staged(name, gone)
    else:
        with App(answer) as app:
            rows, stories, stats = staged(name, app.port)
    assert Counter((row["status"], row["flag"], row["reason"]) for row in rows) == expected.rows
    (_, _, reason), count = list(expected.rows.items())[-1]
    story = next(story["outcome"] for story in stories if story["outcome"]["reason"] == reason)
    assert story["fault"] == expected.fault
    assert expected.detail in story["detail"]
    assert expected.cure in story["what_to_do"].lower()
    assert re.search(f'^sidecar_errors_total{{.*reason="{reason}".*}}: {count}$', stats, re.MULTILINE)


def test_the_page_on_troubleshooting_has_them_all() -> None:
    """What the operator found is what the page says: each stage by name, each reason by its word."""
    for name, expected in EXPECTED.items():
        assert f"failures.py {name}" in TROUBLESHOOTING
        for _, flag, reason in expected.rows:
            assert reason is None or f"{flag} {reason}" in TROUBLESHOOTING


def test_every_stage_has_its_answer() -> None:
    assert list(STAGES) == list(EXPECTED)
