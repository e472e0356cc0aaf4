"""The proxy as a user runs it: a process with flags, ports that it prints, logs that it writes, and an exit code.

``SidecarProcess`` starts it on ephemeral ports and knows its standard error line by line; ``stop`` holds it to exit
code 0 and to a standard error without a traceback, so that no test passes over an exception that nobody saw.
"""

from __future__ import annotations

import http.client
import json
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.upstream import wait_until

ROOT = Path(__file__).resolve().parents[2]
START_WITHIN = 60.0  # seconds; half a second on a machine that is its own
_LISTENING = re.compile(r"sidecar: (inbound|outbound|admin|scrape|dns) listening on (\S+):(\d+)")
_UNSEEN = re.compile(r"Traceback|Error\b.*:|Exception|Task was destroyed|ResourceWarning")


class SidecarProcess:
    """``sidecar --upstream 127.0.0.1:PORT FLAGS``; a context manager that waits for `ready` and stops it at the end.

    ``addresses`` replaces the address flags where a test wants its own, ``entry`` what Python is told to run.
    """

    def __init__(
        self,
        upstream: int | str,
        *flags: str,
        access_log: str = "json",
        addresses: Sequence[str] | None = None,
        wait_ready: bool = True,
        entry: Sequence[str] = ("-m", "sidecar"),
    ) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="sidecar-test-")
        self.log_path = Path(self.directory.name, "access.log")
        self.ports: dict[str, int] = {}
        self.errors: list[str] = []
        self._waited = False
        target = upstream if isinstance(upstream, str) else f"127.0.0.1:{upstream}"
        if addresses is None:
            addresses = (
                "--inbound", "127.0.0.1:0", "--outbound", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--scrape", "off",
                "--dns", "off",
            )  # fmt: skip
        self.command = [
            sys.executable, *entry, "--upstream", target, *addresses, "--access-log", access_log,
            "--access-log-file", str(self.log_path), *flags,
        ]  # fmt: skip
        self.process = subprocess.Popen(
            self.command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._reader = threading.Thread(target=self._read_errors, daemon=True, name="sidecar-stderr")
        self._reader.start()
        if wait_ready:
            try:
                self._wait_ready()
            except BaseException:
                self._clean_up()
                raise

    def _wait_ready(self) -> None:
        wait_until(lambda: self.ready or self.process.poll() is not None, "sidecar: ready", START_WITHIN)
        if not self.ready:
            self._reader.join(5)  # what it said last says why
            raise AssertionError(f"{' '.join(self.command)} did not start:\n" + "\n".join(self.errors))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            text = line.decode("utf-8", "backslashreplace").rstrip("\n")
            if found := _LISTENING.match(text):
                self.ports.setdefault(found[1], int(found[3]))
            self.errors.append(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._waited:
                self.check_explained()
                self.stop()
        finally:
            self._clean_up()

    def check_explained(self) -> None:
        """Where policies have decided: what is explained of each of the last records is what was done."""
        if self.process.poll() is not None or "admin" not in self.ports or not self.ready:
            return
        status, decided = self.admin_get("/stats?usedonly&filter=authorization_decisions")
        if status != 200 or not decided.strip():
            return
        for row in json.loads(self.admin_get("/requests?format=json&limit=50&direction=inbound")[1]):
            denied = row["reason"] in ("rbac_denied", "policy_changed")
            if not row["request_id"]:  # a connection that was relayed
                assert row["reason"] != "rbac_denied", row
                continue
            status, page = self.admin_get(f"/explain/{row['request_id']}")
            assert status == 200, (row, page)
            told = json.loads(page).get("authorization")
            assert denied <= bool(told), row
            if told:
                assert told["allowed"] is not denied, (row, told)
                if "changed" not in told and told["policies"]:
                    assert explained_verdict(told["policies"]) is not denied, (row, told)

    def _clean_up(self) -> None:
        """Nothing of it is left behind: no process, no pipe, no directory."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        if self.process.stderr is not None:
            self.process.stderr.close()
        self.directory.cleanup()

    @property
    def ready(self) -> bool:
        return "sidecar: ready" in self.errors

    @property
    def inbound(self) -> int:
        return self.ports["inbound"]

    @property
    def outbound(self) -> int:
        return self.ports["outbound"]

    @property
    def admin(self) -> int:
        return self.ports["admin"]

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait_exit(self, deadline: float = 60.0) -> int:
        """The exit code, or AssertionError where it does not come in time. The end of the block stops it no more."""
        try:
            code = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running {deadline} s later:\n" + "\n".join(self.errors[-20:])) from None
        self._waited = True
        self._reader.join(5)
        return code

    def wait_clean_exit(self, deadline: float = 60.0) -> None:
        """Exit code 0 in time, and nothing unseen on standard error."""
        code = self.wait_exit(deadline)
        assert code == 0, f"exit code {code}:\n" + "\n".join(self.errors[-40:])
        self.check_errors()

    def stop(self, deadline: float = 60.0) -> None:
        """SIGTERM; exit code 0 and nothing unseen on standard error."""
        assert self.process.poll() is None, f"exited early with {self.process.returncode}:\n" + "\n".join(self.errors)
        self.terminate()
        self.wait_clean_exit(deadline)

    def check_errors(self) -> None:
        """No exception went by that nobody handled."""
        bad = [line for line in self.errors if _UNSEEN.search(line)]
        assert not bad, "on standard error:\n" + "\n".join(self.errors[-60:])

    def limit_files(self, count: int) -> None:
        """Lower the descriptors that the running process may have."""
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (count, count))

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        parts = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / 100

    def rss(self) -> int:
        """Resident bytes, as the kernel counts them."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096

    def admin_get(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, str]:
        """One request to the admin listener: (status, text)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        try:
            connection.request(method, path, headers=headers or {})
            reply = connection.getresponse()
            return reply.status, reply.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def memory(self) -> dict[str, Any]:
        """What ``/memory`` says."""
        status, text = self.admin_get("/memory")
        assert status == 200, (status, text)
        found = json.loads(text)
        assert isinstance(found, dict)
        return found

    def log_lines(self) -> list[str]:
        """The access log so far, complete lines only."""
        if not self.log_path.exists():
            return []
        text = self.log_path.read_bytes().decode("utf-8")
        return text.split("\n")[:-1]

    def log_records(self) -> list[dict[str, Any]]:
        """The access log so far; each line has to be one JSON object."""
        found = []
        for line in self.log_lines():
            record = json.loads(line)
            assert isinstance(record, dict), line
            found.append(record)
        return found


def explained_verdict(steps: list[dict[str, Any]]) -> bool:
    """What the rules of an explanation come to, read as Istio's reference has it."""
    rules = [step for step in steps if not step.get("dry_run")]
    if any(step["matched"] for step in rules if step["action"] == "DENY"):
        return False
    allowing = [step for step in rules if step["action"] == "ALLOW"]
    return not allowing or any(step["matched"] for step in allowing)
