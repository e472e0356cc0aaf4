"""A connection over TLS against the standard library's ``ssl``: handshake, long transfers both ways, new keys, the
end."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import time

import pytest
import trio
from cryptography import x509
from OpenSSL import SSL

from certs.bundle import Bundle, Bundles
from certs.keys import PrivateKey, key_from_pem
from certs.pem import from_pem
from certs.revocation import Revocations
from certs.verify import Peer, verify_handshake
from sidecar.net.connection import Connection, ConnectionClosed
from sidecar.tls import contexts, tls_socket
from sidecar.tls.handshake import secure_client, secure_server
from tests.support import secure
from tests.support.papers import Authority, Papers

DEADLINE = 30.0
BODY = random.Random(7).randbytes(10_000_000)
REQUEST = b"POST /first HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello"


class Ends:
    """Papers for both ends, and contexts of either kind."""

    def __init__(self, directory: Path) -> None:
        authority = Authority(directory)
        self.web, self.caller = authority.issue("web"), authority.issue("caller")
        self.roots = from_pem(authority.roots.read_bytes())
        self._bundles = Bundles.of(Bundle("cluster.local", self.roots))

    def judge(self, chain: Sequence[x509.Certificate]) -> Peer:
        return verify_handshake(chain, self._bundles, Revocations(), time(), expected=None)

    def server(self) -> SSL.Context:
        return contexts.server_context(*self._own(self.web), self.roots, (b"istio",), certificate_needed=True)

    def client(self) -> SSL.Context:
        return contexts.client_context(*self._own(self.caller), self.roots)

    def _own(self, papers: Papers) -> tuple[Sequence[x509.Certificate], PrivateKey]:
        return from_pem(papers.chain.read_bytes()), key_from_pem(papers.key.read_bytes())

    def theirs(self, *, serves: bool) -> ssl.SSLContext:
        papers = self.web if serves else self.caller
        make = secure.server_context if serves else secure.client_context
        return make(papers.key, papers.chain, papers.roots, ("istio",))

    @asynccontextmanager
    async def secured(self, *, serves: bool, room: int = 0) -> AsyncIterator[tuple[Connection, ssl.SSLSocket]]:
        """Our end, which ``serves`` or calls, and ssl's, a blocking socket for a thread."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            if room:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
        if room:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        near.setblocking(False)
        far.settimeout(DEADLINE)
        tls = self.theirs(serves=not serves).wrap_socket(
            far, server_side=not serves, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        connection = Connection(near, "peer", set())
        try:
            with trio.fail_after(DEADLINE):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lambda: trio.to_thread.run_sync(tls.do_handshake))
                    connection = await self.shake(connection, serves=serves)
            yield connection, tls
        finally:
            connection.close()
            tls.close()

    async def shake(self, connection: Connection, *, serves: bool) -> Connection:
        if serves:
            return await secure_server(connection, self.server(), self.judge, DEADLINE)
        return await secure_client(connection, self.client(), self.judge, sni=b"", alpn=(b"istio",), seconds=DEADLINE)


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Ends:
    return Ends(tmp_path_factory.mktemp("papers"))


def _hear(tls: ssl.SSLSocket, chance: random.Random) -> bytes:
    """All that comes, in reads of any size."""
    heard = bytearray()
    while data := tls.recv(chance.choice((1, 100, 5_000, 16_384, 100_000))):
        heard += data
    return bytes(heard)


async def _read(connection: Connection, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        data = await connection.recv()
        assert data
        got += data
    return bytes(got)


# -- long transfers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serves", [True, False], ids=["serves", "calls"])
async def test_ten_megabytes_to_a_slow_reader_under_many_keys(
    ends: Ends, serves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL follows each of our KeyUpdates, or nothing of what comes later would open."""
    monkeypatch.setattr(tls_socket, "RECORDS_PER_KEY", 7)
    with trio.fail_after(DEADLINE):
        async with ends.secured(serves=serves, room=4_096) as (connection, tls), trio.open_nursery() as nursery:
            heard: list[bytes] = []

            async def hear() -> None:
                heard.append(await trio.to_thread.run_sync(_hear, tls, random.Random(3)))

            nursery.start_soon(hear)
            for at in range(0, len(BODY), 1_000_000):
                await connection.send_all(BODY[at : at + 1_000_000])
            await connection.finish()
    assert heard == [BODY]


@pytest.mark.parametrize("serves", [True, False], ids=["serves", "calls"])
async def test_both_ways_at_once(ends: Ends, serves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_socket, "RECORDS_PER_KEY", 20)
    size = 2_000_000
    with trio.fail_after(DEADLINE):
        async with ends.secured(serves=serves) as (connection, tls), trio.open_nursery() as nursery:

            def echo() -> None:
                left = size
                while left:
                    data = tls.recv(50_000)
                    left -= len(data)
                    tls.sendall(data)

            nursery.start_soon(trio.to_thread.run_sync, echo)
            nursery.start_soon(connection.send_all, BODY[:size])
            assert await _read(connection, size) == BODY[:size]


# -- around the handshake ----------------------------------------------------------------------------------------------


class Whispering:
    """A client of ``ssl`` whose bytes go where we want them to."""

    def __init__(self, ends: Ends) -> None:
        self.into, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = ends.theirs(serves=False).wrap_bio(self.into, self._out)

    def step(self) -> bytes:
        """What it says next; its handshake goes on."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self._out.read()

    def said(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self._out.read()


@pytest.mark.parametrize("piece", [1, 7, 100, 100_000])
async def test_a_request_that_comes_with_the_end_of_the_handshake(ends: Ends, piece: int) -> None:
    near, far = socket.socketpair()
    with near, far, trio.fail_after(DEADLINE):
        near.setblocking(False)
        far.setblocking(False)
        plain, peer, client = Connection(near, "peer", set()), trio.socket.from_stdlib_socket(far), Whispering(ends)
        made: list[Connection] = []

        async def shake() -> None:
            made.append(await ends.shake(plain, serves=True))

        async def say(data: bytes) -> None:
            for at in range(0, len(data), piece):
                await peer.send(data[at : at + piece])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake)
            await say(client.step())
            last = b""
            while not last:
                client.into.write(await peer.recv(65_536))
                last = client.step()
            nursery.start_soon(say, last + client.said(REQUEST) + client.said(b"more"))
        connection = made[0]
        assert await _read(connection, len(REQUEST) + 4) == REQUEST + b"more"
        await connection.send_all(b"answer")
        client.into.write(await peer.recv(65_536))
        assert client.tls.read(100) == b"answer"
        connection.close()


async def test_no_ticket_is_sent(ends: Ends) -> None:
    async with ends.secured(serves=True) as (connection, tls):
        await connection.send_all(b"x")
        assert await trio.to_thread.run_sync(tls.recv, 1) == b"x"
        assert tls.session is None or not tls.session.has_ticket


@pytest.mark.parametrize("late", [False, True])
async def test_tickets_of_a_server_are_not_in_the_way(ends: Ends, late: bool) -> None:
    """ssl's server sends two. An idle connection that has got them is as good as new."""
    with trio.fail_after(DEADLINE):
        async with ends.secured(serves=False) as (connection, tls):
            if late:
                await connection.wait_readable()
                assert connection.recv_nowait() is None
            await connection.send_all(b"ask")
            assert await trio.to_thread.run_sync(tls.recv, 3) == b"ask"
            await trio.to_thread.run_sync(tls.sendall, b"answer")
            assert await connection.recv() == b"answer"


async def test_a_server_that_refuses_us_says_so_on_our_first_read(ends: Ends, tmp_path: Path) -> None:
    """In TLS 1.3 our handshake is over before it has looked at our certificate."""
    stranger = secure.server_context(ends.web.key, ends.web.chain, Authority(tmp_path).roots, ("istio",))
    near, far = socket.socketpair()
    with near, far, trio.fail_after(DEADLINE):
        near.setblocking(False)
        far.settimeout(DEADLINE)
        connection = Connection(near, "peer", set())

        def serve() -> None:
            with pytest.raises(ssl.SSLError):
                stranger.wrap_socket(far, server_side=True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, serve)
            connection = await ends.shake(connection, serves=False)
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
        assert "unknown ca" in closed.value.detail
        with pytest.raises(ConnectionClosed):
            await connection.send_all(b"x")
        connection.close()


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serves", [True, False], ids=["serves", "calls"])
async def test_ssl_says_close_notify_and_no_fin(ends: Ends, serves: bool) -> None:
    with trio.fail_after(DEADLINE):
        async with ends.secured(serves=serves) as (connection, tls):

            def end() -> None:
                tls.sendall(b"last")
                tls.settimeout(0)
                with pytest.raises(ssl.SSLWantReadError):
                    tls.unwrap()

            await trio.to_thread.run_sync(end)
            assert [await connection.recv(), await connection.recv(), await connection.recv()] == [b"last", b"", b""]
            await connection.finish()
            tls.settimeout(DEADLINE)
            await trio.to_thread.run_sync(tls.unwrap)


async def test_ssl_hears_our_end_and_says_on(ends: Ends) -> None:
    with trio.fail_after(DEADLINE):
        async with ends.secured(serves=True) as (connection, tls):
            await connection.send_all(b"question")
            await connection.finish()
            assert await trio.to_thread.run_sync(_hear, tls, random.Random(1)) == b"question"
            await trio.to_thread.run_sync(tls.sendall, b"answer")
            assert await connection.recv() == b"answer"


async def test_ssl_hears_no_end_where_we_were_cut(ends: Ends) -> None:
    with trio.fail_after(DEADLINE):
        async with ends.secured(serves=True) as (connection, tls):
            await connection.send_all(b"half of a bo")
            connection.reset()
            with pytest.raises(OSError):
                await trio.to_thread.run_sync(_hear, tls, random.Random(1))
