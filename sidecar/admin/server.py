"""A connection to the admin or the scrape port: requests in, one after another, and replies out.

Who calls it: the composition root, which spawns one task per accepted connection with ``serve_admin`` or
``serve_scrape``. h11 reads and writes the bytes here, whole; nothing is forwarded from here, so what h11 lets through
ends with us. What may be asked is judged in ``admin.access_guard``, answered in ``admin.routes``.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

import h11
import trio

from sidecar.admin.access_guard import judge
from sidecar.admin.context import STREAMS, AdminContext, ConnectionSlots
from sidecar.admin.responses import Answer, Reply, Request, Routes, Stream, dispatch
from sidecar.admin.routes import ADMIN, SCRAPE
from sidecar.admin.tokens import bearer
from sidecar.errors import ProxyError, Reason
from sidecar.net.connection import NEVER, Connection, ConnectionClosed

HEAD_SECONDS = 10.0  # for a head and its body together
IDLE_SECONDS = 75.0  # between requests: above the usual scrape interval of a minute
REPLY_SECONDS = 30.0
PIECE_SECONDS = 10.0  # for a client to take one piece of a stream
MAX_HEAD = 16_384
MAX_BODY = 65_536  # no route reads a body; a small one is not worth a lost connection

_ALWAYS = (("cache-control", "no-store"), ("x-content-type-options", "nosniff"))

logger = logging.getLogger("sidecar.admin")


class Refused(Exception):
    """A request that gets this reply and then the end of its connection."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.reply = Reply(status, f"{text}\n".encode())


async def serve_admin(connection: Connection, context: AdminContext) -> None:
    """Answers the requests on an admin connection until its end, and closes it. Raises nothing that a peer causes."""
    await _serve(_Conversation(connection, context, ADMIN, guarded=True), context.admin_seats)


async def serve_scrape(connection: Connection, context: AdminContext) -> None:
    """As ``serve_admin``, for metrics and health only: open to other machines, and able to change nothing."""
    await _serve(_Conversation(connection, context, SCRAPE, guarded=False), context.scrape_seats)


async def _serve(conversation: _Conversation, seats: ConnectionSlots) -> None:
    connection = conversation.connection
    connection.limit(HEAD_SECONDS, Reason.HEAD_TIMEOUT)
    if not seats.take(connection):
        connection.close()
        return
    try:
        going_on = True
        while going_on:
            going_on = await conversation.turn(seats)
        await connection.close_after_reply()
    except (ConnectionClosed, ProxyError):
        return  # the peer left, or kept us waiting: there is nobody to tell
    finally:
        seats.leave(connection)
        connection.close()


class _Conversation:
    """One connection, with h11's state of it."""

    def __init__(self, connection: Connection, context: AdminContext, routes: Routes, *, guarded: bool) -> None:
        self.connection = connection
        self._context = context
        self._routes = routes
        self._guarded = guarded
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._head_only = False
        self._whole = True  # no piece of a stream was sent in part

    async def turn(self, seats: ConnectionSlots) -> bool:
        """One request and its reply; whether another may follow."""
        self._head_only = False
        try:
            head = await self._next_event()
            if not isinstance(head, h11.Request):
                return False  # the peer ended it between two requests
            self._head_only = head.method == b"HEAD"
            self._check(head)
            await self._skip_body()
            seats.begin(self.connection)
            self.connection.limit(REPLY_SECONDS, Reason.CLIENT_IDLE)
            close = self._h11.they_are_waiting_for_100_continue  # for leave to send a body that nobody wants
            answer = await self._answer(head)
            if isinstance(answer, Stream):
                await self._stream(answer)
                return False
            reply = answer
        except h11.RemoteProtocolError as error:
            reply, close = Reply(error.error_status_hint, b"the request is not HTTP/1.1 as it should be\n"), True
        except Refused as refused:
            reply, close = refused.reply, True
        try:
            await self._send(reply, close=close)
        finally:
            if reply.then is not None:
                reply.then()
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        seats.wait(self.connection)
        await self._await_next()
        return True

    def _check(self, head: h11.Request) -> None:
        """Raises Refused for what no route should see."""
        fields = head.headers.raw_items()
        size = sum(len(name) + len(value) + 4 for name, value in fields) + len(head.method) + len(head.target) + 14
        if size > MAX_HEAD:  # h11 looks at the size only while the head is incomplete
            raise Refused(431, f"a head may have {MAX_HEAD} bytes")
        if head.http_version not in (b"1.0", b"1.1"):
            raise Refused(505, "HTTP/1.1 is spoken here")
        names = {name for name, _ in head.headers}
        if {b"content-length", b"transfer-encoding"} <= names:  # RFC 9112 section 6.1
            raise Refused(400, "a body has one length")
        if self._guarded:
            refusal = judge(self.connection.peer, list(head.headers))
            if refusal is not None:
                logger.warning("admin: request from %s refused: %s", self.connection.peer, refusal.text)
                raise Refused(refusal.status, refusal.text)
        if not head.target.startswith(b"/"):
            raise Refused(400, "this is not a proxy: ask for a path")

    async def _skip_body(self) -> None:
        if self._h11.they_are_waiting_for_100_continue:
            return
        received = 0
        while not isinstance(event := await self._next_event(), h11.EndOfMessage):
            received += len(event.data) if isinstance(event, h11.Data) else 0
            if received > MAX_BODY:
                raise Refused(413, "no route reads a body")

    async def _answer(self, head: h11.Request) -> Answer:
        path, _, query = head.target.decode("latin-1").partition("?")
        accept = b",".join(value for name, value in head.headers if name == b"accept").decode("latin-1")
        token = bearer([value for name, value in head.headers if name == b"authorization"])
        request = Request(head.method.decode("ascii"), path, query, accept, self.connection.peer, token)
        try:
            return await dispatch(self._routes, self._context, request)
        except Exception:
            logger.exception("admin: %s failed", path)
            return Reply(500, b"internal error; the log has it\n")

    async def _stream(self, stream: Stream) -> None:
        """Head and pieces, until the stream ends or is ended; never another reply after it."""
        streams = self._context.streams
        if len(streams) >= STREAMS:
            await self._send(Reply(503, f"there are {STREAMS} streams already\n".encode()), close=True)
            return
        headers = [("content-type", stream.content_type), *_ALWAYS, *stream.more, ("connection", "close")]
        connection = self.connection
        streams.add(connection)
        try:
            await self._send_piece(self._h11.send(h11.Response(status_code=200, headers=headers, reason="OK")))
            if not self._head_only:
                await self._run_watched(stream)
        finally:
            streams.discard(connection)
            last = self._h11.send(h11.EndOfMessage()) if self._h11.our_state is h11.SEND_BODY else None
            if last and self._whole and not connection.closed:
                try:
                    connection.send_nowait(last)  # also when this is cancelled: the stream then looks complete, and is
                except ConnectionClosed:
                    connection.close()

    async def _run_watched(self, stream: Stream) -> None:
        """Runs it beside a look-out for the client's leaving."""

        async def send(data: bytes) -> None:
            await self._send_piece(self._h11.send(h11.Data(data=data)))

        async def watch() -> None:
            try:
                await self.connection.recv()  # FIN; and a client that sends more meanwhile is not served either
            except (ConnectionClosed, ProxyError):
                self.connection.close()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            try:
                await stream.run(send)
            except (ConnectionClosed, ProxyError):
                self.connection.close()  # it left, or did not take a piece in time
            except Exception:
                logger.exception("admin: a stream failed")
            nursery.cancel_scope.cancel()

    async def _send_piece(self, data: bytes | None) -> None:
        if data:
            self._whole = False
            self.connection.limit(PIECE_SECONDS, Reason.CLIENT_IDLE)
            await self.connection.send_all(data)
            self.connection.deadline = NEVER
            self._whole = True

    async def _send(self, reply: Reply, *, close: bool) -> None:
        headers = [
            ("content-type", reply.content_type),
            ("content-length", str(len(reply.body))),
            *_ALWAYS,
            *reply.more,
        ]
        if reply.allow:
            headers.append(("allow", reply.allow))
        if close or reply.then is not None:
            headers.append(("connection", "close"))
        reason = HTTPStatus(reply.status).phrase
        parts = [self._h11.send(h11.Response(status_code=reply.status, headers=headers, reason=reason))]
        if not self._head_only:
            parts.append(self._h11.send(h11.Data(data=reply.body)))
        parts.append(self._h11.send(h11.EndOfMessage()))
        self.connection.limit(REPLY_SECONDS, Reason.CLIENT_IDLE)
        await self.connection.send_all(b"".join(part for part in parts if part))

    async def _next_event(self) -> h11.Event:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(await self.connection.recv())
        if event is h11.PAUSED:
            raise h11.RemoteProtocolError("bytes where none belong")
        assert not isinstance(event, type)  # the two sentinels are gone
        return event

    async def _await_next(self) -> None:
        """Waits for the first bytes of the next request, as long as an idle connection may."""
        if not self._h11.trailing_data[0]:
            self.connection.limit(IDLE_SECONDS, Reason.CLIENT_IDLE)
            self._h11.receive_data(await self.connection.recv())
        self.connection.limit(HEAD_SECONDS, Reason.HEAD_TIMEOUT)
