"""What becomes of a query: answered from the table, forwarded, or turned away; counted, and told in the log.

Who calls it: ``dns.server``, for each message that a client sent. ``begin`` does at once what needs no waiting, so that
a name that we know costs no task.
"""

from __future__ import annotations

import logging
from typing import Protocol

import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import trio

from sidecar.dns.messages import Malformed, Query, fit, rcode_of, read_query, reply_from_table, reply_with
from sidecar.dns.names import Known, Names
from sidecar.dns.resolvers import Resolvers
from sidecar.dns.upstream import Upstream, UpstreamCounters

MOST_QUERIES = 1000  # that wait for resolvers at once
_TRANSFERS = frozenset((dns.rdatatype.AXFR, dns.rdatatype.IXFR))  # answers of many messages; no business of a stub
_log = logging.getLogger(__name__)


class DnsCounters(UpstreamCounters, Protocol):
    """The numbers that answering counts up; ``dns_active`` also down."""

    dns_active: int
    dns_connections_refused: int
    dns_failed: int
    dns_forwarded: int
    dns_known: int
    dns_looped: int
    dns_malformed: int
    dns_nxdomain: int
    dns_refused: int


class Answers:
    """Decides about queries, with the table of names and the resolvers at hand."""

    def __init__(self, names: Names, resolvers: Resolvers, upstream: Upstream, counters: DnsCounters) -> None:
        self._names = names
        self._resolvers = resolvers
        self._upstream = upstream
        self._counters = counters

    def begin(self, wire: bytes, client: tuple[str, int], *, tcp: bool) -> Query | bytes | None:
        """The reply to a message, None for silence, or the Query, which has to be given to ``forward`` then."""
        counters = self._counters
        if self._upstream.is_ours(client[1], wire[:2]):
            counters.dns_looped += 1
            return None
        try:
            query = read_query(wire)
            reply = self._from_table(query, tcp)
        except Malformed as error:
            counters.dns_malformed += 1
            _log.debug("dns: from %s: not a query that can be read", client)
            return error.reply
        if reply is not None:
            counters.dns_known += 1
            _log.debug("dns: %s from %s: known", query, client)
            return reply
        if query.kind in _TRANSFERS:
            counters.dns_refused += 1
            return reply_with(query, dns.rcode.NOTIMP)
        if counters.dns_active >= MOST_QUERIES:
            counters.dns_refused += 1
            return reply_with(query, dns.rcode.SERVFAIL)
        counters.dns_active += 1
        return query

    async def forward(self, query: Query, client: tuple[str, int], *, tcp: bool) -> bytes:
        """The resolvers' answer as it came, SERVFAIL where there is none. Raises nothing but what cancelling does."""
        began = trio.current_time()
        try:
            answer = await self._upstream.ask(query, tcp=tcp)
            reply = reply_with(query, dns.rcode.SERVFAIL) if answer is None else self._as_reply(query, answer, tcp)
        finally:
            self._counters.dns_active -= 1
        self._count(rcode_of(reply))
        if _log.isEnabledFor(logging.DEBUG):
            said = "no resolver answered" if answer is None else dns.rcode.to_text(dns.rcode.Rcode(rcode_of(reply)))
            spent = (trio.current_time() - began) * 1000
            _log.debug("dns: %s from %s: forwarded; %s, %d bytes, %.1f ms", query, client, said, len(reply), spent)
        return reply

    def _from_table(self, query: Query, tcp: bool) -> bytes | None:
        if query.kind == dns.rdatatype.A or query.kind == dns.rdatatype.AAAA:
            known = self._known(query)
            if known is not None:
                return reply_from_table(query, known.a if query.kind == dns.rdatatype.A else known.aaaa, tcp=tcp)
        return None

    def _known(self, query: Query) -> Known | None:
        if query.rdclass != dns.rdataclass.IN or query.opcode != dns.opcode.QUERY:
            return None
        return self._names.look_up(query.key, self._resolvers.now().search)

    def _as_reply(self, query: Query, answer: bytes, tcp: bool) -> bytes:
        if rcode_of(answer) == dns.rcode.NXDOMAIN and self._known(query) is not None:
            try:  # a name that has addresses exists: it only has nothing of this type (RFC 8020)
                return reply_from_table(query, (), tcp=tcp)
            except Malformed:
                return reply_with(query, dns.rcode.NOERROR)
        return answer if tcp else fit(query, answer)

    def _count(self, rcode: int) -> None:
        if rcode == dns.rcode.NOERROR:
            self._counters.dns_forwarded += 1
        elif rcode == dns.rcode.NXDOMAIN:
            self._counters.dns_nxdomain += 1
        else:
            self._counters.dns_failed += 1
