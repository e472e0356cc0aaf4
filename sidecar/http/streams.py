"""The two sides of an exchange, as the proxy sees them: messages, whatever protocol carries them.

``h1`` implements them over HTTP/1; tests have both in memory. Handlers see these, and no connection.
Body pieces are bytes as the application sees them (no chunk framing); b"" ends a body. Every method raises ProxyError
with the fault of the side that it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from sidecar.errors import ProxyError, Reason
from sidecar.http.headers import Field
from sidecar.http.message import LocalReply, Request, Response
from sidecar.policy.authorize import Permit
from sidecar.policy.retry_budget import ClusterLoad
from sidecar.telemetry.record import ConnectionInfo

if TYPE_CHECKING:  # tests have streams that no socket carries
    from sidecar.net.connection import Connection

E = TypeVar("E")


class Abortable(Protocol):
    """Work for a client that ends when the client goes away."""

    def abort(self, reason: Reason) -> None:
        """End every wait of this work with ``reason``."""
        ...


class ClientStream(Abortable, Protocol):
    """One attempt to get a request answered. It ends with ``close``; its connection may be used again."""

    reused: bool  # the connection beneath has served others before
    answered: bool  # a byte of the answer has come
    wrote: bool  # a byte of the request may have been taken
    done: bool  # the answer's body is complete
    trailers: list[Field]
    name: str  # the upstream's name, for the record
    principal: str  # the SPIFFE id that the upstream has shown; empty for plaintext

    def begin(self, request: Request, fields: list[Field], body: bytes, *, done: bool) -> bool:
        """Send the head and the first part of the body without waiting; ``done``: that is the whole body. Return False
        if bytes are left that only ``flush`` sends."""
        ...

    def push(self, data: bytes) -> bool:
        """Send more of the body without waiting. Return False as ``begin`` does."""
        ...

    async def flush(self) -> None:
        """Send what ``begin`` or ``push`` has left, and wait as long as it takes."""
        ...

    async def finish_request(self, trailers: list[Field]) -> None:
        """End the request's body."""
        ...

    async def read_head(self) -> Response:
        """Return the next head: interim ones, then the final one."""
        ...

    def first_piece(self) -> bytes:
        """Return the part of the body that came with the final head. Never waits."""
        ...

    async def read_body(self) -> bytes:
        """Return the next piece of the answer's body, b"" when it is complete."""
        ...

    def take_over(self) -> tuple[Connection, bytes]:
        """Return the connection after a 101, a tunnel from then on, with the bytes that have come already."""
        ...

    def abort(self, reason: Reason) -> None:
        """End every wait of this exchange with ``reason``: its client has gone, its request has failed, or its time has
        run out."""
        ...

    def close(self) -> None:
        """End the exchange. Unless both messages are complete, its connection is closed."""
        ...


class ServerStream(Protocol):
    """A client's request, and the reply to it. It is valid until the reply has ended."""

    protocol: str  # the protocol that carries it, for the record
    closing: bool  # its connection takes no further request
    peer: str  # the client, as written in records
    peer_ip: bytes  # its address
    trusted: bool  # the client is trusted to report the callers before it
    xfcc: bytes  # a mesh peer's identity, in the form that the app receives; b"" for any other peer
    bytes_in: int  # of the request's body, so far
    bytes_out: int  # of the reply's
    body_done: bool  # the request's body has been read to its end
    request_trailers: list[Field]
    reply_begun: bool  # a byte of the final reply has been sent

    @property
    def request(self) -> Request | None:
        """The request; None if the client sent none that can be read."""
        ...

    def take_failure(self) -> ProxyError | None:
        """Return the error of a request that can't be served, once, for the caller to raise; None if there is none."""
        ...

    def first_piece(self) -> bytes:
        """Return the part of the body that came with the head. Never waits."""
        ...

    def body_nowait(self) -> bytes | None:
        """Return a further piece of the body if one is there; None if the caller would have to wait."""
        ...

    async def read_body(self) -> bytes:
        """Return the next piece of the body, b"" when it is complete."""
        ...

    async def send_interim(self, head: Response) -> None:
        """Pass on a 1xx."""
        ...

    async def send_head(self, head: Response, body: bytes, *, done: bool) -> None:
        """Send the final head with the first part of the body; ``done``: that is the whole body, without trailers."""
        ...

    async def send_body(self, data: bytes) -> None:
        """Send more of the body (not empty)."""
        ...

    async def finish_reply(self, trailers: list[Field]) -> None:
        """End the reply's body."""
        ...

    async def send_local(self, reply: LocalReply, *, in_doubt: bool) -> None:
        """Send a complete reply made by this proxy. ``in_doubt``: the end of the request may be unknown. A connection
        that can't find the beginning of the next request then takes no further one."""
        ...

    async def take_over(self, head: Response) -> tuple[Connection, bytes]:
        """Send ``head``, a 101 or the 200 to CONNECT. Return the connection, a tunnel from then on, with the bytes that
        have come already."""
        ...

    def watch(self, upstream: Abortable | None) -> None:
        """Abort ``upstream`` if the client goes away from now on; None: abort nothing any more."""
        ...

    def close_after_reply(self) -> None:
        """Take no further request on this connection."""
        ...

    def cut_off(self) -> ProxyError | None:
        """Return why the client's connection was cut, or None. If it was cut, nothing can be sent."""
        ...

    def abort(self, reason: Reason) -> None:
        """End every wait for the client with ``reason``: the time of the exchange has run out."""
        ...

    def cut(self, reason: Reason, why: str) -> None:
        """End the stream at once, and the work done for it: it is no longer allowed. ``why`` is for people."""
        ...

    def drop(self) -> None:
        """Send nothing more: the client has gone."""
        ...

    def reset(self) -> None:
        """End the reply so that it does not look complete."""
        ...


class ServerConnection(Protocol):
    """A connection that carries a client's streams, one after the other."""

    @property
    def peer(self) -> str:
        """The client, for the record."""
        ...

    @property
    def origin(self) -> ConnectionInfo | None:
        """The connection's metadata, for the records of its requests."""
        ...

    async def next_stream(self) -> ServerStream | None:
        """Wait for the next request; None when the client is done."""
        ...

    async def goes_on(self) -> bool:
        """Return whether another request may follow the one whose reply has ended. If not, close the connection."""
        ...

    def close(self) -> None:
        """Close the connection; no request is in progress."""
        ...

    def reset(self) -> None:
        """Reset the connection, so that nothing on it looks complete."""
        ...


class StreamOpener(Protocol[E]):
    """A source of streams to one destination, whose endpoints are of type ``E``.

    ``patience`` is how many seconds one request may wait for connections, in all its attempts.
    """

    name: str  # the destination's name in a record before there is a connection
    patience: float

    @property
    def load(self) -> ClusterLoad | None:
        """Where requests and retries in progress are counted; None: nowhere."""
        ...

    def pick(self, permit: Permit, tried: Sequence[E] = ()) -> E:
        """Choose the endpoint of an attempt: another one than those ``tried`` while there is one. Raises ProxyError if
        there is no endpoint at all, TypeError for a permit that is for another destination."""
        ...

    def has_others(self, tried: int) -> bool:
        """Return whether there are more endpoints than the number ``tried``."""
        ...

    def open_nowait(self, endpoint: E) -> ClientStream | None:
        """Return a stream on an idle connection; None if the caller has to wait for one."""
        ...

    async def open(self, endpoint: E, *, fresh: bool, seconds: float, hasty: bool) -> ClientStream:
        """Return a stream on an existing connection, or (``fresh``) on a new one, to this endpoint. Making it may take
        ``seconds``, and only a moment if it is ``hasty``: another endpoint can be tried. Raises ProxyError."""
        ...
