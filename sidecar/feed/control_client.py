"""A call to the control plane: one connection, one request, one bounded answer, by a deadline.

Who calls it: ``feed.identity``, and ``control.ctl`` for people. h11 frames; bytes go over our own ``dial`` and TLS.
What a control plane may send is bounded here (head, body, time), and every way in which it can fail is a
:class:`ControlError` with a word, which is the metric's label. A token goes out in one header and never into an error
or a log.

A connection is made anew for each call: there are two at a time, each for half a minute, and a new certificate is used
at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import h11
import msgspec
import trio
from OpenSSL import SSL

from certs.renew import SKEW_WARNED, clock_skew
from sidecar.addresses import parse_ip
from sidecar.errors import ProxyError
from sidecar.joining import ControlUrl
from sidecar.net.channel import Channel, ChannelClosed
from sidecar.net.dial import dial
from sidecar.net.resolve import Resolver
from sidecar.net.tls import HandshakeFailed, Judge, secure_client

CONNECT_SECONDS: Final = 5.0
CALL_SECONDS: Final = 10.0  # from the look-up to the last byte, beside what the server was asked to wait
HEAD_BYTES: Final = 16 * 1024
ALPN: Final = (b"istio-http/1.1", b"http/1.1")
_TOLD: Final = (400, 403, 404, 408, 413, 429, 500, 502, 503, 504)  # a label has no more values than these
_log = logging.getLogger(__name__)


class ControlError(Exception):
    """No answer that can be used. ``word`` is for metrics; ``detail`` for people, free of secrets and of what the
    other side chose; ``refused``: it does not know us, or we not it; ``retry_after`` what it asked for, in seconds."""

    def __init__(self, word: str, detail: str, *, refused: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(detail)
        self.word = word
        self.detail = detail
        self.refused = refused
        self.retry_after = retry_after


class Way(msgspec.Struct, frozen=True):
    """How to call: ``context`` and ``judge`` where it is by TLS, ``token`` where one is shown. ``pins``: hashes of root
    keys of which a bundle that comes over plain loopback has to have one; none where the channel proves itself."""

    context: SSL.Context | None = None
    judge: Judge | None = None
    token: str = ""
    pins: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Way(tls={self.context is not None}, token={bool(self.token)})"


class Reply(msgspec.Struct, frozen=True):
    """What came, whatever its status. ``fields`` have lower-case names; of a name that came twice the last."""

    status: int
    fields: dict[str, str]
    body: bytes


class Answer(msgspec.Struct, frozen=True):
    """200, 201 or 304; anything else is a ControlError."""

    status: int
    body: bytes


class ControlClient:
    """``channels`` are all connections of the process; ``clock`` the wall clock. ``skew`` is how far the control
    plane's clock is ahead of ours, in seconds; None before it told."""

    def __init__(self, url: ControlUrl, resolver: Resolver, channels: set[Channel], clock: Callable[[], float]) -> None:
        self.url = url
        self.skew: float | None = None
        self._resolver = resolver
        self._channels = channels
        self._clock = clock

    async def call(
        self, way: Way, method: str, target: str, body: bytes = b"", *, most: int, wait: float = 0.0
    ) -> Answer:
        """The answer, of at most ``most`` bytes. ``wait``: for how long the server was asked to wait, in seconds.

        Raises ControlError. Cancelling it closes the connection.
        """
        return self._judge(await self.ask(way, method, target, body, most=most, wait=wait))

    async def ask(
        self,
        way: Way,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        most: int,
        wait: float = 0.0,
        fields: Sequence[tuple[str, str]] = (),
    ) -> Reply:
        """As ``call``, with further ``fields`` in the request, and whatever the status is: for who wants to know why
        not. Raises ControlError where no answer came."""
        with trio.move_on_after(CALL_SECONDS + wait):
            try:
                channel = await self._connect(way)
                try:
                    return await self._exchange(channel, self._request(way, method, target, body, fields), body, most)
                finally:
                    channel.close()
            except HandshakeFailed as failed:
                raise ControlError(f"handshake_{failed.rule}", failed.detail, refused=True) from None
            except ProxyError as error:
                raise ControlError(error.reason.word, error.detail) from None
            except ChannelClosed as closed:
                # In TLS 1.3 a client learns by an alert after the handshake that its certificate was refused.
                refused = way.context is not None and not way.token
                raise ControlError("closed", f"{self.url}: {closed.detail}", refused=refused) from None
            except h11.RemoteProtocolError:
                raise ControlError("bad_answer", f"{self.url}: the answer is no HTTP/1.1") from None
        raise ControlError("timeout", f"{self.url}: no answer within {CALL_SECONDS + wait:g} s")

    async def _connect(self, way: Way) -> Channel:
        addresses = await self._resolver.resolve(self.url.host)
        channel = await dial(addresses, self.url.port, timeout=CONNECT_SECONDS, registry=self._channels)
        try:
            if way.context is not None and way.judge is not None:
                sni = b"" if parse_ip(self.url.host) is not None else self.url.host.encode("ascii", "ignore")
                secured = await secure_client(channel, way.context, way.judge, sni=sni, alpn=ALPN, seconds=CALL_SECONDS)
                if secured.peer is None:
                    raise ControlError("handshake_no_certificate", f"{self.url}: it shows no certificate", refused=True)
            elif self.url.secure:
                raise ControlError("no_trust", f"{self.url}: nothing says whom to trust there")
        except BaseException:
            channel.close()
            raise
        return channel

    def _request(
        self, way: Way, method: str, target: str, body: bytes, fields: Sequence[tuple[str, str]]
    ) -> h11.Request:
        headers = [
            ("Host", f"{self.url.host}:{self.url.port}"),
            ("Connection", "close"),
            ("Accept-Encoding", "identity"),
            *fields,
        ]
        if way.token:
            headers.append(("Authorization", f"Bearer {way.token}"))
        if body:
            headers += [("Content-Length", str(len(body)))]
            if all(name.lower() != "content-type" for name, _ in fields):
                headers.append(("Content-Type", "application/json"))
        return h11.Request(method=method, target=target, headers=headers)

    async def _exchange(self, channel: Channel, request: h11.Request, body: bytes, most: int) -> Reply:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        data = connection.send(request) or b""
        if body:
            data += connection.send(h11.Data(data=body)) or b""
        await channel.send_all(data + (connection.send(h11.EndOfMessage()) or b""))
        response: h11.Response | None = None
        received = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await channel.recv())
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                received += event.data
                if len(received) > most:
                    raise ControlError("too_large", f"{self.url}: an answer of more than {most} bytes")
            elif isinstance(event, h11.EndOfMessage):
                break
            elif not isinstance(event, h11.InformationalResponse):
                raise ControlError("bad_answer", f"{self.url}: it closed before it answered")
        assert response is not None  # h11: no end of a message before its head
        told = {bytes(name).decode("ascii"): bytes(value).decode("latin-1") for name, value in response.headers}
        self._measure(told.get("date"))
        return Reply(response.status_code, told, bytes(received))

    def _judge(self, reply: Reply) -> Answer:
        status = reply.status
        if status in (200, 201, 304):
            return Answer(status, reply.body)
        after = reply.fields.get("retry-after", "")
        seconds = float(after) if after.isascii() and after.isdigit() and len(after) < 6 else 0.0
        word = "unauthenticated" if status == 401 else f"status_{status}" if status in _TOLD else "status_other"
        detail = f"{self.url}: it refuses what we show" if status == 401 else f"{self.url}: it answers {status}"
        raise ControlError(word, detail, refused=status in (401, 403), retry_after=seconds)

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
