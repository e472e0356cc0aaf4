"""``make run``: the sample app with the sidecar in front of it, until Ctrl-C ends both.

Both run in sessions of their own, so that Ctrl-C reaches only this script: it asks the sidecar to drain first, while
the app still answers, and then ends the app. A second Ctrl-C ends everything at once.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TextIO

APP = "127.0.0.1:8080"
TRY = """
The app listens on 127.0.0.1:8080, the sidecar in front of it. Try:

  curl http://127.0.0.1:15006/                                   # into the app
  curl http://127.0.0.1:15006/headers                            # what the app receives
  curl --no-buffer http://127.0.0.1:15006/stream                 # streamed, as it comes
  curl --data hello http://127.0.0.1:15006/echo
  curl --proxy http://127.0.0.1:15001 http://127.0.0.1:8080/     # out of the app: curl -x, HTTP_PROXY
  curl http://127.0.0.1:15000/ready                              # is it up?
  curl http://127.0.0.1:15000/requests                           # what went by, and why it failed if it did
  http://127.0.0.1:15000/                                        # the same to look at, in a browser

Below is the access log. Ctrl-C ends both.
"""


class Ended(Exception):
    """Somebody asked for the end: Ctrl-C, or SIGTERM."""


def main() -> int:
    def ask(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise Ended

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    children: list[subprocess.Popen[str]] = []
    try:
        app = [sys.executable, str(Path(__file__).with_name("app.py")), APP.rpartition(":")[2]]
        children.append(subprocess.Popen(app, start_new_session=True, text=True))
        sidecar = [sys.executable, "-m", "sidecar", "--upstream", APP]
        children.append(subprocess.Popen(sidecar, start_new_session=True, text=True, stderr=subprocess.PIPE))
        threading.Thread(target=pass_on, args=(children[-1].stderr,), daemon=True).start()
        return wait_any(children)
    except Ended:
        return 0
    finally:
        stop(children)


def pass_on(lines: TextIO) -> None:
    """Shows what the sidecar says, and what to try once it is ready."""
    for line in lines:
        sys.stderr.write(line)
        if line == "sidecar: ready\n":
            sys.stderr.write(TRY)
        sys.stderr.flush()


def wait_any(children: list[subprocess.Popen[str]]) -> int:
    """Waits until one of them ends, which neither should; returns an exit code that says so."""
    while True:
        for child in children:
            try:
                return child.wait(timeout=0.25) or 1
            except subprocess.TimeoutExpired:
                continue  # it runs


def stop(children: list[subprocess.Popen[str]]) -> None:
    """Ends them, the sidecar first."""
    try:
        for child in reversed(children):
            child.terminate()
            child.wait()
    except (Ended, KeyboardInterrupt):
        for child in children:
            child.kill()
            child.wait()


if __name__ == "__main__":
    sys.exit(main())
