"""Both sides of an exchange in memory: streams of messages, with no protocol and no socket beneath.

What a side says is put into a queue by the test; what it is told is a list of messages that the test reads.
``Memory...`` is what ``http.streams`` asks for, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from sidecar.errors import ProxyError, Reason
from sidecar.http.headers import Field
from sidecar.http.message import EMPTY, UNKNOWN, Body, LocalReply, Request, Response
from sidecar.http.streams import Abortable, ClientStream
from sidecar.net.connection import Connection
from sidecar.policy.authorize import Asked, Permit, allow_all, authorize_inbound
from sidecar.policy.retry import REPLACE_STALE
from sidecar.policy.retry_budget import ClusterLoad
from sidecar.proxy.deadlines import Limits
from sidecar.proxy.exchange import Upgraded, exchange
from sidecar.telemetry.record import ConnectionInfo, Record

Message = tuple[object, ...]


class Said:
    """What one side says, in order: pieces of bytes (b"" ends), heads, or an error. Taken with or without waiting."""

    def __init__(self, *said: bytes | Response | ProxyError) -> None:
        self._put, self._get = trio.open_memory_channel[bytes | Response | ProxyError](1000)
        for one in said:
            self.say(one)

    def say(self, one: bytes | Response | ProxyError) -> None:
        self._put.send_nowait(one)

    async def wait_next(self) -> bytes | Response:
        return _raised(await self._get.receive())

    def next_nowait(self) -> bytes | Response | None:
        try:
            return _raised(self._get.receive_nowait())
        except trio.WouldBlock:
            return None


def _raised(one: bytes | Response | ProxyError) -> bytes | Response:
    if isinstance(one, ProxyError):
        raise one
    return one


class MemoryClient:
    """A client's stream whose request has the body ``said``; ``heard`` is what it was told."""

    protocol = "memory"
    peer = "192.0.2.7:4711"
    peer_ip = b"192.0.2.7"
    trusted = False
    xfcc = b""
    bytes_in = bytes_out = 0

    def __init__(self, *said: bytes | ProxyError, first: bytes = b"", body: bool = False) -> None:
        self.body_done = not body
        self.request_trailers: list[Field] = []
        self.request: Request | None = None
        self.failure: ProxyError | None = None
        self.reply_begun = False
        self.said = Said(*said)
        self.heard: list[Message] = []
        self.watched: Abortable | None = None
        self.closing = False
        self.aborted: Reason | None = None
        self.read_when_replied: list[bool] = []  # whether something waited for the body as a reply began
        self._waiting = False
        self._first = first

    def take_failure(self) -> ProxyError | None:
        failure, self.failure = self.failure, None
        return failure

    def first_piece(self) -> bytes:
        piece, self._first = self._first, b""
        return piece

    def body_nowait(self) -> bytes | None:
        piece = self.said.next_nowait()
        return None if piece is None else self._took(piece)

    async def read_body(self) -> bytes:
        self._waiting = True
        try:
            return self._took(await self.said.wait_next())
        finally:
            self._waiting = False

    def _took(self, piece: bytes | Response) -> bytes:
        assert isinstance(piece, bytes)
        self.body_done = not piece
        return piece

    async def send_interim(self, head: Response) -> None:
        await trio.lowlevel.checkpoint()
        self.heard.append(("interim", head.status))

    async def send_head(self, head: Response, body: bytes, *, done: bool) -> None:
        await trio.lowlevel.checkpoint()
        self.reply_begun = True
        self.read_when_replied.append(self._waiting)
        self.heard.append(("head", head.status, tuple(head.fields), body, done))

    async def send_body(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.heard.append(("body", data))

    async def finish_reply(self, trailers: list[Field]) -> None:
        await trio.lowlevel.checkpoint()
        self.heard.append(("end", tuple(trailers)))

    def watch(self, upstream: Abortable | None) -> None:
        self.watched = upstream

    def close_after_reply(self) -> None:
        self.closing = True

    async def send_local(self, reply: LocalReply, *, in_doubt: bool) -> None:
        await trio.lowlevel.checkpoint()
        self.reply_begun = True
        self.heard.append(("local", reply.status))

    async def take_over(self, head: Response) -> tuple[Connection, bytes]:
        raise AssertionError("there is no connection beneath")

    def cut_off(self) -> ProxyError | None:
        return None

    def abort(self, reason: Reason) -> None:
        self.aborted = reason

    def cut(self, reason: Reason, why: str) -> None:
        self.aborted = reason

    def drop(self) -> None:
        self.heard.append(("dropped",))

    def reset(self) -> None:
        self.heard.append(("reset",))

    def leave(self) -> None:
        """Goes away while nobody reads from it, as the product's sweeper sees it."""
        assert self.watched is not None, "nobody would notice that the client is gone"
        self.watched.abort(Reason.CLIENT_CLOSED)


class MemoryConnection:
    """A connection that brings ``streams`` in turn, each of a client's requests."""

    peer = "192.0.2.7:4711"
    origin: ConnectionInfo | None = None

    def __init__(self, *streams: MemoryClient) -> None:
        self._streams = list(streams)
        self.ended = ""

    async def next_stream(self) -> MemoryClient | None:
        await trio.lowlevel.checkpoint()
        return self._streams.pop(0) if self._streams else None

    async def goes_on(self) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    def close(self) -> None:
        self.ended = "closed"

    def reset(self) -> None:
        self.ended = "reset"


class MemoryUpstream:
    """An upstream that answers ``said``; ``heard`` is what it was told. ``stuck`` lets no byte through until it is set;
    ``begins`` is what beginning the request raises."""

    name = "memory"
    principal = ""

    def __init__(
        self,
        *said: bytes | Response | ProxyError,
        reused: bool = False,
        stuck: trio.Event | None = None,
        begins: ProxyError | None = None,
    ) -> None:
        self.reused = reused
        self.answered = self.wrote = self.done = False
        self.trailers: list[Field] = []
        self.said = Said(*said)
        self.heard: list[Message] = []
        self.closed = False
        self.finished = trio.Event()
        self.aborted: Reason | None = None
        self._stuck = stuck
        self._begins = begins

    def begin(self, request: Request, fields: list[Field], body: bytes, *, done: bool) -> bool:
        if self._begins is not None:
            raise self._begins
        self.wrote = True
        self.heard.append(("begin", request.method, request.target, tuple(fields), body, done))
        if done:
            self.finished.set()
        return self._stuck is None

    def push(self, data: bytes) -> bool:
        self.heard.append(("body", data))
        return self._stuck is None

    async def flush(self) -> None:
        if self._stuck is not None:
            await self._stuck.wait()
            self._stuck = None

    async def finish_request(self, trailers: list[Field]) -> None:
        await trio.lowlevel.checkpoint()
        if not self.finished.is_set():
            self.finished.set()
            self.heard.append(("end", tuple(trailers)))

    async def read_head(self) -> Response:
        head = await self.said.wait_next()
        assert isinstance(head, Response)
        self.answered = True
        self.done = not head.body
        return head

    def first_piece(self) -> bytes:
        if self.done:
            return b""
        piece = self.said.next_nowait()
        return b"" if piece is None else self._took(piece)

    async def read_body(self) -> bytes:
        return self._took(await self.said.wait_next())

    def _took(self, piece: bytes | Response) -> bytes:
        assert isinstance(piece, bytes)
        self.done = not piece
        return piece

    def take_over(self) -> tuple[Connection, bytes]:
        raise NotImplementedError("no connection carries it")

    def abort(self, reason: Reason) -> None:
        self.aborted = reason
        self.said.say(ProxyError(reason, "aborted"))

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True


class MemoryOrigin:
    """Hands out ``upstreams`` in turn; ``opened`` says for each whether a fresh one was asked for, ``picked`` which of
    its ``endpoints`` each attempt was for."""

    name = "memory"
    patience = 5.0
    load: ClusterLoad | None = None

    def __init__(self, *upstreams: MemoryUpstream) -> None:
        self._upstreams = list(upstreams)
        self.endpoints = [self.name]
        self.picked: list[str] = []
        self.opened: list[bool] = []
        self.refusals: list[ProxyError] = []  # raised first
        self.opens = trio.Event()
        self.opens.set()

    def pick(self, permit: Permit, tried: Sequence[str] = ()) -> str:
        assert isinstance(permit, Permit)
        left = [each for each in self.endpoints if each not in tried]
        self.picked.append((left or self.endpoints)[0])
        return self.picked[-1]

    def open_nowait(self, endpoint: str) -> None:
        assert endpoint == self.picked[-1]

    def has_others(self, tried: int) -> bool:
        return len(self.endpoints) > tried

    async def open(self, endpoint: str, *, fresh: bool, seconds: float, hasty: bool) -> ClientStream:
        await trio.lowlevel.checkpoint()
        assert endpoint == self.picked[-1]
        await self.opens.wait()
        if self.refusals:
            raise self.refusals.pop(0)
        self.opened.append(fresh)
        return self._upstreams.pop(0)


def answer(
    status: int = 200,
    *,
    body: Body = UNKNOWN,
    fields: tuple[Field, ...] = (),
    known: dict[bytes, bytes] | None = None,
) -> Response:
    """The head of an answer; by default a body of unknown length follows it."""
    return Response(status, list(fields), known or {}, body)


def question(method: bytes = b"GET", *, body: Body = EMPTY, protocol: bytes = b"", expect: bool = False) -> Request:
    """The head of a request."""
    known = {b"expect": b"100-continue"} if expect else {}
    return Request(method, b"/x", b"app", [], known, body, protocol=protocol)


PERMIT = authorize_inbound(allow_all, Asked("inbound", "", "", "inbound|80||", "HTTP"))
FIELDS: list[Field] = [(b"Accept", b"*/*")]


class Run:
    """One exchange: its client, its upstreams, its record."""

    def __init__(self, client: MemoryClient, request: Request, *upstreams: MemoryUpstream) -> None:
        self.client = client
        self.upstreams = upstreams
        self.origin = MemoryOrigin(*upstreams)
        self.record = Record("inbound", "HTTP/1.1", "client", 0.0, 0.0)
        self._request = request
        self.retry = REPLACE_STALE
        self.limits: Limits | None = None

    async def go(self) -> Upgraded | None:
        with trio.fail_after(5):
            return await exchange(
                self.client, self._request, FIELDS, self.origin, PERMIT, self.record, self.retry, self.limits
            )

    async def fails(self, reason: Reason) -> None:
        """Goes, and ends with ``reason``, with nothing left open."""
        with pytest.raises(ProxyError) as caught:
            await self.go()
        assert caught.value.reason is reason
        self.check_closed()

    def check_closed(self) -> None:
        assert all(upstream.closed for upstream in self.upstreams[: len(self.origin.opened)])
        assert self.client.watched is None
