"""A connection over each kind of byte stream, with the same results; and the step from one to the other."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from time import monotonic

import pytest
import trio
import trio.testing

from sidecar.addresses import ClientAddr
from sidecar.errors import Reason
from sidecar.net.byte_stream import Secured
from sidecar.net.connection import Connection, ConnectionClosed, DeadlineExceeded
from sidecar.net.graceful_drain import ConnectionTracker
from sidecar.telemetry.metrics import Counters
from sidecar.tls.records import SUITES, Keys
from sidecar.tls.tls_socket import TlsSocket

KEYS = SUITES["TLS_AES_128_GCM_SHA256"]
SECURED = Secured(None, b"", b"", "X25519", "TLSv1.3")
DEADLINE = 10.0


class Secrets:
    """What both ends of a connection agreed on."""

    def __init__(self) -> None:
        self.by_client, self.by_server = os.urandom(32), os.urandom(32)

    def client(self, raw: socket.socket) -> TlsSocket:
        return TlsSocket(raw, Keys(KEYS, self.by_server), Keys(KEYS, self.by_client), serves=False)

    def server(self, raw: socket.socket) -> TlsSocket:
        return TlsSocket(raw, Keys(KEYS, self.by_client), Keys(KEYS, self.by_server), serves=True)


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for sock in (near, far):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


@pytest.fixture(params=["plain", "TLS"])
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Connection, Connection]]:
    """Both ends of one connection, over the same kind of byte stream."""
    registry: set[Connection] = set()
    near, far = (Connection(sock, name, registry) for sock, name in zip(connected(), ("far", "near"), strict=True))
    if request.param == "TLS":
        secrets = Secrets()
        near, far = near.hand_over(secrets.client, SECURED), far.hand_over(secrets.server, SECURED)
    yield near, far
    near.close()
    far.close()
    assert not registry


# -- the same over both ------------------------------------------------------------------------------------------------


async def test_what_is_sent_is_received(ends: tuple[Connection, Connection]) -> None:
    near, far = ends
    data = os.urandom(3_000_000)
    got = bytearray()

    async def read() -> None:
        while len(got) < len(data):
            got.extend(await far.recv())

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await near.send_all(data)
    assert bytes(got) == data
    assert far.recv_nowait() is None and not far.holds_unread()


async def test_a_full_kernel_takes_nothing(ends: tuple[Connection, Connection]) -> None:
    near, _ = ends
    data = bytes(1 << 20)
    for _ in range(100):
        if near.send_nowait(data) == 0:
            break
    else:
        raise AssertionError("it takes everything")


async def test_a_peek_leaves_what_it_sees(ends: tuple[Connection, Connection]) -> None:
    near, far = ends
    assert far.peek_nowait(1) is None
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, b"first")
            assert await far.peek(2) == b"fi"
        assert far.peek_nowait(100) == b"first"
        assert await far.recv() == b"first"
        await near.finish()
        assert await far.peek(1) == b""
        assert await far.recv() == b""


async def test_a_half_closed_one_still_hears(ends: tuple[Connection, Connection]) -> None:
    near, far = ends
    with trio.fail_after(DEADLINE):
        await near.send_all(b"ask")
        await near.finish()
        assert [await far.recv(), await far.recv()] == [b"ask", b""]
        await far.send_all(b"answer")
        assert await near.recv() == b"answer"


async def test_a_reset_is_no_end(ends: tuple[Connection, Connection]) -> None:
    near, far = ends
    near.reset()
    with trio.fail_after(DEADLINE), pytest.raises(ConnectionClosed):
        await far.recv()


async def test_an_expired_one_can_go_on(ends: tuple[Connection, Connection]) -> None:
    near, far = ends
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(DeadlineExceeded) as overdue:
                    await far.recv()
                assert overdue.value.reason is Reason.CLIENT_IDLE

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            far.expire(Reason.CLIENT_IDLE)
        far.revive()
        await near.send_all(b"late")
        assert await far.recv() == b"late"


async def test_a_cut_one_neither_sends_nor_receives(ends: tuple[Connection, Connection]) -> None:
    near, far = ends
    await near.send_all(b"unread")
    far.cut(Reason.CERTIFICATE_EXPIRED, "it has expired")
    with trio.fail_after(DEADLINE), pytest.raises(DeadlineExceeded):
        await far.recv()
    with pytest.raises(ConnectionClosed):
        far.send_nowait(b"x")
    assert far.cut_for == "near: cut: it has expired"


async def test_a_closed_one_does_nothing_more(ends: tuple[Connection, Connection]) -> None:
    near, far = ends
    near.close()
    near.close()
    with pytest.raises(ConnectionClosed):
        await near.recv()
    with pytest.raises(ConnectionClosed):
        near.send_nowait(b"x")
    with trio.fail_after(DEADLINE):
        assert await far.recv() == b""


# -- handing over ------------------------------------------------------------------------------------------------------


class Work:
    """What is done for a client."""

    def abort(self, reason: Reason) -> None:
        raise AssertionError(f"aborted: {reason}")


async def test_the_secured_connection_takes_the_plain_ones_place() -> None:
    near, far = connected()
    registry: set[Connection] = set()
    plain = Connection(near, "peer", registry)
    plain.limit(60.0, Reason.CLIENT_IDLE)
    plain.watcher = Work()
    deadline = plain.deadline
    secured = plain.hand_over(Secrets().client, SECURED)
    assert registry == {secured}
    assert (secured.peer, secured.fd, secured.secured) == ("peer", plain.fd, SECURED)
    assert (secured.deadline, secured.overdue_as, secured.watcher) == (deadline, Reason.CLIENT_IDLE, plain.watcher)
    assert plain.closed
    secured.close()
    assert not registry
    far.close()


async def test_an_expiry_in_the_last_moment_is_not_lost() -> None:
    near, far = connected()
    plain = Connection(near, "peer", set())
    plain.expire(Reason.TOO_MANY_CONNECTIONS)
    secured = plain.hand_over(Secrets().client, SECURED)
    with pytest.raises(DeadlineExceeded) as overdue:
        await secured.recv()
    assert overdue.value.reason is Reason.TOO_MANY_CONNECTIONS
    secured.close()
    far.close()


async def test_a_plain_connection_that_was_handed_over_touches_nothing() -> None:
    secrets = Secrets()
    near, far = (Connection(sock, "peer", set()) for sock in connected())
    above, peer = near.hand_over(secrets.client, SECURED), far.hand_over(secrets.server, SECURED)
    for call in (near.recv_nowait, lambda: near.send_nowait(b"in the clear"), lambda: near.peek_nowait(1)):
        with pytest.raises(ConnectionClosed):
            call()
    with pytest.raises(ConnectionClosed):
        await near.recv()
    near.expire(Reason.CLIENT_IDLE)
    near.cut(Reason.CERTIFICATE_EXPIRED, "not this one")
    near.reset()
    near.close()
    with trio.fail_after(DEADLINE):
        await above.send_all(b"sealed")
        assert await peer.recv() == b"sealed"
    above.close()
    peer.close()


async def test_only_an_open_plain_connection_is_handed_over() -> None:
    near, far = connected()
    secured = Connection(near, "peer", set()).hand_over(Secrets().client, SECURED)
    with pytest.raises(TypeError):
        secured.hand_over(Secrets().client, SECURED)

    plain = Connection(far, "peer", set())
    plain.close()
    with pytest.raises(ConnectionClosed):
        plain.hand_over(Secrets().client, SECURED)
    secured.close()


async def test_a_drain_hurries_the_secured_connection() -> None:
    """Its connection was taken as a plain one."""
    near, far = connected()
    idle = trio.Event()
    registry: set[Connection] = set()
    made: list[Connection] = []

    async def serve(connection: Connection, host: str) -> None:
        secured = connection.hand_over(Secrets().server, SECURED)
        made.append(secured)
        secured.limit(3_600.0, Reason.CONNECTION_IDLE)
        idle.set()
        with pytest.raises(DeadlineExceeded):
            await secured.recv()
        secured.close()

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            tracker = ConnectionTracker(nursery, serve, registry, Counters(), lambda _: True, lambda _: None)
            tracker.take(near, ClientAddr("127.0.0.1", 1))
            await idle.wait()
            assert registry == set(made) and tracker.open == 1
            nursery.start_soon(tracker.wait_drained)
            await trio.testing.wait_all_tasks_blocked()
            assert made[0].deadline < monotonic() + 2.0
            made[0].expire(Reason.CONNECTION_IDLE)
    assert not registry and tracker.open == 0
    far.close()
