"""What is no plain request comes through two captured pods as well: who speaks first, long, both ways, or in TLS."""

from __future__ import annotations

import os
import socket
import ssl
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from wsproto.events import AcceptConnection, CloseConnection

from tests.netns.apps import read_exactly, serving
from tests.netns.conftest import MakePod
from tests.netns.pod import Pod
from tests.peer.programs import run
from tests.support.websocket import EchoApp, Talk

GREETING = b"\x4a\x00\x00\x00\x0a8.0.36\x00\x08\x00\x00\x00" + bytes(range(64))  # MySQL's, protocol 10
GIGABYTE = 1 << 30
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Pair:
    """Two captured pods: the client's and the app's."""

    a: Pod
    b: Pod


@pytest.fixture(scope="module")
def pair(keep_pod: MakePod) -> Iterator[Pair]:
    made = Pair(keep_pod("a"), keep_pod("b"))
    for pod in (made.a, made.b):
        pod.init()
        pod.sidecar()
    yield made
    for pod in (made.a, made.b):
        pod.proxy.stop()


def _both_recorded(pair: Pair, **wanted: object) -> None:
    pair.a.record(direction="outbound", **wanted)
    pair.b.record(direction="inbound", **wanted)


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_the_server_speaks_first(pair: Pair, family: str) -> None:
    def greet(sock: socket.socket) -> None:
        sock.sendall(GREETING)
        assert sock.recv(100) == b"\x01\x00\x00\x01\x01"  # COM_QUIT
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b""

    there = getattr(pair.b, family)
    with serving(pair.b.listen(3306, host=there), greet) as raised:
        with pair.a.connect(there, 3306, deadline=5) as client:  # a proxy that waits for the client waits for 10 s
            assert read_exactly(client, len(GREETING)) == GREETING
            client.sendall(b"\x01\x00\x00\x01\x01")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b""
    assert raised == []
    target = f"[{there}]:3306" if family == "v6" else f"{there}:3306"
    _both_recorded(
        pair, original_destination=target, protocol="TCP", bytes_sent=len(GREETING), bytes_received=5,
        response_flags="-",
    )  # fmt: skip


def test_a_gigabyte_goes_up_unchanged(pair: Pair) -> None:
    """A request body of 1 GiB in known blocks: its length and its checksum come back."""

    def take(sock: socket.socket) -> None:
        buffer = memoryview(bytearray(BLOCK))
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        _, _, first = head.partition(b"\r\n\r\n")
        count, checksum = len(first), zlib.crc32(first)
        while count < GIGABYTE and (more := sock.recv_into(buffer)):
            count += more
            checksum = zlib.crc32(buffer[:more], checksum)
        body = b"%d %08x" % (count, checksum)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        sock.recv(1)

    blocks = [os.urandom(BLOCK) for _ in range(4)]
    checksum = 0
    for number in range(GIGABYTE // BLOCK):
        checksum = zlib.crc32(blocks[number % 4], checksum)
    head = f"PUT /gigabyte HTTP/1.1\r\nHost: b\r\nContent-Length: {GIGABYTE}\r\nConnection: close\r\n\r\n"
    with serving(pair.b.listen(9001), take) as raised, pair.a.connect(pair.b.v4, 9001, deadline=60) as client:
        client.sendall(head.encode())
        for number in range(GIGABYTE // BLOCK):
            client.sendall(blocks[number % 4])
        answer = b""
        while more := client.recv(65536):
            answer += more
    assert raised == []
    assert answer.endswith(b"\r\n\r\n%d %08x" % (GIGABYTE, checksum))
    _both_recorded(pair, path="/gigabyte", bytes_received=GIGABYTE, response_code=200)


def test_a_websocket(pair: Pair) -> None:
    with EchoApp(pair.b.listen(9002)):
        with pair.a.connect(pair.b.v4, 9002) as sock:
            talk = Talk(sock, f"{pair.b.v4}:9002", "/chat")
            assert isinstance(talk.next(), AcceptConnection)
            for size in (1, 1000, 500_000):
                data = os.urandom(size)
                assert talk.echoed(data) == data
            talk.send(CloseConnection(code=1000))
            assert isinstance(talk.next(), CloseConnection)
            assert sock.recv(1) == b""
    _both_recorded(pair, path="/chat", response_code=101, original_destination=f"{pair.b.v4}:9002")


def test_tls_is_passed_through_by_its_name(pair: Pair, tmp_path: Path) -> None:
    """The app's own certificate arrives, and the records have the name that was asked for."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=shop.example", "-addext", "subjectAltName=DNS:shop.example",
        "-keyout", str(key), "-out", str(certificate),
    )  # fmt: skip
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(certificate, key)

    def answer(sock: socket.socket) -> None:
        with own.wrap_socket(sock, server_side=True) as secured:
            assert secured.recv(1000).startswith(b"GET /secret ")
            secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nshut")

    copied = pair.a.directory / "certificate.pem"
    copied.write_bytes(certificate.read_bytes())
    copied.chmod(0o644)
    with serving(pair.b.listen(8443), answer) as raised:
        said = pair.a.curl(
            "--cacert", str(copied), "--resolve", f"shop.example:8443:{pair.b.v4}", "https://shop.example:8443/secret"
        )
    assert said == "shut"
    assert raised == []
    _both_recorded(
        pair, requested_server_name="shop.example", original_destination=f"{pair.b.v4}:8443", protocol="TLS",
        path=None,
    )  # fmt: skip
