"""The proxy's DNS server in front of resolvers of the test's own, in this process, and clients that ask it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import dns.asyncquery
import dns.message
import trio

from sidecar.addresses import Address
from sidecar.dns.names import Names
from sidecar.dns.server import DnsServer, bind_dns
from sidecar.telemetry.metrics import Counters
from tests.support.nameserver import NameServer

NOBODY = Address("127.0.0.1", 1)  # no port that anything gets by chance, and nothing listens there
PATIENCE = 8.0  # seconds


class DnsFront:
    """``address`` is where it serves, ``counters`` what it counted, ``names`` its table."""

    def __init__(self, address: Address, counters: Counters, names: Names) -> None:
        self.address = address
        self.counters = counters
        self.names = names

    async def udp(self, name: str, kind: str = "A", **more: object) -> dns.message.Message:
        """One query over UDP; what comes back is held against it by dnspython."""
        query = dns.message.make_query(name, kind, **more)  # type: ignore[arg-type]
        return await dns.asyncquery.udp(query, self.address.host, PATIENCE, self.address.port)

    async def tcp(self, name: str, kind: str = "A", **more: object) -> dns.message.Message:
        """The same over TCP."""
        query = dns.message.make_query(name, kind, **more)  # type: ignore[arg-type]
        return await dns.asyncquery.tcp(query, self.address.host, PATIENCE, self.address.port)

    async def either(self, name: str, kind: str = "A", **more: object) -> tuple[dns.message.Message, bool]:
        """Over UDP, and again over TCP where the answer was truncated, as clients do; whether it was TCP."""
        query = dns.message.make_query(name, kind, **more)  # type: ignore[arg-type]
        return await dns.asyncquery.udp_with_fallback(query, self.address.host, PATIENCE, self.address.port)


@asynccontextmanager
async def fronted(
    *servers: NameServer | Address,
    names: Mapping[str, Sequence[str]] | None = None,
    conf: Path = Path("/nonexistent/resolv.conf"),
    listen: str = "127.0.0.1",
    try_seconds: float = 2.0,
    most_sockets: int = 200,
) -> AsyncIterator[DnsFront]:
    """Serves until the block ends; without ``servers`` those of ``conf`` are asked."""
    table = Names()
    for name, known in (names or {}).items():
        table.put(name, known)
    addresses = [each if isinstance(each, Address) else each.address for each in servers]
    listeners, datagrams, _ = bind_dns([Address(listen, 0)])
    counters = Counters()
    server = DnsServer(
        listeners, datagrams, table, counters, most_sockets=most_sockets, resolv_conf=str(conf),
        nameservers=addresses or None, try_seconds=try_seconds,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, counters)
        yield DnsFront(listeners[0].address, counters, table)
        nursery.cancel_scope.cancel()


def texts(message: dns.message.Message) -> list[str]:
    """The data of the answer's records, in order: dnspython writes them in a random one."""
    return sorted(record.to_text() for rrset in message.answer for record in rrset)
