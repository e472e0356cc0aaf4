"""A reply that comes before its request's body has: when the client's connection is kept, and when it is not."""

from __future__ import annotations

import pytest
import trio

from sidecar.http.h1.server import H1ServerConnection
from sidecar.http.h1.server_stream import SETTLED_BYTES
from sidecar.http.message import EMPTY, UNKNOWN, LocalReply, Response
from sidecar.http.timeouts import Timeouts
from sidecar.net.connection import Connection
from tests.proxy.ends import tcp_pair

TIMEOUTS = Timeouts(10, 10, 10, 240, 30, 0)
NEXT = b"GET /next HTTP/1.1\r\nHost: app\r\n\r\n"
REFUSED = Response(413, [(b"content-length", b"0")], {}, EMPTY)
STREAMED = Response(200, [], {}, UNKNOWN)


class Served:
    """A connection on which a POST of ``length`` bytes has come, and ``first`` of its body."""

    def __init__(self, length: int, first: bytes, *, expect: bool = False) -> None:
        self.theirs, ours = tcp_pair()
        field = b"Expect: 100-continue\r\n" if expect else b""
        head = b"POST / HTTP/1.1\r\nHost: app\r\n%bContent-Length: %d\r\n\r\n" % (field, length)
        self.http_connection = H1ServerConnection(
            Connection(ours, "127.0.0.1:1", set()), head + first, TIMEOUTS, "127.0.0.1", trusted=False
        )

    async def next_target(self) -> bytes:
        """The target of the next request, b"" where the connection has ended."""
        if not await self.http_connection.goes_on():
            return b""
        with trio.fail_after(5):
            stream = await self.http_connection.next_stream()
        assert stream is not None and stream.request is not None and stream.failure is None
        assert stream.first_piece() == b""
        return stream.request.target


async def test_a_rest_that_is_there_is_dropped_and_the_connection_kept() -> None:
    served = Served(1000, b"x" * 600)
    async with served.theirs:
        stream = await served.http_connection.next_stream()
        assert stream is not None
        await served.theirs.send_all(b"x" * 400 + NEXT)
        await served.http_connection.connection.wait_readable()
        await stream.send_head(REFUSED, b"", done=True)
        assert b"connection: close" not in await served.theirs.receive_some()
        assert await served.next_target() == b"/next"
        served.http_connection.connection.close()


@pytest.mark.parametrize("local", [False, True])
async def test_a_rest_that_is_not_there_ends_the_connection(local: bool) -> None:
    served = Served(1000, b"x" * 600)
    async with served.theirs:
        stream = await served.http_connection.next_stream()
        assert stream is not None
        if local:
            await stream.send_local(LocalReply(503, [], b""), in_doubt=False)
        else:
            await stream.send_head(REFUSED, b"", done=True)
        assert b"connection: close" in await served.theirs.receive_some()
        await served.theirs.send_all(b"x" * 400 + NEXT)
        await served.theirs.send_eof()
        assert await served.next_target() == b""


async def test_a_refusal_by_the_proxy_ends_the_connection_if_there_is_a_body() -> None:
    """Even one that has come whole: the verdict is the same however the bytes are split."""
    served = Served(5, b"hello")
    async with served.theirs:
        stream = await served.http_connection.next_stream()
        assert stream is not None and stream.body_done
        await stream.send_local(LocalReply(503, [], b""), in_doubt=False)
        assert b"connection: close" in await served.theirs.receive_some()
        await served.theirs.send_eof()
        assert await served.next_target() == b""


async def test_a_long_rest_ends_the_connection_even_if_it_is_there() -> None:
    served = Served(8 << 20, b"x")
    async with served.theirs, trio.open_nursery() as nursery:
        stream = await served.http_connection.next_stream()
        assert stream is not None
        nursery.start_soon(served.theirs.send_all, bytes(SETTLED_BYTES * 4))
        await served.http_connection.connection.wait_readable()
        await stream.send_head(REFUSED, b"", done=True)
        assert b"connection: close" in await served.theirs.receive_some()
        served.http_connection.connection.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("ends", [True, False])
async def test_a_body_may_end_while_the_reply_goes_on(ends: bool) -> None:
    served = Served(1000, b"x" * 600)
    async with served.theirs:
        stream = await served.http_connection.next_stream()
        assert stream is not None
        await stream.send_head(STREAMED, b"early", done=False)
        assert b"connection: close" not in await served.theirs.receive_some()
        if ends:
            await served.theirs.send_all(b"x" * 400 + NEXT)
            assert await stream.read_body()
        else:
            await served.theirs.send_eof()
        await stream.finish_reply([])
        assert await served.next_target() == (b"/next" if ends else b"")
        served.http_connection.connection.close()


async def test_an_error_that_goes_on_beside_the_body_ends_the_connection() -> None:
    served = Served(1000, b"x" * 600)
    async with served.theirs:
        stream = await served.http_connection.next_stream()
        assert stream is not None
        await stream.send_head(Response(413, [], {}, UNKNOWN), b"too", done=False)
        assert b"connection: close" in await served.theirs.receive_some()
        served.http_connection.connection.close()


@pytest.mark.parametrize("invited", [True, False])
async def test_a_body_that_is_held_back_may_never_come(invited: bool) -> None:
    """A client that gets its answer without a 100 may leave the body out, and begin its next request."""
    served = Served(1000, b"", expect=True)
    async with served.theirs:
        stream = await served.http_connection.next_stream()
        assert stream is not None
        if invited:
            await stream.send_interim(Response(100, [], {}, EMPTY))
            await served.theirs.receive_some()
        await stream.send_head(STREAMED, b"early", done=False)
        assert (b"connection: close" in await served.theirs.receive_some()) is not invited
        served.http_connection.connection.close()
