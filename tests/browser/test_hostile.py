"""What peers choose is shown and never executed: paths, authorities, ids and answers full of markup and control bytes.

The sidecar lets few such bytes through; so that the page does not lean on that, a stand-in for it serves the same
files with figures and stories in which every text is hostile.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from sidecar.admin.dashboard import POLICY
from tests.browser.chromium import Chromium
from tests.support.ports import held_port
from tests.support.process import SidecarProcess
from tests.support.raw import Client

MARKUP = '</td><script>window.owned=1</script><img src=x onerror="window.owned=2">\'";window.owned=3//\x00\x1b[2J\u202e'
TARGETS = (
    b"/<script>window.owned=1</script>",
    b"/%3Cimg%20src=x%20onerror=window.owned=2%3E",
    b'/"onmouseover="window.owned=3',
    b"/'-alert(1)-'",
    b"/a?<svg/onload=window.owned=4>=<b>",
    b"/\\u003cscript\\u003e",
    b"/" + b"x" * 3000,
)
AGENT = b"<script>window.owned=5</script>\t\"'`\x80\xff"
OWNED = "(window.owned ?? null)"


def hostile(value: Any) -> Any:
    """The same value with markup in place of each text; what the page switches on stays."""
    if isinstance(value, dict):
        kept = ("flag", "state", "direction", "name") if "uptime" in value or "records" in value else ("direction",)
        return {key: each if key in kept else hostile(each) for key, each in value.items()}
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return MARKUP if isinstance(value, str) else value


class StandIn(http.server.BaseHTTPRequestHandler):
    """Serves the page's own files, under its own policy or under none, and hostile figures."""

    summary: dict[str, Any]
    story: dict[str, Any]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
        if path == "/events":
            self.reply("text/event-stream", b"data: " + json.dumps(self.summary).encode() + b"\n\n")
        elif path.startswith("/explain/"):
            self.reply("application/json", json.dumps(self.story).encode())
        else:
            name = "index.html" if path == "/" else path.removeprefix("/page/")
            self.reply(kinds[name.rpartition(".")[2]], files("sidecar.admin").joinpath("pages", name).read_bytes())

    def reply(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def attacked() -> Iterator[SidecarProcess]:
    """A sidecar that was asked for hostile things, and refused or failed each."""
    with held_port() as gone, SidecarProcess(gone, access_log="off") as sidecar:
        for target in TARGETS:
            head = b"GET %b HTTP/1.1\r\nHost: app\r\nUser-Agent: %b\r\nConnection: close\r\n\r\n" % (target, AGENT)
            with Client(sidecar.inbound) as client:
                client.send(head)
                client.read_to_end()
        yield sidecar


def test_hostile_requests_are_shown_as_text(browser: Chromium, attacked: SidecarProcess) -> None:
    tab = browser.open(f"http://127.0.0.1:{attacked.admin}/")
    tab.wait(f"document.querySelectorAll('#failure-table tbody tr').length === {len(TARGETS)}")
    shown = tab.text("#failure-table")
    assert "/<script>window.owned=1</script>" in shown
    for number in range(1, len(TARGETS) + 1):
        tab.run(f"location.hash = document.querySelector('#failure-table tr:nth-child({number}) a').hash, 0")
        tab.wait("document.querySelector('#story[open] .steps')")
        tab.press("Escape")
        tab.wait("!document.getElementById('story').open")
    assert tab.run(OWNED) is None
    assert tab.run("document.querySelectorAll('main script, main img, dialog script, dialog img').length") == 0
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    assert tab.said == []


def test_the_page_itself_would_execute_nothing(browser: Chromium, attacked: SidecarProcess) -> None:
    """Without its policy, with markup wherever a text stands."""
    with Client(attacked.admin) as listening:
        listening.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        listening.read_until(lambda seen: b"data: " in seen and seen.endswith(b"\n\n\r\n"))
        StandIn.summary = hostile(json.loads(bytes(listening.heard.raw).partition(b"data: ")[2].partition(b"\n")[0]))
    StandIn.summary["state"] = "live"
    identity = json.loads(attacked.admin_get("/requests?format=json")[1])[-1]["request_id"]
    StandIn.story = hostile(json.loads(attacked.admin_get(f"/explain/{identity}?format=json")[1]))
    StandIn.story["outcome"]["flag"] = "UF"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab = browser.open(f"http://127.0.0.1:{server.server_port}/")
        tab.wait("document.querySelectorAll('#failure-table tbody tr').length >= 1")
        for place in ("#failure-table", "#sources", "#destinations", "#reasons", "#version"):
            assert "<script>window.owned=1</script>" in tab.run(f"document.querySelector('{place}').textContent"), place
        tab.run("document.querySelector('#failure-table tbody a').click()")
        tab.wait("document.querySelector('#story[open] .steps')")
        assert "<script>window.owned=1</script>" in tab.text("#story")
        assert tab.run(OWNED) is None
        assert tab.run("document.querySelectorAll('main script, main img, dialog script, dialog img').length") == 0
        server.shutdown()


def test_the_policy_would_stop_what_got_in(browser: Chromium, attacked: SidecarProcess) -> None:
    tab = browser.open(f"http://127.0.0.1:{attacked.admin}/")
    tab.wait("document.body.dataset.stream === 'live'")
    tab.run(f"document.querySelector('main').insertAdjacentHTML('beforeend', {json.dumps(MARKUP)}), 0")
    tab.run("(s => { s.textContent = 'window.owned = 6'; document.body.append(s); })(document.createElement('script'))")
    tab.wait("true")
    assert tab.run(OWNED) is None
    assert any("Content Security Policy" in each for each in tab.said)
    assert "'unsafe" not in POLICY
