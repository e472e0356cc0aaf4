"""The control plane as a user runs it: a process with a directory, two ports that it keeps, and the operator's token.

``ControlProcess`` can be killed and started again on the same ports and directory, which is what an outage is.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.ports import held_port
from tests.support.process import ROOT, START_WITHIN
from tests.support.upstream import wait_until

TRUST_DOMAIN = "cluster.local"


def spiffe_id(account: str, namespace: str = "shop") -> str:
    """Who a workload is."""
    return f"spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}"


class ControlProcess:
    """``sidecar-control`` with certificates of ``leaf_ttl`` seconds; a context manager. ``url`` is for sidecars."""

    def __init__(self, leaf_ttl: float, *flags: str, module: str = "control") -> None:
        self._stack = contextlib.ExitStack()
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="control-")))
        self._port = self._stack.enter_context(held_port())
        self._tls_port = self._stack.enter_context(held_port())
        self.url = f"https://127.0.0.1:{self._tls_port}"
        self.errors: list[str] = []
        self.command = [
            sys.executable, "-m", module, "--ca-dir", str(self.directory / "ca"), "--leaf-ttl", f"{leaf_ttl:g}s",
            "--listen", f"127.0.0.1:{self._port}", "--tls-listen", f"127.0.0.1:{self._tls_port}",
            "--audit-log", str(self.directory / "audit.jsonl"), *flags,
        ]  # fmt: skip
        try:
            self.start()
        except BaseException:
            self._clean_up()
            raise

    def start(self) -> None:
        """Ready when this returns."""
        self.errors.clear()
        self.process = subprocess.Popen(
            self.command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._reader = threading.Thread(target=self._read_errors, daemon=True, name="control-stderr")
        self._reader.start()
        wait_until(lambda: self._ready or self.process.poll() is not None, "sidecar-control: ready", START_WITHIN)
        assert self._ready, "\n".join(self.errors)

    def kill(self) -> None:
        """SIGKILL: it has no time for anything."""
        self.process.kill()
        self._over()

    def end(self) -> None:
        """SIGTERM: it ends in order."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, "\n".join(self.errors[-40:])
        self._over()

    def __enter__(self) -> ControlProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                assert self.process.wait(30) == 0, "\n".join(self.errors[-40:])
                assert not any("Traceback" in line for line in self.errors), "\n".join(self.errors)
        finally:
            self._clean_up()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """A call of the operator's, which has to be granted; returns the answer."""
        token = (self.directory / "ca" / "operator-token").read_text().strip()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            reply = connection.getresponse()
            data = reply.read()
            assert reply.status < 300, (method, path, reply.status, data)
            return json.loads(data) if data else None
        finally:
            connection.close()

    def token(self, account: str, namespace: str = "shop") -> str:
        """A join token for a workload."""
        wanted = {"role": "workload", "namespace": namespace, "serviceAccount": account, "ttl": "1h"}
        return str(self.ask("POST", "/v1/tokens", wanted)["token"])

    def wait_phases(self, *wanted: list[str], deadline: float) -> None:
        """Until the roots are in one of these sets of phases, each in order of the names."""
        until = time.monotonic() + deadline
        while (found := sorted(root["phase"] for root in self.ask("GET", "/v1/ca")["roots"])) not in wanted:
            assert time.monotonic() < until, f"the roots are {found} {deadline:g} s later"
            time.sleep(0.1)  # a caller that asks more than 50 times a second is sent away

    @property
    def port(self) -> int:
        """The plain port, on loopback."""
        return int(self._port)

    @property
    def _ready(self) -> bool:
        return "sidecar-control: ready" in self.errors

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line.decode("utf-8", "backslashreplace").rstrip("\n"))

    def _over(self) -> None:
        self.process.wait()
        self._reader.join(5)
        if self.process.stderr is not None:
            self.process.stderr.close()

    def _clean_up(self) -> None:
        if hasattr(self, "process"):
            if self.process.poll() is None:
                self.process.kill()
            self._over()
        self._stack.close()
