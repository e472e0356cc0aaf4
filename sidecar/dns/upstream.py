"""Asks the resolvers what we don't know, one after the other until one has answered.

Who calls it: ``dns.answers``, for each query that is forwarded. The query's bytes go on as they are but for the id.

Each query over UDP has a socket of its own, connected to the resolver. The kernel then gives it a random port, lets
nothing through but what comes from the resolver's address and port, and says at once when nobody listens there; with
the random id (and the question, which is held against the query) whoever wants to slip in an answer has to guess about
30 bits within one round trip (RFC 5452). A pool of sockets would save the calls that make and close one, a seventh of a
query's 100 us, and keep its ports for as long as it lives, for anybody to find. The number of sockets is bounded; more
queries wait for one.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import dns.rcode
import trio

from sidecar.addresses import Address
from sidecar.dns.messages import LARGEST, Query, is_answer, rcode_of
from sidecar.dns.resolvers import Resolvers
from sidecar.dns.stream import MessageStream

TRY_SECONDS = 2.0  # for one resolver, or less where there are three
LIFETIME = 4.5  # seconds for all of them: the C library gives up after 5
SUSPECT_SECONDS = 10.0  # a resolver that did not answer comes last for so long
_ASK_ANOTHER = frozenset((dns.rcode.SERVFAIL, dns.rcode.REFUSED))
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
_log = logging.getLogger(__name__)


class UpstreamCounters(Protocol):
    """The numbers that asking counts up."""

    dns_retries: int
    dns_mismatched: int


class Upstream:
    """The resolvers, as somebody to ask. ``most`` is how many sockets there may be at once."""

    def __init__(
        self, resolvers: Resolvers, counters: UpstreamCounters, most: int, try_seconds: float = TRY_SECONDS
    ) -> None:
        self._resolvers = resolvers
        self._counters = counters
        self._sockets = trio.Semaphore(most)
        self._try_seconds = try_seconds
        self._suspect: dict[Address, float] = {}
        self._asked: set[tuple[int, bytes]] = set()

    def is_ours(self, port: int, message_id: bytes) -> bool:
        """Whether a query that came from ``port`` with this id is one that we have just sent: it goes in a circle."""
        return (port, message_id) in self._asked

    async def ask(self, query: Query, *, tcp: bool) -> bytes | None:
        """The first answer that is neither SERVFAIL nor REFUSED, else the last of those; None where nobody answered
        within LIFETIME. It has the query's own id. Raises nothing but what cancelling does."""
        failure: bytes | None = None
        with trio.move_on_after(LIFETIME) as patience:
            async with self._sockets:
                tries = self._in_order()
                for number, server in enumerate(tries):
                    if number:
                        self._counters.dns_retries += 1
                    left = patience.deadline - trio.current_time()
                    seconds = min(self._try_seconds, left / (len(tries) - number))
                    answer = await self._try(server, query, tcp, seconds)
                    if answer is not None:
                        failure = query.wire[:2] + answer[2:]
                        if rcode_of(answer) not in _ASK_ANOTHER or len(set(tries)) == 1:
                            return failure
        return failure

    def _in_order(self) -> list[Address]:
        """As in the file, those last that have just failed to answer; one alone twice, since a packet may be lost."""
        servers = self._resolvers.now().servers
        if len(servers) == 1:
            return [servers[0], servers[0]]
        now = trio.current_time()
        return sorted(servers, key=lambda server: self._suspect.get(server, 0.0) > now)

    async def _try(self, server: Address, query: Query, tcp: bool, seconds: float) -> bytes | None:
        try:
            with trio.move_on_after(seconds):
                answer = await (self._over_tcp(server, query) if tcp else self._over_udp(server, query))
                if answer is not None:
                    self._suspect.pop(server, None)
                    return answer
        except (OSError, trio.BrokenResourceError) as error:
            _log.debug("dns: resolver %s: %s", server, error)
            if isinstance(error, OSError) and error.errno in _EXHAUSTED:
                return None  # our fault, not the resolver's
        self._suspect[server] = trio.current_time() + SUSPECT_SECONDS
        return None

    async def _over_udp(self, server: Address, query: Query) -> bytes:
        with _opened(server, socket.SOCK_DGRAM) as sock:
            sock.connect((server.host, server.port))
            with self._sent_from(sock) as message_id:
                sock.send(message_id + query.wire[2:])
                while True:
                    await trio.lowlevel.wait_readable(sock)
                    try:
                        answer = sock.recv(LARGEST)
                    except BlockingIOError:
                        continue
                    if is_answer(query, message_id, answer):
                        return answer
                    self._counters.dns_mismatched += 1

    async def _over_tcp(self, server: Address, query: Query) -> bytes | None:
        with _opened(server, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                sock.connect((server.host, server.port))
            except BlockingIOError:
                await trio.lowlevel.wait_writable(sock)
                if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(number, os.strerror(number)) from None
            with self._sent_from(sock) as message_id:
                stream = MessageStream(sock)
                await stream.send(message_id + query.wire[2:])
                while (answer := await stream.receive()) is not None:
                    if is_answer(query, message_id, answer):
                        return answer
                    self._counters.dns_mismatched += 1
        return None

    @contextmanager
    def _sent_from(self, sock: socket.socket) -> Iterator[bytes]:
        """A new id for what is sent on this socket, known as ours in the meantime."""
        ours = (sock.getsockname()[1], os.urandom(2))
        self._asked.add(ours)
        try:
            yield ours[1]
        finally:
            self._asked.discard(ours)


@contextmanager
def _opened(server: Address, kind: socket.SocketKind) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        yield sock
    finally:
        sock.close()
