"""An interim answer of which a part has gone is followed by nothing: what comes next would be read as its rest."""

from __future__ import annotations

import contextlib
from time import monotonic, time

import pytest
import trio

from sidecar.errors import ProxyError, Reason
from sidecar.http.h1.head import ResponseHead, parse_response
from sidecar.http.h1.server import H1ServerConnection
from sidecar.http.h1.server_stream import H1ServerStream
from sidecar.http.timeouts import Timeouts
from sidecar.net.connection import Connection
from sidecar.proxy.local_reply import rescue
from sidecar.telemetry.record import Record
from tests.proxy.ends import sweeping, tcp_pair

TIMEOUTS = Timeouts(10, 10, 0.2, 240, 30, 0)
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: <%b>\r\n\r\n" % (b"x" * 20_000)


@pytest.mark.parametrize("why", [Reason.CLIENT_IDLE, Reason.DRAIN_DEADLINE])
async def test_no_reply_is_put_behind_a_part_of_one(why: Reason) -> None:
    stream, ours = tcp_pair(small=True)
    registry: set[Connection] = set()
    connection = Connection(ours, "127.0.0.1:1", registry)
    asked = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
    client = await H1ServerConnection(connection, asked, TIMEOUTS, "127.0.0.1", trusted=False).next_stream()
    assert client is not None
    parsed = parse_response(HINTS, b"GET")
    assert parsed is not None
    async with stream, sweeping(registry), trio.open_nursery() as nursery:
        if why is Reason.DRAIN_DEADLINE:
            connection.expire(why)  # as a drain does with all that there are
        with pytest.raises(ProxyError) as caught:
            await _say_for_ever(client, parsed[0])
        assert caught.value.reason is why
        heard = bytearray()
        nursery.start_soon(_read, stream, heard)
        record = Record("inbound", "HTTP/1.1", "127.0.0.1:1", time(), monotonic())
        await rescue(client, caught.value, record)
        connection.close()
    rest = bytes(heard).replace(HINTS, b"")
    assert len(heard) > len(rest) and HINTS.startswith(rest)
    assert (record.status, record.reason) == (0, why)


async def _say_for_ever(client: H1ServerStream, head: ResponseHead) -> None:
    while True:
        await client.send_interim(head)


async def _read(stream: trio.SocketStream, heard: bytearray) -> None:
    """To the end, however that comes."""
    with contextlib.suppress(trio.BrokenResourceError):
        while data := await stream.receive_some():
            heard += data
