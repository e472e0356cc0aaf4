"""One request on a client's HTTP/1 connection, and the reply to it: a ``streams.ServerStream``.

``server`` reads the heads. The codecs are in modules of their own; this module adds the waiting. A read arms its
connection's deadline before it waits and disarms it after, so no client is timed out while the proxy expects nothing of
it.
"""

from __future__ import annotations

from time import monotonic
from typing import Final

import trio

from sidecar.errors import CUTS, ProxyError, Reason
from sidecar.http import headers
from sidecar.http.h1.body import BodyReader, chunk, last_chunk, reader_for
from sidecar.http.h1.grammar import field_lines
from sidecar.http.h1.head import NO_CONTENT, RequestHead, ResponseHead, local_reply_head, phrase_of
from sidecar.http.headers import Field
from sidecar.http.message import LocalReply, Response
from sidecar.http.streams import Abortable
from sidecar.http.timeouts import Timeouts
from sidecar.net.connection import NEVER, Connection, ConnectionClosed, DeadlineExceeded
from sidecar.net.graceful_drain import NOT_DRAINING

VERSIONS: Final = "HTTP/1.0", "HTTP/1.1"
CLIENT_ERROR: Final = 400  # after this status or a higher one, an app reads no more of the body
SETTLED_BYTES: Final = 65_536  # of an unwanted body, read so that its connection can be kept


class H1ServerStream:
    """A ``ServerStream`` over HTTP/1: one request and its reply. ``server.H1ServerConnection`` begins each.

    HTTP/1 carries one at a time, so a connection has one such object, and ``next_stream`` reuses it for the next
    request: setting twenty attributes again would cost 2 % of a whole exchange. ``rest`` and ``closing`` are kept.
    """

    __slots__ = (
        "_broken",
        "_chunked",
        "_held",
        "_read_until",
        "_reader",
        "_waited",
        "_window_bytes",
        "_write_until",
        "body_done",
        "bytes_in",
        "bytes_out",
        "closing",
        "connection",
        "drain",
        "failure",
        "first",
        "peer",
        "peer_ip",
        "protocol",
        "reply_begun",
        "request",
        "request_trailers",
        "rest",
        "timeouts",
        "trusted",
        "xfcc",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        rest: bytes,
        timeouts: Timeouts,
        peer_ip: bytes,
        *,
        trusted: bool,
        xfcc: bytes = b"",
    ) -> None:
        self.connection = connection
        self.rest = rest  # bytes that came and belong to no message yet
        self.timeouts = timeouts
        self.peer = connection.peer
        self.peer_ip = peer_ip
        self.trusted = trusted
        self.xfcc = xfcc  # a mesh peer's identity, in the form that the app receives
        self.closing = False
        self.protocol = VERSIONS[1]
        self.drain = NOT_DRAINING
        self.failure: ProxyError | None = None
        self.request: RequestHead | None = None
        self.bytes_in = self.bytes_out = 0  # of bodies
        self.body_done = True
        self.reply_begun = False
        self.request_trailers: list[Field] = []
        self._reader: BodyReader | None = None
        self.first = b""
        self._broken: ProxyError | None = None  # why the body can't be read further; nothing after it is read
        self._held = False  # the client may be waiting for 100 before it sends its body
        self._chunked = False
        self._window_bytes = 0
        self._waited = 0.0
        self._read_until = self._write_until = NEVER  # of a body and a reply that wait on the one connection

    # -- the request -------------------------------------------------------------------------------------------------

    def take_failure(self) -> ProxyError | None:
        """See ``ServerStream``. The error is not kept: it would hold all frames that it passed."""
        failure = self.failure
        if failure is not None:
            self.failure = None
        return failure

    # -- the request's body ------------------------------------------------------------------------------------------

    def begin_body(self, head: RequestHead, data: bytes) -> None:
        """Begin the body of ``head``, whose first bytes are ``data``. Raises ProxyError."""
        limit = self.timeouts.max_body
        if limit and head.body > limit:
            self.body_done = False
            self.closing = True
            self.rest = b""
            raise ProxyError(Reason.BODY_TOO_LARGE, f"the body is longer than {limit} bytes")
        self.body_done = False
        self._broken = None
        self.request_trailers = []
        self._window_bytes = 0
        self._waited = 0.0
        self._held = head.expects_continue
        self.rest = b""
        self._reader = reader_for(head.body, limit)
        self.first = self._feed(data)

    def first_piece(self) -> bytes:
        piece = self.first
        self.first = b""
        return piece

    def body_nowait(self) -> bytes | None:
        if self._broken is not None:
            raise ProxyError(self._broken.reason, self._broken.detail)
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
        if self._broken is not None:
            raise ProxyError(self._broken.reason, self._broken.detail)
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
        try:
            piece = reader.feed(data)
            self.bytes_in += len(piece)
            limit = self.timeouts.max_body
            if limit and self.bytes_in > limit:
                raise ProxyError(Reason.BODY_TOO_LARGE, f"the body is longer than {limit} bytes")
        except ProxyError as error:
            # The bytes are lost, and a reader that continued would find an end of the body where there is none.
            self._broken = ProxyError(error.reason, error.detail)
            self.closing = True
            raise
        if data:
            self._held = False
        if reader.done:
            self.body_done = True
            self.rest = reader.rest
            self.request_trailers = reader.trailers
        return piece

    def _recv_nowait(self) -> bytes | None:
        try:
            data = self.connection.recv_nowait()
        except ConnectionClosed as gone:
            raise ProxyError(Reason.CLIENT_CLOSED, f"the client went away in a body: {gone.detail}") from None
        if data == b"":
            raise ProxyError(Reason.CLIENT_CLOSED, "the client closed in the middle of a body")
        return data

    async def _recv_body(self) -> bytes:
        """Wait for body bytes, at most ``stream_idle`` at a time. Raises ProxyError if the client sends too slowly."""
        connection, timeouts = self.connection, self.timeouts
        silent_since = monotonic()
        while True:
            left = timeouts.stream_idle - (monotonic() - silent_since)
            began, held = monotonic(), connection.held_back
            self._read_until = began + min(left, timeouts.body_min_window - self._waited)
            self._arm()
            try:
                data = await connection.recv()
            except ConnectionClosed as gone:
                raise ProxyError(Reason.CLIENT_CLOSED, f"the client went away in a body: {gone.detail}") from None
            except DeadlineExceeded as overdue:
                if overdue.reason is not Reason.CLIENT_IDLE:
                    raise
                connection.revive()
                data = b""
                if monotonic() - silent_since >= timeouts.stream_idle:
                    raise
            else:
                if not data:
                    raise ProxyError(Reason.CLIENT_CLOSED, "the client closed in the middle of a body")
            finally:
                self._read_until = NEVER
                self._arm()
            held = connection.held_back - held
            silent_since += held
            self._waited += monotonic() - began - held
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

    async def send_interim(self, head: Response) -> None:
        if head.status == 100:
            self._held = False
        if self.request is not None and self.request.minor:
            try:
                await self._send(b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, phrase_of(head), field_lines(head.fields)))
            except ProxyError:
                self.reply_begun = True  # a part of it may have gone, and no head can follow that
                raise

    async def send_head(self, head: Response, body: bytes, *, done: bool) -> None:
        request = self.request
        assert request is not None
        extra = b""
        self._chunked = False
        self.bytes_out += len(body)
        if head.body < 0:
            if request.minor and request.method != b"HEAD":
                self._chunked = True
                extra = b"transfer-encoding: chunked\r\n"
                if body:
                    body = chunk(body)
                if done:
                    body += last_chunk([])
            else:
                self.closing = True
        if not self.body_done and self._breaks_off(head.status, done=done):
            self.closing = True
        if self.closing or self.drain.active:
            self.closing = True
            extra += b"connection: close\r\n"
        elif not request.minor:
            extra += b"connection: keep-alive\r\n"
        self.reply_begun = True
        phrase = head.phrase if head.__class__ is ResponseHead else phrase_of(head)
        data = b"HTTP/1.1 %d %b\r\n%b%b\r\n%b" % (head.status, phrase, field_lines(head.fields), extra, body)
        try:  # as ``_send``, one call less deep
            sent = self.connection.send_nowait(data)
            if sent < len(data):
                await self._send_slowly(memoryview(data)[sent:])
        except ConnectionClosed as gone:
            raise ProxyError(Reason.CLIENT_CLOSED, f"the client went away: {gone.detail}") from None

    async def take_over(self, head: Response) -> tuple[Connection, bytes]:
        """See ``ServerStream``."""
        self.closing = True
        self.reply_begun = True
        extra = b""
        if head.status == 101:
            extra = b"connection: upgrade\r\nupgrade: %b\r\n" % head.known.get(headers.UPGRADE, b"")
        phrase = b"Connection established" if head.status == 200 else phrase_of(head)
        await self._send(b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (head.status, phrase, field_lines(head.fields), extra))
        data, self.rest = self.rest, b""
        return self.connection, data

    async def send_body(self, data: bytes) -> None:
        self.bytes_out += len(data)
        await self._send(chunk(data) if self._chunked else data)

    async def finish_reply(self, trailers: list[Field]) -> None:
        if self._chunked:
            allowed = self.request is not None and self.request.takes_trailers
            await self._send(last_chunk(trailers if allowed else []))

    async def send_local(self, reply: LocalReply, *, in_doubt: bool) -> None:
        """See ``ServerStream``."""
        self.connection.revive()
        request = self.request
        if request is None or request.body or in_doubt or self.drain.active:
            self.closing = True  # after a refusal, read no more of the body: the outcome must not depend on timing
        self.reply_begun = True
        without = reply.status in NO_CONTENT or (request is not None and request.method == b"HEAD")
        body = b"" if without else reply.body
        self.bytes_out += len(body)
        await self._send(local_reply_head(reply, close=self.closing) + body)

    async def _send(self, data: bytes) -> None:
        try:
            sent = self.connection.send_nowait(data)
            if sent < len(data):
                await self._send_slowly(memoryview(data)[sent:])
        except ConnectionClosed as gone:
            raise ProxyError(Reason.CLIENT_CLOSED, f"the client went away: {gone.detail}") from None

    async def _send_slowly(self, rest: memoryview) -> None:
        """Send to a client that takes nothing now. It has ``stream_idle`` for each piece."""
        connection = self.connection
        self._write_until = monotonic() + self.timeouts.stream_idle
        try:
            while rest:
                self._arm()
                held = connection.held_back
                try:
                    await connection.wait_writable()
                except DeadlineExceeded as overdue:
                    if overdue.reason is not Reason.CLIENT_IDLE:
                        raise
                    connection.revive()  # the reader and the writer each check if the deadline was theirs
                sent = connection.send_nowait(rest)
                now = monotonic()
                self._write_until += connection.held_back - held
                if sent:
                    rest = rest[sent:]
                    self._write_until = now + self.timeouts.stream_idle
                elif now >= self._write_until:
                    raise DeadlineExceeded(Reason.CLIENT_IDLE, f"{connection.peer}: takes nothing of the reply")
        finally:
            self._write_until = NEVER
            self._arm()

    def _arm(self) -> None:
        """Set the connection's one deadline to the sooner of those for the body's reader and the reply's writer."""
        self.connection.deadline = min(self._read_until, self._write_until)
        self.connection.overdue_as = Reason.CLIENT_IDLE

    def watch(self, upstream: Abortable | None) -> None:
        """See ``ServerStream``. The sweeper watches the connection."""
        self.connection.watcher = upstream

    # -- the end -----------------------------------------------------------------------------------------------------

    def close_after_reply(self) -> None:
        """See ``ServerStream``."""
        self.closing = True

    def _breaks_off(self, status: int, *, done: bool) -> bool:
        """Return whether the connection will end with a reply whose head is sent before the request's body has ended.

        The rest of that body must never be read as a request. If the reply continues beside the body, this is only a
        guess: it is certain when the reply ends."""
        return not self.settle() if done else self._held or status >= CLIENT_ERROR

    def settle(self) -> bool:
        """Return whether the next request can follow. Drop the rest of this one's body if it has arrived completely."""
        left = SETTLED_BYTES
        try:
            while not self.body_done and left > 0:
                piece = self.body_nowait()
                if piece is None:
                    return False
                left -= len(piece)
        except ProxyError:
            return False
        return self.body_done

    def cut_off(self) -> ProxyError | None:
        """See ``ServerStream``."""
        ended = self.connection.overdue
        return ProxyError(ended, self.connection.cut_for) if ended is not None and ended in CUTS else None

    def abort(self, reason: Reason) -> None:
        """See ``ServerStream``."""
        self.connection.expire(reason)

    def cut(self, reason: Reason, why: str) -> None:
        """See ``ServerStream``."""
        self.connection.cut(reason, why)

    def drop(self) -> None:
        """See ``ServerStream``."""
        self.closing = True
        self.connection.close()

    def reset(self) -> None:
        """See ``ServerStream``."""
        self.closing = True
        self.connection.reset()
