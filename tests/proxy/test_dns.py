"""The DNS server with resolvers that behave: what is known, what is forwarded, over UDP and over TCP."""

from __future__ import annotations

import os

import dns.flags
import dns.message
import dns.rcode
import pytest
import trio

from sidecar.dns.server import MOST_CONNECTIONS
from tests.proxy.dnsfront import NOBODY, fronted, texts
from tests.support.nameserver import Table, serving

TABLE: Table = {
    ("app.test.", "A"): ["192.0.2.1", "192.0.2.2"],
    ("app.test.", "AAAA"): ["2001:db8::1"],
    ("app.test.", "TXT"): ['"hello"'],
    ("four.test.", "A"): ["192.0.2.4"],
    ("many.test.", "A"): [f"198.51.{n // 250}.{n % 250}" for n in range(250)],
    ("odd.test.", "TYPE65400"): [r"\# 2 abcd"],
}


@pytest.mark.parametrize("over", ["udp", "tcp"])
async def test_answers_of_the_resolver_come_as_they_are(over: str) -> None:
    async with serving(TABLE) as server, fronted(server) as front:
        ask = getattr(front, over)
        assert texts(await ask("app.test")) == ["192.0.2.1", "192.0.2.2"]
        assert texts(await ask("app.test", "AAAA")) == ["2001:db8::1"]
        assert texts(await ask("app.test", "TXT")) == ['"hello"']
        assert texts(await ask("odd.test", "TYPE65400")) == [r"\# 2 abcd"]
        missing = await ask("gone.test")
        assert missing.rcode() == dns.rcode.NXDOMAIN
        no_data = await ask("four.test", "AAAA")
        assert (no_data.rcode(), no_data.answer) == (dns.rcode.NOERROR, [])
        assert {each.tcp for each in server.asked} == {over == "tcp"}
        assert (front.counters.dns_forwarded, front.counters.dns_nxdomain) == (5, 1)
        assert (front.counters.dns_failed, front.counters.dns_active) == (0, 0)


@pytest.mark.parametrize("over", ["udp", "tcp"])
async def test_known_names_need_no_resolver(over: str) -> None:
    names = {"web.internal": ["10.0.0.7", "10.0.0.8", "fd00::7"], "six.internal": ["fd00::6"]}
    async with fronted(NOBODY, names=names) as front:
        ask = getattr(front, over)
        for name in ("web.internal", "web.internal.", "WEB.Internal"):
            answer = await ask(name)
            assert texts(answer) == ["10.0.0.7", "10.0.0.8"]
            assert {dns.flags.QR, dns.flags.AA, dns.flags.RA, dns.flags.RD} <= set(dns.flags.Flag(answer.flags))
        assert texts(await ask("web.internal", "AAAA")) == ["fd00::7"]
        no_data = await ask("six.internal", "A")
        assert (no_data.rcode(), no_data.answer) == (dns.rcode.NOERROR, [])
        assert front.counters.dns_known == 5


@pytest.mark.parametrize("names", [{"app.test": ["10.0.0.7"]}, {}], ids=["known", "forwarded"])
async def test_the_case_of_the_question_comes_back(names: dict[str, list[str]]) -> None:
    async with serving(TABLE) as server, fronted(server, names=names) as front:
        answer = await front.udp("aPP.tEsT")
        assert answer.question[0].name.to_text() == answer.answer[0].name.to_text() == "aPP.tEsT."


async def test_names_may_come_and_go_while_it_runs() -> None:
    async with serving(TABLE) as server, fronted(server) as front:
        front.names.put("app.test.", ["10.0.0.1"])
        assert texts(await front.udp("app.test")) == ["10.0.0.1"]
        front.names.remove("APP.test")
        assert texts(await front.udp("app.test")) == ["192.0.2.1", "192.0.2.2"]


async def test_search_domains_and_resolvers_are_those_of_the_file_and_it_is_read_again(tmp_path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("search default.svc.test svc.test\nnameserver 127.0.0.1\n")
    async with serving(TABLE) as server, fronted(server, names={"web": ["10.0.0.7"]}, conf=conf) as front:
        assert texts(await front.udp("web")) == ["10.0.0.7"]
        assert texts(await front.udp("WEB.default.SVC.test")) == ["10.0.0.7"]
        assert texts(await front.udp("web.svc.test")) == ["10.0.0.7"]
        assert (await front.udp("web.other.test")).rcode() == dns.rcode.NXDOMAIN
        conf.write_text("search other.test\nnameserver 127.0.0.1\n")
        os.utime(conf, (1, 1))
        assert texts(await front.udp("web.other.test")) == ["10.0.0.7"]
        assert (await front.udp("web.svc.test")).rcode() == dns.rcode.NXDOMAIN


async def test_a_name_as_the_search_list_makes_it_is_known_in_full() -> None:
    async with serving(TABLE) as server, fronted(server, names={"web.default.svc.test": ["10.0.0.7"]}) as front:
        assert (await front.udp("web.default.default.svc.test")).rcode() == dns.rcode.NXDOMAIN
        assert texts(await front.udp("web.default.svc.test")) == ["10.0.0.7"]


async def test_other_types_of_a_known_name_are_asked_for_and_the_name_exists() -> None:
    async with serving(TABLE) as server, fronted(server, names={"app.test": ["10.0.0.7"], "web": ["::7"]}) as front:
        assert texts(await front.udp("app.test", "TXT")) == ['"hello"']
        answer = await front.udp("web", "HTTPS")
        assert (server.times("web."), answer.rcode(), answer.answer) == (1, dns.rcode.NOERROR, [])


@pytest.mark.parametrize("ignores_size", [False, True], ids=["resolver truncates", "we truncate"])
async def test_a_long_answer_comes_by_tcp(ignores_size: bool) -> None:
    async with serving(TABLE) as server, fronted(server) as front:
        server.ignores_size = ignores_size
        answer, was_tcp = await front.either("many.test")
        assert (len(texts(answer)), was_tcp) == (250, True)
        assert [each.tcp for each in server.asked] == [False, True]
        truncated = await front.udp("many.test", use_edns=0, payload=1232)
        assert truncated.flags & dns.flags.TC
        assert truncated.edns == 0 and len(truncated.to_wire()) <= 1232


async def test_a_long_answer_comes_by_udp_to_whoever_takes_it() -> None:
    async with serving(TABLE) as server, fronted(server) as front:
        answer, was_tcp = await front.either("many.test", use_edns=0, payload=8192)
        assert (len(texts(answer)), was_tcp) == (250, False)
        assert len(answer.to_wire()) > 4000


async def test_many_known_addresses_are_truncated_and_come_by_tcp() -> None:
    names = {"many.internal": [f"10.0.0.{n}" for n in range(200)]}
    async with fronted(NOBODY, names=names) as front:
        answer, was_tcp = await front.either("many.internal")
        assert (len(texts(answer)), was_tcp) == (200, True)


async def test_the_query_goes_on_as_it_came_but_for_its_id() -> None:
    query = dns.message.make_query("aPP.test", "A", want_dnssec=True, payload=1400, id=4711)
    query.flags |= dns.flags.CD | dns.flags.AD
    async with serving(TABLE) as server, fronted(server) as front:
        for number in range(3):
            answer = await dns.asyncquery.udp(query, front.address.host, 5, front.address.port)
            assert answer.id == 4711
            assert server.asked[number].wire[2:] == query.to_wire()[2:]
        assert len({each.wire[:2] for each in server.asked}) > 1, "ids are not random"
        assert len({each.client for each in server.asked}) > 1, "ports are not random"


async def test_edns_of_a_version_that_nobody_has_is_told_so() -> None:
    async with fronted(NOBODY, names={"web": ["10.0.0.7"]}) as front:
        assert (await front.udp("web", use_edns=1)).rcode() == dns.rcode.BADVERS


async def test_several_queries_share_a_tcp_connection_and_a_slow_one_holds_up_nobody() -> None:
    names = {"web": ["10.0.0.7"]}
    async with serving(TABLE) as server, fronted(server, names=names) as front:
        server.delay = 0.3
        queries = [dns.message.make_query(name, "A", id=n) for n, name in enumerate(("app.test", "web", "four.test"))]
        async with await trio.open_tcp_stream(front.address.host, front.address.port) as stream:
            for query in queries:
                await stream.send_all(query.to_wire(prepend_length=True))
            await stream.send_eof()  # what was asked before it is answered all the same
            data = b"".join([chunk async for chunk in stream])
        answers = []
        while data:
            end = 2 + int.from_bytes(data[:2], "big")
            answers.append(dns.message.from_wire(data[2:end]))
            data = data[end:]
        assert answers[0].id == 1
        assert {answer.id: texts(answer)[0] for answer in answers} == {0: "192.0.2.1", 1: "10.0.0.7", 2: "192.0.2.4"}


async def test_a_query_over_tcp_may_come_byte_by_byte() -> None:
    async with fronted(NOBODY, names={"web": ["10.0.0.7"]}) as front:
        async with await trio.open_tcp_stream(front.address.host, front.address.port) as stream:
            for byte in dns.message.make_query("web", "A").to_wire(prepend_length=True):
                await stream.send_all(bytes([byte]))
                await trio.lowlevel.checkpoint()
            head = await stream.receive_some(2)
            assert head[:1] == b"\0"


async def test_tcp_connections_are_bounded_and_those_that_end_make_room() -> None:
    async with fronted(NOBODY, names={"web": ["10.0.0.7"]}) as front:
        async with trio.open_nursery() as nursery:
            streams = [
                await trio.open_tcp_stream(front.address.host, front.address.port) for _ in range(MOST_CONNECTIONS)
            ]
            late = await trio.open_tcp_stream(front.address.host, front.address.port)
            try:
                assert await late.receive_some() == b""
            except trio.BrokenResourceError:
                pass  # a reset says the same
            assert front.counters.dns_connections_refused == 1
            for stream in streams:
                nursery.start_soon(stream.aclose)
        await late.aclose()
        with trio.fail_after(5):
            while front.counters.dns_known == 0:
                try:
                    await front.tcp("web")
                except (EOFError, OSError):
                    await trio.lowlevel.checkpoint()  # not all of them have been seen to go yet


async def test_zone_transfers_are_refused() -> None:
    async with serving(TABLE) as server, fronted(server) as front:
        assert (await front.tcp("test", "AXFR")).rcode() == dns.rcode.NOTIMP
        assert server.asked == []


async def test_ipv6() -> None:
    async with serving(TABLE) as server, fronted(server, names={"web": ["10.0.0.7"]}, listen="::1") as front:
        assert texts(await front.udp("web")) == texts(await front.tcp("web")) == ["10.0.0.7"]
        assert texts(await front.udp("four.test")) == ["192.0.2.4"]
