"""A call to the control plane: one request, one bounded answer, by a deadline.

Who calls it: ``feed.retrying_client`` for the proxy, and ``control.ctl`` for people. Bytes go over our own ``dial`` and
TLS. What a control plane may send is bounded (head, body, time), and every way in which it can fail is a
:class:`ControlError` with a word, which is the metric's label. A token goes out in one header and never into an error
or a log.

A line that has answered is kept for the next call (``feed.keepalive_pool``), so that a heartbeat costs no handshake; a
new certificate means new lines. One that dies before a byte of the answer may have been ended while it rested: then the
call is made once more, on a new one. A line on which a token was shown by TLS is not kept: next time there is a
certificate to show.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

import h11
import msgspec
import trio
from OpenSSL import SSL

from certs.renew import SKEW_WARNED, clock_skew
from sidecar.addresses import parse_ip
from sidecar.control_url import ControlUrl
from sidecar.errors import ProxyError
from sidecar.feed.keepalive_pool import Broken, KeepAliveConnection, KeepAlivePool, TooLarge
from sidecar.feed.keepalive_pool import Reply as Reply
from sidecar.net.connection import Connection, ConnectionClosed
from sidecar.net.dial import dial
from sidecar.net.resolve import Resolver
from sidecar.tls.handshake import HandshakeFailed, Judge, secure_client

CONNECT_SECONDS: Final = 5.0
CALL_SECONDS: Final = 10.0  # from the look-up to the last byte, beside what the server was asked to wait
ALPN: Final = (b"istio-http/1.1", b"http/1.1")
_TOLD: Final = (400, 403, 404, 408, 413, 429, 500, 502, 503, 504)  # a label has no more values than these
_log = logging.getLogger(__name__)


class ControlError(Exception):
    """No answer that can be used. ``word`` is for metrics; ``detail`` for people, free of secrets and of what the
    other side chose; ``refused``: it does not know us, or we not it; ``retry_after`` what it asked for, in seconds;
    ``status`` of the answer, 0 where there was none."""

    def __init__(
        self, word: str, detail: str, *, refused: bool = False, retry_after: float = 0.0, status: int = 0
    ) -> None:
        super().__init__(detail)
        self.word = word
        self.detail = detail
        self.refused = refused
        self.retry_after = retry_after
        self.status = status


class Way(msgspec.Struct, frozen=True):
    """How to call: ``context`` and ``judge`` where it is by TLS, ``token`` where one is shown. ``pins``: hashes of root
    keys of which a bundle that comes over plain loopback has to have one; none where the connection proves itself."""

    context: SSL.Context | None = None
    judge: Judge | None = None
    token: str = ""
    pins: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Way(tls={self.context is not None}, token={bool(self.token)})"


class Answer(msgspec.Struct, frozen=True):
    """200, 201, 204 or 304; anything else is a ControlError. ``etag`` as it came, empty where there was none."""

    status: int
    body: bytes
    etag: str = ""


class ControlClient:
    """``connections`` are all connections of the process; ``clock`` the wall clock; ``kept``: how many lines may rest.
    ``skew`` is how far the control plane's clock is ahead of ours, in seconds; None before it told."""

    def __init__(
        self,
        url: ControlUrl,
        resolver: Resolver,
        connections: set[Connection],
        clock: Callable[[], float],
        kept: int = 0,
    ) -> None:
        self.url = url
        self.skew: float | None = None
        self._resolver = resolver
        self._connections = connections
        self._clock = clock
        self._lines = KeepAlivePool(kept)

    def close(self) -> None:
        """Lets go of the lines that rest."""
        self._lines.close()

    async def call(
        self,
        way: Way,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        most: int,
        wait: float = 0.0,
        once: bool = False,
        source: str = "",
    ) -> Answer:
        """The answer, of at most ``most`` bytes. ``wait``: for how long the server was asked to wait, in seconds;
        ``once``: it must not be asked twice, whatever becomes of the line; ``source``: the address of this machine that
        the call has to come from.

        Raises ControlError. Cancelling it closes the line.
        """
        return self._judge(await self.ask(way, method, target, body, most=most, wait=wait, once=once, source=source))

    async def ask(
        self,
        way: Way,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        most: int,
        wait: float = 0.0,
        once: bool = False,
        source: str = "",
        fields: Sequence[tuple[str, str]] = (),
    ) -> Reply:
        """As ``call``, with further ``fields`` in the request, and whatever the status is: for who wants to know why
        not. Raises ControlError where no answer came."""
        request = self._request(way, method, target, body, fields)
        with trio.move_on_after(CALL_SECONDS + wait):
            try:
                reply = await self._exchange(way, request, body, most, once, source)
            except HandshakeFailed as failed:
                raise ControlError(f"handshake_{failed.rule}", failed.detail, refused=True) from None
            except ProxyError as error:
                raise ControlError(error.reason.word, error.detail) from None
            except ConnectionClosed as closed:
                # In TLS 1.3 a client learns by an alert after the handshake that its certificate was refused.
                refused = way.context is not None and not way.token
                raise ControlError("closed", f"{self.url}: {closed.detail}", refused=refused) from None
            except TooLarge:
                raise ControlError("too_large", f"{self.url}: an answer of more than {most} bytes") from None
            except Broken:
                raise ControlError("bad_answer", f"{self.url}: it closed before it answered") from None
            except h11.RemoteProtocolError:
                raise ControlError("bad_answer", f"{self.url}: the answer is no HTTP/1.1") from None
            self._measure(reply.fields.get("date"))
            return reply
        raise ControlError("timeout", f"{self.url}: no answer within {CALL_SECONDS + wait:g} s")

    async def _exchange(self, way: Way, request: h11.Request, body: bytes, most: int, once: bool, source: str) -> Reply:
        """On a line that rests, or else on a new one. Those that rest come from any address of this machine."""
        kept = not once and not source and not (way.context is not None and way.token)
        line = self._lines.take(way.context, monotonic()) if kept else None
        if line is not None:
            try:
                return await self._exchange_on(line, kept, request, body, most)
            except (ConnectionClosed, Broken, ProxyError):
                if line.heard:
                    raise
        return await self._exchange_on(
            KeepAliveConnection(await self._connect(way, source), way.context), kept, request, body, most
        )

    async def _exchange_on(
        self, line: KeepAliveConnection, kept: bool, request: h11.Request, body: bytes, most: int
    ) -> Reply:
        try:
            reply = await line.exchange(request, body, most)
        except BaseException:
            line.connection.close()
            raise
        if kept:
            self._lines.give(line, monotonic())
        else:
            line.connection.close()
        return reply

    async def _connect(self, way: Way, source: str) -> Connection:
        addresses = await self._resolver.resolve(self.url.host)
        if source:
            addresses = [each for each in addresses if (":" in each) == (":" in source)]
            if not addresses:
                family = "IPv6" if ":" in source else "IPv4"
                raise ControlError("no_address", f"the control plane has no {family} address ({self.url})")
        connection = await dial(
            addresses, self.url.port, timeout=CONNECT_SECONDS, registry=self._connections, source=source
        )
        try:
            if way.context is not None and way.judge is not None:
                sni = b"" if parse_ip(self.url.host) is not None else self.url.host.encode("ascii", "ignore")
                connection = await secure_client(
                    connection, way.context, way.judge, sni=sni, alpn=ALPN, seconds=CALL_SECONDS
                )
                if connection.secured is None or connection.secured.peer is None:
                    raise ControlError("handshake_no_certificate", f"{self.url}: it shows no certificate", refused=True)
            elif self.url.secure:
                raise ControlError("no_trust", f"{self.url}: nothing says whom to trust there")
        except BaseException:
            connection.close()
            raise
        return connection

    def _request(
        self, way: Way, method: str, target: str, body: bytes, fields: Sequence[tuple[str, str]]
    ) -> h11.Request:
        headers = [("Host", self.url.authority), ("Accept-Encoding", "identity"), *fields]
        if not self._lines.kept:
            headers.append(("Connection", "close"))
        if way.token:
            headers.append(("Authorization", f"Bearer {way.token}"))
        if body:
            headers += [("Content-Length", str(len(body)))]
            if all(name.lower() != "content-type" for name, _ in fields):
                headers.append(("Content-Type", "application/json"))
        return h11.Request(method=method, target=target, headers=headers)

    def _judge(self, reply: Reply) -> Answer:
        status = reply.status
        if status in (200, 201, 204, 304):
            return Answer(status, reply.body, reply.fields.get("etag", ""))
        after = reply.fields.get("retry-after", "")
        seconds = float(after) if after.isascii() and after.isdigit() and len(after) < 6 else 0.0
        word = "unauthenticated" if status == 401 else f"status_{status}" if status in _TOLD else "status_other"
        detail = f"{self.url}: it refuses what we show" if status == 401 else f"{self.url}: it answers {status}"
        raise ControlError(word, detail, refused=status in (401, 403), retry_after=seconds, status=status)

    def _measure(self, date: str | None) -> None:
        skew = clock_skew(date, self._clock())
        if skew is None:
            return
        if abs(skew) > SKEW_WARNED and (self.skew is None or abs(self.skew) <= SKEW_WARNED):
            _log.warning(
                "the control plane's clock is %.0f s %s ours; certificates may look expired or not yet valid: set one",
                abs(skew), "ahead of" if skew > 0 else "behind",
            )  # fmt: skip
        self.skew = skew
