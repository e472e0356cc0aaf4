"""Names: what needs no network, and what a DNS server of the test's own answers, over UDP and TCP on loopback."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
import trio
import trio.testing

from sidecar.addresses import Address
from sidecar.errors import ProxyError, Reason
from sidecar.net.hosts_file import parse_hosts
from sidecar.net.resolve import CACHED_NAMES, Resolver, interleave

Answers = dict[tuple[str, str], list[str]]  # (name, type) -> lines of records


def record(line: str) -> dns.rrset.RRset:
    name, ttl, kind, data = line.split(maxsplit=3)
    return dns.rrset.from_text(name, int(ttl), "IN", kind, data)


class Dns:
    """A name server that answers from a table; names that are not in it do not exist."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.asked: Counter[str] = Counter()
        self.silent: set[tuple[str, str]] = set()
        self.truncated: set[str] = set()
        self.broken: set[str] = set()
        self.over_tcp: Counter[str] = Counter()
        self.seen = trio.Event()
        self.port = 0

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    def reply(self, data: bytes, *, tcp: bool) -> bytes | None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        self.asked[name] += 1
        self.over_tcp[name] += tcp
        self.seen.set()
        if (name, kind) in self.silent:
            return None
        reply = dns.message.make_response(query)
        if name in self.broken:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif name in self.truncated and not tcp:
            reply.flags |= dns.flags.TC
        elif lines := self.answers.get((name, kind)):
            reply.answer = [record(line) for line in lines]
        elif not any(known == name for known, _ in self.answers):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire()

    async def serve_udp(self, sock: trio.socket.SocketType) -> None:
        while True:
            data, client = await sock.recvfrom(4096)
            if (reply := self.reply(data, tcp=False)) is not None:
                await sock.sendto(reply, client)

    async def serve_tcp(self, stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
                data += await stream.receive_some()
            reply = self.reply(data[2:], tcp=True)
            assert reply is not None
            await stream.send_all(len(reply).to_bytes(2, "big") + reply)


@asynccontextmanager
async def serving(answers: Answers) -> AsyncIterator[Dns]:
    server = Dns(answers)
    udp = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    listener: trio.SocketListener | None = None
    while listener is None:  # the same port for both, and nobody else's
        await udp.bind(("127.0.0.1", 0))
        server.port = udp.getsockname()[1]
        try:
            (listener,) = await trio.open_tcp_listeners(server.port, host="127.0.0.1")
        except OSError:
            udp.close()
            udp = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    with udp:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_udp, udp)
            nursery.start_soon(trio.serve_listeners, server.serve_tcp, [listener])
            yield server
            nursery.cancel_scope.cancel()


@pytest.fixture
def conf(tmp_path: Path) -> Callable[..., Resolver]:
    """Makes a Resolver with empty files of its own, a search list, and the given server."""

    def make(server: Dns | None = None, *, hosts: str = "", lines: str = "", **more: Any) -> Resolver:
        (tmp_path / "hosts").write_text(hosts)
        (tmp_path / "resolv.conf").write_text(lines + "nameserver 127.0.0.1\n")
        servers = [server.address] if server else []
        return Resolver(str(tmp_path / "hosts"), str(tmp_path / "resolv.conf"), servers=servers, **more)

    return make


async def refusal(resolver: Resolver, name: str) -> str:
    with pytest.raises(ProxyError) as caught:
        await resolver.resolve(name)
    assert caught.value.reason is Reason.DNS_FAILED
    return caught.value.detail


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("192.0.2.7", ["192.0.2.7"]),
        ("2001:DB8::1", ["2001:db8::1"]),
        ("::ffff:192.0.2.7", ["192.0.2.7"]),
        ("localhost", ["127.0.0.1", "::1"]),
        ("LOCALHOST.", ["127.0.0.1", "::1"]),
        ("app.localhost", ["127.0.0.1", "::1"]),
    ],
)
async def test_what_needs_no_look_up(conf, host, addresses):
    assert await conf(hosts="192.0.2.99 localhost\n").resolve(host) == addresses


async def test_hosts_file_by_any_case_with_a_dot_and_in_turn_of_families(conf):
    hosts = (
        "192.0.2.1 App.Test app # the app\n192.0.2.2\tapp.test\n2001:db8::1 app.test\nnonsense app.test\n192.0.2.3\n"
    )
    resolver = conf(hosts=hosts)
    for name in ("app.test", "APP.test", "app.test."):
        assert await resolver.resolve(name) == ["2001:db8::1", "192.0.2.1", "192.0.2.2"]
    assert await resolver.resolve("app") == ["192.0.2.1"]


async def test_hosts_file_is_read_again_when_it_changed(conf, tmp_path):
    resolver = conf(hosts="192.0.2.1 app\n")
    assert await resolver.resolve("app") == ["192.0.2.1"]
    (tmp_path / "hosts").write_text("192.0.2.2 app\n")
    os.utime(tmp_path / "hosts", (1, 1))
    assert await resolver.resolve("app") == ["192.0.2.2"]


def test_hosts_table_keeps_each_address_once():
    assert parse_hosts("::1 a a\n::1 A.\n#::2 a\n") == {"a": ["::1"]}


def test_families_take_turns_and_ipv6_begins():
    assert interleave(["1.1.1.1", "2.2.2.2", "3.3.3.3", "::1"]) == ["::1", "1.1.1.1", "2.2.2.2", "3.3.3.3"]
    assert interleave(["::1", "::2", "1.1.1.1", "::3"]) == ["::1", "1.1.1.1", "::2", "::3"]
    assert interleave([]) == []


async def test_both_families_through_a_cname(conf):
    answers = {
        ("www.test.", "A"): ["www.test. 60 CNAME app.test.", "app.test. 60 A 192.0.2.1"],
        ("www.test.", "AAAA"): ["www.test. 60 CNAME app.test.", "app.test. 60 AAAA 2001:db8::1"],
    }
    async with serving(answers) as server:
        assert await conf(server).resolve("www.test") == ["2001:db8::1", "192.0.2.1"]


async def test_search_list_and_trailing_dot(conf):
    async with serving({("app.shop.test.", "A"): ["app.shop.test. 60 A 192.0.2.1"]}) as server:
        resolver = conf(server, lines="search none.test shop.test\n")
        assert await resolver.resolve("app") == ["192.0.2.1"]
        assert await refusal(resolver, "app.") == "no such name"
        assert server.asked["app.none.test."] == 2


async def test_truncated_answer_is_asked_for_over_tcp(conf):
    many = [f"app.test. 60 A 192.0.2.{n}" for n in range(200)]
    async with serving({("app.test.", "A"): many}) as server:
        server.truncated.add("app.test.")
        assert len(await conf(server).resolve("app.test")) == 200
        assert server.over_tcp["app.test."] == 2


async def test_our_own_listener_is_never_asked(conf):
    async with serving({("app.test.", "A"): ["app.test. 60 A 192.0.2.1"]}) as server:
        assert await refusal(conf(server, own=[server.address]), "app.test") == "no name server could answer"
        assert not server.asked
        assert await conf(server, own=[Address("127.0.0.1", 53)]).resolve("app.test") == ["192.0.2.1"]


async def test_no_such_name_is_remembered_only_briefly(conf):
    now = 100.0
    async with serving({}) as server:
        resolver = conf(server, clock=lambda: now)
        assert await refusal(resolver, "gone.test") == "no such name"
        asked = server.asked.copy()
        assert await refusal(resolver, "gone.test") == "no such name"
        assert server.asked == asked
        server.answers[("gone.test.", "A")] = ["gone.test. 60 A 192.0.2.1"]
        now += 2.0
        assert await resolver.resolve("gone.test") == ["192.0.2.1"]


async def test_answers_are_kept_for_their_ttl(conf):
    now = 100.0
    async with serving({("app.test.", "A"): ["app.test. 30 A 192.0.2.1"]}) as server:
        resolver = conf(server, clock=lambda: now)
        await resolver.resolve("app.test")
        server.answers[("app.test.", "A")] = ["app.test. 30 A 192.0.2.2"]
        now += 29.9
        assert await resolver.resolve("APP.test") == ["192.0.2.1"]
        assert server.asked["app.test."] == 2
        now += 0.1
        assert await resolver.resolve("app.test") == ["192.0.2.2"]


async def test_memory_is_bounded(conf):
    answers = {(f"n{n}.test.", "A"): [f"n{n}.test. 60 A 192.0.2.1"] for n in range(CACHED_NAMES + 1)}
    async with serving(answers) as server:
        resolver = conf(server)
        for n in range(CACHED_NAMES + 1):
            await resolver.resolve(f"n{n}.test.")
        await resolver.resolve("n1.test.")
        assert server.asked["n1.test."] == 2
        await resolver.resolve("n0.test.")
        assert server.asked["n0.test."] == 4


async def test_a_name_without_addresses(conf):
    async with serving({("mail.test.", "MX"): []}) as server:
        assert await refusal(conf(server), "mail.test") == "the name has no address"


async def test_silence_ends_at_the_lifetime(conf):
    async with serving({}) as server:
        server.silent = {("slow.test.", "A"), ("slow.test.", "AAAA")}
        took = []
        for lifetime in (0.2, 1.5):
            began = trio.current_time()
            assert await refusal(conf(server, lifetime=lifetime), "slow.test") == "no name server answered in time"
            took.append(trio.current_time() - began)
        short, long = took
        assert short < 0.7 * long  # without a lifetime dnspython has 5 s of its own, each time


async def test_one_silent_family_does_not_delay_the_other(conf):
    async with serving({("app.test.", "A"): ["app.test. 60 A 192.0.2.1"]}) as server:
        server.silent = {("app.test.", "AAAA")}
        with trio.fail_after(20):
            assert await conf(server, lifetime=60.0).resolve("app.test") == ["192.0.2.1"]


async def test_a_server_that_fails(conf):
    async with serving({}) as server:
        server.broken.add("app.test.")
        assert await refusal(conf(server, lifetime=0.5), "app.test") in (
            "no name server could answer",
            "no name server answered in time",
        )


@pytest.mark.parametrize("name", ["a..b", "a" * 64 + ".test", ".".join(["abcdefg"] * 40), "", "\ud800"])
async def test_what_is_no_name(conf, name):
    assert await refusal(conf(lifetime=0.2, lines="options timeout:1\n"), name)


async def test_no_configuration_at_all(tmp_path):
    resolver = Resolver(str(tmp_path / "none"), str(tmp_path / "none either"))
    assert await refusal(resolver, "app.test") == "no name server is configured on this machine"


async def test_one_look_up_for_all_who_ask(conf):
    async with serving({("app.test.", "A"): ["app.test. 0 A 192.0.2.1"]}) as server:
        resolver = conf(server)

        async def ask() -> None:
            assert await resolver.resolve("app.test") == ["192.0.2.1"]

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
        assert server.asked["app.test."] == 2


async def test_who_waits_survives_the_cancelling_of_who_asks(conf):
    async with serving({("app.test.", "A"): ["app.test. 60 A 192.0.2.1"]}) as server:
        server.silent = {("app.test.", "A"), ("app.test.", "AAAA")}
        resolver = conf(server)
        scope = trio.CancelScope()
        found: list[str] = []

        async def ask_and_be_cancelled() -> None:
            with scope:
                await resolver.resolve("app.test")

        async def wait() -> None:
            found.extend(await resolver.resolve("app.test"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_and_be_cancelled)
            await server.seen.wait()
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            server.silent = set()
            scope.cancel()
        assert found == ["192.0.2.1"]
