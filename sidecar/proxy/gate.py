"""The gate of inbound: is this connection TLS for us, who is behind it, and what is inside?

Called by ``inbound`` before anything is read, where the proxy has an identity. The rules are the mesh's contract:

- STRICT ends every TLS connection here and wants a certificate; plaintext is refused.
- PERMISSIVE ends those that offer a protocol of the mesh (ALPN), and then wants a good certificate; all else, TLS of
  the app's own among it, goes on as it came, from a source that is nobody.
- DISABLE lets all go on as it came.
- OPTIONAL, of the control plane's own port alone, is STRICT but for who shows no certificate: that one is nobody.

A failed handshake never falls back to plaintext. What was once read from a socket can't be given to OpenSSL any more,
so first bytes are peeked at. A client that is silent may be waiting for the app to speak first; where plaintext is
allowed its socket is guarded (:class:`Guarded`), and should it begin a handshake after all, it comes back here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic
from typing import Final, cast

import msgspec

from certs.xfcc import element
from sidecar.errors import ProxyError, Reason
from sidecar.identity import ALPN_DETECT, ALPN_HTTP1, ALPN_OPAQUE, Generation, Identity
from sidecar.net.channel import NEVER, Channel, ChannelClosed, Overdue
from sidecar.net.hello import HANDSHAKE, HELLO_BYTES, NoHello, read_hello
from sidecar.net.tls import HANDSHAKE_SECONDS, HandshakeFailed, Secured, secure_server
from sidecar.policy.fairness import ByPeer, peer_of
from sidecar.proxy.admitted import AS_IT_CAME, SILENT, Admitted, TlsWaiting
from sidecar.proxy.turns import Turns

AT_ONCE: Final = 512  # handshakes under way; one more ends the oldest of the peer that has most of them
SILENCE_SECONDS: Final = 0.05
_OF_THE_MESH: Final = (b"istio", b"istio-http/1.1", b"istio-h2")

STRICT: Final = "STRICT"
PERMISSIVE: Final = "PERMISSIVE"
DISABLE: Final = "DISABLE"
OPTIONAL: Final = "OPTIONAL"  # said by no flag and no document
_TLS_ONLY: Final = (STRICT, OPTIONAL)


class Guarded:
    """A socket whose first byte is looked at before it is read: see the module's text. It takes itself away then."""

    __slots__ = ("_channel", "_raw")

    def __init__(self, channel: Channel) -> None:
        assert isinstance(channel.sock, socket.socket)
        self._channel = channel
        self._raw = channel.sock

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As ``socket.recv``; raises TlsWaiting where a handshake begins."""
        first = self._raw.recv(1, socket.MSG_PEEK)
        self._channel.sock = self._raw
        if first and first[0] == HANDSHAKE:
            raise TlsWaiting
        return self._raw.recv(size, flags)

    def let_go(self) -> None:
        """Nothing is looked at any more."""
        self._channel.sock = self._raw

    def __getattr__(self, name: str) -> object:
        return getattr(self._raw, name)


class Gate:
    """The gate of one process. ``mode_of`` gives a port's mode. ``sni_leads_here`` says for a server name (b"": none)
    whether what it names is served here; None where it is only recorded (captured connections).

    ``outcomes`` counts handshakes by how they ended: "ok", or the rule that failed; ``groups`` by key agreement.
    """

    def __init__(
        self, identity: Identity, mode_of: Callable[[int], str], sni_leads_here: Callable[[bytes], bool] | None
    ) -> None:
        self._identity = identity
        self._mode_of = mode_of
        self._sni_leads_here = sni_leads_here
        self.turns = Turns()
        self._under_way: ByPeer[Channel] = ByPeer()
        self.outcomes: dict[str, int] = {}
        self.groups: dict[str, int] = {}

    @property
    def under_way(self) -> int:
        """Handshakes that have begun and not ended."""
        return len(self._under_way)

    async def admit(self, channel: Channel, host: str, port: int) -> Admitted:
        """Looks at the first bytes of a connection from ``host``, and secures the connection where that is called for.

        Raises ProxyError for what is refused (PLAINTEXT_REFUSED, PEER_REFUSED, HANDSHAKE_*, NO_IDENTITY), and
        ChannelClosed for a client that left; the channel is only good for a reset then.
        """
        mode = self._mode_of(port)
        if mode == DISABLE:
            return AS_IT_CAME
        first = await self._first_byte(channel, HANDSHAKE_SECONDS if mode in _TLS_ONLY else SILENCE_SECONDS)
        if first is None:
            if mode in _TLS_ONLY:
                raise ProxyError(Reason.HANDSHAKE_TIMEOUT, f"no TLS handshake within {HANDSHAKE_SECONDS:g} s")
            channel.sock = cast(socket.socket, Guarded(channel))
            return SILENT
        if not first:
            raise ChannelClosed("the client left before it said anything")
        if first[0] != HANDSHAKE:
            if mode in _TLS_ONLY:
                taken = "mutual TLS only (STRICT)" if mode == STRICT else "TLS only"
                raise ProxyError(Reason.PLAINTEXT_REFUSED, f"plaintext, and this port takes {taken}")
            return AS_IT_CAME
        return await self._admit_tls(channel, host, mode)

    async def admit_late(self, channel: Channel, host: str, port: int) -> Admitted:
        """As ``admit``, after TlsWaiting."""
        return await self._admit_tls(channel, host, self._mode_of(port))

    async def _admit_tls(self, channel: Channel, host: str, mode: str) -> Admitted:
        if mode == PERMISSIVE and not await self._offers_the_mesh(channel):
            return AS_IT_CAME
        generation = self._identity.require()
        peer = peer_of(host)

        begun = False

        def enter() -> None:
            self._make_room()
            self._under_way.add(peer, channel)

        async def turn(step: Callable[[], None]) -> None:
            nonlocal begun
            before, begun = begun, True
            await self.turns.run(channel, peer, len(self._under_way), step, begun=before)

        try:
            if len(self._under_way) >= AT_ONCE:
                channel.limit(HANDSHAKE_SECONDS, Reason.HANDSHAKE_TIMEOUT)
                await self.turns.run(channel, peer, len(self._under_way), enter)
            else:
                enter()
            judge = self._identity.judge(generation, None)
            context = generation.server(certificate_needed=mode != OPTIONAL)
            secured = await secure_server(channel, context, judge, HANDSHAKE_SECONDS, turn=turn)
        except HandshakeFailed as failed:
            self.note(failed.rule, "")
            raise
        except ChannelClosed:
            self.note("closed", "")
            raise
        except ProxyError as ended:  # to make room, or by a drain
            self.note(ended.reason.word, "")
            raise
        finally:
            self._under_way.discard(peer, channel)
        if self._sni_leads_here is not None and secured.sni and not self._sni_leads_here(secured.sni):
            self.note("wrong_sni", "")
            raise ProxyError(Reason.NO_ROUTE, "the server name (SNI) names no service that is served here")
        self.note("ok", secured.group)
        return self._admitted(channel, secured, generation)

    def _make_room(self) -> None:
        """The oldest has had its time: else whoever begins handshakes and ends none would keep all others out. It is
        one of whoever has most: else whoever begins many would."""
        if len(self._under_way) >= AT_ONCE:
            self._under_way.take_from_largest().expire(Reason.TOO_MANY_CONNECTIONS)

    def _admitted(self, channel: Channel, secured: Secured, generation: Generation) -> Admitted:
        peer, ours = secured.peer, generation.credentials
        ends = ours.not_after if peer is None else min(peer.not_after, ours.not_after)
        channel.secured = msgspec.structs.replace(secured, ends=ends, generation=generation.number)
        if peer is None:  # the context allowed it
            return Admitted(
                inside=_INSIDE.get(secured.alpn, "auto"),
                leaving=generation.leaving,
                words=f"TLS with a client that shows no certificate, {secured.group}",
            )
        return Admitted(
            inside=_INSIDE.get(secured.alpn, "auto"),
            peer=peer,
            xfcc=element(ours.spiffe_id, peer.fingerprint, peer.subject, peer.spiffe_id).encode(),
            leaving=generation.leaving,
            words=f"mutual TLS with {peer.spiffe_id}, {secured.group}, {secured.alpn.decode() or 'no ALPN'}",
        )

    def note(self, outcome: str, group: str) -> None:
        """Counts a handshake, outbound's too; ``group`` is the key agreement of one that went well."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if group:
            self.groups[group] = self.groups.get(group, 0) + 1

    async def _first_byte(self, channel: Channel, seconds: float) -> bytes | None:
        """Without taking it: the first byte, b"" at FIN, None after a silence."""
        assert isinstance(channel.sock, socket.socket)
        channel.limit(seconds, Reason.HANDSHAKE_TIMEOUT)
        try:
            while True:
                try:
                    return channel.sock.recv(1, socket.MSG_PEEK)
                except BlockingIOError:
                    await channel.wait_readable()
                except OSError as error:
                    raise ChannelClosed(error.strerror or "closed") from None
        except Overdue as overdue:
            if overdue.reason is not Reason.HANDSHAKE_TIMEOUT:
                raise
            channel.revive()
            return None
        finally:
            channel.deadline = NEVER

    async def _offers_the_mesh(self, channel: Channel) -> bool:
        """Whether the ClientHello, which stays unread, offers a protocol of the mesh. What can't be read does not."""
        sock = channel.sock
        assert isinstance(sock, socket.socket)
        until = monotonic() + HANDSHAKE_SECONDS
        channel.limit(HANDSHAKE_SECONDS, Reason.HANDSHAKE_TIMEOUT)
        seen = 0
        try:
            while True:
                data = sock.recv(HELLO_BYTES, socket.MSG_PEEK)
                try:
                    hello = read_hello(data)
                except NoHello:
                    return False
                if hello is not None:
                    return any(name in _OF_THE_MESH or name.startswith(b"sidecar-") for name in hello.alpn)
                if len(data) == seen or len(data) >= HELLO_BYTES:  # woken, and no more has come: FIN
                    raise ChannelClosed("the client closed in the middle of its ClientHello")
                seen = len(data)
                # Else what is there already would wake us at once, again and again.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, seen + 1)
                channel.deadline = until
                await channel.wait_readable()
        except BlockingIOError:
            raise ChannelClosed("the client closed in the middle of its ClientHello") from None
        except OSError as error:
            raise ChannelClosed(error.strerror or "closed") from None
        finally:
            channel.deadline = NEVER
            if seen and not channel.closed:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


_INSIDE: Final = {ALPN_HTTP1: "http", b"http/1.1": "http", ALPN_OPAQUE: "tcp", ALPN_DETECT: "auto"}
