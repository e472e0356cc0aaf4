"""Both logs of a real process: a full standard error stops nobody, rotation, the last lines, one document per line."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.coverage import covers
from tests.support.process import ROOT, SidecarProcess
from tests.support.raw import Client
from tests.support.tls import client_hello
from tests.support.upstream import RecordingUpstream, wait_until

LOCAL = ["--inbound=127.0.0.1:0", "--outbound=127.0.0.1:0", "--admin=127.0.0.1:0", "--scrape=off"]


@pytest.fixture
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream() as found:
        yield found


def ask(port: int, path: str, method: str = "GET") -> int:
    """One request; the status of its reply."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    finally:
        connection.close()


def fill(descriptor: int) -> None:
    """Writes into a pipe until nothing more fits, without making it non-blocking for those who share it."""
    own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        for size in (4096, 1):
            with suppress(BlockingIOError):
                while True:
                    os.write(own, b"." * size)
    finally:
        os.close(own)


def test_a_full_standard_error_stops_neither_traffic_nor_the_end(upstream) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "sidecar", f"--upstream=127.0.0.1:{upstream.port}", *LOCAL, "--access-log=off"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=writing)
    try:
        said = b""
        while b"sidecar: ready\n" not in said:
            data = os.read(reading, 4096)
            assert data, said
            said += data
        ports = {
            line.split()[1]: int(line.rpartition(b":")[2]) for line in said.splitlines() if b"listening on" in line
        }
        fill(writing)
        for number in range(20):  # each of the posts is a line of the log
            assert ask(ports[b"admin"], "/reset_counters", "POST") == 200
            assert ask(ports[b"inbound"], f"/{number}") == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(writing)
        os.close(reading)


def test_what_was_lost_is_counted(upstream) -> None:
    """Lines beyond what may wait for standard error are dropped, and the metric says how many."""
    script = (
        "import logging, sys, threading; from sidecar import logging_setup; logging_setup.configure('info', 'text')\n"
        "with logging_setup.in_background() as log:\n"
        "    for number in range(5000): logging.getLogger('sidecar.x').info('%0200d', number)\n"
        "    sys.stdout.write(str(log.newly_dropped())); sys.stdout.flush(); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        dropped = int(process.stdout.read(4))
        assert 3000 < dropped < 5000
        process.stdin.close()
        lines = process.stderr.read().splitlines()
        assert len(lines) == 5000 - dropped
        numbers = [int(line.removeprefix(b"sidecar: ")) for line in lines]
        assert lines == [b"sidecar: %0200d" % number for number in numbers]  # whole
        assert numbers == sorted(set(numbers))  # and in order, wherever some are missing
    assert process.returncode == 0
    with SidecarProcess(upstream.port) as sidecar:
        assert "sidecar_app_log_dropped_lines_total 0.0" in sidecar.admin_get("/metrics")[1]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_rotated_access_log(upstream, form: str) -> None:
    with SidecarProcess(upstream.port, access_log=form) as sidecar:
        rotated = sidecar.log_path.with_name("access.log.1")
        assert ask(sidecar.inbound, "/before") == 200
        wait_until(lambda: len(sidecar.log_lines()) == 1, "the first line")
        sidecar.log_path.rename(rotated)
        assert ask(sidecar.inbound, "/between") == 200
        sidecar.process.send_signal(signal.SIGHUP)
        wait_until(sidecar.log_path.exists, "the new file")
        assert ask(sidecar.inbound, "/after") == 200
        wait_until(lambda: len(sidecar.log_lines()) >= 1 and "/after" in sidecar.log_lines()[-1], "the last line")
        old, new = rotated.read_text().splitlines(), sidecar.log_lines()
    assert ["/before" in old[0], *("/between" in line for line in (*old[1:], *new[:-1]))] == [True, True]


def test_the_last_lines_are_written_at_the_end(upstream) -> None:
    with SidecarProcess(upstream.port, access_log="text") as sidecar:
        assert ask(sidecar.inbound, "/last") == 200
        sidecar.terminate()
        sidecar.wait_clean_exit()
        assert sidecar.errors[-1] == "sidecar: SIGTERM: draining"
        assert "/last" in sidecar.log_lines()[-1]


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_keeps_it_from_starting_comes_in_order_and_whole(upstream, form: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = ["--inbound=127.0.0.1:0", f"--outbound=127.0.0.1:{port}", "--admin=off", "--scrape=off"]
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", f"--upstream=127.0.0.1:{upstream.port}", *flags, f"--log-format={form}"],
            cwd=ROOT, env={**os.environ, "SIDECAR_TYPO": "1"}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    warning, error = done.stderr.splitlines()
    if form == "text":
        assert warning.startswith("sidecar: warning: the environment's SIDECAR_TYPO")
        assert error.startswith(f"sidecar: error: --outbound: cannot listen on 127.0.0.1:{port}")
    else:
        assert [json.loads(line)["level"] for line in (warning, error)] == ["warning", "error"]


_ESCAPED = re.compile(rb"\\.")
HOSTILE = [
    b'GET /"},{"flag":"x HTTP/1.1\r\nHost: app\r\n\r\n',
    b'GET /a?b="c\\ HTTP/1.1\r\nHost: app\r\nUser-Agent: a"b\\c"},{"x":"\r\nConnection: close\r\n\r\n',
    b"GET / HTTP/1.1\r\nHost: app\r\nUser-Agent: a\nb\r\n\r\n",
    b"GET /\x1b[31m\x00 HTTP/1.1\r\nHost: app\r\n\r\n",
    b'GET / HTTP/1.1\r\nHost: a"b\r\n\r\n',
    "GET / HTTP/1.1\r\nHost: app\r\nUser-Agent: \u2028\u0085\r\nConnection: close\r\n\r\n".encode(),
    b'GET / HTTP/1.1\r\nHost: app\r\nUser-Agent: \xff\xfe\x80\r\nX-Forwarded-For: "\\\r\nConnection: close\r\n\r\n',
    b'GET / HTTP/1.1\r\nHost: app\r\nX-Request-Id: "\\\t\x7f\r\nConnection: close\r\n\r\n',
    b'"\r\n\x00\xff',
    client_hello(b'"a\nb\\\x00\xff.example'),
    client_hello(b"a.example", alpn=(b'"\n\xff',)),
]
ADMIN = [
    b'POST /logging?level=%0A"x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n',
    b'POST /logging?level=debug&a="%00%0d%0ax HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n',
    b'POST /reset_counters?"},{"x":" HTTP/1.1\r\nHost: localhost\r\nUser-Agent: "\xff\\\r\nConnection: close\r\n\r\n',
    b'POST /reset_counters HTTP/1.1\r\nHost: a"b\\\r\nConnection: close\r\n\r\n',
]


@covers("HDR-6")
@pytest.mark.parametrize("form", ["text", "json"])
def test_no_byte_of_a_peer_breaks_a_line_of_either_log(upstream, form: str, tmp_path: Path) -> None:
    """Standard output and standard error of one process, after hostile requests to each port."""
    command = [
        sys.executable, "-m", "sidecar", f"--upstream=127.0.0.1:{upstream.port}", *LOCAL, f"--access-log={form}",
        f"--log-format={form}", "--log-level=debug",
    ]  # fmt: skip
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=ROOT, stdout=stdout, stderr=stderr)
    try:
        wait_until(lambda: "ready\n" in _messages(err, form), "ready", 20.0)
        found = (line.split(" listening on ") for line in _messages(err, form).splitlines() if " listening on " in line)
        ports = {name.split()[-1]: int(address.rpartition(":")[2]) for name, address in found}
        for port, bytes_sent in (("inbound", HOSTILE), ("outbound", HOSTILE), ("admin", ADMIN)):
            for data in bytes_sent:
                with Client(ports[port]) as client:
                    client.send(data)
                    client.finish()
                    client.read_to_end()
    finally:
        process.terminate()
        assert process.wait(20) == 0
    logged, said = out.read_bytes().split(b"\n"), err.read_bytes().split(b"\n")
    assert (logged.pop(), said.pop()) == (b"", b"")
    assert len(logged) >= 2 * len(HOSTILE) - 4  # what ends before its detection leaves no record
    assert len(said) >= 5
    for line in (*logged, *said):
        assert line.isascii() and line.decode().isprintable(), line
        if form == "json":
            assert isinstance(json.loads(line), dict), line
    if form == "text":
        assert all(line.startswith(b"[") and _ESCAPED.sub(b"", line).count(b'"') % 2 == 0 for line in logged)
        assert all(line.startswith(b"sidecar: ") for line in said)


def _messages(path: Path, form: str) -> str:
    lines = path.read_text().splitlines()
    return "".join((json.loads(line)["message"] if form == "json" else line) + "\n" for line in lines)


def test_the_library_for_json_is_there_only_where_it_is_wanted() -> None:
    script = (
        "import sys; from sidecar import app, cli, logging_setup; logging_setup.configure('info', sys.argv[1]); "
        "sys.exit('pythonjsonlogger' in sys.modules)"
    )
    codes: dict[str, Any] = {
        form: subprocess.run([sys.executable, "-c", script, form], cwd=ROOT, check=False).returncode
        for form in ("text", "json")
    }
    assert codes == {"text": 0, "json": 1}
