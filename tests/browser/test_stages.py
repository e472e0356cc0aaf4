"""The way of an operator who has nothing but the page: the sentence at the top, then the story of a failure.

The failures are those of ``examples/failures.py``; docs/troubleshooting.md has the same ways as a table.
"""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from examples.failures import STAGES, App
from tests.browser.chromium import Chromium
from tests.support.ports import held_port
from tests.support.process import SidecarProcess

# What the page says at the top, which row is looked at, and what its story says.
WAYS = {
    "app-down": (
        "mostly UF connect failed", "connect_failed",
        ("connection refused", "none: it could not be had", "is the app running"),
    ),
    "app-slow": ("mostly UT upstream timeout", "client_closed", ("none came", "the app was slower")),
    "app-resets": ("mostly UC upstream closed", "upstream_closed", ("ECONNRESET", "new", "crash or restart")),
    "bad-framing": (
        "mostly DPE bad framing (the client's doing)", "bad_framing",
        ("a chunk does not begin", "Not asked", "Mend the client"),
    ),
    "overload": (
        "mostly UO pool full", "pool_full", ("4 requests wait", "none: it could not be had", "--max-app-connections")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_the_page_says_why(browser: Chromium, name: str) -> None:
    top, reason, words = WAYS[name]
    stage = STAGES[name]
    with ExitStack() as stack:
        port = stack.enter_context(App(stage.answer)).port if stage.answer else stack.enter_context(held_port())
        sidecar = stack.enter_context(SidecarProcess(port, *stage.flags, access_log="off"))
        stage.play(sidecar.inbound)
        tab = browser.open(f"http://127.0.0.1:{sidecar.admin}/")
        tab.wait(f"document.querySelector('#verdict .headline').innerText.includes({json.dumps(top)})")
        row = f"[...document.querySelectorAll('#failure-table tbody tr')].find(r => r.innerText.includes('{reason}'))"
        tab.wait(
            f"(link => {{ if (link) {{ link.focus(); link.id = 'wanted'; }} return link; }})({row}?.querySelector('a'))"
        )
        tab.click("#wanted")
        tab.wait("document.querySelector('#story[open] .steps')")
        story = tab.text("#story")
        for each in words:
            assert each in story, (each, story)
        assert tab.said == []
