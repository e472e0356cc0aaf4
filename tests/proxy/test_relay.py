"""The opaque relay between real sockets: bytes, ends, idle times, back-pressure, pipes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from sidecar.errors import Reason
from sidecar.net import splice_pipes as pipes_module
from sidecar.net.connection import Connection
from sidecar.net.relay import Relayed, relay
from sidecar.net.relay_reactor import ReactorEntry, RelayReactor
from sidecar.net.splice_pipes import Pipes
from tests.proxy.ends import descriptors, reset, tcp_pair

MEBI = 1 << 20


@dataclass
class Counters:
    spliced_bytes: int = 0


@dataclass
class Link:
    """A relay under test: the two ends that the test holds, and what it returned."""

    client: trio.SocketStream
    server: trio.SocketStream
    left: Connection
    right: Connection
    counters: Counters
    done: trio.Event = field(default_factory=trio.Event)
    result: Relayed | None = None

    async def outcome(self) -> Relayed:
        with trio.fail_after(10):
            await self.done.wait()
        assert self.result is not None
        return self.result


@asynccontextmanager
async def linked(
    *,
    idle: float = 60.0,
    half_close_idle: float = 60.0,
    to_right: bytes = b"",
    to_left: bytes = b"",
    pipes: Pipes | None = None,
    small: bool = False,
) -> AsyncIterator[Link]:
    """Ends with nothing left open, whatever the test did."""
    pool = Pipes() if pipes is None else pipes
    RelayReactor.current()
    before = descriptors()
    registry: set[Connection] = set()
    client, left = tcp_pair(small=small)
    server, right = tcp_pair(small=small)
    link = Link(client, server, Connection(left, "left", registry), Connection(right, "right", registry), Counters())

    async def run() -> None:
        try:
            link.result = await relay(
                link.left,
                link.right,
                to_right=to_right,
                to_left=to_left,
                idle=idle,
                half_close_idle=half_close_idle,
                counters=link.counters,
                pipes=pool,
            )
        finally:
            link.left.close()
            link.right.close()
            link.done.set()

    async with client, server, trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield link
        nursery.cancel_scope.cancel()
    assert pool.in_use == 0
    if pipes is None:
        pool.close()
        assert descriptors() == before


async def read_all(stream: trio.SocketStream) -> bytes:
    return b"".join([data async for data in stream])


async def exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    with trio.fail_after(10):
        while len(data) < size:
            more = await stream.receive_some()
            assert more, f"ended after {len(data)} of {size} bytes"
            data += more
    return data


async def write_until_broken(stream: trio.SocketStream) -> None:
    with trio.fail_after(10):
        while True:
            await stream.send_all(bytes(65_536))


async def test_small_messages_both_ways():
    async with linked(to_right=b"first ", to_left=b"banner ") as link:
        assert await exactly(link.server, 6) == b"first "
        assert await exactly(link.client, 7) == b"banner "
        for n in range(1000):
            await link.client.send_all(b"ask %d" % n)
            assert await exactly(link.server, len(b"ask %d" % n)) == b"ask %d" % n
            await link.server.send_all(b"told %d" % n)
            assert await exactly(link.client, len(b"told %d" % n)) == b"told %d" % n
        await link.client.send_eof()
        await link.server.send_eof()
        outcome = await link.outcome()
        sent = sum(len(b"ask %d" % n) for n in range(1000)) + 6
        assert outcome == Relayed(sent, sent + 1000 + 1, None)
        assert link.counters.spliced_bytes == 0


@pytest.mark.parametrize("ends_first", ["client", "server"])
async def test_half_close_is_passed_on_and_the_other_way_goes_on(ends_first):
    async with linked() as link:
        first, second = (link.client, link.server) if ends_first == "client" else (link.server, link.client)
        await first.send_all(b"all of it")
        await first.send_eof()
        assert await read_all(second) == b"all of it"
        for _ in range(3):
            await second.send_all(b"and more")
            assert await exactly(first, 8) == b"and more"
        await second.send_eof()
        assert await read_all(first) == b""
        sizes = (9, 24) if ends_first == "client" else (24, 9)
        assert await link.outcome() == Relayed(*sizes, None)


@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize(("dies", "reason"), [("client", Reason.CLIENT_CLOSED), ("server", Reason.UPSTREAM_CLOSED)])
async def test_reset_is_passed_on(dies, reason, half_closed):
    async with linked() as link:
        victim, other = (link.client, link.server) if dies == "client" else (link.server, link.client)
        await victim.send_all(b"hello")
        assert await exactly(other, 5) == b"hello"
        if half_closed:
            await victim.send_eof()
            assert await other.receive_some() == b""
        reset(victim)
        assert (await link.outcome()).reason is reason
        with pytest.raises(trio.BrokenResourceError):
            await write_until_broken(other)


async def test_a_sink_that_died_unseen_resets_its_source():
    async with linked() as link:
        await link.server.send_eof()
        assert await link.client.receive_some() == b""
        reset(link.server)
        with pytest.raises(trio.BrokenResourceError):
            await write_until_broken(link.client)
        assert (await link.outcome()).reason is Reason.UPSTREAM_CLOSED


def stream_of_bytes(seed: int, size: int) -> list[bytes]:
    chance = random.Random(seed)
    block = chance.randbytes(MEBI)
    pieces = []
    while size > 0:
        piece = block[chance.randrange(MEBI // 2) :][: min(size, chance.choice([1, 700, 9_000, 70_000, MEBI]))]
        pieces.append(piece)
        size -= len(piece)
    return pieces


@pytest.mark.parametrize("spliced", [True, False])
async def test_fifty_mebibytes_both_ways_at_once(spliced, monkeypatch):
    monkeypatch.setattr(pipes_module, "AVAILABLE", spliced)
    size = 50 * MEBI
    async with linked() as link:

        async def send(stream: trio.SocketStream, pieces: list[bytes]) -> None:
            for piece in pieces:
                await stream.send_all(piece)
            await stream.send_eof()

        async def compare(stream: trio.SocketStream, pieces: list[bytes]) -> None:
            expected, seen = hashlib.sha256(), hashlib.sha256()
            for piece in pieces:
                expected.update(piece)
            async for data in stream:
                seen.update(data)
            assert seen.digest() == expected.digest()

        up, down = stream_of_bytes(1, size), stream_of_bytes(2, size)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, link.client, up)
                nursery.start_soon(send, link.server, down)
                nursery.start_soon(compare, link.server, up)
                nursery.start_soon(compare, link.client, down)
        assert await link.outcome() == Relayed(size, size, None)
        if spliced:
            assert link.counters.spliced_bytes > size
        else:
            assert link.counters.spliced_bytes == 0


@pytest.mark.parametrize("after", [0, MEBI])
async def test_a_slow_reader_stops_the_sender(after):
    """What is accepted before it stops fits the kernel's buffers and 64 KiB of ours; later every byte arrives."""
    async with linked(small=True) as link:
        if after:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.client.send_all, bytes(after))
                await exactly(link.server, after)
        accepted = 0
        with trio.move_on_after(0.5) as scope:
            while True:
                accepted += await link.client.socket.send(b"y" * 4096)
                scope.deadline = trio.current_time() + 0.5
        assert 0 < accepted < 6 * MEBI
        assert link.left.overdue is None
        await link.client.send_eof()
        assert await read_all(link.server) == b"y" * accepted
        await link.server.send_eof()
        assert await link.outcome() == Relayed(after + accepted, 0, None)


async def test_idle_relay_ends():
    async with linked(idle=0.3) as link:
        began = trio.current_time()
        with trio.fail_after(30):  # `linked` waits for 60 s unless it is told otherwise
            assert (await link.outcome()).reason is Reason.CLIENT_IDLE
        assert trio.current_time() - began > 0.25


async def test_any_byte_in_either_direction_puts_the_idle_time_off():
    async with linked(idle=1.5) as link:
        began = trio.current_time()
        for stream, other in [(link.client, link.server), (link.server, link.client)] * 2:
            await trio.sleep(0.6)  # the time is what is tested
            await stream.send_all(b"x")
            assert await exactly(other, 1) == b"x"
        assert (await link.outcome()).reason is Reason.CLIENT_IDLE
        assert trio.current_time() - began > 3.6


@pytest.mark.parametrize(("ended", "reason"), [("client", Reason.UPSTREAM_IDLE), ("server", Reason.CLIENT_IDLE)])
async def test_idle_time_after_a_half_close(ended, reason):
    async with linked(half_close_idle=0.3) as link:
        began = trio.current_time()
        await (link.client if ended == "client" else link.server).send_eof()
        with trio.fail_after(30):
            assert (await link.outcome()).reason is reason
        assert trio.current_time() - began > 0.25


async def test_a_sink_that_takes_nothing_is_idle_too():
    async with linked(idle=0.4, small=True) as link:
        with pytest.raises(trio.BrokenResourceError):
            await write_until_broken(link.client)
        assert (await link.outcome()).reason is Reason.CLIENT_IDLE


@pytest.mark.parametrize("side", ["left", "right"])
async def test_somebody_elses_expire_ends_it(side):
    async with linked() as link:
        await trio.testing.wait_all_tasks_blocked()
        getattr(link, side).expire(Reason.DRAIN_DEADLINE)
        assert (await link.outcome()).reason is Reason.DRAIN_DEADLINE


@pytest.mark.parametrize(("side", "reason"), [("left", Reason.CLIENT_CLOSED), ("right", Reason.UPSTREAM_CLOSED)])
async def test_a_connection_that_was_closed_ends_it(side, reason):
    async with linked() as link:
        await trio.testing.wait_all_tasks_blocked()
        getattr(link, side).close()
        assert (await link.outcome()).reason is reason


async def test_a_connection_that_was_expired_before_ends_it():
    async with linked() as link:
        link.left.overdue = Reason.DRAIN_DEADLINE
        assert (await link.outcome()).reason is Reason.DRAIN_DEADLINE


@pytest.mark.parametrize("moved", [0, 10, MEBI])
async def test_cancelling_leaves_nothing(moved):
    """``linked`` compares the descriptors; what blocks at the time is a read, or a write in mid-burst."""
    async with linked(small=True) as link:
        board = RelayReactor.current()
        with trio.move_on_after(0.2):
            await link.client.send_all(bytes(moved))
        await trio.testing.wait_all_tasks_blocked()
        assert len(board) > 0 or moved == MEBI
    assert len(RelayReactor.current()) == 0


async def test_many_relays_share_few_pipes():
    pipes = Pipes(4)
    most = 0
    before = descriptors()

    async def transfer() -> None:
        nonlocal most
        async with linked(pipes=pipes) as link:

            async def send() -> None:
                for _ in range(32):
                    await link.server.send_all(bytes(65_536))
                await link.server.send_eof()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                size = 0
                async for data in link.client:
                    size += len(data)
                    most = max(most, pipes.in_use)
            assert size == 2 * MEBI
            await link.client.send_eof()
            assert await link.outcome() == Relayed(0, size, None)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(transfer)
    assert most <= 4
    assert pipes.in_use == 0
    assert pipes.idle <= 4
    pipes.close()
    assert descriptors() == before


async def test_busy_relays_do_not_starve_others():
    """While bytes pour through, a task that only yields gets its turn often."""
    async with linked() as link:
        size = 32 * MEBI
        turns = 0

        async def pour() -> None:
            for _ in range(size // 65_536):
                await link.client.send_all(bytes(65_536))

        async def drink() -> None:
            left = size
            while left:
                left -= len(await link.server.receive_some(65_536))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour)
            nursery.start_soon(drink)
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1
        assert turns > size / MEBI


async def test_a_mistake_in_one_line_is_not_the_others_end():
    class Mistaken(ReactorEntry):
        def carry(self) -> bool:
            raise ZeroDivisionError

    async with linked() as link:
        stream, sock = tcp_pair()
        async with stream:
            await stream.send_all(b"x")
            with pytest.raises(ZeroDivisionError):
                await RelayReactor.current().carry(sock.fileno(), Mistaken())
        sock.close()
        await link.client.send_all(b"fine")
        assert await exactly(link.server, 4) == b"fine"
