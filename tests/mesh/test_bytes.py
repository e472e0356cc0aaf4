"""Opaque bytes through both sidecars: who speaks first, both ends' ends, many bytes, and resets."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.member import WEB, Shop
from tests.support.raw import Client
from tests.support.upstream import wait_until

GREETING = b"\x4a\x00\x00\x00\x0a8.0.36\x00" + bytes(64)
SIZE = 100 * 1024 * 1024


@contextmanager
def app(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server whose every connection is ``serve``'s."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=run, args=(sock,), daemon=True).start()

    def run(sock: socket.socket) -> None:
        with sock:
            sock.settimeout(60)
            serve(sock)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@contextmanager
def tunnel(port: int, *, to: int = 3306) -> Iterator[tuple[Client, Shop]]:
    """A client with a CONNECT to web's ``to`` behind it, whose app listens at ``port``."""
    with Shop(app=port) as shop, Client(shop.caller.outbound, deadline=60) as client:
        client.send(b"CONNECT %b:%d HTTP/1.1\r\nHost: %b:%d\r\n\r\n" % (WEB.encode(), to, WEB.encode(), to))
        client.read_until(lambda raw: b"\r\n\r\n" in raw)
        head, _, rest = bytes(client.heard.raw).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        client.heard.raw[:] = rest
        yield client, shop


@pytest.mark.parametrize("to", [3306, 8080])
def test_a_server_that_speaks_first_is_heard(to: int) -> None:
    def serve(sock: socket.socket) -> None:
        sock.sendall(GREETING)
        sock.sendall(sock.recv(100).upper())

    with app(serve) as port, tunnel(port, to=to) as (client, shop):
        client.read_until(lambda raw: len(raw) >= len(GREETING))
        assert client.heard.raw == GREETING
        client.send(b"login")
        assert client.read_to_end().raw == GREETING + b"LOGIN"
        assert client.heard.end == "eof"
        client.finish()
        wait_until(lambda: bool(shop.web.log_records()), "a record")
        assert shop.web.log_records()[0]["downstream_peer_uri_san"] == "spiffe://cluster.local/ns/shop/sa/caller"
        wait_until(lambda: bool(shop.caller.log_records()), "a record")
        assert shop.caller.log_records()[0]["upstream_peer_uri_san"] == "spiffe://cluster.local/ns/shop/sa/web"


def test_either_side_may_end_and_still_listen() -> None:
    def serve(sock: socket.socket) -> None:
        heard = b""
        while data := sock.recv(65536):
            heard += data
        sock.sendall(b"heard %d" % len(heard))

    with app(serve) as port, tunnel(port) as (client, _):
        client.send(b"\x00" * 1000)
        client.finish()
        heard = client.read_to_end()
        assert (bytes(heard.raw), heard.end) == (b"heard 1000", "eof")

    ended = threading.Event()

    def serve_and_listen(sock: socket.socket) -> None:
        sock.sendall(b"bye")
        sock.shutdown(socket.SHUT_WR)
        if sock.recv(100) == b"after":
            ended.set()

    with app(serve_and_listen) as port, tunnel(port) as (client, _):
        assert client.read_to_end().end == "eof"
        client.send(b"after")
        client.finish()
        assert ended.wait(30)


def test_a_hundred_megabytes_come_as_they_went() -> None:
    block = os.urandom(1 << 20)

    def serve(sock: socket.socket) -> None:
        found = hashlib.sha256()
        while data := sock.recv(1 << 18):
            found.update(data)
        sock.sendall(found.digest())
        for _ in range(SIZE >> 20):
            sock.sendall(block)

    with app(serve) as port, tunnel(port) as (client, _):
        wanted = hashlib.sha256()
        for _ in range(SIZE >> 20):
            client.sock.settimeout(60)
            client.sock.sendall(block)
            wanted.update(block)
        client.finish()
        heard = client.read_to_end()
        assert heard.end == "eof"
        assert bytes(heard.raw[:32]) == wanted.digest()
        assert hashlib.sha256(memoryview(heard.raw)[32:]).digest() == wanted.digest()


@pytest.mark.parametrize("who", ["app", "client"])
def test_a_reset_is_a_reset_at_the_other_end(who: str) -> None:
    heard: list[str] = []

    def lingering(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"hello")
        sock.recv(5)
        if who == "app":
            lingering(sock)
            return
        try:
            heard.append("eof" if not sock.recv(100) else "bytes")
        except ConnectionResetError:
            heard.append("reset")

    with app(serve) as port, tunnel(port) as (client, _):
        client.read_until(lambda raw: len(raw) == 5)
        client.send(b"hello")
        if who == "app":
            assert client.read_to_end().end == "reset"
        else:
            lingering(client.sock)
            wait_until(lambda: bool(heard), "the app hears of it")
            assert heard == ["reset"]
