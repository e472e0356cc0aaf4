"""How an exchange ends that does not go well: when a request is sent a second time, and what one side's end does to the
other. Both sides are streams of messages in memory.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sidecar.errors import ProxyError, Reason
from sidecar.http.message import EMPTY, UNKNOWN, Body
from tests.proxy.messages import FIELDS, MemoryClient, MemoryUpstream, Run, answer, question

CLOSED = ProxyError(Reason.UPSTREAM_CLOSED, "closed")
SAFE_AGAIN = (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE")

# -- sending again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", SAFE_AGAIN)
async def test_safe_request_on_a_stale_connection_is_sent_once_more(method: bytes) -> None:
    stale, fresh = MemoryUpstream(CLOSED, reused=True), MemoryUpstream(answer(body=EMPTY))
    run = Run(MemoryClient(), question(method), stale, fresh)
    await run.go()
    assert run.origin.opened == [False, True]
    assert fresh.heard == stale.heard
    assert (run.record.attempts, run.record.status, run.record.reused) == (2, 200, False)
    run.check_closed()


async def test_not_a_third_time() -> None:
    run = Run(MemoryClient(), question(), *[MemoryUpstream(CLOSED, reused=True) for _ in range(3)])
    await run.fails(Reason.UPSTREAM_CLOSED)
    assert run.record.attempts == 2


async def test_not_where_the_connection_was_new() -> None:
    run = Run(MemoryClient(), question(), MemoryUpstream(CLOSED), MemoryUpstream(answer(body=EMPTY)))
    await run.fails(Reason.UPSTREAM_CLOSED)
    assert run.record.attempts == 1


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"BREW"])
async def test_a_post_of_which_a_byte_was_written_is_never_sent_again(method: bytes) -> None:
    run = Run(MemoryClient(), question(method), MemoryUpstream(CLOSED, reused=True), MemoryUpstream(answer(body=EMPTY)))
    await run.fails(Reason.UPSTREAM_CLOSED)
    assert run.record.attempts == 1


async def test_a_post_of_which_nothing_was_written_is_sent_again_with_its_body() -> None:
    stale, fresh = MemoryUpstream(reused=True, begins=CLOSED), MemoryUpstream(answer(body=EMPTY))
    run = Run(MemoryClient(first=b"body"), question(b"POST", body=Body(4)), stale, fresh)
    await run.go()
    assert fresh.heard == [("begin", b"POST", b"/x", tuple(FIELDS), b"body", True)]
    assert run.record.attempts == 2


async def test_a_put_whose_body_is_gone_is_not_sent_again() -> None:
    client = MemoryClient(b"c", b"", first=b"b", body=True)
    stale = MemoryUpstream(CLOSED, reused=True)
    run = Run(client, question(b"PUT", body=UNKNOWN), stale, MemoryUpstream(answer(body=EMPTY)))
    await run.fails(Reason.UPSTREAM_CLOSED)
    assert run.record.attempts == 1


async def test_not_once_an_answer_had_begun() -> None:
    stale = MemoryUpstream(answer(103, body=EMPTY), CLOSED, reused=True)
    run = Run(MemoryClient(), question(), stale, MemoryUpstream(answer(body=EMPTY)))
    await run.fails(Reason.UPSTREAM_CLOSED)
    assert run.client.heard == [("interim", 103)]


@pytest.mark.parametrize("reason", [Reason.UPSTREAM_TIMEOUT, Reason.UPSTREAM_PROTOCOL, Reason.CLIENT_CLOSED])
async def test_not_for_another_reason(reason: Reason) -> None:
    stale = MemoryUpstream(ProxyError(reason, "x"), reused=True)
    run = Run(MemoryClient(), question(), stale, MemoryUpstream(answer(body=EMPTY)))
    await run.fails(reason)
    assert run.record.attempts == 1


# -- ends --------------------------------------------------------------------------------------------------------------


async def test_client_that_leaves_while_the_answer_is_awaited() -> None:
    upstream = MemoryUpstream()
    run = Run(MemoryClient(), question(), upstream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.fails, Reason.CLIENT_CLOSED)
        await wait_all_tasks_blocked()
        run.client.leave()
    assert upstream.aborted is Reason.CLIENT_CLOSED
    assert run.client.heard == []


async def test_client_that_leaves_in_the_middle_of_the_answer() -> None:
    upstream = MemoryUpstream(answer(), b"half")
    run = Run(MemoryClient(), question(), upstream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.fails, Reason.CLIENT_CLOSED)
        await wait_all_tasks_blocked()
        run.client.leave()
    assert run.client.reply_begun


async def test_client_that_leaves_after_its_body_was_pumped() -> None:
    client = MemoryClient(body=True)
    run = Run(client, question(b"POST", body=UNKNOWN), MemoryUpstream())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.fails, Reason.CLIENT_CLOSED)
        await wait_all_tasks_blocked()
        client.said.say(b"")
        await wait_all_tasks_blocked()
        client.leave()


async def test_client_that_leaves_while_the_upstream_takes_nothing() -> None:
    client = MemoryClient(b"more", first=b"some", body=True)
    upstream = MemoryUpstream(stuck=trio.Event())
    run = Run(client, question(b"POST", body=UNKNOWN), upstream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.fails, Reason.CLIENT_CLOSED)
        await wait_all_tasks_blocked()
        client.leave()
    assert upstream.aborted is Reason.CLIENT_CLOSED


@pytest.mark.parametrize(
    "reason", [Reason.CLIENT_CLOSED, Reason.BODY_TOO_LARGE, Reason.BAD_FRAMING, Reason.CLIENT_IDLE]
)
async def test_a_body_that_fails_aborts_the_upstream_and_says_why(reason: Reason) -> None:
    client = MemoryClient(first=b"a", body=True)
    upstream = MemoryUpstream()
    run = Run(client, question(b"POST", body=UNKNOWN), upstream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.fails, reason)
        await wait_all_tasks_blocked()
        client.said.say(ProxyError(reason, "x"))
    assert upstream.aborted is reason
    assert not upstream.finished.is_set()


SILENT = ProxyError(Reason.UPSTREAM_TIMEOUT, "silent")


async def test_a_client_that_stops_in_its_body_is_not_the_upstreams_fault() -> None:
    """Both clocks run; here the upstream's is the one that is looked at first."""
    for first, said in ((b"a", ()), (b"", ()), (b"a", (b"b",))):
        client = MemoryClient(*said, first=first, body=True)
        upstream = MemoryUpstream()
        run = Run(client, question(b"POST", body=UNKNOWN), upstream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.fails, Reason.CLIENT_IDLE)
            await wait_all_tasks_blocked()
            upstream.said.say(SILENT)


async def test_a_go_ahead_that_does_not_come_is_not_the_clients_fault() -> None:
    """Here its own clock is the one that is looked at first; once it has been told to go on, it is."""
    for interim, reason in (((), Reason.UPSTREAM_TIMEOUT), ((answer(100),), Reason.CLIENT_IDLE)):
        client = MemoryClient(body=True)
        run = Run(client, question(b"POST", body=UNKNOWN, expect=True), MemoryUpstream(*interim))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.fails, reason)
            await wait_all_tasks_blocked()
            client.said.say(ProxyError(Reason.CLIENT_IDLE, "silent"))


@pytest.mark.parametrize("way", ["complete", "stuck", "no go-ahead"])
async def test_an_upstream_that_owes_something_is_at_fault_for_its_silence(way: str) -> None:
    client = MemoryClient(first=b"a" if way == "stuck" else b"", body=True)
    upstream = MemoryUpstream(stuck=trio.Event() if way == "stuck" else None)
    run = Run(client, question(b"POST", body=UNKNOWN, expect=way == "no go-ahead"), upstream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.fails, Reason.UPSTREAM_TIMEOUT)
        await wait_all_tasks_blocked()
        if way == "complete":
            client.said.say(b"")
            await wait_all_tasks_blocked()
        upstream.said.say(SILENT)


async def test_an_upstream_that_stops_reading_may_still_answer() -> None:
    client = MemoryClient(first=b"a", body=True)
    upstream = MemoryUpstream()
    run = Run(client, question(b"POST", body=UNKNOWN), upstream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.go)
        await wait_all_tasks_blocked()
        client.said.say(CLOSED)  # as the write of the next piece would
        await wait_all_tasks_blocked()
        assert upstream.aborted is None
        assert client.watched is upstream
        upstream.said.say(answer(413, body=EMPTY))
    assert client.heard == [("head", 413, (), b"", True)]


async def test_an_answer_that_breaks_off() -> None:
    run = Run(MemoryClient(), question(), MemoryUpstream(answer(), b"half", CLOSED))
    await run.fails(Reason.UPSTREAM_CLOSED)
    assert run.client.heard == [("head", 200, (), b"half", False)]
    assert run.client.reply_begun
    assert run.record.attempts == 1


async def test_cancelling_closes_the_upstream() -> None:
    upstream = MemoryUpstream()
    run = Run(MemoryClient(), question(), upstream)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.go)
            await wait_all_tasks_blocked()
            scope.cancel()
    run.check_closed()
