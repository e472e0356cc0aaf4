"""The two sides of an exchange, as the proxy sees them: messages, whatever protocol carries them.

``h1`` has them over HTTP/1; tests have both in memory. Handlers see these, and no connection.
Body pieces are bytes as the application sees them (no chunk framing); b"" ends a body. Every method raises ProxyError
with the fault of the side that it belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sidecar.errors import ProxyError, Reason
from sidecar.http.headers import Field
from sidecar.http.message import LocalReply, Request, Response
from sidecar.policy.authorize import Permit
from sidecar.telemetry.record import ConnectionInfo

if TYPE_CHECKING:  # tests have streams that no socket carries
    from sidecar.net.connection import Connection


class ClientStream(Protocol):
    """One attempt to have a request answered. After ``close`` it is over; what carried it may be used again."""

    reused: bool  # the connection beneath has served others before
    answered: bool  # a byte of the answer has come
    wrote: bool  # a byte of the request may have been taken
    done: bool  # the answer's body is complete
    trailers: list[Field]
    name: str  # where it is, for the record
    principal: str  # the SPIFFE id that it has shown; empty for plaintext

    def begin(self, request: Request, fields: list[Field], body: bytes, *, done: bool) -> bool:
        """Sends the head and the first of the body without waiting; ``done``: that is all of it. False: bytes are left
        that only ``flush`` sends."""
        ...

    def push(self, data: bytes) -> bool:
        """Sends more of the body without waiting; False as above."""
        ...

    async def flush(self) -> None:
        """Sends what ``begin`` or ``push`` had left, waiting as long as it takes."""
        ...

    async def finish_request(self, trailers: list[Field]) -> None:
        """The body is complete."""
        ...

    async def read_head(self) -> Response:
        """The next head: interim ones, then the final one."""
        ...

    def first_piece(self) -> bytes:
        """What of the body came along with the final head. Never waits."""
        ...

    async def read_body(self) -> bytes:
        """The next piece of the answer's body, b"" when it is complete."""
        ...

    def take_over(self) -> tuple[Connection, bytes]:
        """After a 101: hand out what carries the stream, a tunnel from then on, with the bytes that came already."""
        ...

    def abort(self, reason: Reason) -> None:
        """Ends every wait of this exchange with ``reason``: its client has gone, its request has failed, or its time is
        over."""
        ...

    def close(self) -> None:
        """Ends the exchange; unless both messages are complete, what carried it is closed."""
        ...


class ServerStream(Protocol):
    """A request of a client's, and the reply to it. It is valid until the reply has ended."""

    protocol: str  # what carries it, for the record
    closing: bool  # what carries it takes no further request
    peer: str  # the client, as records have it
    peer_ip: bytes  # its address
    trusted: bool  # what the client says of callers before it counts
    xfcc: bytes  # a mesh peer, in the form in which the app is told of it; b"" for any other
    bytes_in: int  # of the request's body, so far
    bytes_out: int  # of the reply's
    body_done: bool  # the request's body has been read to its end
    request_trailers: list[Field]
    reply_begun: bool  # a byte of the final reply has been sent

    @property
    def request(self) -> Request | None:
        """The request; None where what came is none."""
        ...

    def take_failure(self) -> ProxyError | None:
        """Why what came is no request that can be served, if so; to be raised, once."""
        ...

    def first_piece(self) -> bytes:
        """What of the body came along with the head. Never waits."""
        ...

    def body_nowait(self) -> bytes | None:
        """A further piece of the body if one is there, None where one would have to wait."""
        ...

    async def read_body(self) -> bytes:
        """The next piece of the body, b"" when it is complete."""
        ...

    async def send_interim(self, head: Response) -> None:
        """Passes a 1xx on."""
        ...

    async def send_head(self, head: Response, body: bytes, *, done: bool) -> None:
        """Sends the final head with the first of the body; ``done``: that is all of it, and there are no trailers."""
        ...

    async def send_body(self, data: bytes) -> None:
        """Sends more of the body (not empty)."""
        ...

    async def finish_reply(self, trailers: list[Field]) -> None:
        """The reply's body is complete."""
        ...

    async def send_local(self, reply: LocalReply, *, in_doubt: bool) -> None:
        """Sends a whole reply of this proxy's. ``in_doubt``: where the request ends may be; what can't tell then where
        the next one begins takes none."""
        ...

    async def take_over(self, head: Response) -> tuple[Connection, bytes]:
        """Sends ``head``, a 101 or the 200 to CONNECT, and hands out what carries the stream and is a tunnel from then
        on, with the bytes that came already."""
        ...

    def watch(self, upstream: ClientStream | None) -> None:
        """From now on the client's going away aborts ``upstream``; None: nothing any more."""
        ...

    def close_after_reply(self) -> None:
        """No further request will be taken on what carries this one."""
        ...

    def cut_off(self) -> ProxyError | None:
        """Why the client's connection was cut, if it was: then nothing can be sent."""
        ...

    def abort(self, reason: Reason) -> None:
        """Ends every wait for the client with ``reason``: the exchange has had its time."""
        ...

    def cut(self, reason: Reason, why: str) -> None:
        """End it at once, and the work done for it: what it was let in by no longer holds. ``why`` is for people."""
        ...

    def drop(self) -> None:
        """The client has gone: nothing more is sent."""
        ...

    def reset(self) -> None:
        """Ends the reply so that it does not look complete."""
        ...


class ServerConnection(Protocol):
    """What carries a client's streams, one after the other."""

    @property
    def peer(self) -> str:
        """The client, for the record."""
        ...

    @property
    def origin(self) -> ConnectionInfo | None:
        """How it came to be served as it is, for the record."""
        ...

    async def next_stream(self) -> ServerStream | None:
        """Waits for the next request; None when the client is done."""
        ...

    async def goes_on(self) -> bool:
        """Whether another request may follow the one whose reply has ended; if none may, it is closed."""
        ...

    def close(self) -> None:
        """Ends it; nothing is under way."""
        ...

    def reset(self) -> None:
        """Ends it so that nothing on it looks complete."""
        ...


class StreamOpener(Protocol):
    """Opens streams to one destination."""

    name: str  # what it is called in a record while it is not connected to

    async def open(self, permit: Permit, *, fresh: bool) -> ClientStream:
        """Return a stream on a connection that is there already, or (``fresh``) on a new one."""
        ...
