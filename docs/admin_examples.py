"""Runs the examples of docs/admin.md and writes down what they answered: ``python -m docs.admin_examples``.

A block of the page that begins with ``console`` holds commands (after "$ ") and their output. They are run in the order
of the page against an app and a sidecar started here, on ports of their own that stand in for the usual ones.
``tests/proxy/test_admin_docs.py`` runs them too, and holds that the page says what they say, numbers aside.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "admin.md"
USUAL = {"inbound": 15006, "outbound": 15001, "admin": 15000, "scrape": 15020}
APP_PORT = 8080
_BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
_LISTENING = re.compile(r"sidecar: (\w+) listening on 127\.0\.0\.1:(\d+)")
_START_SECONDS = 20.0


@contextmanager
def running(directory: str) -> Iterator[dict[str, str]]:
    """An app with a sidecar in front; yields {usual port: the one that stands in for it}."""
    app = subprocess.Popen(
        [sys.executable, "-c", "import examples.app as a; s = a.ThreadingHTTPServer(('127.0.0.1', 0), a.App); "
         "print(s.server_port, flush=True); s.serve_forever()"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert app.stdout is not None
        at = app.stdout.readline().strip()
        flags = [f"--{name}=127.0.0.1:0" for name in USUAL]
        Path(directory, "token").write_text("sesame\n")
        Path(directory, "token").chmod(0o600)
        with Path(directory, "stderr").open("wb") as errors:
            sidecar = subprocess.Popen(
                [sys.executable, "-m", "sidecar", f"--upstream=127.0.0.1:{at}", *flags, "--access-log=off",
                 f"--probe=web=http:{at}/,db=tcp:1", f"--admin-token-file={directory}/token"],
                cwd=ROOT, stderr=errors,
            )  # fmt: skip
        try:
            yield {str(APP_PORT): at, **_ports(Path(directory, "stderr"))}
        finally:
            sidecar.terminate()
            sidecar.wait(40)
    finally:
        app.terminate()
        app.wait(10)
        if app.stdout is not None:
            app.stdout.close()


def _ports(log: Path) -> dict[str, str]:
    until = time.monotonic() + _START_SECONDS
    while "sidecar: ready" not in (text := log.read_text()):
        if time.monotonic() > until:
            raise TimeoutError(f"the sidecar did not start:\n{text}")
        time.sleep(0.05)
    return {str(USUAL[name]): port for name, port in _LISTENING.findall(text)}


def rewritten(page: str) -> str:
    """The page, with what its examples answer now."""
    with tempfile.TemporaryDirectory() as directory, running(directory) as ports:
        return _BLOCK.sub(lambda block: f"```console\n{_answered(block[1], ports, directory)}```", page)


def _answered(block: str, ports: dict[str, str], directory: str) -> str:
    """The commands with their output; of one in the background the first line, and the rest when the block is done."""
    parts = []
    behind: list[subprocess.Popen[str]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            parts.append(f"{line}\n")
            started = _start(line[2:].removesuffix(" &"), ports, directory)
            if line.endswith(" &"):
                assert started.stdout is not None
                parts.append(started.stdout.readline())
                behind.append(started)
            else:
                parts.append(started.communicate(timeout=60)[0])
    parts += [started.communicate(timeout=60)[0] for started in behind]
    return "".join(_as_usual(part, ports, directory) for part in parts)


def _start(command: str, ports: dict[str, str], directory: str) -> subprocess.Popen[str]:
    for usual, port in ports.items():
        command = command.replace(f":{usual}", f":{port}")
    return subprocess.Popen(["bash", "-c", command], cwd=directory, stdout=subprocess.PIPE, text=True)


def _as_usual(output: str, ports: dict[str, str], directory: str) -> str:
    output = output.replace(f"{directory}/", "/run/secrets/")
    for usual, port in ports.items():
        output = re.sub(rf"\b{port}\b", usual, output)
    return output if output.endswith("\n") or not output else output + "\n"


def shape(page: str) -> str:
    """The page without what differs from run to run: numbers, times, ids."""
    page = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", page)
    return re.sub(r"\d+(?:\.\d+)?(?:e-?\d+)?", "N", page)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
