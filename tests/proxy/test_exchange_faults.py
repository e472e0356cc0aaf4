"""What no fault amid an exchange may lead to: a smuggled request, a truncated one, a leaked connection, a dead loop."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from sidecar.errors import ProxyError, Reason
from sidecar.http.h1.server import H1ServerConnection
from sidecar.http.message import EMPTY, UNKNOWN
from sidecar.http.streams import ClientStream
from sidecar.http.timeouts import Timeouts
from sidecar.net.connection import Connection
from sidecar.policy.retry import RetryPolicy
from sidecar.proxy.exchange import exchange
from tests.proxy.ends import tcp_pair
from tests.proxy.messages import FIELDS, PERMIT, MemoryClient, MemoryOrigin, MemoryUpstream, Run, answer, question

TIMEOUTS = Timeouts(5.0, 5.0, 5.0, 0, 5.0, 0)
BREAKS = {
    "no chunk": b"ZZZZ\r\n",
    "no end of a chunk": b"1\r\nxx\r\n",
    "a huge chunk": b"F" * 20 + b"\r\n",
}


@pytest.mark.parametrize("broken", BREAKS.values(), ids=BREAKS)
async def test_what_follows_a_broken_body_is_never_a_request(broken: bytes) -> None:
    """Also where the answer was there already, so that nothing waits for the body any more."""
    far, near = tcp_pair()
    http_connection = H1ServerConnection(Connection(near, "c", set()), b"", TIMEOUTS, "127.0.0.1", trusted=False)
    with trio.fail_after(5):
        await far.send_all(b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        stream = await http_connection.next_stream()
        assert stream is not None and stream.first_piece() == b"hello"
        await far.send_all(broken + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ProxyError):
            await stream.read_body()
        for _ in range(3):
            with pytest.raises(ProxyError):
                stream.body_nowait()
        assert stream.closing and not stream.settle() and not stream.body_done
    http_connection.close()
    await far.aclose()


async def test_a_body_that_is_too_long_is_not_read_on_either() -> None:
    far, near = tcp_pair()
    timeouts = Timeouts(5.0, 5.0, 5.0, 0, 5.0, 8)
    http_connection = H1ServerConnection(Connection(near, "c", set()), b"", timeouts, "127.0.0.1", trusted=False)
    with trio.fail_after(5):
        await far.send_all(b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        stream = await http_connection.next_stream()
        assert stream is not None
        await far.send_all(b"9\r\nxxxxxxxxx\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ProxyError):
            await stream.read_body()
        assert stream.closing and not stream.settle()
    http_connection.close()
    await far.aclose()


async def test_a_crash_of_an_upload_is_told_and_takes_nothing_else_down() -> None:
    class Bad(MemoryClient):
        async def read_body(self) -> bytes:
            await trio.lowlevel.checkpoint()
            raise ValueError("a bug in the upload")

    others = 0

    async def other() -> None:
        nonlocal others
        for _ in range(5):
            await trio.sleep(0.01)
            others += 1

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            upstream = MemoryUpstream()
            run = Run(Bad(first=b"a", body=True), question(b"POST", body=UNKNOWN), upstream)
            with pytest.raises(ValueError, match="a bug in the upload"):
                await run.go()
            assert upstream.closed
    assert others == 5


async def test_what_is_sent_again_is_whole_whatever_comes_in_the_moment_of_the_decision() -> None:
    """The 503 and more of the body than is kept come in one tick."""
    policy = RetryPolicy(1, statuses=frozenset({503}))
    for _ in range(20):
        client = MemoryClient(first=b"a" * 60_000, body=True)
        first, second = MemoryUpstream(), MemoryUpstream()
        run = Run(client, question(b"PUT", body=120_000), first, second)
        run.retry = policy
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.go)
                await trio.testing.wait_all_tasks_blocked()
                first.said.say(answer(503, body=EMPTY))
                client.said.say(b"b" * 60_000)
                await trio.testing.wait_all_tasks_blocked()
                client.said.say(b"")
                second.said.say(answer(200, body=EMPTY))
        parts = [part for each in second.heard for part in each if isinstance(part, bytes)]
        sent = sum(len(part) for part in parts if part.startswith((b"aa", b"bb")))
        assert sent in (0, 120_000), second.heard  # not sent again, or all of it


@pytest.mark.parametrize("phase", ["head", "reply"])
async def test_cancelling_closes_the_upstream(phase: str) -> None:
    upstream, client = MemoryUpstream(), MemoryClient(first=b"a", body=True)
    run = Run(client, question(b"PUT", body=UNKNOWN), upstream)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.go)
            await trio.testing.wait_all_tasks_blocked()
            if phase == "reply":
                upstream.said.say(answer())
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert upstream.closed and client.watched is None


async def test_an_attempt_that_opens_nothing_is_recorded_without_the_last_ones_peer() -> None:
    first = MemoryUpstream(ProxyError(Reason.UPSTREAM_CLOSED, "closed"), reused=True)
    first.principal = "spiffe://cluster.local/ns/x/sa/y"
    run = Run(MemoryClient(), question(), first)
    opened = 0

    class Origin(MemoryOrigin):
        async def open(self, endpoint: str, **terms: object) -> ClientStream:
            nonlocal opened
            opened += 1
            if opened == 2:
                raise ProxyError(Reason.UPSTREAM_IDENTITY, "shows another identity")
            return first

    with pytest.raises(ProxyError) as failed:
        await exchange(run.client, question(), FIELDS, Origin(), PERMIT, run.record)
    run.record.blame(failed.value)
    last = run.record.all_tries[-1]
    assert (last.reason, last.principal, last.reused) == (Reason.UPSTREAM_IDENTITY, "", False)
