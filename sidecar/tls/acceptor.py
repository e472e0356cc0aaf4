"""The TLS acceptor of inbound: whether a connection is TLS for this proxy, which peer it is from, and what is inside.

Called by ``inbound`` before anything is read, if the proxy has an identity. The rules are the mesh's contract:

- STRICT terminates every TLS connection here and requires a certificate; plaintext is refused.
- PERMISSIVE terminates those that offer a protocol of the mesh (ALPN), and then requires a good certificate; all other
  connections, including the app's own TLS, continue unchanged, from an unauthenticated source.
- DISABLE lets all connections continue unchanged.
- OPTIONAL, for the control plane's own port alone, is STRICT, but a client may show no certificate: it is
  unauthenticated then.

A failed handshake never falls back to plaintext. Bytes that were read can't be given to OpenSSL any more, so the
acceptor peeks. A silent client may be waiting for the app to speak first: if plaintext is allowed, the acceptor lets
it through as SILENT. Then ``proxy.connection_handler`` peeks at its first bytes, too, and if a handshake begins, the
connection comes back here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic
from typing import Final

from certs.xfcc import element
from sidecar.errors import ProxyError, Reason
from sidecar.identity import ALPN_DETECT, ALPN_HTTP1, ALPN_OPAQUE, CredentialEpoch, Identity
from sidecar.net.byte_stream import Secured
from sidecar.net.connection import NEVER, Connection, ConnectionClosed, DeadlineExceeded
from sidecar.policy.fairness import PerPeerQueue, peer_of
from sidecar.tls.client_hello import HANDSHAKE, HELLO_BYTES, NoHello, read_hello
from sidecar.tls.connection_security import AS_IT_CAME, SILENT, ConnectionSecurity
from sidecar.tls.handshake import HANDSHAKE_SECONDS, HandshakeFailed, Ours, secure_server
from sidecar.tls.handshake_scheduler import HandshakeScheduler

AT_ONCE: Final = 512  # handshakes under way; one more evicts the oldest of the peer that has most of them
SILENCE_SECONDS: Final = 0.05
REMEMBERED: Final = 256  # results of handshakes; equal ones are shared, which saves some 0.6 kB per connection
_OF_THE_MESH: Final = (b"istio", b"istio-http/1.1", b"istio-h2")

STRICT: Final = "STRICT"
PERMISSIVE: Final = "PERMISSIVE"
DISABLE: Final = "DISABLE"
OPTIONAL: Final = "OPTIONAL"  # not available in flags or documents
_TLS_ONLY: Final = (STRICT, OPTIONAL)


class TlsAcceptor:
    """The TLS acceptor of one process. ``mode_of`` returns a port's mode. ``sni_leads_here`` returns whether the
    service of a server name (b"": none) is served here; it is None if the name is only recorded (captured connections).

    ``outcomes`` counts handshakes by outcome: "ok", or the rule that failed; ``groups`` by key agreement.
    """

    def __init__(
        self, identity: Identity, mode_of: Callable[[int], str], sni_leads_here: Callable[[bytes], bool] | None
    ) -> None:
        self._identity = identity
        self._mode_of = mode_of
        self._sni_leads_here = sni_leads_here
        self.scheduler = HandshakeScheduler()
        self._under_way: PerPeerQueue[Connection] = PerPeerQueue()
        self._remembered: dict[tuple[object, ...], ConnectionSecurity] = {}
        self.outcomes: dict[str, int] = {}
        self.groups: dict[str, int] = {}

    @property
    def under_way(self) -> int:
        """The number of handshakes that have begun and not ended."""
        return len(self._under_way)

    @property
    def remembered(self) -> int:
        """The number of handshake results that are remembered, REMEMBERED at most."""
        return len(self._remembered)

    async def accept(self, connection: Connection, host: str, port: int) -> tuple[Connection, ConnectionSecurity]:
        """Look at the first bytes of a connection from ``host``, and secure it if they and the mode call for that.

        Return the connection to continue with, and its security. After a handshake that is another connection, which
        the caller has to close, and ``connection`` is closed.

        Raises ProxyError for a connection that is refused (PLAINTEXT_REFUSED, PEER_REFUSED, HANDSHAKE_*, NO_IDENTITY,
        NO_ROUTE), and ConnectionClosed if the client left. Then reset ``connection``.
        """
        mode = self._mode_of(port)
        if mode == DISABLE:
            return connection, AS_IT_CAME
        first = await self._first_byte(connection, HANDSHAKE_SECONDS if mode in _TLS_ONLY else SILENCE_SECONDS)
        if first is None:
            if mode in _TLS_ONLY:
                raise ProxyError(Reason.HANDSHAKE_TIMEOUT, f"no TLS handshake within {HANDSHAKE_SECONDS:g} s")
            return connection, SILENT
        if not first:
            raise ConnectionClosed("the client left before it sent anything")
        if first[0] != HANDSHAKE:
            if mode in _TLS_ONLY:
                taken = "mutual TLS only (STRICT)" if mode == STRICT else "TLS only"
                raise ProxyError(Reason.PLAINTEXT_REFUSED, f"plaintext, and this port takes {taken}")
            return connection, AS_IT_CAME
        if mode == PERMISSIVE and not await self._offers_the_mesh(connection):
            return connection, AS_IT_CAME
        return await self._secure(connection, host, mode)

    async def _secure(self, connection: Connection, host: str, mode: str) -> tuple[Connection, ConnectionSecurity]:
        generation = self._identity.require()
        peer = peer_of(host)

        begun = False

        def enter() -> None:
            self._make_room()
            self._under_way.add(peer, connection)

        async def turn(step: Callable[[], None]) -> None:
            nonlocal begun
            before, begun = begun, True
            await self.scheduler.run(connection, peer, len(self._under_way), step, begun=before)

        try:
            if len(self._under_way) >= AT_ONCE:
                connection.limit(HANDSHAKE_SECONDS, Reason.HANDSHAKE_TIMEOUT)
                await self.scheduler.run(connection, peer, len(self._under_way), enter)
            else:
                enter()
            judge = self._identity.judge(generation, None)
            context = generation.server(certificate_needed=mode != OPTIONAL)
            ours = Ours(generation.credentials.not_after, generation.number)
            above = await secure_server(connection, context, judge, HANDSHAKE_SECONDS, turn=turn, ours=ours)
        except HandshakeFailed as failed:
            self.note(failed.rule, "")
            raise
        except ConnectionClosed:
            self.note("closed", "")
            raise
        except ProxyError as ended:  # to make room, or by a drain
            self.note(ended.reason.word, "")
            raise
        finally:
            self._under_way.discard(peer, connection)
        secured = above.secured
        assert secured is not None
        if self._sni_leads_here is not None and secured.sni and not self._sni_leads_here(secured.sni):
            self.note("wrong_sni", "")
            above.reset()
            raise ProxyError(Reason.NO_ROUTE, "the server name (SNI) names no service that is served here")
        self.note("ok", secured.group)
        return above, self.remember(secured, generation)

    def _make_room(self) -> None:
        """Evict the oldest handshake of the peer that holds the most slots. Otherwise a client that begins handshakes
        and completes none would lock all others out."""
        if len(self._under_way) >= AT_ONCE:
            self._under_way.take_from_largest().expire(Reason.TOO_MANY_CONNECTIONS)

    def remember(self, secured: Secured, generation: CredentialEpoch) -> ConnectionSecurity:
        """Return the result of a handshake under ``generation``: one object for all connections of a peer."""
        key = (generation.number, secured.peer, secured.alpn, secured.group)
        security = self._remembered.get(key)
        if security is None:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            security = self._remembered[key] = _security_of(secured, generation)
        return security

    def note(self, outcome: str, group: str) -> None:
        """Count a handshake, also of outbound; ``group`` is the key agreement of one that succeeded."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if group:
            self.groups[group] = self.groups.get(group, 0) + 1

    async def _first_byte(self, connection: Connection, seconds: float) -> bytes | None:
        """Return the first byte and leave it unread: b"" at FIN, None after a silence."""
        connection.limit(seconds, Reason.HANDSHAKE_TIMEOUT)
        try:
            return await connection.peek(1)
        except DeadlineExceeded as overdue:
            if overdue.reason is not Reason.HANDSHAKE_TIMEOUT:
                raise
            connection.revive()
            return None
        finally:
            connection.deadline = NEVER

    async def _offers_the_mesh(self, connection: Connection) -> bool:
        """Return whether the ClientHello, which stays unread, offers a protocol of the mesh. One that can't be parsed
        offers none."""
        sock = connection.plain
        until = monotonic() + HANDSHAKE_SECONDS
        connection.limit(HANDSHAKE_SECONDS, Reason.HANDSHAKE_TIMEOUT)
        seen = 0
        try:
            while True:
                data = connection.peek_nowait(HELLO_BYTES) or b""
                try:
                    hello = read_hello(data)
                except NoHello:
                    return False
                if hello is not None:
                    return any(name in _OF_THE_MESH or name.startswith(b"sidecar-") for name in hello.alpn)
                if len(data) <= seen or len(data) >= HELLO_BYTES:  # woken without new bytes: FIN
                    raise ConnectionClosed("the client closed in the middle of its ClientHello")
                seen = len(data)
                # Otherwise the bytes that have come already would end each wait at once.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, seen + 1)
                connection.deadline = until
                await connection.wait_readable()
        except OSError as error:
            raise ConnectionClosed(error.strerror or "closed") from None
        finally:
            connection.deadline = NEVER
            if seen and not connection.closed:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def _security_of(secured: Secured, generation: CredentialEpoch) -> ConnectionSecurity:
    peer, ours = secured.peer, generation.credentials
    inside = _INSIDE.get(secured.alpn, "auto")
    if peer is None:  # the context allowed it
        words = f"TLS with a client that shows no certificate, {secured.group}"
        return ConnectionSecurity(inside, leaving=generation.leaving, words=words)
    return ConnectionSecurity(
        inside,
        peer=peer,
        xfcc=element(ours.spiffe_id, peer.fingerprint, peer.subject, peer.spiffe_id).encode(),
        leaving=generation.leaving,
        words=f"mutual TLS with {peer.spiffe_id}, {secured.group}, {secured.alpn.decode() or 'no ALPN'}",
    )


_INSIDE: Final = {ALPN_HTTP1: "http", b"http/1.1": "http", ALPN_OPAQUE: "tcp", ALPN_DETECT: "auto"}
