"""An exchange with an upstream over HTTP/1 on a pooled connection: a ``streams.ClientStream``.

The codecs are in modules of their own; this module adds the waiting. If the upstream's bytes break a rule of HTTP, the
error is the upstream's fault, and its connection is never used again.
"""

from __future__ import annotations

from time import monotonic
from typing import cast

import msgspec
import trio

from sidecar.errors import CUTS, Fault, ProxyError, Reason
from sidecar.http import headers
from sidecar.http.h1.body import BodyReader, chunk, last_chunk, reader_for
from sidecar.http.h1.grammar import HEAD_BYTES, VERSION_BYTES, field_lines
from sidecar.http.h1.head import parse_response
from sidecar.http.headers import Field
from sidecar.http.message import UNKNOWN, Request, Response
from sidecar.net.connection import NEVER, Connection, ConnectionClosed, DeadlineExceeded
from sidecar.net.connection_pool import Lease


class H1ClientStream(msgspec.Struct, eq=False, gc=False):
    """One HTTP/1 exchange on a leased connection. ``stream_idle`` seconds of silence end it.

    A Struct, since setting twenty attributes in Python would cost a hundredth of a whole exchange. The collector does
    not look at it: nothing that it holds refers to it but the connection's watcher, which the exchange takes back.
    """

    _lease: Lease
    _stream_idle: float
    answered: bool = False
    wrote: bool = False
    done: bool = False
    trailers: list[Field] = []
    _buffer: bytes = b""
    _unsent: bytes = b""
    _reader: BodyReader | None = None
    _method: bytes = b""
    _protocol: bytes = b""
    _request_chunked: bool = False
    _request_done: bool = False
    _keep: bool = False
    _closed: bool = False
    reused: bool = False
    principal: str = ""
    name: str = ""
    connection: Connection = cast(Connection, None)  # that of the lease, from the beginning

    def __post_init__(self) -> None:
        lease = self._lease
        self.connection = connection = lease.connection
        self.name = connection.peer
        self.reused = lease.reused
        self.principal = lease.principal

    # -- the request -------------------------------------------------------------------------------------------------

    def begin(self, request: Request, fields: list[Field], body: bytes, *, done: bool) -> bool:
        self._method = request.method
        extra = b""
        if request.body == UNKNOWN:
            self._request_chunked = True
            extra = b"transfer-encoding: chunked\r\n"
            if body:
                body = chunk(body)
            if done:
                body += last_chunk([])
        if request.protocol:
            self._protocol = request.protocol
            extra += b"connection: upgrade\r\nupgrade: %b\r\n" % request.protocol
        elif headers.TE in request.known and request.takes_trailers:
            extra += b"connection: te\r\nte: trailers\r\n"
        self._request_done = done
        return self._push(
            b"%b %b HTTP/1.1\r\nhost: %b\r\n%b%b\r\n%b"
            % (
                request.method,
                request.target,
                request.authority or self.name.encode(),
                field_lines(fields),
                extra,
                body,
            )
        )

    def push(self, data: bytes) -> bool:
        if (
            self.connection.deadline != NEVER
        ):  # the answer is awaited meanwhile; an upload that makes progress is no silence
            self.connection.deadline = monotonic() + self._stream_idle
        return self._push(chunk(data) if self._request_chunked else data)

    def _push(self, data: bytes) -> bool:
        if self._unsent:
            self._unsent += data
            return False
        try:
            sent = self.connection.send_nowait(data)
        except ConnectionClosed as gone:
            self._unsent = data  # the request stays incomplete, so the connection is not reused
            raise _left(gone.detail) from None
        self.wrote = True
        if sent == len(data):
            return True
        self._unsent = data[sent:]
        return False

    async def flush(self) -> None:
        try:
            while self._unsent:
                # Reads and writes share the connection's one deadline: the read of the answer, which runs at the same
                # time, has armed it, and a write that makes progress extends it.
                self.connection.limit(self._stream_idle, Reason.UPSTREAM_TIMEOUT)
                await self.connection.wait_writable()
                sent = self.connection.send_nowait(self._unsent)
                self._unsent = self._unsent[sent:]
                self.wrote = True
        except ConnectionClosed as gone:
            raise _left(gone.detail) from None

    async def finish_request(self, trailers: list[Field]) -> None:
        if self._request_done:
            return
        if self._request_chunked and not self._push(last_chunk(trailers)):
            await self.flush()
        self._request_done = True

    # -- the answer --------------------------------------------------------------------------------------------------

    async def read_head(self) -> Response:
        data = self._buffer
        if not data:
            # As ``_recv``, two calls less deep: nearly every exchange waits here.
            connection = self.connection
            connection.deadline = monotonic() + self._stream_idle
            connection.overdue_as = Reason.UPSTREAM_TIMEOUT
            try:
                data = await connection.recv()
            except ConnectionClosed as gone:
                raise self._gone(gone.detail) from None
            except DeadlineExceeded as overdue:
                raise self._cut(overdue) from None
            connection.deadline = NEVER
            if not data:
                raise self._gone("before its answer was complete")
            self.answered = True
        while True:
            try:
                parsed = parse_response(data, self._method)
            except ProxyError as error:
                raise _of_upstream(error) from None
            if parsed is not None:
                break
            more = b""
            # After the version, only a line's end can change the verdict.
            while b"\n" not in more and (not more or len(data) > VERSION_BYTES) and len(data) < HEAD_BYTES:
                more = await self._recv()
                data += more
        head, size = parsed
        if head.status < 200:
            if head.status == 101 and not head.switches_to(self._protocol):
                raise ProxyError(Reason.UPSTREAM_PROTOCOL, "the upstream switches to a protocol that was not requested")
            self._buffer = data[size:]
            return head
        self._keep = head.keep_alive
        hint = head.known.get(headers.KEEP_ALIVE)
        if hint is not None:
            self._heed(hint)
        if not head.body:
            self.done = True
            if size != len(data):
                self._keep = False  # bytes that belong to no answer
            self._buffer = b""
        else:
            self._reader = reader_for(head.body, until_close=head.until_close)
            self._buffer = self._feed(data[size:])
        return head

    def first_piece(self) -> bytes:
        piece = self._buffer
        self._buffer = b""
        return piece

    async def read_body(self) -> bytes:
        reader = self._reader
        while not self.done:
            assert reader is not None
            if reader.more:
                await trio.lowlevel.checkpoint()
                piece = self._feed(b"")
            else:
                data = await self._recv_some()
                piece = self._feed(data) if data else self._ended(reader)
            if piece:
                return piece
        return b""

    def _feed(self, data: bytes) -> bytes:
        reader = self._reader
        assert reader is not None
        try:
            piece = reader.feed(data)
        except ProxyError as error:
            raise _of_upstream(error) from None
        if reader.done:
            self.done = True
            self.trailers = reader.trailers
            if reader.rest:
                self._keep = False
        return piece

    def _ended(self, reader: BodyReader) -> bytes:
        try:
            reader.end()
        except ProxyError as error:
            raise ProxyError(Reason.UPSTREAM_CLOSED, f"the upstream closed: {error.detail}") from None
        self.done = True
        self._keep = False
        return b""

    async def _recv(self) -> bytes:
        data = await self._recv_some()
        if not data:
            raise _left("before its answer was complete")
        return data

    async def _recv_some(self) -> bytes:
        connection = self.connection
        connection.deadline = monotonic() + self._stream_idle
        connection.overdue_as = Reason.UPSTREAM_IDLE if self._reader else Reason.UPSTREAM_TIMEOUT
        try:
            data = await connection.recv()
        except ConnectionClosed as gone:
            raise _left(gone.detail) from None
        except DeadlineExceeded as overdue:
            raise self._cut(overdue) from None
        connection.deadline = NEVER
        if data:
            self.answered = True
        return data

    def _heed(self, keep_alive: bytes) -> None:
        """Limit the idle time to a second less than the app's own time-out, if it announces one (timeout=N)."""
        for member in keep_alive.split(b","):
            name, _, value = member.strip().partition(b"=")
            if name.lower() == b"timeout" and value.isdigit() and len(value) < 7:
                self._lease.idle_limit = min(self._lease.pool.idle_seconds, max(0.0, int(value) - 1.0))

    def _gone(self, how: str) -> ProxyError:
        """Return the error for a lost connection. Under TLS 1.3 a server judges our certificate after our handshake is
        over: an alert is its verdict, and a close without one may be."""
        if self.connection.secured is None or self.reused:
            return _left(how)
        verdict = "refused this proxy's certificate" if "alert" in how else "left, or may have refused our certificate"
        return ProxyError(Reason.UPSTREAM_HANDSHAKE, f"right after the handshake the upstream {verdict}: {how}")

    def _cut(self, overdue: DeadlineExceeded) -> ProxyError:
        """Return the upstream's fault if the connection was cut because the server's identity is no longer good;
        otherwise ``overdue``."""
        if overdue.reason not in CUTS:
            return overdue
        cut = ProxyError(Reason.UPSTREAM_IDENTITY, self.connection.cut_for)
        cut.rule = overdue.reason.word
        return cut

    # -- the end -----------------------------------------------------------------------------------------------------

    def abort(self, reason: Reason) -> None:
        self.connection.expire(reason)

    def take_over(self) -> tuple[Connection, bytes]:
        data = self._buffer
        self._buffer = b""
        return self.connection, data

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._lease.pool.release(
                self._lease, reusable=self.done and self._keep and self._request_done and not self._unsent
            )


def _left(how: str) -> ProxyError:
    return ProxyError(Reason.UPSTREAM_CLOSED, f"the upstream went away: {how}")


def _of_upstream(error: ProxyError) -> ProxyError:
    """Return an error of the codec with the upstream at fault."""
    if error.reason.fault is Fault.CLIENT:
        return ProxyError(Reason.UPSTREAM_PROTOCOL, f"the upstream's answer: {error.detail}")
    return error
