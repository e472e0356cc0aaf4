"""The admin and the scrape port of the real process: what the composition root wires to them."""

from __future__ import annotations

import http.client
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import SidecarProcess
from tests.support.raw import Client, ask
from tests.support.upstream import RecordingUpstream, wait_until

_PLAIN = b"GET /a?token=hunter2 HTTP/1.1\r\nHost: app\r\nX-Request-Id: the-id\r\n\r\n"


@pytest.fixture
def app() -> Iterator[RecordingUpstream]:
    with RecordingUpstream() as upstream:
        yield upstream


def post(process: SidecarProcess, path: str, token: str = "") -> int:
    return process.admin_get(path, "POST", {"Authorization": f"Bearer {token}"} if token else None)[0]


def test_drain_listeners_stops_accepting_and_the_process_goes_on(app: RecordingUpstream) -> None:
    with SidecarProcess(app.port) as process, Client(process.inbound) as client:
        client.send(_PLAIN)
        assert [reply.status for reply in client.replies((b"GET",), 1)] == [200]
        for _ in range(2):  # twice does no harm
            assert post(process, "/drain_listeners") == 200
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", process.inbound), timeout=5)
        assert process.admin_get("/ready") == (503, "LISTENERS_DRAINED\n")
        shown = json.loads(process.admin_get("/listeners?format=json")[1])
        assert {each["name"]: each["accepting"] for each in shown} == {
            "inbound": False, "outbound": True, "admin": True,
        }  # fmt: skip
        client.heard.raw.clear()
        client.send(_PLAIN)  # who was connected stays, and is served
        assert [reply.status for reply in client.replies((b"GET",), 1)] == [200]
        socket.create_connection(("127.0.0.1", process.outbound), timeout=5).close()


def test_healthcheck_fail_shows_on_both_ports_and_in_the_metrics(app: RecordingUpstream) -> None:
    addresses = ("--inbound=127.0.0.1:0", "--outbound=127.0.0.1:0", "--admin=127.0.0.1:0", "--scrape=127.0.0.1:0")
    with SidecarProcess(app.port, addresses=addresses) as process:
        for path, status in (("/healthcheck/fail", 503), ("/healthcheck/ok", 200)):
            assert post(process, path) == 200
            assert process.admin_get("/ready")[0] == scraped(process, "/healthz/ready")[0] == status
            assert scraped(process, "/healthz/live")[0] == 200
            assert f"\nsidecar_ready {float(status == 200)}\n" in scraped(process, "/metrics")[1]
        assert [reply.status for reply in ask(process.inbound, b"GET / HTTP/1.0\r\n\r\n")] == [200]


def scraped(process: SidecarProcess, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", process.ports["scrape"], timeout=10)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def test_probes_of_the_app(app: RecordingUpstream) -> None:
    addresses = ("--inbound=127.0.0.1:0", "--outbound=127.0.0.1:0", "--admin=off", "--scrape=127.0.0.1:0")
    probes = (f"--probe=web=http:{app.port}/health", "--probe", f"db=tcp:{app.port},gone=tcp:1")
    with SidecarProcess(app.port, *probes, addresses=addresses) as process:
        assert scraped(process, "/app-health/web") == (200, "healthy\n")
        assert scraped(process, "/app-health/db") == (200, "healthy\n")
        assert scraped(process, "/app-health/gone") == (503, "connect_failed\n")
        assert scraped(process, "/app-health/other")[0] == 404


def test_a_probe_of_our_own_port_is_refused_at_the_start() -> None:
    with SidecarProcess(9, "--scrape=15020", "--probe=web=http:15020/x", wait_ready=False) as process:
        assert process.wait_exit(10) == 2
        assert any("--probe: web=http:15020/x would ask this sidecar's own --scrape" in line for line in process.errors)


def test_server_info_tells_where_each_flag_came_from(app: RecordingUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDECAR_IDLE_TIMEOUT", "7m")
    with SidecarProcess(app.port, "--max-waiting", "9") as process:
        flags = json.loads(process.admin_get("/server_info")[1])["flags"]
        assert flags["--max-waiting"] == {"value": "9", "source": "flag"}
        assert flags["--idle-timeout"] == {"value": "7m", "source": "environment"}
        assert flags["--connect-timeout"] == {"value": "5s", "source": "default"}
        assert json.loads(process.admin_get("/config_dump")[1])["timeouts"]["--idle-timeout"] == "7m"


def test_the_token_is_asked_for_and_a_loose_file_is_warned_of(app: RecordingUpstream, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("sesame")
    file.chmod(0o644)
    with SidecarProcess(app.port, "--admin-token-file", str(file)) as process:
        assert [line for line in process.errors if line.startswith("sidecar: warning: --admin-token-file: ")]
        assert [post(process, "/quitquitquit", token) for token in ("", "wrong")] == [401, 403]
        assert process.process.poll() is None
        assert post(process, "/quitquitquit", "sesame") == 200
        process.wait_clean_exit()
        assert not [line for line in process.errors if "sesame" in line]
        assert [line for line in process.errors if "admin: POST /quitquitquit from 127.0.0.1:" in line]


def test_logging_says_less_and_still_who_changed_something(app: RecordingUpstream) -> None:
    with SidecarProcess(app.port) as process:
        assert post(process, "/logging?level=error") == 200
        assert post(process, "/healthcheck/fail") == 200
        process.process.send_signal(signal.SIGTERM)
        process.wait_clean_exit()
        text = "\n".join(process.errors)
        assert "admin: POST /healthcheck/fail from 127.0.0.1:" in text
        assert "draining" not in text


def test_a_request_is_found_explained_and_tapped(app: RecordingUpstream) -> None:
    with SidecarProcess(app.port) as process:
        tap = http.client.HTTPConnection("127.0.0.1", process.admin, timeout=10)
        tap.request("GET", "/tap?path=/a&limit=1")
        stream = tap.getresponse()
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.readline() == b": tapping\n"
        with Client(process.inbound) as client:
            client.send(_PLAIN)
            client.replies((b"GET",), 1)
        wait_until(lambda: "the-id" in process.admin_get("/requests")[1], "it is among the last requests")
        (tapped,) = [line for line in stream.read().splitlines() if line.startswith(b"data: ")]
        tap.close()
        assert json.loads(tapped[6:])["request_id"] == "the-id"
        status, text = process.admin_get("/explain/the-id")
        story = json.loads(text)
        assert (status, story["outcome"]["status"], story["request"]["path_as_sent"]) == (200, 200, "/a?token=***")
        assert story["connection"]["detected"]
        assert [each["outcome"] for each in story["upstream"]["tries"]] == ["answered"]
        assert "hunter2" not in text + process.admin_get("/requests")[1] + tapped.decode()
        wait_until(lambda: bool(process.log_records()), "the access log has it")
        assert process.log_records()[0]["path"] == "/a?token=hunter2"  # the access log is the operator's own


def test_clusters_show_the_pools_of_both_directions(app: RecordingUpstream) -> None:
    with SidecarProcess(app.port) as process:
        with Client(process.inbound) as client:
            client.send(_PLAIN)
            client.replies((b"GET",), 1)
        with Client(process.outbound) as client:
            client.send(b"GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
            assert [reply.status for reply in client.replies((b"GET",), 1)] == [503]
        shown = {each["name"]: each for each in json.loads(process.admin_get("/clusters?format=json")[1])}
    own = shown[f"inbound|http|127.0.0.1:{app.port}"]
    assert (own["open"], own["idle"], own["last_failure"]) == (1, 1, None)
    assert shown["outbound|127.0.0.1:1"]["last_failure"] == "connect_failed: 127.0.0.1:1: connection refused"


def test_a_stream_holds_up_no_drain(app: RecordingUpstream) -> None:
    with SidecarProcess(app.port) as process, socket.create_connection(("127.0.0.1", process.admin), 10) as tap:
        tap.sendall(b"GET /tap HTTP/1.1\r\nHost: localhost\r\n\r\n")
        heard = b""
        while b": tapping" not in heard:
            heard += tap.recv(4096)
        process.terminate()
        process.wait_clean_exit(5)
        while data := tap.recv(4096):
            heard += data
        assert heard.endswith(b"\r\n0\r\n\r\n")
