"""CTL-8, CTL-9: SIGTERM while there is work, twice, at the start, and with an app that hangs. What can end well does;
the rest is cut at the deadline; the exit code is 0."""

from __future__ import annotations

import http.client
import signal
import socket
import threading
import time

import pytest

from tests.hostile.conftest import PROTOCOLS
from tests.hostile.coverage import covers
from tests.support.process import SidecarProcess
from tests.support.raw import Client
from tests.support.upstream import RecordingUpstream, Step, hold, ok, send, until, wait_until

_PLAIN = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
_BODY = 16 * 1024


class _Load:
    """Keep-alive clients that ask again and again until they are told to close, then open another connection."""

    def __init__(self, port: int, count: int) -> None:
        self.port = port
        self.done = 0
        self.closes = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
            try:
                connection.connect()
            except OSError:
                return  # the listener is gone: the drain has come as far as that
            try:
                self._talk(connection)
            finally:
                connection.close()

    def _talk(self, connection: http.client.HTTPConnection) -> None:
        while not self._stop.is_set():
            try:
                connection.request("GET", "/load")
                reply = connection.getresponse()
                body = reply.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                return
            self.done += 1
            if reply.status != 200 or body != b"GET /load 0":
                self.failures.append(f"{reply.status} {body[:100]!r}")
            if reply.will_close:
                self.closes += 1
                return


@covers("CTL-8")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_under_load_nothing_is_lost(protocol: str) -> None:
    with (
        RecordingUpstream() as upstream,
        SidecarProcess(upstream.port, "--protocol", protocol, "--drain-seconds", "10") as sidecar,
    ):
        load = _Load(sidecar.inbound, 16)
        wait_until(lambda: load.done > 200, "a steady load")
        sidecar.terminate()
        sidecar.wait_clean_exit(15)
        load.stop()
        assert not load.failures, load.failures[:5]
        assert load.closes >= 16


@covers("CTL-8")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fifty_large_bodies_complete(protocol: str) -> None:
    """Half of each answer is out when the signal comes; the app sends the rest afterwards."""
    go = threading.Event()
    half = bytes(_BODY // 2)
    script = (send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % _BODY + half), until(go), send(half))
    with RecordingUpstream({"body": script}) as upstream:
        with SidecarProcess(upstream.port, "--protocol", protocol, "--drain-seconds", "15") as sidecar:
            clients = [Client(sidecar.inbound, deadline=20) for _ in range(50)]
            for client in clients:
                client.send(b"GET /script/body HTTP/1.1\r\nHost: app\r\n\r\n")
            for client in clients:
                client.read_until(lambda raw: len(raw) > _BODY // 2)
            sidecar.terminate()
            wait_until(lambda: not _accepts(sidecar.inbound), "the listener is closed")
            go.set()
            for client in clients:
                replies = client.replies((b"GET",), 1)
                assert [(reply.status, len(reply.body), reply.complete) for reply in replies] == [(200, _BODY, True)]
                client.sock.close()
            sidecar.wait_clean_exit(15)


@covers("CTL-8")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fifty_uploads_complete(protocol: str) -> None:
    """The same with bodies of requests: what had begun is taken to its end."""
    with RecordingUpstream() as upstream:
        with SidecarProcess(upstream.port, "--protocol", protocol, "--drain-seconds", "15") as sidecar:
            clients = [Client(sidecar.inbound, deadline=20) for _ in range(50)]
            for client in clients:
                client.send(b"POST /up HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n" % _BODY + bytes(_BODY // 2))
            wait_until(lambda: sum(c.mid_request for c in upstream.live()) == 50, "all have begun")
            sidecar.terminate()
            wait_until(lambda: not _accepts(sidecar.inbound), "the listener is closed")
            for client in clients:
                client.send(bytes(_BODY // 2))
                client.read_to_end()
                assert client.heard.raw.startswith(b"HTTP/1.1 200 ")
                assert b"connection: close" in client.heard.raw.lower()
                client.sock.close()
            sidecar.wait_clean_exit(15)


@covers("CTL-8")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_idle_keep_alive_connection_gets_one_more_answer_or_an_end(protocol: str) -> None:
    with RecordingUpstream() as upstream:
        with SidecarProcess(upstream.port, "--protocol", protocol, "--drain-seconds", "10") as sidecar:
            with Client(sidecar.inbound) as idle, Client(sidecar.inbound) as asking:
                for client in (idle, asking):
                    client.send(_PLAIN)
                    assert [reply.status for reply in client.replies((b"GET",), 1)] == [200]
                    client.heard.raw.clear()
                sidecar.terminate()
                wait_until(lambda: not _accepts(sidecar.inbound), "the listener is closed")
                asking.send(_PLAIN)
                asking.read_to_end()
                if asking.heard.raw:
                    assert b"connection: close" in asking.heard.raw.lower()
                idle.read_to_end()
                assert idle.heard.end == "eof" and not idle.heard.raw
            sidecar.wait_clean_exit()


@covers("CTL-8")
def test_tcp_waits_to_the_deadline() -> None:
    """A relay that goes on is left alone until the deadline, then cut; a relay that ends before lets the process go."""
    for ends in (False, True):
        with _TcpEcho() as port:
            with SidecarProcess(port, "--protocol", "tcp", "--drain-seconds", "2") as sidecar:
                with Client(sidecar.inbound, deadline=20) as client:
                    _echo_once(client, b"before")
                    began = time.monotonic()
                    sidecar.terminate()
                    wait_until(lambda: not _accepts(sidecar.inbound), "the listener is closed")
                    _echo_once(client, b"while draining")
                    if ends:
                        client.finish()
                    client.read_to_end()
                    assert client.heard.end in ("eof", "reset")
                    sidecar.wait_clean_exit()
                    if not ends:
                        assert time.monotonic() - began > 1.5, "cut before the deadline"


class _TcpEcho:
    """An app that says back what it hears; a context manager that gives its port."""

    def __enter__(self) -> int:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return int(self._listener.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(sock,), daemon=True).start()

    def _echo(self, sock: socket.socket) -> None:
        with sock:
            try:
                while data := sock.recv(65536):
                    sock.sendall(data)
            except OSError:
                return


def _echo_once(client: Client, data: bytes) -> None:
    client.heard.raw.clear()
    client.send(data)
    client.read_until(lambda raw: len(raw) >= len(data))
    assert client.heard.raw == data


@covers("CTL-9")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_with_an_app_that_hangs(protocol: str) -> None:
    """The deadline ends it: exit code 0, and the client sees an end."""
    with RecordingUpstream({"hung": (hold,)}) as upstream:
        with SidecarProcess(upstream.port, "--protocol", protocol, "--drain-seconds", "1") as sidecar:
            with Client(sidecar.inbound, deadline=20) as client:
                client.send(b"GET /script/hung HTTP/1.1\r\nHost: app\r\n\r\n")
                wait_until(lambda: any(c.requests for c in upstream.live()), "the app has it")
                sidecar.terminate()
                sidecar.wait_clean_exit()
                client.read_to_end()
                assert client.heard.end in ("eof", "reset")


@covers("CTL-9")
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_twice_ends_at_once(second: signal.Signals) -> None:
    with RecordingUpstream({"hung": (hold,)}) as upstream:
        with SidecarProcess(upstream.port, "--drain-seconds", "60") as sidecar:
            with Client(sidecar.inbound, deadline=20) as client:
                client.send(b"GET /script/hung HTTP/1.1\r\nHost: app\r\n\r\n")
                wait_until(lambda: any(c.requests for c in upstream.live()), "the app has it")
                sidecar.terminate()
                wait_until(lambda: not _accepts(sidecar.inbound), "the drain has begun")
                sidecar.process.send_signal(second)
                sidecar.wait_exit(15)
                sidecar.check_errors()


@covers("CTL-9")
def test_during_the_start() -> None:
    """At whatever moment of the start the signal comes, the process ends, and leaves no traceback."""
    with RecordingUpstream() as upstream:
        for delay in (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4):
            with SidecarProcess(upstream.port, "--drain-seconds", "1", wait_ready=False) as sidecar:
                threading.Event().wait(delay)  # moments to hit, not a wait for anything
                sidecar.terminate()
                code = sidecar.wait_exit(10)
                assert code in (0, -signal.SIGTERM), f"{code} after {delay}: {sidecar.errors}"
                sidecar.check_errors()


@covers("CTL-9")
def test_at_once_when_ready() -> None:
    with RecordingUpstream() as upstream:
        for _ in range(3):
            with SidecarProcess(upstream.port, "--drain-seconds", "5") as sidecar:
                sidecar.terminate()
                sidecar.wait_clean_exit()


@covers("CTL-8")
def test_sigint_drains_too() -> None:
    go = threading.Event()
    scripts: dict[str, tuple[Step, ...]] = {"held": (until(go), send(ok()))}
    with RecordingUpstream(scripts) as upstream:
        with SidecarProcess(upstream.port, "--drain-seconds", "10") as sidecar:
            with Client(sidecar.inbound, deadline=20) as client:
                client.send(b"GET /script/held HTTP/1.1\r\nHost: app\r\n\r\n")
                wait_until(lambda: any(c.requests for c in upstream.live()), "the app has it")
                sidecar.process.send_signal(signal.SIGINT)
                wait_until(lambda: not _accepts(sidecar.inbound), "the drain has begun")
                go.set()
                replies = client.replies((b"GET",), 1)
                assert [(reply.status, reply.closes) for reply in replies] == [(200, True)]
            sidecar.wait_clean_exit()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
