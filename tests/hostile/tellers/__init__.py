"""Apps of five kinds, each on the HTTP server that people run, which print what every request says of its caller.

``command`` gives the command line of one; what it prints, to its standard output or to the file ``printed`` in its
directory, is a JSON object per request: its path, and the value of ``x-forwarded-client-cert``.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.peer.programs import program

KINDS: Final = ("nginx", "go", "node", "hypercorn", "http.server")
_HERE: Final = Path(__file__).parent
_BUILT: Final = Path(tempfile.gettempdir())


def command(kind: str, directory: Path, addresses: Sequence[str]) -> list[str]:
    """The command line of this kind of app, listening on these (HOST:PORT); ``directory`` is its own."""
    if kind == "nginx":
        return _nginx(directory, addresses)
    if kind == "go":
        return [str(_go(directory)), *addresses]
    if kind == "node":
        return [program("node"), str(_HERE / "app.js"), *addresses]
    program_of = {"hypercorn": "app.py", "http.server": "lenient.py"}
    return [sys.executable, str(_HERE / program_of[kind]), *addresses]


def requests_seen(printed: str) -> list[dict[str, str]]:
    """What was printed, request by request; a line that is not complete yet is left out."""
    return [json.loads(line) for line in printed.split("\n")[:-1]]


def _nginx(directory: Path, addresses: Sequence[str]) -> list[str]:
    listens = " ".join(f"listen {address};" for address in addresses)
    places = " ".join(f"{name}_temp_path {directory}/{name};" for name in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (directory / "nginx.conf").write_text(
        f"""
        daemon off; master_process off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log warn;
        events {{ worker_connections 512; }}
        http {{
            log_format seen escape=json '{{"path":"$request_uri","said":"$http_x_forwarded_client_cert"}}';
            access_log {directory}/printed seen; underscores_in_headers on;
            client_body_temp_path {directory}/body; {places}
            server {{ {listens} location / {{ return 200 "seen"; }} }}
        }}
        """
    )
    return [program("nginx"), "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", f"{directory}/error.log"]


def _go(directory: Path) -> Path:
    built = directory / "app"
    environment = dict(os.environ, GO111MODULE="off", CGO_ENABLED="0", GOCACHE=str(_cache()))
    subprocess.run(
        [program("go"), "build", "-o", str(built), str(_HERE / "app.go")], check=True, env=environment, timeout=300
    )
    return built


@functools.cache
def _cache() -> Path:
    place = _BUILT / f"sidecar-tests-go-{os.geteuid()}"
    place.mkdir(exist_ok=True)
    return place
