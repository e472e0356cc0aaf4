"""An exchange between two streams of messages: what is forwarded, in which order, and without waiting for what.

No HTTP/1 takes part, which is the point: ``exchange`` knows messages only.
"""

from __future__ import annotations

import ast
from pathlib import Path

import trio
from trio.testing import wait_all_tasks_blocked

import sidecar.proxy.exchange
from sidecar.errors import Reason
from sidecar.http.message import EMPTY, UNKNOWN, Body
from sidecar.proxy.attempt import INTERIM_HEADS
from tests.proxy.messages import FIELDS, MemoryClient, MemoryUpstream, Run, answer, question
from tests.support.modules import among, loaded_by


def test_imports_no_codec_and_no_socket() -> None:
    """Neither by itself nor through what it imports does ``exchange`` come to know a protocol or a socket of ours."""
    loaded = loaded_by("import sidecar.proxy.exchange")
    assert "sidecar.http.streams" in loaded
    codecs = (
        "sidecar.http.h1.server_stream",
        "sidecar.http.h1.client",
        "sidecar.http.h1.body",
        "sidecar.http.first_bytes",
        "h11",
        "h2",
    )
    assert among(loaded, *codecs, "sidecar.app", "sidecar.net") == []
    tree = ast.parse(Path(sidecar.proxy.exchange.__file__).read_text())
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "sidecar.errors" in named
    assert among(named, "socket", "select", "ssl", "os") == []


# -- forwarding ------------------------------------------------------------------------------------------------------


async def test_get() -> None:
    upstream = MemoryUpstream(answer(fields=((b"Etag", b"1"),)), b"some ", b"body", b"")
    run = Run(MemoryClient(), question(), upstream)
    assert await run.go() is None
    assert upstream.heard == [("begin", b"GET", b"/x", tuple(FIELDS), b"", True)]
    assert run.client.heard == [("head", 200, ((b"Etag", b"1"),), b"some ", False), ("body", b"body"), ("end", ())]
    record = run.record
    assert (record.status, record.attempts, record.upstream, record.reused) == (200, 1, "memory", False)
    assert record.first_byte > 0
    assert run.origin.opened == [False]
    run.check_closed()


async def test_answer_without_a_body_is_one_message() -> None:
    run = Run(MemoryClient(), question(), MemoryUpstream(answer(204, body=EMPTY)))
    await run.go()
    assert run.client.heard == [("head", 204, (), b"", True)]


async def test_body_that_came_with_its_head_is_sent_with_it() -> None:
    client = MemoryClient(first=b"all")
    upstream = MemoryUpstream(answer(body=EMPTY))
    await Run(client, question(b"POST", body=Body(3)), upstream).go()
    assert upstream.heard == [("begin", b"POST", b"/x", tuple(FIELDS), b"all", True)]


async def test_body_that_is_there_is_pushed_without_a_second_task() -> None:
    client = MemoryClient(b"b", b"c", b"", first=b"a", body=True)
    upstream = MemoryUpstream(answer(body=EMPTY))
    await Run(client, question(b"POST", body=UNKNOWN), upstream).go()
    assert upstream.heard == [
        ("begin", b"POST", b"/x", tuple(FIELDS), b"a", False),
        ("body", b"b"),
        ("body", b"c"),
        ("end", ()),
    ]
    assert not client.closing


async def test_a_body_that_never_makes_us_wait_does_not_starve_the_others() -> None:
    """However many pieces are there, another task gets its turn before all of them have been moved."""
    client = MemoryClient(*[b"x"] * 900, b"", first=b"x", body=True)
    upstream = MemoryUpstream()
    moved = 0

    async def other() -> None:
        nonlocal moved
        await trio.lowlevel.checkpoint()
        moved = len(upstream.heard)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Run(client, question(b"POST", body=UNKNOWN), upstream).go)
        nursery.start_soon(other)
        await upstream.finished.wait()
        upstream.said.say(answer(body=EMPTY))
    assert moved < 100
    assert len(upstream.heard) == 902


async def test_trailers_pass_both_ways() -> None:
    client = MemoryClient(b"", body=True)
    client.request_trailers = [(b"Check", b"up")]
    upstream = MemoryUpstream(answer(), b"x", b"")
    upstream.trailers = [(b"Check", b"down")]
    await Run(client, question(b"POST", body=UNKNOWN), upstream).go()
    assert upstream.heard[-1:] == [("end", ((b"Check", b"up"),))]
    assert client.heard[-1:] == [("end", ((b"Check", b"down"),))]


async def test_body_is_pumped_in_pieces_while_the_answer_comes_early() -> None:
    client = MemoryClient(body=True)
    upstream = MemoryUpstream()
    run = Run(client, question(b"POST", body=UNKNOWN), upstream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.go)
        for piece in (b"one", b"two"):
            client.said.say(piece)
            await wait_all_tasks_blocked()
            assert upstream.heard[-1:] == [("body", piece)]
        upstream.said.say(answer())
        upstream.said.say(b"early")
        await wait_all_tasks_blocked()
        assert client.heard[-1] in [("body", b"early"), ("head", 200, (), b"early", False)]
        client.said.say(b"three")
        await wait_all_tasks_blocked()
        assert upstream.heard[-1:] == [("body", b"three")]
        client.said.say(b"")
        await wait_all_tasks_blocked()
        assert upstream.heard[-1:] == [("end", ())]
        upstream.said.say(b"")
    assert client.heard[-1:] == [("end", ())]
    assert not client.closing
    run.check_closed()


async def test_answer_that_ends_before_the_body_ends_the_upload() -> None:
    """Nothing reads the body any more when the reply is sent, so that the stream itself may settle what is left."""
    client = MemoryClient(first=b"a", body=True)
    upstream = MemoryUpstream(answer(413, body=EMPTY))
    run = Run(client, question(b"POST", body=UNKNOWN), upstream)
    await run.go()
    assert client.heard == [("head", 413, (), b"", True)]
    assert client.read_when_replied == [False]
    assert not upstream.finished.is_set()
    run.check_closed()


async def test_upstream_that_reads_slowly_holds_the_body_back() -> None:
    goes_on = trio.Event()
    client = MemoryClient(b"b", b"", first=b"a", body=True)
    upstream = MemoryUpstream(stuck=goes_on)
    run = Run(client, question(b"POST", body=UNKNOWN), upstream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.go)
        await wait_all_tasks_blocked()
        assert [message[0] for message in upstream.heard] == ["begin"]
        goes_on.set()
        await upstream.finished.wait()
        assert upstream.heard[1:] == [("body", b"b"), ("end", ())]
        upstream.said.say(answer(body=EMPTY))


async def test_a_body_held_back_for_100_is_not_waited_for() -> None:
    client = MemoryClient(body=True)
    upstream = MemoryUpstream(answer(100, body=EMPTY))
    run = Run(client, question(b"PUT", body=Body(5), expect=True), upstream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.go)
        await wait_all_tasks_blocked()
        assert client.heard == [("interim", 100)]
        client.said.say(b"hello")
        client.said.say(b"")
        await upstream.finished.wait()
        upstream.said.say(answer(201, body=EMPTY))
    assert client.heard[-1:] == [("head", 201, (), b"", True)]
    assert not client.closing


# -- interim answers and switching -----------------------------------------------------------------------------------


async def test_interim_answers_pass() -> None:
    interim = [answer(103, body=EMPTY)] * INTERIM_HEADS
    run = Run(MemoryClient(), question(), MemoryUpstream(*interim, answer(body=EMPTY)))
    await run.go()
    assert run.client.heard == [("interim", 103)] * INTERIM_HEADS + [("head", 200, (), b"", True)]
    assert run.record.status == 200


async def test_too_many_interim_answers() -> None:
    interim = [answer(103, body=EMPTY)] * (INTERIM_HEADS + 1)
    run = Run(MemoryClient(), question(), MemoryUpstream(*interim, answer(body=EMPTY)))
    await run.fails(Reason.UPSTREAM_PROTOCOL)
    assert run.client.heard == [("interim", 103)] * INTERIM_HEADS


async def test_switching_is_handed_to_the_caller() -> None:
    upstream = MemoryUpstream(answer(101, body=EMPTY, known={b"upgrade": b"websocket"}))
    run = Run(MemoryClient(), question(protocol=b"websocket"), upstream)
    switched = await run.go()
    assert switched is not None
    assert switched.upstream is upstream
    assert switched.head.status == run.record.status == 101
    assert not upstream.closed
    assert run.client.heard == []


async def test_switching_unasked() -> None:
    run = Run(MemoryClient(), question(), MemoryUpstream(answer(101, body=EMPTY)))
    await run.fails(Reason.UPSTREAM_PROTOCOL)


async def test_switching_asked_and_declined() -> None:
    run = Run(MemoryClient(), question(protocol=b"websocket"), MemoryUpstream(answer(426, body=EMPTY)))
    assert await run.go() is None
    assert run.client.heard == [("head", 426, (), b"", True)]
    run.check_closed()
