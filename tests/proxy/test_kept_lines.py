"""Lines to the control plane that are used again: what a server does to them, and what becomes of the call."""

from __future__ import annotations

import time

import trio

from sidecar.control_url import ControlUrl
from sidecar.feed.control_client import ControlClient, ControlError, Way
from sidecar.net.resolve import Resolver

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NOTHING = b""
Script = tuple[tuple[bytes, ...], ...]  # of each connection in turn, what is sent after each request; then it ends


async def calls(script: Script, count: int) -> tuple[list[str], list[int]]:
    """The answers to so many calls, or the words of their errors, and how many requests each connection got."""
    got: list[int] = []
    told: list[str] = []

    async def serve(stream: trio.SocketStream) -> None:
        number = len(got)
        got.append(0)
        async with stream:
            for sent in script[number]:
                if not await stream.receive_some():
                    return
                got[number] += 1
                await stream.send_all(sent)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        url = ControlUrl(False, "127.0.0.1", listener.socket.getsockname()[1])
        client = ControlClient(url, Resolver(own=()), set(), time.time, kept=1)
        for _ in range(count):
            try:
                answer = await client.call(Way(), "GET", "/x", most=100)
                told.append(answer.body.decode())
            except ControlError as error:
                told.append(error.word)
        client.close()
        nursery.cancel_scope.cancel()
    return told, got


async def test_a_line_that_ends_in_place_of_an_answer_is_replaced() -> None:
    """The server had ended it just when the request was on its way."""
    assert await calls(((OK, NOTHING), (OK,)), 2) == (["ok", "ok"], [2, 1])


async def test_what_is_answered_twice_is_never_the_answer_to_the_next_call() -> None:
    assert await calls(((OK + OK.replace(b"ok", b"no"), OK), (OK,)), 2) == (["ok", "ok"], [1, 1])


async def test_a_new_line_that_ends_in_place_of_an_answer_is_an_error() -> None:
    assert await calls(((NOTHING,), (OK,)), 2) == (["bad_answer", "ok"], [1, 1])
