"""The DNS server: its sockets, UDP and TCP on the same addresses, and who is served on them.

Called by ``app``, which imports it only where ``--dns`` is on, binds it before anything is served, and runs it until
everything else has ended. Nothing that a client sends ends it: what goes wrong with a message ends with that message.

Over UDP a few messages are taken per wake-up, since a name from the table is answered on the spot and others are to
have their turn on the loop. A query that is forwarded is a task, over TCP as over UDP: a connection may bring many
queries at once, and gets the answers in the order in which they come (RFC 7766 section 6.2.1.1).
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Sequence

import trio

from sidecar.addresses import Address, ClientAddr
from sidecar.dns.answers import Answers, DnsCounters
from sidecar.dns.messages import LARGEST, Query
from sidecar.dns.names import Names
from sidecar.dns.resolvers import Resolvers
from sidecar.dns.stream import MessageStream
from sidecar.dns.upstream import TRY_SECONDS, Upstream
from sidecar.errors import StartError
from sidecar.net.listener import AcceptCounters, Listener, bind, bind_datagrams

MOST_CONNECTIONS = 100
MOST_UNANSWERED = 100  # of one connection; then it is not read until an answer is out
IDLE_SECONDS = 10.0  # without a message on a TCP connection (RFC 7766 section 6.2.3: a few seconds)
SEND_SECONDS = 5.0  # for a client that reads its answers slowly
_MESSAGES_PER_WAKE = 16
_RECEIVE_BUFFER = 1 << 20  # bytes asked for; the kernel grants net.core.rmem_max
_TRIES_TO_BIND = 16  # with port 0: the free port of the one protocol may be taken in the other
_log = logging.getLogger(__name__)


def bind_dns(addresses: Sequence[Address]) -> tuple[list[Listener], list[socket.socket], list[str]]:
    """Binds each address for TCP and for UDP; also returns warnings. Raises StartError, which names --dns."""
    for _ in range(_TRIES_TO_BIND):
        listeners, warnings = bind("dns", "--dns", addresses)
        try:
            datagrams = bind_datagrams("--dns", [listener.address for listener in listeners])
        except StartError:
            for listener in listeners:
                listener.close()
            if any(address.port for address in addresses):
                raise
            continue
        for sock in datagrams:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        return listeners, datagrams, warnings
    raise StartError("--dns: no port is free for UDP and TCP alike; name one")


class DnsServer:
    """Serves on sockets that are bound. ``most_sockets`` is how many it may have open towards resolvers at once.

    ``resolv_conf`` and ``nameservers`` are as ``Resolvers`` takes them. ``names`` may change while it runs.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        datagrams: Sequence[socket.socket],
        names: Names,
        counters: DnsCounters,
        *,
        most_sockets: int,
        resolv_conf: str = "/etc/resolv.conf",
        nameservers: Sequence[Address] | None = None,
        try_seconds: float = TRY_SECONDS,
    ) -> None:
        self.names = names
        self._listeners = listeners
        self._datagrams = datagrams
        self._counters = counters
        own = [listener.address for listener in listeners]
        resolvers = Resolvers(resolv_conf, nameservers=nameservers, own=own)
        upstream = Upstream(resolvers, counters, most_sockets, try_seconds)
        self._answers = Answers(names, resolvers, upstream, counters)
        self._connections = 0

    async def run(self, accepts: AcceptCounters) -> None:
        """Serves until it is cancelled, then closes its sockets. ``accepts`` counts what listeners count."""
        try:
            async with trio.open_nursery() as nursery:

                def take(sock: socket.socket, client: ClientAddr) -> None:
                    self._take(nursery, sock, client)

                for listener in self._listeners:
                    nursery.start_soon(listener.accept, accepts, take)
                for sock in self._datagrams:
                    nursery.start_soon(self._serve_datagrams, nursery, sock)
        finally:
            self.close()

    def close(self) -> None:
        """Closes what it listens on. For whoever binds it and does not run it; safe to call twice."""
        for listener in self._listeners:
            listener.close()
        for sock in self._datagrams:
            sock.close()

    # -- UDP ---------------------------------------------------------------------------------------------------------

    async def _serve_datagrams(self, nursery: trio.Nursery, sock: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(sock)
            for _ in range(_MESSAGES_PER_WAKE):
                try:
                    wire, client = sock.recvfrom(LARGEST)
                except BlockingIOError:
                    break
                except OSError as error:  # as for want of memory: the message stays, or is lost, as UDP may lose it
                    _log.debug("dns: receiving: %s", error)
                    await trio.sleep(0.01)
                    break
                self._take_datagram(nursery, sock, wire, client)

    def _take_datagram(self, nursery: trio.Nursery, sock: socket.socket, wire: bytes, client: tuple[str, int]) -> None:
        try:
            begun = self._answers.begin(wire, client, tcp=False)
        except Exception:
            _log.exception("a DNS query failed for a reason that is ours; please report it")
            return
        if isinstance(begun, Query):
            nursery.start_soon(self._forward_datagram, sock, begun, client)
        elif begun is not None:
            _send(sock, begun, client)

    async def _forward_datagram(self, sock: socket.socket, query: Query, client: tuple[str, int]) -> None:
        try:
            _send(sock, await self._answers.forward(query, client, tcp=False), client)
        except Exception:
            _log.exception("a DNS query failed for a reason that is ours; please report it")

    # -- TCP ---------------------------------------------------------------------------------------------------------

    def _take(self, nursery: trio.Nursery, sock: socket.socket, client: ClientAddr) -> None:
        if self._connections >= MOST_CONNECTIONS:
            self._counters.dns_connections_refused += 1
            sock.close()
            return
        self._connections += 1
        nursery.start_soon(self._serve_connection, MessageStream(sock), (client.host, client.port))

    async def _serve_connection(self, stream: MessageStream, client: tuple[str, int]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                turn = trio.Lock()
                room = trio.Semaphore(MOST_UNANSWERED)
                while (wire := await _receive(stream)) is not None:
                    await room.acquire()
                    nursery.start_soon(self._answer, stream, turn, room, wire, client)
        except* (trio.BrokenResourceError, trio.ClosedResourceError) as gone:
            _log.debug("dns: %s has gone: %s", client, gone)
        except* Exception:
            _log.exception("a DNS connection failed for a reason that is ours; please report it")
        finally:
            stream.close()
            self._connections -= 1

    async def _answer(
        self, stream: MessageStream, turn: trio.Lock, room: trio.Semaphore, wire: bytes, client: tuple[str, int]
    ) -> None:
        try:
            begun = self._answers.begin(wire, client, tcp=True)
            reply = await self._answers.forward(begun, client, tcp=True) if isinstance(begun, Query) else begun
            if reply is None:
                return
            with trio.move_on_after(SEND_SECONDS) as patience:
                async with turn:
                    await stream.send(reply)
            if patience.cancelled_caught:
                raise trio.BrokenResourceError("the client does not read its answers")
        finally:
            room.release()


async def _receive(stream: MessageStream) -> bytes | None:
    with trio.move_on_after(IDLE_SECONDS):
        return await stream.receive()
    return None


def _send(sock: socket.socket, reply: bytes, client: tuple[str, int]) -> None:
    try:
        sock.sendto(reply, client)
    except OSError as error:  # its buffer is full, or it has gone: the client asks again, as for any lost packet
        what = errno.errorcode.get(error.errno or 0, "")
        _log.debug("dns: an answer to %s could not be sent: %s", client, what)
