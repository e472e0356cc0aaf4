"""Pages of other people in the operator's own browser: they get nothing from the admin port and change nothing."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from tests.browser.chromium import Chromium
from tests.support.process import SidecarProcess
from tests.support.upstream import wait_until


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Another site: a form that posts to the admin port, as many attempts to read it, and a frame around it."""

    admin = 0

    def do_GET(self) -> None:
        body = (
            f"<!doctype html><title>elsewhere</title><form method=post action=http://127.0.0.1:{self.admin}/quitquitquit>"
            f"<button>Win</button></form><iframe src=http://127.0.0.1:{self.admin}/></iframe>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def quiet() -> Iterator[SidecarProcess]:
    with SidecarProcess(9, access_log="off") as sidecar:
        yield sidecar


@pytest.fixture
def elsewhere(quiet: SidecarProcess) -> Iterator[int]:
    Elsewhere.admin = quiet.admin
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_ctl_5_a_form_of_another_site_is_refused(browser: Chromium, quiet: SidecarProcess, elsewhere: int) -> None:
    tab = browser.open(f"http://localhost:{elsewhere}/")
    tab.click("button")
    tab.wait("document.body.innerText.includes('another')")
    assert f":{quiet.admin}/quitquitquit" in tab.run("location.href")
    assert quiet.admin_get("/ready") == (200, "LIVE\n")
    assert any("refused" in line for line in quiet.errors)


def test_ctl_5_a_script_of_another_site_reads_and_changes_nothing(
    browser: Chromium, quiet: SidecarProcess, elsewhere: int
) -> None:
    tab = browser.open(f"http://localhost:{elsewhere}/")
    for options in ("{}", "{method: 'POST', mode: 'no-cors'}", "{mode: 'no-cors'}"):
        for path in ("/quitquitquit", "/config_dump"):
            told = tab.run(
                f"fetch('http://127.0.0.1:{quiet.admin}{path}', {options}).then(r => r.text()).catch(() => '')"
            )
            assert told == "", (path, options)
    heard = tab.run(
        f"new Promise(done => {{ const source = new EventSource('http://127.0.0.1:{quiet.admin}/events');"
        "source.onmessage = () => done('heard'); source.onerror = () => done('refused'); })"
    )
    assert heard == "refused"
    assert quiet.admin_get("/ready") == (200, "LIVE\n")


def test_ctl_5_a_name_that_was_rebound_to_this_machine_is_refused(browser: Chromium, quiet: SidecarProcess) -> None:
    tab = browser.open(f"http://rebound.example:{quiet.admin}/")
    assert "Host must be one loopback name" in tab.text("body")
    told = tab.run("fetch('/quitquitquit', {method: 'POST'}).then(r => r.status)")
    assert told == 421
    assert quiet.admin_get("/ready") == (200, "LIVE\n")


def test_the_page_is_framed_by_nobody(browser: Chromium, quiet: SidecarProcess, elsewhere: int) -> None:
    tab = browser.open(f"http://localhost:{elsewhere}/")
    tab.wait("document.readyState === 'complete'")
    inside = tab.run(
        "(() => { try { return document.querySelector('iframe').contentDocument.title } catch { return '' } })()"
    )
    assert inside != "sidecar"
    wait_until(lambda: any("refused" in line for line in quiet.errors), "the refusal in the log")
