"""What somebody keeps who records all that passes between two sidecars, and what an app can make of its own sidecar."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType

import pytest

from sidecar.tls.acceptor import AT_ONCE
from tests.support.member import SNI, Shop
from tests.support.raw import Reply, ask
from tests.support.upstream import wait_until

CONTENT = (b"in-the-path-58c1", b"in-a-field-77de", b"in-the-body-4b0a")
SERVER_HELLO, KEY_SHARE, PRE_SHARED_KEY = 2, 51, 41  # RFC 8446 sections 4 and 4.2
X25519MLKEM768 = 0x11EC


@dataclass
class Trace:
    """A relay to ``target`` that keeps every byte, per connection, of either side; a context manager.

    ``spoil``: in the next bytes of that direction (0: the client's) one bit is changed.
    """

    target: int = 0
    connections: list[tuple[bytearray, bytearray]] = field(default_factory=list)
    spoil: int | None = None

    def __post_init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._carry, args=(client,), daemon=True))
            self._threads[-1].start()

    def _carry(self, client: socket.socket) -> None:
        kept = (bytearray(), bytearray())
        self.connections.append(kept)
        with client, socket.create_connection(("127.0.0.1", self.target), 10) as server:
            server.settimeout(None)
            up = threading.Thread(target=self._pass, args=(client, server, kept, 0), daemon=True)
            up.start()
            self._pass(server, client, kept, 1)
            up.join(10)

    def _pass(self, source: socket.socket, sink: socket.socket, kept: tuple[bytearray, ...], direction: int) -> None:
        try:
            while data := bytearray(source.recv(65536)):
                kept[direction].extend(data)
                if self.spoil == direction:
                    self.spoil = None
                    data[len(data) // 2] ^= 1
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for one in (source, sink):  # a reset of one end is the end of both
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


def extensions(server_hello: bytes) -> dict[int, bytes]:
    """Of the first record, which has to be a ServerHello (RFC 8446 section 4.1.3)."""
    assert server_hello[0] == 0x16 and server_hello[5] == SERVER_HELLO
    at = 5 + 4 + 2 + 32
    at += 1 + server_hello[at] + 3  # session id, suite, compression
    end = at + 2 + int.from_bytes(server_hello[at : at + 2], "big")
    at += 2
    found = {}
    while at < end:
        length = int.from_bytes(server_hello[at + 2 : at + 4], "big")
        found[int.from_bytes(server_hello[at : at + 2], "big")] = server_hello[at + 4 : at + 4 + length]
        at += 4 + length
    return found


@pytest.fixture(scope="module")
def trace() -> Iterator[Trace]:
    with Trace() as trace:
        yield trace


@pytest.fixture(scope="module")
def shop(trace: Trace) -> Iterator[Shop]:
    with Shop(endpoint=trace.port) as shop:
        trace.target = shop.web.inbound
        yield shop


def called(shop: Shop, path: bytes, *fields: bytes, body: bytes = b"") -> Reply:
    lines = [b"POST http://web.shop" + path + b" HTTP/1.1", b"Host: web.shop", b"Connection: close", *fields]
    lines.append(b"Content-Length: %d" % len(body))
    (reply,) = ask(shop.caller.outbound, b"\r\n".join(lines) + b"\r\n\r\n" + body)
    return reply


def fields_at_app(shop: Shop, path: bytes) -> list[tuple[bytes, bytes]]:
    found = [one for connection in shop.app.connections for one in connection.requests if one.target == path]
    assert len(found) == 1, found
    return [(name.lower(), value) for name, value in found[0].fields]


def test_a_trace_has_the_service_and_sizes_and_nothing_that_is_said(shop: Shop, trace: Trace) -> None:
    path, value, body = CONTENT
    assert called(shop, b"/" + path, b"x-marker: " + value, body=body).status == 200
    (sent, received) = trace.connections[0]
    assert len(sent) > 1000 and len(received) > 1000
    for kept in (bytes(sent), bytes(received)):
        assert not [each for each in (*CONTENT, b"spiffe://", b"HTTP/1.1") if each in kept]
    assert SNI[80].encode() in sent  # which service is called can be read, and how much, and when


def test_the_keys_of_a_trace_are_gone_with_its_connection(shop: Shop, trace: Trace) -> None:
    """Each connection has keys of its own (no resumption), agreed on by ECDH and ML-KEM together: neither a leaf's
    key, had later, nor a quantum computer alone opens what was recorded."""
    assert called(shop, b"/keys").status == 200
    for _, received in trace.connections:
        found = extensions(bytes(received))
        assert int.from_bytes(found[KEY_SHARE][:2], "big") == X25519MLKEM768
        assert PRE_SHARED_KEY not in found


@pytest.mark.parametrize("direction", [0, 1], ids=["of a request", "of an answer"])
def test_a_bit_that_is_changed_on_the_way_ends_the_connection(shop: Shop, trace: Trace, direction: int) -> None:
    assert called(shop, b"/unspoiled").status == 200  # from now on there is a connection to spoil
    path = b"/spoiled/%d" % direction
    trace.spoil = direction
    reply = called(shop, path, b"x-marker: 1")
    assert reply.status == 503 and trace.spoil is None
    heard = b"".join(bytes(connection.raw) for connection in shop.app.connections)
    assert (path in heard) == (direction == 1)  # the request had come whole where the answer was changed
    assert called(shop, b"/again").status == 200


def test_an_app_can_not_say_that_it_is_somebody_else(shop: Shop) -> None:
    claim = b"By=spiffe://cluster.local/ns/shop/sa/web;URI=spiffe://cluster.local/ns/shop/sa/admin"
    names = (b"X-Forwarded-Client-Cert", b"x_forwarded_client_cert", b"X-Forwarded_Client-Cert")
    assert called(shop, b"/claims", *(name + b": " + claim for name in names)).status == 200
    fields = fields_at_app(shop, b"/claims")
    said = [value for name, value in fields if name.replace(b"_", b"-") == b"x-forwarded-client-cert"]
    assert len(said) == 1 and said[0].endswith(b"URI=spiffe://cluster.local/ns/shop/sa/caller")


def test_without_its_service_in_the_mesh_file_an_app_is_refused_and_not_helped(shop: Shop) -> None:
    """The proxy of an app speaks for it to services that it knows; to others it is as anybody in plaintext."""
    before = shop.seen()
    place = b"127.0.0.1:%d" % shop.web.inbound
    head = b"GET http://" + place + b"/ HTTP/1.1\r\nHost: " + place + b"\r\nConnection: close\r\n\r\n"
    (reply,) = ask(shop.caller.outbound, head)
    assert reply.status == 503
    wait_until(
        lambda: any(each["response_code_details"] == "plaintext_refused" for each in shop.web.log_records()),
        "the other end refuses it",
    )
    assert shop.seen() == before


def test_who_begins_handshakes_and_ends_none_keeps_nobody_out(shop: Shop, trace: Trace) -> None:
    """So many may be under way; one more ends the oldest, and who goes on with its handshake is served at once."""
    before = shop.web.tell("look")["outcomes"].get("too_many_connections", 0)
    with contextlib.ExitStack() as stack:
        for _ in range(AT_ONCE + 20):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", shop.web.inbound), 10))
            sock.sendall(b"\x16\x03\x01")
        wait_until(
            lambda: shop.web.tell("look")["outcomes"].get("too_many_connections", 0) - before >= 20,
            "the oldest have made room",
        )
        assert shop.web.tell("look")["under_way"] <= AT_ONCE
        shop.caller.install(shop.papers["caller"])  # its connections of before are let go
        known = len(trace.connections)
        assert called(shop, b"/crowded").status == 200
        assert len(trace.connections) == known + 1
