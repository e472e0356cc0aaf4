"""Ends that are not in order: clients that go away, apps that closed a kept connection, apps that are not there."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.proxy.front import Front
from tests.support.ports import held_port
from tests.support.process import SidecarProcess
from tests.support.raw import Client, ask
from tests.support.upstream import Connection, RecordingUpstream, Step, close, hold, ok, reset, send, until, wait_until

GONE_WITHIN = 5.0  # seconds, from the client's end to the end of the app's work; mostly 50 ms, else five minutes
GO: dict[str, threading.Event] = {}


def acceptor(name: str) -> Step:
    """Waits for an event that the test named ``name`` sets."""
    GO[name] = threading.Event()
    return until(GO[name])


def _read_no_more(connection: Connection) -> bool:
    """Reads nothing until the test is over: the proxy's writes come to a halt."""
    return GO["never-read"].wait(20)


GO["never-read"] = threading.Event()
_BIG = 4 << 20
SCRIPTS: dict[str, tuple[Step, ...]] = {
    "hold": (hold,),
    "half": (send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), hold),
    "endless": (send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (_BIG * 8)), send(bytes(_BIG * 8)), hold),
    "never-read": (_read_no_more, hold),
    "then-close": (send(ok()), close),
    "then-reset": (send(ok()), reset),
    "close-at-once": (close,),
    "reset-at-once": (reset,),
    "close-in-head": (send(b"HTTP/1.1 200 OK\r\nConte"), close),
    "slow": (acceptor("slow"), send(ok())),
}


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with Front(SCRIPTS) as running:
        yield running


# -- the client goes away ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize("script", ["hold", "half"])
def test_client_gone_ends_the_apps_work(front: Front, script: str, how: str) -> None:
    target = b"/script/" + script.encode()
    before = front.times_seen(target)
    with front.client() as client:
        client.send(b"GET %b HTTP/1.1\r\nHost: app\r\nX-Request-Id: %b-%b\r\n\r\n" % (target, target, how.encode()))
        wait_until(lambda: front.times_seen(target) > before, "the app has the request")
        connection = next(c for c in front.app.live() if c.requests and c.requests[-1].target == target)
        if how == "reset":
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    left = time.monotonic()
    wait_until(lambda: connection.finished, "the app's connection ends")
    assert time.monotonic() - left < GONE_WITHIN
    record = next(r for r in front.records(target, before + 1) if r["request_id"].endswith(how))
    assert (record["response_flags"], record["response_code_details"]) == ("DC", "client_closed")
    assert record["response_code"] == (200 if script == "half" else 0)


def test_client_gone_in_a_pipeline(front: Front) -> None:
    """Unread bytes in front of the FIN hide it from nobody."""
    with front.client() as client:
        client.send(b"GET /script/hold HTTP/1.1\r\nHost: app\r\n\r\n")
        wait_until(lambda: bool(_holding(front)), "the app has the first")
        (connection,) = _holding(front)
        client.send(b"GET /never HTTP/1.1\r\nHost: app\r\n\r\n" * 100)
    wait_until(lambda: connection.finished, "the app's connection ends", GONE_WITHIN)
    assert front.times_seen(b"/never") == 0


def _holding(front: Front) -> list[Connection]:
    return [c for c in front.app.live() if c.requests and c.requests[-1].target == b"/script/hold"]


def test_client_gone_in_the_middle_of_its_body(front: Front) -> None:
    with front.client() as client:
        client.send(b"POST /half-a-body HTTP/1.1\r\nHost: app\r\nContent-Length: 1000\r\n\r\nabc")
        wait_until(lambda: any(c.mid_request for c in front.app.live()), "the app has the beginning")
        (connection,) = [c for c in front.app.live() if c.mid_request]
    wait_until(lambda: connection.finished, "the app's connection ends", GONE_WITHIN)
    assert front.record(b"/half-a-body")["response_flags"] == "DC"


def test_client_gone_while_the_app_takes_nothing(front: Front) -> None:
    """An upload that has come to a halt ends with its client all the same. (A client that says FIN behind bytes for
    which there is no room can't be seen to leave by anybody.)"""
    with front.client() as client:
        client.send(b"POST /early/never-read HTTP/1.1\r\nHost: app\r\nContent-Length: 50000000\r\n\r\n")
        client.sock.setblocking(False)
        halted = time.monotonic()
        while time.monotonic() - halted < 0.3:  # until nothing has gone out for so long
            try:
                client.sock.send(bytes(65536))
                halted = time.monotonic()
            except BlockingIOError:
                threading.Event().wait(0.01)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    left = time.monotonic()
    record = front.record(b"/early/never-read")
    assert time.monotonic() - left < GONE_WITHIN
    assert record["response_flags"] == "DC"
    GO["never-read"].set()


def test_client_gone_in_a_long_answer(front: Front) -> None:
    with front.client() as client:
        client.send(b"GET /script/endless HTTP/1.1\r\nHost: app\r\n\r\n")
        client.read_until(lambda raw: len(raw) > 100_000)
        connection = front.connection_of(b"/script/endless")
    wait_until(lambda: connection.finished, "the app's connection ends", GONE_WITHIN)
    assert front.record(b"/script/endless")["response_flags"] == "DC"


# -- kept connections that went stale ----------------------------------------------------------------------------------


class _Stale:
    """An app that answers the first request of a connection, and ends the connection when a second one begins."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.first: list[bytes] = []  # what came first on each connection
        self.second: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            self.first.append(sock.recv(65536))
            sock.sendall(ok())
            data = sock.recv(65536)
            if data:
                self.second.append(data)

    def targets(self, heads: list[bytes]) -> list[bytes]:
        return [head.split(b" ")[1] for head in heads]


@pytest.fixture
def stale() -> Iterator[_Stale]:
    app = _Stale()
    yield app
    app.listener.close()


def _twice(sidecar: SidecarProcess, second: bytes) -> tuple[int, bytes]:
    """A request that leaves an idle connection to the app behind, then ``second``: its status and its reply's body."""
    with Client(sidecar.inbound) as client:
        client.send(b"GET /first HTTP/1.1\r\nHost: app\r\n\r\n")
        client.replies((b"GET",), 1)
        client.send(second)
        reply = client.replies((b"GET", second.split(b" ")[0]), 2)[-1]
    return reply.status, reply.body


@pytest.mark.parametrize(
    "request_line",
    [b"GET /again HTTP/1.1", b"PUT /again HTTP/1.1\r\nContent-Length: 0", b"DELETE /again HTTP/1.1"],
    ids=["get", "put-without-body", "delete"],
)
def test_safe_request_on_a_stale_connection_is_sent_once_more(stale: _Stale, request_line: bytes) -> None:
    with SidecarProcess(stale.port) as sidecar:
        status, _ = _twice(sidecar, request_line + b"\r\nHost: app\r\n\r\n")
        assert status == 200
        assert stale.targets(stale.second) == [b"/again"]
        assert stale.targets(stale.first) == [b"/first", b"/again"]
        wait_until(lambda: len(sidecar.log_records()) == 2, "both records")
        record = sidecar.log_records()[-1]
        assert (record["attempts"], record["response_code"], record["response_flags"]) == (2, 200, "-")
        assert not record["connection_reused"]
        assert "sidecar_retries_total 1" in sidecar.admin_get("/stats/prometheus")[1]


@pytest.mark.parametrize(
    "rest",
    [
        b"POST /again HTTP/1.1\r\nContent-Length: 3\r\nHost: app\r\n\r\nabc",
        b"POST /again HTTP/1.1\r\nHost: app\r\n\r\n",
    ],
    ids=["body", "no-body"],
)
def test_a_post_on_a_stale_connection_is_not_sent_twice(stale: _Stale, rest: bytes) -> None:
    with SidecarProcess(stale.port) as sidecar:
        status, body = _twice(sidecar, rest)
        assert status == 503
        assert json.loads(body)["flag"] == "UC"
        assert stale.targets(stale.second) == [b"/again"]
        assert stale.targets(stale.first) == [b"/first"]
        wait_until(lambda: len(sidecar.log_records()) == 2, "both records")
        record = sidecar.log_records()[-1]
        assert (record["attempts"], record["response_flags"], record["connection_reused"]) == (1, "UC", True)


@pytest.mark.parametrize("script", [b"then-close", b"then-reset"])
def test_a_connection_that_the_app_closed_is_not_used(front: Front, script: bytes) -> None:
    """Even a POST goes through: what is closed already is never picked."""
    with front.client() as client:
        client.send(b"GET /script/%b HTTP/1.1\r\nHost: app\r\n\r\n" % script)
        client.replies((b"GET",), 1)
        connection = front.connection_of(b"/script/" + script)
        wait_until(lambda: connection.finished, "the app has closed")
        client.send(b"POST /after-%b HTTP/1.1\r\nHost: app\r\nContent-Length: 1\r\n\r\nx" % script)
        assert client.replies((b"GET", b"POST"), 2)[-1].status == 200
    assert front.record(b"/after-" + script)["attempts"] == 1


@pytest.mark.parametrize(("script", "status"), [("close-at-once", 503), ("reset-at-once", 503), ("close-in-head", 503)])
def test_an_app_that_closes_instead_of_answering(front: Front, script: str, status: int) -> None:
    reply = front.ask(b"/script/" + script.encode(), b"Content-Length: 1", method=b"POST", body=b"x")
    assert reply.status == status
    assert json.loads(reply.body)["flag"] == "UC"
    assert front.times_seen(b"/script/" + script.encode()) == 1


# -- the app is not there ----------------------------------------------------------------------------------------------


def test_app_that_is_not_up_yet_and_then_is() -> None:
    with held_port() as port, SidecarProcess(port) as sidecar, Client(sidecar.inbound) as client:
        client.send(b"GET /early HTTP/1.1\r\nHost: app\r\nX-Request-Id: r1\r\n\r\n")
        (reply,) = client.replies((b"GET",), 1)
        assert (reply.status, reply.closes) == (503, False)
        assert reply.get(b"content-type") == [b"application/problem+json"]
        problem = json.loads(reply.body)
        assert (problem["status"], problem["flag"], problem["request_id"]) == (503, "UF", "r1")
        assert len(reply.body) < 512
        with socket.create_server(("127.0.0.1", port)) as listener:
            client.send(b"GET /later HTTP/1.1\r\nHost: app\r\n\r\n")
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(4096).startswith(b"GET /later ")
                connection.sendall(ok())
                assert client.replies((b"GET", b"GET"), 2)[-1].status == 200
        wait_until(lambda: len(sidecar.log_records()) == 2, "both records")
        first = sidecar.log_records()[0]
        assert (first["response_code"], first["response_flags"]) == (503, "UF")
        assert first["upstream_host"] == f"127.0.0.1:{port}"


# -- limits ------------------------------------------------------------------------------------------------------------


def test_connections_beyond_the_limit_are_refused() -> None:
    with RecordingUpstream() as app, SidecarProcess(app.port, "--max-connections", "3") as sidecar:
        clients = [Client(sidecar.inbound) for _ in range(3)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            assert client.replies((b"GET",), 1)[0].status == 200
        with Client(sidecar.inbound) as refused:
            refused.send(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            refused.read_to_end()
            assert (refused.heard.end, bytes(refused.heard.raw)) == ("reset", b"")
        clients[0].sock.close()
        wait_until(lambda: _served(sidecar.inbound), "a place becomes free")
        for client in clients:
            client.sock.close()


def _served(port: int) -> bool:
    return [reply.status for reply in ask(port, b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")] == [200]


def test_requests_wait_for_a_connection_to_the_app() -> None:
    """The second waits for the first one's connection; a third, with nobody allowed to wait besides, is refused."""
    release = threading.Event()
    scripts: dict[str, tuple[Step, ...]] = {"slow": (until(release), send(ok()))}
    flags = ("--max-app-connections", "1", "--max-waiting", "1")
    with Front(scripts, *flags) as front, front.client() as first, front.client() as second:
        first.send(b"GET /script/slow HTTP/1.1\r\nHost: app\r\n\r\n")
        front.seen(b"/script/slow")
        second.send(b"POST /waits HTTP/1.1\r\nHost: app\r\nContent-Length: 1\r\n\r\nx")
        wait_until(lambda: "sidecar_pool_waits_total 1" in front.sidecar.admin_get("/metrics")[1], "the second waits")
        third = front.ask(b"/refused")
        assert third.status == 503
        assert json.loads(third.body)["flag"] == "UO"
        assert third.get(b"retry-after") == [b"1"]
        release.set()
        assert first.replies((b"GET",), 1)[0].status == 200
        assert second.replies((b"POST",), 1)[0].status == 200
        assert front.seen(b"/waits").connection == front.seen(b"/script/slow").connection
        assert front.record(b"/refused")["response_code_details"] == "pool_full"


def test_a_wait_that_is_too_long() -> None:
    scripts: dict[str, tuple[Step, ...]] = {"hold": (hold,)}
    with Front(scripts, "--max-app-connections", "1") as front, front.client() as first:
        first.send(b"GET /script/hold HTTP/1.1\r\nHost: app\r\n\r\n")
        front.seen(b"/script/hold")
        reply = front.ask(b"/waits-in-vain")
        assert (reply.status, json.loads(reply.body)["reason"]) == (503, "pool_timeout")
        first.sock.close()
        assert front.ask(b"/afterwards").status == 200
