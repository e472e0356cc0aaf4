"""A client's HTTP/1 connection: one ``ServerStream`` per request, one after the other.

``proxy.connection_handler`` and ``proxy.explicit`` make one, ``proxy.request_loop`` takes the streams from it; the
handlers that ``proxy.request_loop`` calls do not see it.
"""

from __future__ import annotations

from time import monotonic

from sidecar.addresses import parse_ip
from sidecar.errors import ProxyError, Reason
from sidecar.http.h1.grammar import HEAD_BYTES
from sidecar.http.h1.head import RequestHead, parse_request
from sidecar.http.h1.server_stream import VERSIONS, H1ServerStream
from sidecar.http.timeouts import Timeouts
from sidecar.net.connection import NEVER, Connection, ConnectionClosed
from sidecar.net.graceful_drain import DrainState
from sidecar.telemetry.record import ConnectionInfo


class H1ServerConnection:
    """A ``ServerConnection`` over HTTP/1. ``buffer`` has been read already; ``peer_ip`` is the client's address.
    ``trusted``: the client is trusted to report the callers before it. ``xfcc`` is a mesh peer's identity, in the form
    that the app receives; ``origin`` goes into records."""

    __slots__ = ("_failure", "_served", "_stream", "connection", "origin")

    def __init__(
        self,
        connection: Connection,
        buffer: bytes,
        timeouts: Timeouts,
        peer_ip: str,
        *,
        trusted: bool,
        origin: ConnectionInfo | None = None,
        xfcc: bytes = b"",
    ) -> None:
        self.connection = connection
        self.origin = origin
        address = (str(parse_ip(peer_ip) or peer_ip)).encode()
        self._stream = H1ServerStream(connection, buffer, timeouts, address, trusted=trusted, xfcc=xfcc)
        self._served = False  # a head has been read
        self._failure: ProxyError | None = None

    @property
    def peer(self) -> str:
        """The client's address and port."""
        return self.connection.peer

    def close(self) -> None:
        """See ``streams.ServerConnection``."""
        self.connection.close()

    def reset(self) -> None:
        """See ``streams.ServerConnection``."""
        self.connection.reset()

    def leaves_with(self, drain: DrainState) -> None:
        """Close after the current reply once ``drain`` is active."""
        self._stream.drain = drain

    def fail_next(self, error: ProxyError) -> None:
        """Refuse the next request with ``error``, which was found before this object was made."""
        self._failure = error

    async def next_stream(self) -> H1ServerStream | None:
        """Wait for the next request; return None when the client is done. The stream is valid until the next call.

        If the client's bytes are no valid request, the stream's ``failure`` is set. Then there may be no ``request``,
        and the caller can only reply.
        """
        stream = self._stream
        stream.reply_begun = False
        stream.request = None
        stream.bytes_in = stream.bytes_out = 0
        connection = self.connection
        try:
            if self._failure is not None:
                raise self._failure
            data = stream.rest
            if not data:
                # The first request has to begin within the time limit of a head; later ones may take longer.
                timeouts = stream.timeouts
                connection.deadline = monotonic() + (timeouts.idle if self._served else timeouts.request_head)
                connection.overdue_as = Reason.CONNECTION_IDLE
                data = await connection.recv()
                if not data:
                    return None
            parsed = parse_request(data)
            if parsed is None:
                stream.rest = data
                parsed = await self._rest_of_head(stream)
                data = stream.rest
            connection.deadline = NEVER
            head, size = parsed
            self._served = True
            stream.request = head
            stream.protocol = VERSIONS[head.minor]
            if not head.keep_alive:
                stream.closing = True
            if head.body:
                stream.begin_body(head, data[size:])
            else:
                stream.rest = data[size:]
                stream.body_done = True
                stream.first = b""
                if stream.request_trailers:
                    stream.request_trailers = []
        except ProxyError as failure:
            if failure.reason is Reason.CONNECTION_IDLE:
                return None
            stream.failure = failure
        except ConnectionClosed:
            return None
        return stream

    async def _rest_of_head(self, stream: H1ServerStream) -> tuple[RequestHead, int]:
        connection = self.connection
        connection.limit(stream.timeouts.request_head, Reason.HEAD_TIMEOUT)
        data = stream.rest
        while True:
            try:
                more = await connection.recv()
            except ConnectionClosed as gone:
                raise ProxyError(Reason.CLIENT_CLOSED, f"the client went away in a head: {gone.detail}") from None
            if not more:
                raise ProxyError(Reason.CLIENT_CLOSED, "the client closed in the middle of a head")
            data += more
            if b"\n" in more or len(data) >= HEAD_BYTES:
                stream.rest = data
                parsed = parse_request(data)
                if parsed is not None:
                    return parsed

    async def goes_on(self) -> bool:
        """Return whether another request may follow the current one, whose reply has ended. Otherwise close."""
        stream = self._stream
        if not stream.closing and (stream.body_done or stream.settle()):
            return True
        await self._end()
        return False

    async def _end(self) -> None:
        stream = self._stream
        request = stream.request
        if request is not None and not request.keep_alive and stream.body_done and not stream.rest:
            self.connection.close()  # the client asked to close: it sends no more bytes that would turn FIN into RST
        else:
            await self.connection.close_after_reply()
