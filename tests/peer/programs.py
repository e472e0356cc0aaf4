"""Programs of others, as peers of the proxy: each is run with a deadline, and is missing loudly."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from tests.support.upstream import wait_until

PLACES = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/usr/local/go/bin:/usr/lib/go/bin"


def program(name: str) -> str:
    """Where it is; AssertionError where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path=PLACES)
    assert found is not None, f"{name} is not installed; .ci/run says what the tests need"
    return found


def run(name: str, *arguments: str, deadline: float = 30.0, code: int = 0) -> str:
    """Runs it to its end; returns its standard output, with errors behind it. AssertionError for another exit code."""
    done = subprocess.run([program(name), *arguments], capture_output=True, timeout=deadline, check=False)
    text = done.stdout.decode("latin-1") + done.stderr.decode("latin-1")
    assert done.returncode == code, f"{name} {' '.join(arguments)} ended with {done.returncode}:\n{text[-2000:]}"
    return text


class Nginx:
    """nginx as the app; a context manager. ``config`` is the inside of its server."""

    def __init__(self, port: int, config: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="sidecar-nginx-")
        self.root = Path(self._directory.name)
        self.port = port
        self.errors = self.root / "error.log"
        (self.root / "nginx.conf").write_text(
            f"""
            daemon off; master_process off; worker_processes 1; pid {self.root}/pid; error_log {self.errors} warn;
            events {{ worker_connections 512; }}
            http {{
                access_log off; default_type text/plain; keepalive_requests 100000; client_max_body_size 0;
                client_body_temp_path {self.root}/body; proxy_temp_path {self.root}/proxy;
                fastcgi_temp_path {self.root}/fastcgi; uwsgi_temp_path {self.root}/uwsgi;
                scgi_temp_path {self.root}/scgi;
                server {{ listen 127.0.0.1:{port}; root {self.root}; {config} }}
            }}
            """
        )

    def __enter__(self) -> Nginx:
        command = [program("nginx"), "-p", str(self.root), "-c", str(self.root / "nginx.conf"), "-e", str(self.errors)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: (self.root / "pid").exists() and bool((self.root / "pid").read_text()), "nginx is up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._directory.cleanup()
