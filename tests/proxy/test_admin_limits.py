"""The bounds of the admin and the scrape port: heads, bodies, time, connections."""

from __future__ import annotations

import socket
from time import monotonic

import h11
import pytest
import trio
import trio.testing

from sidecar.admin import routes
from sidecar.admin.context import SEATS, AdminContext
from sidecar.admin.responses import Reply, Request, Route
from sidecar.admin.server import HEAD_SECONDS, MAX_BODY, MAX_HEAD, serve_admin, serve_scrape
from sidecar.errors import Reason
from tests.proxy.adminport import Serve, get, port, read_reply


async def test_a_connection_is_kept_for_several_requests_also_pipelined() -> None:
    async with port() as admin, await admin.open() as stream:
        client = h11.Connection(h11.CLIENT)
        await stream.send_all(get("/live") + get("/ready"))
        for _ in range(2):
            assert (await read_reply(stream, client, b"")).status == 200
            client.start_next_cycle()
        await stream.send_all(get("/memory", b"Connection: close\r\n"))
        assert (await read_reply(stream, client, b"")).headers["connection"] == "close"
        assert await stream.receive_some() == b""


@pytest.mark.parametrize("split", ["whole", "pieces"])
async def test_a_long_head_gets_431_however_it_is_split(split: str) -> None:
    request = get("/live", b"X: %b\r\n" % (b"a" * MAX_HEAD))
    async with port() as admin, await admin.open() as stream:
        if split == "whole":
            await stream.send_all(request)
        else:
            for at in range(0, len(request), 3000):
                await stream.send_all(request[at : at + 3000])
                await trio.testing.wait_all_tasks_blocked()
        assert (await read_reply(stream, h11.Connection(h11.CLIENT), b"")).status == 431
        assert await stream.receive_some() == b""


async def test_a_head_without_end_gets_431() -> None:
    async with port() as admin:
        assert (await admin.ask(get("/live")[:-2] + b"X: " + b"a" * MAX_HEAD)).status == 431


async def test_a_head_that_comes_complete_is_measured_too() -> None:
    many = b"".join(b"X%d: %b\r\n" % (number, b"a" * 500) for number in range(31))
    async with port() as admin:
        assert len(get("/live", many)) < MAX_HEAD
        assert (await admin.ask(get("/live", many))).status == 200
        assert (await admin.ask(get("/live", many + b"Y: " + b"a" * 900 + b"\r\n"))).status == 431


@pytest.mark.parametrize(
    ("size", "framing", "expected"),
    [(10, "length", 200), (MAX_BODY, "length", 200), (MAX_BODY + 1, "length", 413), (MAX_BODY + 1, "chunked", 413)],
)
async def test_a_body_is_ignored_up_to_a_limit(size: int, framing: str, expected: int) -> None:
    if framing == "length":
        more, body = b"Content-Length: %d\r\n" % size, b"x" * size
    else:
        more, body = b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size)
    async with port() as admin:
        assert (await admin.ask(get("/live", more) + body)).status == expected


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (b"nonsense\r\n\r\n", 400),
        (get("/live", b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400),
        (get("/live", b"Content-Length: +1\r\n"), 400),
        (get("/live", b"Transfer-Encoding: gzip\r\n"), 501),
        (b"GET /live HTTP/9.9\r\nHost: localhost\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\nHost: localhost\r\n\r\nSM\r\n\r\n", 505),
    ],
)
async def test_what_is_not_http_1_1_ends_the_connection(request_bytes: bytes, expected: int) -> None:
    async with port() as admin:
        reply = await admin.ask(request_bytes)
        assert (reply.status, reply.headers["connection"]) == (expected, "close")


async def test_expect_100_continue_is_answered_at_once() -> None:
    async with port() as admin:
        reply = await admin.ask(get("/live", b"Content-Length: 5\r\nExpect: 100-continue\r\n"))
        assert (reply.status, reply.headers["connection"]) == (200, "close")


async def test_a_slow_head_ends_at_one_absolute_deadline() -> None:
    async with port() as admin, await admin.open() as stream:
        await stream.send_all(b"GET /live HT")
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = admin.served
        deadline = connection.deadline
        assert monotonic() < deadline <= monotonic() + HEAD_SECONDS
        await stream.send_all(b"TP/1.1\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert connection.deadline == deadline
        connection.expire(connection.overdue_as)
        assert await stream.receive_some() == b""
        assert connection.overdue is Reason.HEAD_TIMEOUT


@pytest.mark.parametrize("serve", [serve_admin, serve_scrape], ids=["admin", "scrape"])
async def test_silent_connections_give_way_to_one_that_asks(serve: Serve) -> None:
    async with port(serve) as asked:
        silent = [await asked.open() for _ in range(SEATS)]
        await trio.testing.wait_all_tasks_blocked()
        assert (await asked.ask(get("/metrics"))).status == 200
        assert await silent[0].receive_some() == b""
        assert sum(not connection.closed for connection in asked.served[:SEATS]) == SEATS - 1
        await silent[1].send_all(get("/metrics"))
        assert (await read_reply(silent[1], h11.Connection(h11.CLIENT), b"")).status == 200
        for stream in silent:
            await stream.aclose()


async def test_a_connection_that_is_kept_gives_way_too() -> None:
    async with port() as admin:
        kept = [await admin.open() for _ in range(SEATS)]
        for stream in kept:
            await stream.send_all(get("/live"))
            assert (await read_reply(stream, h11.Connection(h11.CLIENT), b"")).status == 200
        assert (await admin.ask(get("/live"))).status == 200
        assert await kept[0].receive_some() == b""
        for stream in kept:
            await stream.aclose()


async def test_no_more_than_64_requests_are_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = trio.Event()

    async def slow(_: AdminContext, __: Request) -> Reply:
        await go_on.wait()
        return Reply(200, b"")

    monkeypatch.setitem(routes.ADMIN, "/live", Route(slow, "waits"))
    async with port() as admin:
        busy = [await admin.open() for _ in range(SEATS)]
        for stream in busy:
            await stream.send_all(get("/live"))
        await trio.testing.wait_all_tasks_blocked()
        async with await admin.open() as refused:
            assert await refused.receive_some() == b""
        go_on.set()
        for stream in busy:
            assert (await read_reply(stream, h11.Connection(h11.CLIENT), b"")).status == 200
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (await admin.ask(get("/live"))).status == 200


async def test_a_peer_that_leaves_costs_nothing() -> None:
    async with port() as admin:
        for sent in (b"", b"GET /li", get("/live"), get("/live", b"Content-Length: 9\r\n") + b"abc"):
            stream = await admin.open()
            if sent:
                await stream.send_all(sent)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        while not all(connection.closed for connection in admin.served):
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert admin.process.connections == set()
        assert admin.context.admin_seats.taken == 0
        assert (await admin.ask(get("/live"))).status == 200
