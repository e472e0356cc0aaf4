"""Chromium, driven over the DevTools protocol on a pair of pipes: no port, no library.

Called by the tests of this room. A browser is a process with a profile of its own that goes with it; a tab knows all
that its console said, so that no test passes over an error or a breach of the content policy that nobody saw.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--no-default-browser-check", "--disable-extensions", "--mute-audio",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb", "--password-store=basic",
    "--disable-lcd-text", "--disable-font-subpixel-positioning", "--font-render-hinting=full",
)  # fmt: skip
PATIENCE = 60.0  # seconds for any one answer: chromium starts slowly on a busy machine
_KEYS = {
    "Tab": ("Tab", 9, ""), "Enter": ("Enter", 13, "\r"), "Escape": ("Escape", 27, ""),
}  # fmt: skip


def _pipe() -> tuple[int, int]:
    """A pipe with descriptors that are neither 3 nor 4, which the browser wants for itself."""
    ends = []
    for low in os.pipe():
        ends.append(fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(low)
    return ends[0], ends[1]


class Failed(AssertionError):
    """The browser said no to a command, or a script threw."""


class Chromium:
    """A browser; a context manager. ``flags`` come after the usual ones."""

    def __init__(self, *flags: str) -> None:
        program = shutil.which("chromium")
        assert program, "Debian's package chromium is needed"
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-test-", ignore_cleanup_errors=True)
        theirs_in, self._to = _pipe()
        self._from, theirs_out = _pipe()
        environment = {**os.environ, "HOME": self._profile.name, "XDG_RUNTIME_DIR": self._profile.name}
        # The protocol is spoken on descriptors 3 and 4, and only a shell can put pipes there by number.
        command = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out} {theirs_in}<&- {theirs_out}>&-'
        self._log = Path(self._profile.name, "stderr.txt")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "bash", "-c", command, "bash", program, *FLAGS, f"--user-data-dir={self._profile.name}/profile",
                    "--remote-debugging-pipe", *flags, "about:blank",
                ],
                pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                env=environment, start_new_session=True,
            )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._numbers = itertools.count(1)
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._tabs: dict[str, Tab] = {}
        self._reader = threading.Thread(target=self._read, daemon=True, name="chromium")
        self._reader.start()

    def __enter__(self) -> Chromium:
        self.ask("Browser.getVersion")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._to)  # which ends it
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # its session is ours alone
            self._process.wait()
        self._reader.join(5)
        os.close(self._from)
        self._profile.cleanup()

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One command and its result. Raises Failed."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        answer = self._answers[number] = queue.SimpleQueue()
        os.write(self._to, json.dumps(message).encode() + b"\0")
        try:
            told = answer.get(timeout=PATIENCE)
        except queue.Empty:
            raise Failed(f"{method}: no answer; {self._log.read_text(errors='replace')[-2000:]}") from None
        finally:
            del self._answers[number]
        if "error" in told:
            raise Failed(f"{method}: {told['error']}")
        result: dict[str, Any] = told["result"]
        return result

    def open(self, url: str = "about:blank", *, width: int = 1280, height: int = 900) -> Tab:
        """A new tab that goes to ``url``; its console is heard from the beginning."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self._tabs[session] = Tab(self, session)
        for domain in ("Page", "Runtime", "Log"):
            tab.ask(f"{domain}.enable")
        tab.target = target
        tab.resize(width, height)
        if url != "about:blank":
            tab.go(url)
        return tab

    def close_tabs(self) -> None:
        """All that ``open`` opened. A stream keeps one of the six connections that a browser has per host."""
        for tab in list(self._tabs.values()):
            self.ask("Target.closeTarget", targetId=tab.target)
        self._tabs.clear()

    def _read(self) -> None:
        rest = b""
        while block := os.read(self._from, 1 << 16):
            *messages, rest = (rest + block).split(b"\0")
            for message in messages:
                told = json.loads(message)
                if "id" in told:
                    waiting = self._answers.get(told["id"])
                    if waiting is not None:
                        waiting.put(told)
                elif told.get("sessionId") in self._tabs:
                    self._tabs[told["sessionId"]].hear(told["method"], told["params"])


class Tab:
    """One page. ``said`` is all that its console got as a warning or an error, and what the browser itself complained
    of: exceptions, breaches of the content policy, files that did not load."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session
        self.target = ""
        self.said: list[str] = []

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.ask(method, self._session, **parameters)

    def hear(self, method: str, told: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.said.append(f"exception: {told['exceptionDetails'].get('exception', {}).get('description')}")
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.said.append(f"console: {[each.get('value') for each in told['args']]}")
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.said.append(f"{told['entry']['source']}: {told['entry']['text']} {told['entry'].get('url', '')}")

    def go(self, url: str) -> None:
        """Goes there and waits until it is loaded."""
        told = self.ask("Page.navigate", url=url)
        assert "errorText" not in told, f"{url}: {told['errorText']}"
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression, awaited where it is a promise. Raises Failed with what it threw."""
        told = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True)
        if "exceptionDetails" in told:
            raise Failed(f"{script}: {told['exceptionDetails'].get('exception', {}).get('description')}")
        return told["result"].get("value")

    def wait(self, condition: str, seconds: float = PATIENCE) -> Any:
        """Looks at every frame until an expression is true, and returns it; the page's own clock does the waiting."""
        until = monotonic() + seconds
        while monotonic() < until:
            try:
                found = self.run(
                    "new Promise(done => { const until = performance.now() + 1000; const look = () => {"
                    f"const found = {condition};"
                    "if (found || performance.now() > until) done(found instanceof Node || found);"
                    "else setTimeout(look, 30); }; look(); })"
                )
            except Failed as failed:
                if "context" not in str(failed) and "navigated" not in str(failed):  # the page was just being replaced
                    raise
                continue
            if found:
                return found
        raise Failed(f"not within {seconds} s: {condition}; said: {self.said}; text: {self.text('body')[:3000]}")

    def text(self, selector: str) -> str:
        """What an element shows."""
        found = self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")
        assert isinstance(found, str), f"no {selector}"
        return found

    def click(self, selector: str) -> None:
        """A real click in the middle of an element."""
        element = f"document.querySelector({json.dumps(selector)})"
        box = self.run(
            f"(() => {{ const e = {element}; e.scrollIntoView({{block: 'center'}});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.ask("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], **button)

    def move(self, x: float, y: float) -> None:
        """Takes the pointer somewhere."""
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str, *, shift: bool = False) -> None:
        """A key of the few that are needed here: Tab, Enter, Escape."""
        name, code, text = _KEYS[key]
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code,
                modifiers=8 if shift else 0, **({"text": text} if text and kind == "keyDown" else {}),
            )  # fmt: skip

    def resize(self, width: int, height: int) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 700
        )

    def prefer(self, scheme: str) -> None:
        """ "light" or "dark"."""
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, *, whole: bool = False) -> bytes:
        """A PNG of what is seen, or of the whole page."""
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole, optimizeForSpeed=False)
        return base64.b64decode(found["data"])
