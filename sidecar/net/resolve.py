"""Look-ups from names to addresses, without a thread: ``getaddrinfo`` can't be cancelled.

Called by code that dials a name. The order is that of most machines' ``hosts: files dns``: literals, localhost
(RFC 6761 section 6.3: never sent to the network), /etc/hosts, then DNS as configured in /etc/resolv.conf. dnspython,
which is 3.5 MB, is imported when the first name needs it.

One look-up of a name runs at a time; other callers of that name wait for its answer. An answer is kept for its TTL, at
most LONGEST_TTL; a failure, or the answer of only one family, for at most NEGATIVE_TTL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

import trio

from sidecar.addresses import Address, parse_ip
from sidecar.errors import ProxyError, Reason
from sidecar.net.hosts_file import Hosts

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver as Asker
    from dns.nameserver import Nameserver
    from dns.resolver import Answer

LIFETIME = 5.0  # seconds for one name, for all servers and search domains together
CACHED_NAMES = 1024  # the oldest goes first
LONGEST_TTL = 3600.0  # seconds; a typing mistake in a zone should not outlive the afternoon
NEGATIVE_TTL = 2.0  # seconds; a name that has just been made should not stay missing (RFC 2308 allows hours)
RESOLUTION_DELAY = 0.05  # seconds that the first family's addresses wait for the other's (RFC 8305 section 3)
LOCALHOST = ("127.0.0.1", "::1")  # most apps listen on the first; a refusal moves on to the other at once


@dataclass(frozen=True, slots=True)
class _Known:
    addresses: tuple[str, ...]
    missing: str  # why there are none
    until: float


class _Asking:
    """A look-up under way. ``known`` stays None if it is cancelled: then another caller has to look up the name."""

    __slots__ = ("done", "known")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.known: _Known | None = None


class Resolver:
    """A resolver with a cache.

    ``servers`` replaces the name servers of ``resolv_conf``, whose search list and options still apply. Both may be
    absent; then only names that need no DNS are found. A server that is one of ``own``, our listeners, is never
    queried: an answer must not come from ourselves. ``clock`` is ``time.monotonic`` or a substitute for it.
    """

    def __init__(
        self,
        hosts_file: str = "/etc/hosts",
        resolv_conf: str = "/etc/resolv.conf",
        *,
        servers: Sequence[Address] = (),
        own: Sequence[Address] = (),
        lifetime: float = LIFETIME,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._hosts = Hosts(hosts_file)
        self._resolv_conf = resolv_conf
        self._servers = tuple(servers)
        self._own = frozenset(own)
        self._lifetime = lifetime
        self._clock = clock
        self._asker: Asker | None = None
        self._cache: dict[str, _Known] = {}
        self._asked: dict[str, _Asking] = {}

    async def resolve(self, host: str) -> list[str]:
        """Return the addresses of ``host``, the preferred one first: IPv6 and IPv4 in turn (RFC 8305 section 4).

        ``host`` is a name or an IP literal without brackets. May return without a checkpoint. Raises
        ProxyError(DNS_FAILED). If it is cancelled, callers that wait for the same name repeat the look-up.
        """
        if (address := parse_ip(host)) is not None:
            return [str(address)]
        name = host.lower()
        bare = name.removesuffix(".")
        if bare == "localhost" or bare.endswith(".localhost"):
            return list(LOCALHOST)
        if found := self._hosts.look_up(bare):
            return interleave(found)
        known = self._recall(name)
        while known is None:
            asked = self._asked.get(name)
            if asked is None:
                known = await self._ask_once(name)
            else:
                await asked.done.wait()
                known = asked.known
        if not known.addresses:
            raise ProxyError(Reason.DNS_FAILED, known.missing)
        return list(known.addresses)

    def _recall(self, name: str) -> _Known | None:
        known = self._cache.get(name)
        if known is not None and known.until <= self._clock():
            del self._cache[name]
            return None
        return known

    async def _ask_once(self, name: str) -> _Known:
        asking = self._asked[name] = _Asking()
        try:
            known = asking.known = await self._ask(name)
            while len(self._cache) >= CACHED_NAMES:
                del self._cache[next(iter(self._cache))]
            self._cache[name] = known
            return known
        finally:
            del self._asked[name]
            asking.done.set()

    async def _ask(self, name: str) -> _Known:
        """Query A and AAAA at once. Neither a failure nor a slow answer of one family hides what the other found."""
        answers: list[Answer] = []
        failures: list[Exception] = []

        async def ask(kind: str) -> None:
            try:
                answer = await self._dnspython().resolve(name, kind, search=True, raise_on_no_answer=False)
                answers.append(answer)
                if answer.rrset:
                    nursery.cancel_scope.deadline = trio.current_time() + RESOLUTION_DELAY
            except Exception as error:  # of dnspython and of its sockets: classified below
                failures.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "AAAA")
            nursery.start_soon(ask, "A")
        found = [record.address for answer in answers for record in answer.rrset or ()]
        now = self._clock()
        if found:
            shortest = min(answer.chaining_result.minimum_ttl for answer in answers if answer.rrset is not None)
            whole = len(answers) == 2  # otherwise try the other family again soon
            kept = min(float(shortest), LONGEST_TTL if whole else NEGATIVE_TTL)
            return _Known(tuple(interleave(found)), "", now + kept)
        return _Known((), _why_missing(failures), now + NEGATIVE_TTL)

    def _dnspython(self) -> Asker:
        if self._asker is None:
            import dns.asyncresolver
            import dns.nameserver

            try:
                asker = dns.asyncresolver.Resolver(self._resolv_conf)
            except dns.resolver.NoResolverConfiguration:
                if not self._servers:
                    raise
                asker = dns.asyncresolver.Resolver(configure=False)
            if self._servers:
                asker.nameservers = [dns.nameserver.Do53Nameserver(each.host, each.port) for each in self._servers]
            asker.nameservers = [each for each in asker.nameservers if not self._is_own(each, asker.port)]
            asker.lifetime = self._lifetime
            self._asker = asker
        return self._asker

    def _is_own(self, server: str | Nameserver, port: int) -> bool:
        """Return whether a name server is one of our listeners. dnspython's list has texts, which come from the file,
        and objects, which come from ``servers``."""
        if isinstance(server, str):
            return Address(server, port) in self._own
        return Address(server.answer_nameserver(), server.answer_port()) in self._own


def interleave(addresses: Sequence[str]) -> list[str]:
    """Return IPv6 and IPv4 in turn, IPv6 first, each family in the order given (RFC 8305 section 4)."""
    sixes = [address for address in addresses if ":" in address]
    fours = [address for address in addresses if ":" not in address]
    pairs = [address for pair in zip(sixes, fours, strict=False) for address in pair]
    paired = len(pairs) // 2
    return pairs + sixes[paired:] + fours[paired:]


def _why_missing(failures: Sequence[Exception]) -> str:
    """Return the reason in one sentence, without the name: a peer chose that."""
    import dns.exception
    import dns.resolver

    if not failures:
        return "the name has no address"
    error = failures[0]
    if isinstance(error, dns.resolver.NXDOMAIN):
        return "no such name"
    if isinstance(error, dns.resolver.NoResolverConfiguration):
        return "no name server is configured on this machine"
    if isinstance(error, dns.exception.Timeout):
        return "no name server answered in time"
    if isinstance(error, dns.resolver.NoNameservers):
        return "no name server could answer"
    if isinstance(error, dns.exception.DNSException):
        return "it is not a name that can be looked up"
    return "the look-up failed"
