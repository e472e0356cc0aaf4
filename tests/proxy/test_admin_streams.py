"""Answers without an end: what goes out, and everything that ends them."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sidecar.admin import routes
from sidecar.admin.context import STREAMS, AdminContext
from sidecar.admin.responses import EVENTS, Request, Route, Send, Stream
from sidecar.errors import Reason
from sidecar.net.timers import Sweeper
from tests.proxy.adminport import Port, get, port

HEAD_END = b"\r\n\r\n"


class Source:
    """A stream that says "one" and then goes on as the test wants; it notes its end."""

    def __init__(self, goes_on: Callable[[Send], Awaitable[None]]) -> None:
        self.goes_on = goes_on
        self.ended = trio.Event()

    async def answer(self, _: AdminContext, __: Request) -> Stream:
        return Stream(EVENTS, self.run)

    async def run(self, send: Send) -> None:
        try:
            await send(b"data: one\n\n")
            await self.goes_on(send)
        finally:
            self.ended.set()


async def silence(_: Send) -> None:
    await trio.sleep_forever()


async def flood(send: Send) -> None:
    while True:
        await send(b"x" * 65_536)


async def nothing_more(_: Send) -> None:
    return


def source(monkeypatch: pytest.MonkeyPatch, goes_on: Callable[[Send], Awaitable[None]] = silence) -> Source:
    made = Source(goes_on)
    monkeypatch.setitem(routes.ADMIN, "/stream", Route(made.answer, "streams"))
    return made


async def read_until(stream: trio.SocketStream, mark: bytes) -> bytes:
    heard = b""
    while mark not in heard:
        data = await stream.receive_some()
        assert data, heard
        heard += data
    return heard


async def begun(admin: Port, request: bytes | None = None) -> tuple[trio.SocketStream, bytes]:
    stream = await admin.open()
    await stream.send_all(request or get("/stream"))
    return stream, await read_until(stream, b"data: one\n\n\r\n")


async def read_to_end(stream: trio.SocketStream) -> bytes:
    heard = b""
    while data := await stream.receive_some():
        heard += data
    return heard


async def test_pieces_arrive_as_they_are_sent_and_a_stream_may_end(monkeypatch: pytest.MonkeyPatch) -> None:
    source(monkeypatch, nothing_more)
    async with port() as admin, await admin.open() as stream:
        await stream.send_all(get("/stream"))
        head, _, body = (await read_to_end(stream)).partition(HEAD_END)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    for line in (b"content-type: text/event-stream", b"cache-control: no-store", b"x-content-type-options: nosniff"):
        assert line in head.lower()
    assert body == b"b\r\ndata: one\n\n\r\n0\r\n\r\n"


async def test_a_client_that_leaves_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = source(monkeypatch)
    async with port() as admin:
        stream, _ = await begun(admin)
        assert len(admin.context.streams) == 1
        await stream.aclose()
        await made.ended.wait()
        await wait_all_tasks_blocked()
        assert not admin.context.streams
        assert admin.context.admin_seats.taken == 0


async def test_a_client_that_goes_on_talking_ends_it_and_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    made = source(monkeypatch)
    async with port() as admin:
        stream, _ = await begun(admin)
        async with stream:
            await stream.send_all(get("/live"))
            assert await read_to_end(stream) == b"0\r\n\r\n"
        assert made.ended.is_set()


async def test_the_end_of_the_process_completes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    source(monkeypatch)
    async with port() as admin:
        stream, heard = await begun(admin)
    async with stream:
        heard += await read_to_end(stream)
    assert heard.endswith(b"data: one\n\n\r\n0\r\n\r\n")


async def test_a_piece_that_is_not_taken_in_time_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.admin.server.PIECE_SECONDS", 0.2)
    made = source(monkeypatch, flood)
    async with port() as admin, trio.open_nursery() as nursery:
        nursery.start_soon(Sweeper(admin.process.connections, []).run)
        stream, _ = await begun(admin)
        async with stream:
            await made.ended.wait()
            await wait_all_tasks_blocked()
            assert not admin.context.streams
            assert not (await read_to_end(stream)).endswith(b"\r\n0\r\n\r\n")
        nursery.cancel_scope.cancel()


async def test_a_piece_that_is_cut_is_not_made_to_look_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    source(monkeypatch, flood)
    async with port() as admin:
        stream, _ = await begun(admin)
        await wait_all_tasks_blocked()
        make_room(stream)
    async with stream:
        assert not (await read_to_end(stream)).endswith(b"0\r\n\r\n")


def make_room(stream: trio.SocketStream) -> None:
    """Takes all that has arrived, without giving anybody else a turn."""
    with socket.fromfd(stream.socket.fileno(), socket.AF_INET, socket.SOCK_STREAM) as raw, suppress(BlockingIOError):
        while raw.recv(1 << 20, socket.MSG_DONTWAIT):
            pass


async def test_a_silent_stream_is_not_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    made = source(monkeypatch)
    async with port() as admin:
        stream, _ = await begun(admin)
        async with stream:
            Sweeper(admin.process.connections, []).sweep(1e12)
            await wait_all_tasks_blocked()
            assert not made.ended.is_set()


async def test_streams_leave_seats_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    source(monkeypatch)
    async with port() as admin:
        opened = [(await begun(admin))[0] for _ in range(STREAMS)]
        assert (await admin.ask(get("/stream"))).status == 503
        assert (await admin.ask(get("/live"))).status == 200
        for stream in opened:
            await stream.aclose()


async def test_a_stream_that_breaks_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(_: Send) -> None:
        raise RuntimeError("a bug")

    source(monkeypatch, breaks)
    async with port() as admin, await admin.open() as stream:
        await stream.send_all(get("/stream"))
        await read_to_end(stream)
    assert "a bug" in caplog.text


async def test_head_begins_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    made = source(monkeypatch)
    async with port() as admin, await admin.open() as stream:
        await stream.send_all(b"HEAD /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await read_to_end(stream)).endswith(HEAD_END)
    assert not made.ended.is_set()


async def test_a_stream_ends_for_a_reason_that_others_give(monkeypatch: pytest.MonkeyPatch) -> None:
    made = source(monkeypatch)
    async with port() as admin:
        stream, _ = await begun(admin)
        async with stream:
            admin.served[0].expire(Reason.DRAIN_DEADLINE)
            await made.ended.wait()
