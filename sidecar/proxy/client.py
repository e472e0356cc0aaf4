"""A client's HTTP/1 connection on a channel: requests in, replies out, as ``streams.Downstream`` has them.

The codecs are in ``wire``; here is where they meet the waiting. A read arms its channel's deadline before it waits and
disarms it after, so that nobody is timed out for the time in which we did not ask.
"""

from __future__ import annotations

from time import monotonic

import msgspec
import trio

from sidecar.addresses import parse_ip
from sidecar.errors import ProxyError, Reason
from sidecar.net.channel import NEVER, Channel, ChannelClosed, Overdue
from sidecar.proxy.streams import Upstream
from sidecar.telemetry.record import Origin
from sidecar.wire import headers
from sidecar.wire.body import BodyReader, chunk, last_chunk, reader_for
from sidecar.wire.grammar import HEAD_BYTES, Field, field_lines
from sidecar.wire.head import RequestHead, ResponseHead, parse_request


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds; ``body_min_rate`` in bytes per second, asked of every ``body_min_window`` seconds of waiting for a
    client; ``max_body`` in bytes, 0 for none."""

    request_head: float
    idle: float
    stream_idle: float
    body_min_rate: int
    body_min_window: float
    max_body: int


class DrainState:
    """Whether the process is on its way out; set once, by ``app``."""

    __slots__ = ("active",)

    def __init__(self) -> None:
        self.active = False


NOT_DRAINING = DrainState()


class ClientStream:
    """A client's HTTP/1 connection: its requests one after the other, and the reply to each."""

    __slots__ = (
        "_chunked",
        "_failure",
        "_first",
        "_read_until",
        "_reader",
        "_served",
        "_waited",
        "_window_bytes",
        "_write_until",
        "body_done",
        "buffer",
        "bytes_in",
        "bytes_out",
        "channel",
        "closing",
        "drain",
        "head",
        "origin",
        "peer_ip",
        "reply_begun",
        "request_trailers",
        "timeouts",
        "trusted",
        "xfcc",
    )

    def __init__(self, channel: Channel, buffer: bytes, timeouts: Timeouts, peer_ip: str, *, trusted: bool) -> None:
        self.channel = channel
        self.buffer = buffer  # bytes that came and belong to nobody yet
        self.timeouts = timeouts
        self.peer_ip = (str(parse_ip(peer_ip) or peer_ip)).encode()
        self.trusted = trusted
        self.xfcc = b""  # a mesh peer, in the form in which the app is told of it
        self.closing = False
        self.origin: Origin | None = None
        self._served = False  # a head has come
        self.drain = NOT_DRAINING
        self.bytes_in = self.bytes_out = 0  # of bodies
        self.body_done = True
        self.reply_begun = False
        self.request_trailers: list[Field] = []
        self._reader: BodyReader | None = None
        self._failure: ProxyError | None = None
        self.head: RequestHead | None = None  # of the request at hand
        self._first = b""
        self._chunked = False
        self._window_bytes = 0
        self._waited = 0.0
        self._read_until = self._write_until = NEVER  # of a body and a reply that wait on the one channel

    # -- requests ----------------------------------------------------------------------------------------------------

    async def next_request(self) -> RequestHead | None:
        """The next request's head; None when the client is done. Raises ProxyError for what is no request."""
        self.reply_begun = False
        self.head = None
        if self._failure is not None:
            raise self._failure
        channel = self.channel
        data = self.buffer
        if not data:
            # The first request has to come as soon as a head has to be complete ; later ones may take their time.
            channel.deadline = monotonic() + (self.timeouts.idle if self._served else self.timeouts.request_head)
            channel.overdue_as = Reason.CONNECTION_IDLE
            try:
                data = await channel.recv()
            except (Overdue, ChannelClosed) as gone:
                if isinstance(gone, Overdue) and gone.reason is not Reason.CONNECTION_IDLE:
                    raise
                return None
            if not data:
                return None
        self.bytes_in = self.bytes_out = 0
        parsed = parse_request(data)
        if parsed is None:
            self.buffer = data
            parsed = await self._rest_of_head()
            data = self.buffer
        channel.deadline = NEVER
        head, size = parsed
        self.head = head
        if head.length == 0:
            self.buffer = data[size:]
            self.body_done = True
            self._reader = None
            self._first = b""
        else:
            self._begin_body(head, data[size:])
        self._served = True
        if not head.keep_alive:
            self.closing = True
        return head

    def fail_next(self, error: ProxyError) -> None:
        """What came is no request, for a reason that was found before this object was made."""
        self._failure = error

    def take_buffer(self) -> bytes:
        """What came after the request at hand: a tunnel's first bytes."""
        data = self.buffer
        self.buffer = b""
        return data

    async def _rest_of_head(self) -> tuple[RequestHead, int]:
        channel = self.channel
        channel.limit(self.timeouts.request_head, Reason.HEAD_TIMEOUT)
        data = self.buffer
        while True:
            try:
                more = await channel.recv()
            except ChannelClosed as gone:
                raise ProxyError(Reason.CLIENT_CLOSED, f"the client went away in a head: {gone.detail}") from None
            if not more:
                raise ProxyError(Reason.CLIENT_CLOSED, "the client closed in the middle of a head")
            data += more
            if b"\n" in more or len(data) >= HEAD_BYTES:
                self.buffer = data
                parsed = parse_request(data)
                if parsed is not None:
                    return parsed

    # -- the request's body ------------------------------------------------------------------------------------------

    def _begin_body(self, head: RequestHead, data: bytes) -> None:
        limit = self.timeouts.max_body
        if limit and head.length > limit:
            self.body_done = False
            self.closing = True
            self.buffer = b""
            raise ProxyError(Reason.BODY_TOO_LARGE, f"the body is longer than {limit} bytes")
        self.body_done = False
        self.request_trailers = []
        self._window_bytes = 0
        self._waited = 0.0
        self.buffer = b""
        self._reader = reader_for(head.length, limit)
        self._first = self._feed(data)

    def first_piece(self) -> bytes:
        piece = self._first
        self._first = b""
        return piece

    def body_nowait(self) -> bytes | None:
        while not self.body_done:
            if self._reader is not None and self._reader.more:
                data: bytes | None = b""
            else:
                data = self._recv_nowait()
            if data is None:
                return None
            piece = self._feed(data)
            if piece:
                return piece
        return b""

    async def read_body(self) -> bytes:
        while not self.body_done:
            if self._reader is not None and self._reader.more:
                await trio.lowlevel.checkpoint()
                data = b""
            else:
                data = await self._recv_body()
            piece = self._feed(data)
            if piece:
                return piece
        return b""

    def _feed(self, data: bytes) -> bytes:
        reader = self._reader
        assert reader is not None
        piece = reader.feed(data)
        self.bytes_in += len(piece)
        limit = self.timeouts.max_body
        if limit and self.bytes_in > limit:
            raise ProxyError(Reason.BODY_TOO_LARGE, f"the body is longer than {limit} bytes")
        if reader.done:
            self.body_done = True
            self.buffer = reader.rest
            self.request_trailers = reader.trailers
        return piece

    def _recv_nowait(self) -> bytes | None:
        try:
            data = self.channel.recv_nowait()
        except ChannelClosed as gone:
            raise ProxyError(Reason.CLIENT_CLOSED, f"the client went away in a body: {gone.detail}") from None
        if data == b"":
            raise ProxyError(Reason.CLIENT_CLOSED, "the client closed in the middle of a body")
        return data

    async def _recv_body(self) -> bytes:
        """Waits for body bytes: at most ``stream_idle`` at a time, and not for a client that trickles."""
        channel, timeouts = self.channel, self.timeouts
        silent_since = monotonic()
        while True:
            left = timeouts.stream_idle - (monotonic() - silent_since)
            began = monotonic()
            self._read_until = began + min(left, timeouts.body_min_window - self._waited)
            self._arm()
            try:
                data = await channel.recv()
            except ChannelClosed as gone:
                raise ProxyError(Reason.CLIENT_CLOSED, f"the client went away in a body: {gone.detail}") from None
            except Overdue as overdue:
                if overdue.reason is not Reason.CLIENT_IDLE:
                    raise
                channel.revive()
                data = b""
                if monotonic() - silent_since >= timeouts.stream_idle:
                    raise
            else:
                if not data:
                    raise ProxyError(Reason.CLIENT_CLOSED, "the client closed in the middle of a body")
            finally:
                self._read_until = NEVER
                self._arm()
            self._waited += monotonic() - began
            self._window_bytes += len(data)
            if self._waited >= timeouts.body_min_window:
                if self._window_bytes < timeouts.body_min_rate * timeouts.body_min_window:
                    raise ProxyError(
                        Reason.BODY_TOO_SLOW,
                        f"the body came at less than {timeouts.body_min_rate} bytes/s for {self._waited:.0f} s",
                    )
                self._waited = 0.0
                self._window_bytes = 0
            if data:
                return data

    # -- replies -----------------------------------------------------------------------------------------------------

    async def send_interim(self, head: ResponseHead) -> None:
        if self.head is not None and self.head.minor:
            try:
                await self._send(b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, head.phrase, field_lines(head.fields)))
            except ProxyError:
                self.reply_begun = True  # a part of it may have gone, and no head can follow upon that
                raise

    async def send_head(self, head: ResponseHead, fields: list[Field], body: bytes, *, done: bool) -> None:
        request = self.head
        assert request is not None
        extra = b""
        self._chunked = False
        self.bytes_out += len(body)
        if head.length < 0:
            if request.minor and request.method != b"HEAD":
                self._chunked = True
                extra = b"transfer-encoding: chunked\r\n"
                if body:
                    body = chunk(body)
                if done:
                    body += last_chunk([])
            else:
                self.closing = True
        if self.closing or self.drain.active:
            self.closing = True
            extra += b"connection: close\r\n"
        elif not request.minor:
            extra += b"connection: keep-alive\r\n"
        self.reply_begun = True
        data = b"HTTP/1.1 %d %b\r\n%b%b\r\n%b" % (head.status, head.phrase, field_lines(fields), extra, body)
        try:  # as ``_send``, one call less deep
            sent = self.channel.send_nowait(data)
            if sent < len(data):
                await self._send_slowly(memoryview(data)[sent:])
        except ChannelClosed as gone:
            raise ProxyError(Reason.CLIENT_CLOSED, f"the client went away: {gone.detail}") from None

    async def send_switch(self, head: ResponseHead) -> None:
        """101, or the 200 to CONNECT: what follows is a tunnel."""
        self.closing = True
        self.reply_begun = True
        extra = b""
        if head.status == 101:
            extra = b"connection: upgrade\r\nupgrade: %b\r\n" % head.known.get(headers.UPGRADE, b"")
        await self._send(b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (head.status, head.phrase, field_lines(head.fields), extra))

    async def send_body(self, data: bytes) -> None:
        self.bytes_out += len(data)
        await self._send(chunk(data) if self._chunked else data)

    async def finish_reply(self, trailers: list[Field]) -> None:
        if self._chunked:
            allowed = self.head is not None and self.head.takes_trailers
            await self._send(last_chunk(trailers if allowed else []))

    async def send_whole(self, head: bytes, body: bytes) -> None:
        """Sends a complete local reply."""
        self.reply_begun = True
        self.bytes_out += len(body)
        data = head + body
        await self._send(data)

    async def _send(self, data: bytes) -> None:
        try:
            sent = self.channel.send_nowait(data)
            if sent < len(data):
                await self._send_slowly(memoryview(data)[sent:])
        except ChannelClosed as gone:
            raise ProxyError(Reason.CLIENT_CLOSED, f"the client went away: {gone.detail}") from None

    async def _send_slowly(self, rest: memoryview) -> None:
        """To a client that takes nothing now: it has ``stream_idle`` for each piece."""
        channel = self.channel
        self._write_until = monotonic() + self.timeouts.stream_idle
        try:
            while rest:
                self._arm()
                try:
                    await channel.wait_writable()
                except Overdue as overdue:
                    if overdue.reason is not Reason.CLIENT_IDLE:
                        raise
                    channel.revive()  # whose deadline it was, each of the two finds out by itself
                sent = channel.send_nowait(rest)
                now = monotonic()
                if sent:
                    rest = rest[sent:]
                    self._write_until = now + self.timeouts.stream_idle
                elif now >= self._write_until:
                    raise Overdue(Reason.CLIENT_IDLE, f"{channel.peer}: takes nothing of the reply")
        finally:
            self._write_until = NEVER
            self._arm()

    def _arm(self) -> None:
        """The channel has one deadline: the sooner of those of a body that is read and a reply that is written."""
        self.channel.deadline = min(self._read_until, self._write_until)
        self.channel.overdue_as = Reason.CLIENT_IDLE

    def watch(self, upstream: Upstream | None) -> None:
        self.channel.watcher = upstream

    def close_after_reply(self) -> None:
        self.closing = True
