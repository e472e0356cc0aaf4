"""Connections that are not HTTP: relayed as they are, in both modes that allow it, with a record for each."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.proxy.tlspeer import TlsEcho, tls_over
from tests.support.ports import held_port
from tests.support.process import SidecarProcess
from tests.support.raw import Client
from tests.support.upstream import wait_until

GREETING_WITHIN = 3.0  # seconds; a proxy that waits for the client's word waits 10, and the benchmark holds it to 0.15
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@pytest.fixture
def app() -> Iterator[socket.socket]:
    """A listening app; the test takes its connections itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        yield listener


def _sidecar(app: socket.socket, protocol: str) -> SidecarProcess:
    return SidecarProcess(app.getsockname()[1], "--protocol", protocol, "--drain-seconds", "1")


def _accepted(app: socket.socket) -> socket.socket:
    connection, _ = app.accept()
    connection.settimeout(30)
    return connection


def _take(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(65536)):
        data += more
    return data


def _record(sidecar: SidecarProcess, protocol: str) -> dict[str, Any]:
    wait_until(lambda: any(r["protocol"] == protocol for r in sidecar.log_records()), f"a record with {protocol}")
    (record,) = [r for r in sidecar.log_records() if r["protocol"] == protocol]
    return record


@pytest.mark.parametrize("protocol", ["tcp", "auto"])
@pytest.mark.parametrize("first", ["client", "app"])
def test_half_close(app: socket.socket, protocol: str, first: str) -> None:
    """Either side may say its last word and still listen; all bytes are counted."""
    with _sidecar(app, protocol) as sidecar:
        with Client(sidecar.inbound) as client:
            client.send(b"\x01\x02binary")
            with _accepted(app) as server:
                assert _take(server, 8) == b"\x01\x02binary"
                left, right = (client.sock, server) if first == "client" else (server, client.sock)
                left.shutdown(socket.SHUT_WR)
                assert right.recv(100) == b""
                for word in (b"one", b"two"):
                    right.sendall(word)
                    assert _take(left, 3) == word
                right.shutdown(socket.SHUT_WR)
                assert left.recv(100) == b""
        record = _record(sidecar, "TCP")
        sent, received = (6, 8) if first == "client" else (0, 14)
        assert (record["bytes_sent"], record["bytes_received"]) == (sent, received)
        assert (record["direction"], record["response_flags"], record["attempts"]) == ("inbound", "-", 1)
        assert record["upstream_host"] == f"127.0.0.1:{app.getsockname()[1]}"


@pytest.mark.parametrize("protocol", ["tcp", "auto"])
def test_server_first(app: socket.socket, protocol: str) -> None:
    with _sidecar(app, protocol) as sidecar:
        for _ in range(2):
            began = time.monotonic()
            with Client(sidecar.inbound) as client, _accepted(app) as server:
                server.sendall(b"220 ready\r\n")
                client.read_until(lambda raw: raw.endswith(b"\r\n"))
                assert client.heard.raw == b"220 ready\r\n"
                assert time.monotonic() - began < GREETING_WITHIN
                client.send(b"QUIT\r\n")
                assert _take(server, 6) == b"QUIT\r\n"
                client.finish()
                assert server.recv(100) == b""
        wait_until(lambda: len(sidecar.log_records()) == 2, "both records")
        if protocol == "auto":
            assert 'outcome="server_first"} 2' in sidecar.admin_get("/metrics")[1]


def test_what_was_server_first_once_may_still_be_http(app: socket.socket) -> None:
    """Memory shortens the wait and decides nothing."""
    with _sidecar(app, "auto") as sidecar:
        with Client(sidecar.inbound), _accepted(app) as server:
            server.sendall(b"220 ready\r\n")
            wait_until(lambda: 'outcome="server_first"} 1' in sidecar.admin_get("/metrics")[1], "it is remembered")
        with Client(sidecar.inbound) as client:
            client.send(b"GET /after HTTP/1.1\r\nHost: app\r\n\r\n")
            said = b""
            while not said:  # what was dialed early may be let go again
                with _accepted(app) as server:
                    said = server.recv(4096)
                    if said:
                        server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                        assert client.replies((b"GET",), 1)[0].status == 200
            assert said.startswith(b"GET /after HTTP/1.1\r\n")


@pytest.mark.parametrize("protocol", ["auto", "tcp"])
def test_tls_is_relayed_with_its_server_name(protocol: str) -> None:
    with TlsEcho() as echo, SidecarProcess(echo.port, "--protocol", protocol) as sidecar:
        with socket.create_connection(("127.0.0.1", sidecar.inbound), timeout=8) as sock:
            with tls_over(sock, "shop.example") as secure:
                secure.sendall(b"hello")
                assert secure.recv(100) == b"HELLO"
        record = _record(sidecar, "TLS" if protocol == "auto" else "TCP")
        assert record["requested_server_name"] == ("shop.example" if protocol == "auto" else None)
        assert record["response_code"] == 0


TEXT_PROTOCOLS = {
    "rtsp": b"OPTIONS rtsp://cam/stream RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    "sip": b"SUBSCRIBE sip:bob@example SIP/2.0\r\nVia: x\r\n\r\n",
    "icap": b"OPTIONS icap://av/avscan ICAP/1.0\r\nHost: av\r\n\r\n",
    "stomp": b"CONNECT\naccept-version:1.2\nhost:mq\n\n\x00",
    "nats": b'CONNECT {"verbose":false}\r\nPING\r\n',
    "redis": b"GET counter\r\n",
    "memcached": b"get counter\r\n",
    "graphite": b"web.hits 3 1700000000\n",
    "zookeeper": b"ruok",
    "a line of text": b"MOVE 10 20\n",
}


@pytest.mark.parametrize("said", TEXT_PROTOCOLS.values(), ids=TEXT_PROTOCOLS)
@pytest.mark.parametrize("through", ["inbound", "tunnel"])
def test_text_that_is_not_http_is_relayed(app: socket.socket, said: bytes, through: str) -> None:
    """Also where its first word is a method of HTTP."""
    with (
        _sidecar(app, "auto") as sidecar,
        Client(getattr(sidecar, "inbound" if through == "inbound" else "outbound")) as client,
    ):
        if through == "tunnel":
            port = app.getsockname()[1]
            client.send(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (port, port))
            client.replies((b"CONNECT",), 1)
            client.heard.raw.clear()
        client.send(said)
        with _accepted(app) as server:
            assert _take(server, len(said)) == said
            server.sendall(b"answer")
            client.read_until(lambda raw: len(raw) == 6)
            assert client.heard.raw == b"answer"


def test_http2_is_refused_where_it_is_not_declared(app: socket.socket) -> None:
    with _sidecar(app, "auto") as sidecar:
        with Client(sidecar.inbound) as client:
            client.send(PREFACE, "bytes")
            (reply,) = client.replies((b"GET",), 1)
        assert reply.status == 505 and b"appProtocol http2 or grpc" in reply.body and b"--protocol http2" in reply.body
        app.settimeout(0)
        with pytest.raises(BlockingIOError):
            app.accept()


@pytest.mark.parametrize("split", [9, 4])
def test_http2_is_refused_where_the_app_sends_its_settings_first(app: socket.socket, split: int) -> None:
    """As servers of gRPC do. The client is silent, so that the app is dialed."""
    settings = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"
    with _sidecar(app, "auto") as sidecar, Client(sidecar.inbound) as client:
        with _accepted(app) as server:
            server.sendall(settings[:split])
            client.read_to_end()
            with contextlib.suppress(ConnectionResetError):
                assert _take(server, 1) == b""
        assert not client.heard.raw
        assert _record(sidecar, "HTTP/2")["response_code_details"] == "bad_version"


def test_a_proxy_protocol_header_is_refused(app: socket.socket) -> None:
    """What follows it would be HTTP, and of the client's own making."""
    with _sidecar(app, "auto") as sidecar, Client(sidecar.inbound) as client:
        client.send(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.read_to_end()
        assert not client.heard.raw
        assert _record(sidecar, "TCP")["response_code_details"] == "protocol_refused"


def test_http2_is_relayed_as_it_is_where_it_is_declared(app: socket.socket) -> None:
    with _sidecar(app, "http2") as sidecar:
        with Client(sidecar.inbound) as client:
            client.send(PREFACE, "bytes")
            with _accepted(app) as server:
                assert _take(server, len(PREFACE)) == PREFACE
                server.sendall(b"\x00\x00\x00\x04\x01\x00\x00\x00\x00")
                client.read_until(lambda raw: len(raw) == 9)
                assert len(client.heard.raw) == 9
        assert _record(sidecar, "HTTP/2")["bytes_received"] == len(PREFACE)
        assert 'outcome="http2"} 1' in sidecar.admin_get("/metrics")[1]


def test_bulk_both_ways(app: socket.socket) -> None:
    """Enough for the kernel to move it, in both directions at once, and every byte where it belongs."""
    size = 24 << 20
    block = bytes(range(256)) * 256

    def say(sock: socket.socket) -> None:
        for _ in range(size // len(block)):
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)

    def check(sock: socket.socket) -> int:
        count = 0
        while data := sock.recv(1 << 18):
            at = count % 256
            assert data == (block * (len(data) // len(block) + 2))[at : at + len(data)]
            count += len(data)
        return count

    with _sidecar(app, "tcp") as sidecar:
        with Client(sidecar.inbound, deadline=30) as client, _accepted(app) as server:
            counted: list[int] = []
            work = [
                threading.Thread(target=say, args=(client.sock,)),
                threading.Thread(target=say, args=(server,)),
                threading.Thread(target=lambda: counted.append(check(server))),
            ]
            for thread in work:
                thread.start()
            counted.append(check(client.sock))
            for thread in work:
                thread.join(30)
            assert counted == [size, size]
        record = _record(sidecar, "TCP")
        assert (record["bytes_sent"], record["bytes_received"]) == (size, size)
        spliced = next(
            line
            for line in sidecar.admin_get("/metrics")[1].splitlines()
            if line.startswith("sidecar_spliced_bytes_total")
        )
        assert float(spliced.split()[1]) > size


@pytest.mark.parametrize("protocol", ["tcp", "auto"])
def test_app_that_is_not_there(protocol: str) -> None:
    with held_port() as gone, SidecarProcess(gone, "--protocol", protocol) as sidecar:
        with Client(sidecar.inbound) as client:
            client.send(b"\x00\x01")
            client.read_to_end()
            assert (client.heard.end, bytes(client.heard.raw)) == ("reset", b"")
        record = _record(sidecar, "TCP")
        assert (record["response_flags"], record["response_code_details"]) == ("UF", "connect_failed")


@pytest.mark.parametrize("protocol", ["tcp", "auto"])
def test_reset_passes(app: socket.socket, protocol: str) -> None:
    with _sidecar(app, protocol) as sidecar:
        with Client(sidecar.inbound) as client:
            client.send(b"\x00\x01")
            with _accepted(app) as server:
                assert _take(server, 2) == b"\x00\x01"
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                client.sock.close()
                with pytest.raises(ConnectionResetError):
                    server.recv(100)
        assert _record(sidecar, "TCP")["response_flags"] == "DC"
