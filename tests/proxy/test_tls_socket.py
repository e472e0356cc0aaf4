"""What one connection's end does to others under the same OpenSSL: nothing."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import monotonic, time
from types import SimpleNamespace
from typing import cast

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1

from certs import issue, keys, spiffe
from certs.bundle import Bundle, Bundles
from certs.keys import PrivateKey
from certs.revocation import Revocations
from certs.verify import Peer, verify_handshake
from sidecar.feed.keepalive_pool import KeepAliveConnection
from sidecar.http.first_bytes import Detected
from sidecar.net.byte_stream import Secured
from sidecar.net.connection import Connection
from sidecar.net.connection_pool import Lease, Limits, Pool
from sidecar.proxy.protocol_detection import detect_protocol
from sidecar.telemetry.metrics import Counters
from sidecar.tls.contexts import client_context, first_contact_context, server_context
from sidecar.tls.handshake import HandshakeFailed, secure_client, secure_server
from sidecar.tls.tls_socket import TlsFailure, TlsSocket
from tests.proxy.sealedpeer import readable, taken_over
from tests.support.sealing import DATA

_ROOT = issue.new_root("cluster.local", keys.new_key(), keys.new_serial(), time(), 3600.0)
_BUNDLES = Bundles.of(Bundle("cluster.local", (_ROOT.certificate,)))
_RESET = b"\x01\0\0\0\0\0\0\0"


def _issued(name: str) -> tuple[PrivateKey, x509.Certificate]:
    key, who = keys.new_key(), spiffe.workload("cluster.local", "shop", name)
    return key, issue.leaf(_ROOT, key.public_key(), who, keys.new_serial(), time(), 600.0)


def _anyone(chain: Sequence[x509.Certificate]) -> Peer:
    return verify_handshake(chain, _BUNDLES, Revocations(), time(), expected=None)


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


class Pair:
    """Two ends of one secured connection."""

    def __init__(self) -> None:
        near, far = trio.run(self._shake)
        self.near, self.far = cast(TlsSocket, near.sock), cast(TlsSocket, far.sock)

    async def _shake(self) -> tuple[Connection, Connection]:
        (caller_key, caller), (web_key, web) = _issued("caller"), _issued("web")
        roots = [_ROOT.certificate]
        client = client_context([caller], caller_key, roots)
        server = server_context([web], web_key, roots, (b"istio",), certificate_needed=True)
        near, far = (Connection(sock, "the other end", set()) for sock in _connected())
        secured: list[Connection] = []

        async def serve() -> None:
            secured.append(await secure_server(far, server, _anyone, 30.0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            near = await secure_client(near, client, _anyone, sni=b"", alpn=(b"istio",), seconds=30.0)
        return near, secured[0]

    def die(self) -> None:
        """The far end is gone with a reset, as this end's kernel knows already."""
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.far.close()

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def pairs() -> Iterator[tuple[Pair, Pair]]:
    both = Pair(), Pair()
    yield both
    for each in both:
        each.close()


def _fail(pair: Pair, how: str) -> None:
    pair.die()
    fails: Callable[[], object] = partial(pair.near.recv, 100) if how == "read" else partial(pair.near.send, b"x")
    with pytest.raises(OSError):
        fails()
    pair.near.close()


@pytest.mark.parametrize("how", ["read", "write"])
class TestAfterAnotherHasFailed:
    def test_a_clean_end_is_one(self, pairs: tuple[Pair, Pair], how: str) -> None:
        dead, alive = pairs
        alive.far.shutdown(socket.SHUT_WR)
        _fail(dead, how)
        assert alive.near.recv(100) == b""

    def test_one_that_waits_says_goodbye_later(self, pairs: tuple[Pair, Pair], how: str) -> None:
        dead, alive = pairs
        _fail(dead, how)
        with pytest.raises(BlockingIOError):
            alive.near.recv(100)
        alive.near.shutdown(socket.SHUT_WR)
        assert alive.far.recv(100) == b""

    def test_no_byte_is_sent_twice(self, pairs: tuple[Pair, Pair], how: str) -> None:
        dead, alive = pairs
        _fail(dead, how)
        data = os.urandom(16_000_000)  # more than both kernels hold
        sent = alive.near.send(data)
        assert 0 < sent < len(data)
        got = bytearray()
        while len(got) < sent:
            got += alive.far.recv(65_536)
        assert bytes(got) == data[: len(got)]


@pytest.mark.parametrize("cut", [False, True])
def test_a_closed_one_leaves_its_number_alone(cut: bool) -> None:
    pair = Pair()
    near, far = _connected()
    number = pair.near.fileno()
    if cut:
        pair.near.shutdown(socket.SHUT_RDWR)
    pair.near.close()
    try:
        os.dup2(near.fileno(), number)  # somebody else has it now
        far.send(b"\x17\x03\x03\x00\x01x")
        with pytest.raises(OSError):
            pair.near.send(b"x" * 100)
        with pytest.raises(TlsFailure):
            pair.near.recv(100)
        with pytest.raises(OSError):
            pair.near.shutdown(socket.SHUT_WR)
        with pytest.raises(BlockingIOError):
            far.recv(100)
        assert near.recv(100) == b"\x17\x03\x03\x00\x01x"
    finally:
        os.close(number)
        near.close()
        far.close()
        pair.far.close()


async def test_a_certificate_that_only_openssl_can_read_is_refused(tmp_path: Path) -> None:
    key, good = _issued("web")
    # Version 4: OpenSSL reads on, and first contact lets it pass until it is judged.
    der = good.public_bytes(Encoding.DER).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03", 1)
    file = tmp_path / "web.der"
    file.write_bytes(der)
    near, far = _connected()
    connections: set[Connection] = set()
    connection = Connection(near, "control", connections)

    def serve() -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate_file(str(file), FILETYPE_ASN1)
        context.use_privatekey(key)
        far.setblocking(True)
        server = SSL.Connection(context, far)
        server.set_accept_state()
        with contextlib.suppress(SSL.Error):
            server.do_handshake()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, serve)
        with pytest.raises(HandshakeFailed) as failed:
            await secure_client(connection, first_contact_context(), _never, sni=b"", alpn=(b"http/1.1",), seconds=5.0)
    connection.close()
    far.close()
    assert failed.value.rule == "unreadable"


def _never(chain: Sequence[x509.Certificate]) -> Peer:
    raise AssertionError("nothing of it could be read")


async def test_a_server_that_leaves_a_silent_client_is_no_reason_to_look_again_and_again() -> None:
    pair = await trio.to_thread.run_sync(Pair)
    near, far = _connected()
    connections: set[Connection] = set()
    client = Connection(near, "client", connections)
    server = Connection(pair.near, "server", connections, Secured(None, b"", b"", "", ""))
    pair.far.close()

    async def connect() -> Lease:
        return Lease(pool, server)

    async def dial(seconds: float) -> Connection:
        raise AssertionError("there is a connection")

    pool = Pool(dial, Limits(1, 1, 1.0, 1.0), Counters())
    server_first_cache = SimpleNamespace(server_first=True)  # it is dialed at once
    with trio.fail_after(5):
        found = await detect_protocol(
            client, b"", connect, server_first_cache, lease=None, head_timeout=60.0, idle=60.0
        )
    assert found.kind is Detected.OPAQUE and not found.server_first and not found.data
    for each in (client, server):
        each.close()
    far.close()


async def test_a_connection_on_which_a_part_of_a_record_has_come_is_not_used_again() -> None:
    """The rest of it would be taken for the begin of an answer."""
    with taken_over(serves=False) as (near, peer):
        server = Connection(near, "server", set(), Secured(None, b"", b"", "", ""))
        late = peer.sealed((DATA, b"HTTP/1.1 408 Request Timeout\r\n\r\n"))

        async def dial(seconds: float) -> Connection:
            return server

        pool = Pool(dial, Limits(1, 1, 1.0, 60.0), Counters())
        lease, line = await pool.acquire(), KeepAliveConnection(server, None)
        line.rests_since = monotonic()
        assert lease.quiet() and line.is_good(monotonic())
        peer.write(late[:10])
        assert readable(near) and not lease.quiet() and not line.is_good(monotonic())
        assert not readable(near, 0.0) and not lease.quiet()
        peer.write(late[10:])
        assert readable(near) and near.recv(100).startswith(b"HTTP/1.1 408") and lease.quiet()
        lease.release(reusable=False)
