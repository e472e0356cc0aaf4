"""``sidecar wait`` beside a real sidecar: before it is there, while it serves, and while it drains."""

from __future__ import annotations

import subprocess
import sys

from tests.support.process import ROOT, SidecarProcess
from tests.support.raw import Client
from tests.support.upstream import RecordingUpstream, wait_until

LOCAL = ["--inbound=127.0.0.1:0", "--outbound=127.0.0.1:0", "--admin=127.0.0.1:0", "--scrape=127.0.0.1:0"]


def wait(*flags: str) -> subprocess.CompletedProcess[str]:
    """The command, as a hook runs it."""
    command = [sys.executable, "-m", "sidecar", "wait", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_wait_beside_a_sidecar() -> None:
    with RecordingUpstream() as upstream, SidecarProcess(upstream.port, addresses=LOCAL) as sidecar:
        for flag, name in (("--admin", "admin"), ("--scrape", "scrape")):
            done = wait(f"{flag}=127.0.0.1:{sidecar.ports[name]}", "--timeout=30s")
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        with Client(sidecar.inbound) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\na")  # holds the drain up
            wait_until(lambda: bool(upstream.live()), "the request is under way")
            sidecar.terminate()
            wait_until(lambda: "sidecar: SIGTERM: draining" in sidecar.errors, "the drain")
            done = wait(f"--admin=127.0.0.1:{sidecar.admin}", "--timeout=500ms")
            assert (done.returncode, done.stdout) == (1, "")
            where = f"127.0.0.1:{sidecar.admin}"
            assert done.stderr.startswith(f"sidecar: error: {where} was not ready within 500ms; last: 503 DRAINING")
            client.send(b"b")
            client.read_to_end()
        sidecar.wait_clean_exit()
