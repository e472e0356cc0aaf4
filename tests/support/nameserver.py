"""A resolver for tests, made with dnspython: it answers from a table over UDP and TCP, and misbehaves when told to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import trio

from sidecar.addresses import Address

Table = dict[tuple[str, str], list[str]]  # (name, type) -> lines of records; a name that has none does not exist
FORMERR = b"\x81\x81" + bytes(8)  # a header behind its id


@dataclass
class Asked:
    """One query as it came."""

    name: str
    kind: str
    tcp: bool
    wire: bytes
    client: tuple[str, int]


@dataclass
class NameServer:
    """``lies`` are sent before the answer, made of it; the other knobs speak for themselves."""

    table: Table
    port: int = 0
    delay: float = 0.0
    silent: bool = False
    ignores_size: bool = False
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    lies: list[Callable[[bytes], bytes]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    seen: trio.Event = field(default_factory=trio.Event)  # at the first query

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    def times(self, name: str) -> int:
        return sum(each.name == name for each in self.asked)

    def answer(self, wire: bytes, client: tuple[str, int], *, tcp: bool) -> bytes:
        try:
            query = dns.message.from_wire(wire)
            question = query.question[0]
        except Exception:  # whatever dnspython says of what is no query
            return wire[:2] + FORMERR
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append(Asked(name, kind, tcp, wire, client))
        self.seen.set()
        reply = dns.message.make_response(query, recursion_available=True)
        low = name.lower()
        if self.rcode:
            reply.set_rcode(self.rcode)
        elif question.rdclass == dns.rdataclass.IN and (lines := self.table.get((low, kind))):
            rrset = dns.rrset.from_text_list(question.name, 60, question.rdclass, question.rdtype, lines)
            reply.answer.append(rrset)
        elif not any(known == low for known, _ in self.table):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        limit = 65535 if tcp or self.ignores_size else max(query.payload, 512)
        return reply.to_wire(max_size=limit, prefer_truncation=True)

    async def serve_udp(self, sock: trio.socket.SocketType) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                wire, client = await sock.recvfrom(65535)
                nursery.start_soon(self._answer_udp, sock, wire, client)

    async def _answer_udp(self, sock: trio.socket.SocketType, wire: bytes, client: tuple[str, int]) -> None:
        reply = self.answer(wire, client, tcp=False)
        if self.silent:
            return
        for lie in self.lies:
            await sock.sendto(lie(reply), client)
        await trio.sleep(self.delay)
        await sock.sendto(reply, client)

    async def serve_tcp(self, stream: trio.SocketStream) -> None:
        client = stream.socket.getpeername()
        held = bytearray()
        async with stream:
            while data := await stream.receive_some():
                held += data
                while len(held) >= 2 and len(held) >= 2 + (length := int.from_bytes(held[:2], "big")):
                    reply = self.answer(bytes(held[2 : 2 + length]), client, tcp=True)
                    del held[: 2 + length]
                    if not self.silent:
                        await trio.sleep(self.delay)
                        await stream.send_all(len(reply).to_bytes(2, "big") + reply)


@asynccontextmanager
async def serving(table: Table) -> AsyncIterator[NameServer]:
    """A NameServer on a free port of 127.0.0.1, the same for UDP and TCP."""
    server = NameServer(table)
    while True:
        udp = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        await udp.bind(("127.0.0.1", 0))
        server.port = udp.getsockname()[1]
        try:
            listeners = await trio.open_tcp_listeners(server.port, host="127.0.0.1")
            break
        except OSError:
            udp.close()  # the port is taken for TCP: another one
    with udp:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_udp, udp)
            nursery.start_soon(trio.serve_listeners, server.serve_tcp, listeners)
            yield server
            nursery.cancel_scope.cancel()
