"""``python -m tests.browser.shots``: the pictures of docs/images, of a sidecar with load behind it.

They are taken by hand, when the page has changed, so that a run of the tests changes no file.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path

from tests.browser.chromium import Chromium
from tests.browser.traffic import running_app, running_load
from tests.support.process import ROOT, SidecarProcess

LARGEST = 200_000  # bytes of a picture


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.shots", description=__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--seconds", type=float, default=75.0, help="of load before the pictures")
    parser.add_argument("--rate", type=float, default=1000.0)
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    shots: dict[str, bytes] = {}
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(running_app())
        sidecar = stack.enter_context(SidecarProcess(port, "--memory-limit", "256MiB", access_log="off"))
        tab = stack.enter_context(Chromium()).open(f"http://127.0.0.1:{sidecar.admin}/", width=1280, height=1000)
        stack.enter_context(running_load(sidecar, port, rate=options.rate))
        time.sleep(options.seconds)
        for scheme in ("light", "dark"):
            tab.prefer(scheme)
            tab.wait("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
            shots[f"page-{scheme}"] = tab.screenshot(whole=True)
        tab.resize(390, 844)
        tab.wait("innerWidth === 390")
        shots["page-narrow"] = tab.screenshot(whole=True)
        tab.resize(1280, 1000)
        tab.prefer("light")
        tab.click("#failure-table tbody tr:nth-child(2) a")
        tab.wait("document.querySelector('#story .steps')")
        shots["page-story"] = tab.screenshot()
    for name, picture in shots.items():
        (options.into / f"{name}.png").write_bytes(picture)
        print(f"{name}.png: {len(picture)} bytes{', too large' if len(picture) > LARGEST else ''}")


if __name__ == "__main__":
    main()
