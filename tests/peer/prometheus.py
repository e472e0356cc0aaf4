"""Debian's Prometheus as a scraper of a real process: started, asked, and always ended."""

from __future__ import annotations

import json
import subprocess
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType

from tests.peer.programs import program
from tests.support.upstream import wait_until


class Prometheus:
    """Scrapes ``port`` of this machine every second; a context manager. It listens wherever it may."""

    def __init__(self, port: int) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="sidecar-prometheus-")
        self._root = Path(self._directory.name)
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "sidecar", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
        }
        (self._root / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML too
        self.port = 0

    def __enter__(self) -> Prometheus:
        self._log = (self._root / "log").open("wb")
        command = [
            program("prometheus"), f"--config.file={self._root}/prometheus.yml",
            f"--storage.tsdb.path={self._root}/data", "--web.listen-address=127.0.0.1:0",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        try:
            wait_until(self._found_port, "Prometheus listens", 30)
            wait_until(self._ready, "Prometheus is ready", 30)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # its data is of no use to anybody
        self._process.wait()
        self._log.close()
        self._directory.cleanup()

    def ask(self, query: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """What an expression gives, now or at a time of day: (labels, value) of each series."""
        arguments = {"query": query} | ({} if at is None else {"time": f"{at:.3f}"})
        found = json.loads(self._get("/api/v1/query?" + urllib.parse.urlencode(arguments)))
        assert found["status"] == "success", found
        return [(each["metric"], float(each["value"][1])) for each in found["data"]["result"]]

    def number(self, query: str, at: float | None = None) -> float:
        """The value of the one series that an expression gives; 0.0 where it gives none."""
        found = self.ask(query, at)
        assert len(found) <= 1, found
        return found[0][1] if found else 0.0

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as reply:
            text: bytes = reply.read()
        return text.decode()

    def _ready(self) -> bool:
        try:
            return "Ready" in self._get("/-/ready")
        except OSError:  # also urllib's own, for 503
            return False

    def _found_port(self) -> bool:
        """The port that the kernel chose: the listening socket among the process' descriptors."""
        assert self._process.poll() is None, (self._root / "log").read_text()[-2000:]
        mine = set()
        for link in Path(f"/proc/{self._process.pid}/fd").iterdir():
            try:
                mine.add(str(link.readlink()))
            except OSError:  # closed meanwhile
                continue
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in mine:
                self.port = int(fields[1].rpartition(":")[2], 16)
        return self.port > 0
