"""The DNS server with resolvers that are slow, down, wrong or lying, and with clients that are hostile or many."""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Callable
from time import monotonic

import dns.flags
import dns.message
import dns.rcode
import pytest
import trio

from sidecar.addresses import Address
from sidecar.dns.answers import MOST_QUERIES
from sidecar.dns.upstream import LIFETIME, TRY_SECONDS
from tests.proxy.dnsfront import NOBODY, fronted, texts
from tests.support.nameserver import Table, serving

TABLE: Table = {("app.test.", "A"): ["192.0.2.1"], ("other.test.", "A"): ["192.0.2.9"]}
WEB = {"web": ["10.0.0.7"]}


@pytest.mark.parametrize("over", ["udp", "tcp"])
@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
async def test_a_resolver_that_fails_gives_way_to_the_next(over: str, rcode: dns.rcode.Rcode) -> None:
    async with serving(TABLE) as first, serving(TABLE) as second, fronted(first, second) as front:
        first.rcode = rcode
        assert texts(await getattr(front, over)("app.test")) == ["192.0.2.1"]
        assert (first.times("app.test."), second.times("app.test.")) == (1, 1)
        second.rcode = rcode
        assert (await getattr(front, over)("app.test")).rcode() == rcode
        assert (front.counters.dns_retries, front.counters.dns_failed) == (2, 1)


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP, dns.rcode.FORMERR])
async def test_a_failure_of_the_only_resolver_is_passed_on_as_it_is(rcode: dns.rcode.Rcode) -> None:
    async with serving(TABLE) as server, fronted(server) as front:
        server.rcode = rcode
        assert (await front.udp("app.test")).rcode() == rcode
        assert server.times("app.test.") == 1


async def test_no_such_name_is_an_answer_and_no_reason_to_ask_another() -> None:
    async with serving({}) as first, serving(TABLE) as second, fronted(first, second) as front:
        assert (await front.udp("app.test")).rcode() == dns.rcode.NXDOMAIN
        assert second.asked == []


@pytest.mark.parametrize("over", ["udp", "tcp"])
async def test_a_silent_resolver_gives_way_and_comes_last_for_a_while(over: str) -> None:
    async with serving(TABLE) as first, serving(TABLE) as second, fronted(first, second, try_seconds=0.2) as front:
        first.silent = True
        for _ in range(3):
            assert texts(await getattr(front, over)("app.test")) == ["192.0.2.1"]
        assert (first.times("app.test."), second.times("app.test.")) == (1, 3)


@pytest.mark.parametrize("over", ["udp", "tcp"])
async def test_a_resolver_that_is_not_there_costs_no_time(over: str) -> None:
    async with serving(TABLE) as second, fronted(NOBODY, second, try_seconds=60) as front:
        with trio.fail_after(30):
            assert texts(await getattr(front, over)("app.test")) == ["192.0.2.1"]


async def test_a_lost_query_is_sent_again_to_the_only_resolver() -> None:
    async with serving(TABLE) as server, fronted(server, try_seconds=0.3) as front:
        server.silent = True
        async with trio.open_nursery() as nursery:

            async def hear_again() -> None:
                await server.seen.wait()
                server.silent = False

            nursery.start_soon(hear_again)
            assert texts(await front.udp("app.test")) == ["192.0.2.1"]
        assert server.times("app.test.") == 2


async def test_all_down_is_servfail_before_clients_give_up() -> None:
    assert TRY_SECONDS == 2.0 and LIFETIME < 5
    async with serving(TABLE) as one, serving(TABLE) as two, serving(TABLE) as three:
        one.silent = two.silent = three.silent = True
        async with fronted(one, two, three) as front:
            began = monotonic()
            assert (await front.udp("app.test")).rcode() == dns.rcode.SERVFAIL
            assert 3.0 < monotonic() - began < 5.0
            assert [len(each.asked) for each in (one, two, three)] == [1, 1, 1]


async def test_without_any_resolver_it_is_servfail_and_known_names_are_known() -> None:
    async with fronted(names=WEB) as front:
        answer = await front.udp("app.test", use_edns=0)
        assert (answer.rcode(), answer.edns) == (dns.rcode.SERVFAIL, 0)
        assert texts(await front.udp("web")) == ["10.0.0.7"]


def _with_another_question(reply: bytes) -> bytes:
    lie = dns.message.from_wire(reply)
    other = dns.message.make_query("other.test", "A", id=lie.id)
    lie.question = other.question
    return lie.to_wire()


LIES: dict[str, Callable[[bytes], bytes]] = {
    "another id": lambda reply: bytes([reply[0] ^ 0x40]) + reply[1:],
    "another question": _with_another_question,
    "another type": lambda reply: reply.replace(b"\x03app\x04test\0\0\x01", b"\x03app\x04test\0\0\x1c"),
    "no answer": lambda reply: reply[:2] + bytes([reply[2] & 0x7F]) + reply[3:],
    "another opcode": lambda reply: reply[:2] + bytes([reply[2] | 0x10]) + reply[3:],
    "half a header": lambda reply: reply[:7],
    "half a question": lambda reply: reply[:20],
    "no question": lambda reply: reply[:4] + b"\0\0" + reply[6:],
    "nothing": lambda reply: b"",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_what_is_no_answer_to_the_query_is_passed_over(lie: Callable[[bytes], bytes]) -> None:
    async with serving(TABLE) as server, fronted(server) as front:
        server.lies = [lie] * 3
        assert texts(await front.udp("app.test")) == ["192.0.2.1"]
        assert front.counters.dns_mismatched == 3


async def test_what_comes_from_another_address_is_not_heard() -> None:
    async with serving(TABLE) as server, fronted(server) as front:
        server.delay = 0.3
        async with trio.open_nursery() as nursery:

            async def slip_in() -> None:
                await server.seen.wait()
                asked = server.asked[0]
                reply = dns.message.make_response(dns.message.from_wire(asked.wire))
                reply.set_rcode(dns.rcode.NXDOMAIN)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                    other.sendto(reply.to_wire(), asked.client)

            nursery.start_soon(slip_in)
            assert texts(await front.udp("app.test")) == ["192.0.2.1"]
        assert front.counters.dns_mismatched == 0


async def test_a_query_that_comes_back_to_us_is_dropped_and_counted() -> None:
    """As where rules redirect the proxy's own queries: they come from the port that they were sent from."""
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as resolver:
        await resolver.bind(("127.0.0.1", 0))
        async with fronted(Address(*resolver.getsockname()), try_seconds=0.2) as front:
            async with trio.open_nursery() as nursery:

                async def redirect() -> None:
                    for _ in range(2):
                        wire, sender = await resolver.recvfrom(512)
                        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
                            back.bind(("127.0.0.2", sender[1]))
                            back.sendto(wire, (front.address.host, front.address.port))

                nursery.start_soon(redirect)
                assert (await front.udp("app.test")).rcode() == dns.rcode.SERVFAIL
            assert (front.counters.dns_looped, front.counters.dns_failed) == (2, 1)


async def test_hostile_packets_do_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(20)
    seeds = [
        dns.message.make_query("app.test", "A").to_wire(),
        dns.message.make_query("web", "AAAA", use_edns=0, payload=1232, want_dnssec=True).to_wire(),
        dns.message.make_response(dns.message.make_query("web", "A")).to_wire(),
    ]
    async with serving(TABLE) as server, fronted(server, names=WEB, try_seconds=0.05) as front:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((front.address.host, front.address.port))
            for number in range(2000):
                client.send(_hostile(chance, seeds))
                if number % 50 == 0:
                    assert texts(await front.udp("web")) == ["10.0.0.7"]
        for _ in range(50):
            async with await trio.open_tcp_stream(front.address.host, front.address.port) as stream:
                await stream.send_all(_hostile(chance, seeds) + _hostile(chance, seeds))
        assert texts(await front.tcp("app.test")) == ["192.0.2.1"]
        assert front.counters.dns_malformed > 500
    assert caplog.messages == []


def _hostile(chance: random.Random, seeds: list[bytes]) -> bytes:
    if chance.random() < 0.3:
        return chance.randbytes(chance.randrange(0, 600))
    packet = bytearray(chance.choice(seeds))
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(packet))
        match chance.randrange(3):
            case 0:
                packet[at] = chance.randrange(256)
            case 1:
                del packet[at:]
                packet += b"\xc0\x0c"
            case _:
                packet[at:at] = chance.randbytes(chance.randrange(1, 40))
    return bytes(packet)


@pytest.mark.parametrize(
    ("wire", "rcode"),
    [
        (b"\x12\x34\x01\x00\0\0\0\0\0\0\0\0", dns.rcode.FORMERR),  # no question
        (b"\x12\x34\x01\x00\0\x02\0\0\0\0\0\0\0\0\x01\0\x01\0\0\x01\0\x01", dns.rcode.FORMERR),  # two
        (b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\xc0\x00\0\x01\0\x01", dns.rcode.FORMERR),  # a name that points backwards
        (b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01", dns.rcode.FORMERR),  # to itself
        (b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x40a\0\0\x01\0\x01", dns.rcode.FORMERR),  # a label of no kind
        (b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\x01\x03web\0\0\x01\0\x01\0\0\x29", dns.rcode.FORMERR),  # half an OPT
        (b"\x12\x34\x81\x00\0\x01\0\0\0\0\0\0\x03web\0\0\x01\0\x01", None),  # an answer
        (b"\x12\x34\x01", None),
        (b"", None),
    ],
)
async def test_what_is_no_query_gets_formerr_or_nothing(wire: bytes, rcode: dns.rcode.Rcode | None) -> None:
    async with fronted(NOBODY, names=WEB) as front:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as client:
            await client.connect((front.address.host, front.address.port))
            await client.send(wire)
            await client.send(dns.message.make_query("web", "A", id=7).to_wire())
            first = dns.message.from_wire(await client.recv(512))
            assert (first.id, first.rcode()) == ((7, dns.rcode.NOERROR) if rcode is None else (0x1234, rcode))
        assert front.counters.dns_malformed == 1


async def test_a_thousand_queries_in_flight_and_no_more() -> None:
    async with serving(TABLE) as server, fronted(server, names=WEB, most_sockets=8) as front:
        server.silent = True
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as client:
            await client.connect((front.address.host, front.address.port))
            for number in range(MOST_QUERIES):
                await client.send(dns.message.make_query("app.test", "A", id=number).to_wire())
                while front.counters.dns_active <= number:
                    await trio.lowlevel.checkpoint()
            assert (await front.udp("app.test")).rcode() == dns.rcode.SERVFAIL
            assert front.counters.dns_refused == 1
            assert texts(await front.udp("web")) == ["10.0.0.7"]


async def test_a_thousand_queries_are_all_answered() -> None:
    async with serving(TABLE) as server, fronted(server, names=WEB) as front:
        server.delay = 0.02
        answered: dict[int, list[str]] = {}
        room = trio.Semaphore(200)
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as client:
            await client.connect((front.address.host, front.address.port))
            async with trio.open_nursery() as nursery:

                async def hear() -> None:
                    while len(answered) < 1000:
                        answer = dns.message.from_wire(await client.recv(512))
                        answered[answer.id] = texts(answer)
                        room.release()

                nursery.start_soon(hear)
                for number in range(1000):
                    await room.acquire()
                    name = "web" if number % 2 else "app.test"
                    await client.send(dns.message.make_query(name, "A", id=number).to_wire())
        assert all(found == ["10.0.0.7" if number % 2 else "192.0.2.1"] for number, found in answered.items())
        assert (front.counters.dns_known, front.counters.dns_forwarded) == (500, 500)


async def test_a_line_per_query_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sidecar.dns")
    async with serving(TABLE) as server, fronted(server, names=WEB) as front:
        await front.udp("web")
        await front.udp("app.test")
        await front.udp("gone.test")
    lines = [line for line in caplog.messages if line.startswith("dns: A ")]
    assert "dns: A web. from" in lines[0] and lines[0].endswith("known")
    assert "NOERROR" in lines[1] and "NXDOMAIN" in lines[2]
