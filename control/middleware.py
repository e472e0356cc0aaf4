"""What every call passes, in one order, on its way to what it asks for and back.

Who makes it: ``control.app``, one per row of the table of calls. The stages, top to bottom, are those of ``_answer``:

1. room: so many at work at once (calls that wait are bounded by ``control.watchable``)
2. who: ``control.authentication``; nothing of the request but its head has been read by then
3. role: the row's, and no other
4. rate: the caller's, and its share of the room
5. body: its length and its time are bounded, and how many long ones there are at once
6. the line, for calls that all replicas make at once: they have room of their own, and wait for it
7. the call itself
8. the audit log, before the answer leaves

Whatever is raised becomes a problem document here and nowhere else; what we did not foresee is 500 and a traceback in
our log, never in the answer.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from control import problems, rate_limits
from control.api_trust import PEER, Peer, Receive, Scope, Send
from control.audit import AuditFailed, AuditLog, Line, moment
from control.authentication import Caller, Callers
from control.metrics import Figures
from control.problems import Invalid, Refused
from control.routes import Call
from control.store import StoreFailed

PROBLEM = "application/problem+json"
_log = logging.getLogger(__name__)


class CallRequest(msgspec.Struct, frozen=True):
    """A call as its handler gets it. ``caller`` is None only where the table lets everyone in."""

    request: Request
    caller: Caller | None
    body: bytes

    @property
    def who(self) -> Caller:
        """The caller, where the table asks for one."""
        assert self.caller is not None
        return self.caller


class CallResponse(msgspec.Struct, frozen=True):
    """What a handler gives. ``body`` is encoded as JSON unless it is bytes; ``subject`` is for the audit log.

    ``stream`` is sent in place of a body, piece by piece; it is closed in any case, where it can be (``aclose``).
    ``etag`` is without its quotes.
    """

    status: int = 200
    body: object = None
    subject: str = ""
    content_type: str = "application/json"
    etag: str = ""
    headers: Mapping[str, str] = {}
    stream: AsyncIterator[bytes] | None = None


Handler = Callable[[CallRequest], Awaitable[CallResponse]]


@dataclass
class Guards:
    """What all gates share."""

    callers: Callers
    audit: AuditLog
    figures: Figures
    clock: Callable[[], float]
    calls: rate_limits.Buckets = field(default_factory=lambda: rate_limits.Buckets(rate_limits.CALLS))
    names: rate_limits.Buckets = field(default_factory=lambda: rate_limits.Buckets(rate_limits.NAMES))
    certificates: rate_limits.Buckets = field(default_factory=lambda: rate_limits.Buckets(rate_limits.CERTIFICATES))
    refusals: rate_limits.Buckets = field(default_factory=lambda: rate_limits.Buckets(rate_limits.REFUSALS))
    room: rate_limits.Room = field(default_factory=rate_limits.Room)
    long: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(rate_limits.LONG))
    line: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(rate_limits.CROWD))
    unwritten: int = 0  # refusals since the last line


class Middleware:
    """In front of one call; an ASGI application."""

    def __init__(self, call: Call, handler: Handler, guards: Guards) -> None:
        self._call = call
        self._handler = handler
        self._guards = guards

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        request = Request(scope, receive, send)
        peer: Peer = scope[PEER]
        request_id = peer.request_id or secrets.token_hex(8)
        try:
            response = await _Passage(self._call, self._handler, self._guards, request, peer, request_id).response()
        except ClientDisconnect:
            return
        response.headers["x-request-id"] = request_id
        response.headers["cache-control"] = "no-store"
        try:
            await response(scope, receive, send)
        finally:
            if isinstance(response, StreamingResponse) and hasattr(response.body_iterator, "aclose"):
                with trio.CancelScope(shield=True):  # it waits for nobody
                    await response.body_iterator.aclose()


class _Passage:
    """One request's way through."""

    def __init__(
        self, call: Call, handler: Handler, guards: Guards, request: Request, peer: Peer, request_id: str
    ) -> None:
        self._call, self._handler, self._guards = call, handler, guards
        self._request, self._peer, self._id = request, peer, request_id
        self._who = "nobody"

    async def response(self) -> Response:
        """The reply, once it is in the audit log."""
        try:
            answer = await self._answer()
            if self._call.changes:
                self._write("granted", answer.status, subject=answer.subject)
            self._guards.figures.called(self._call.name, "granted")
            return _success(answer)
        except Refused as refused:
            return self._refuse(refused)
        except Invalid as invalid:
            if self._call.changes:
                self._try_to_write("invalid", invalid.status)
            self._guards.figures.called(self._call.name, "invalid")
            return _problem(
                invalid.status, problems.body(invalid.status, self._id, invalid.detail, invalid.more, invalid.kind)
            )
        except (StoreFailed, AuditFailed) as error:
            _log.error("%s %s: %s", self._call.name, self._id, error)
            return self._fail(503)
        except ClientDisconnect:
            raise
        except Exception:
            _log.exception("%s %s failed", self._call.name, self._id)
            return self._fail(500)

    async def _answer(self) -> CallResponse:
        with self._room():
            caller = await self._identify() if self._call.roles is not None else None
            with self._share(caller):
                async with self._long():
                    body = await self._body()
                    async with self._in_line():  # only now: whoever sends slowly holds up nobody
                        return await self._handler(CallRequest(self._request, caller, body))

    @asynccontextmanager
    async def _in_line(self) -> AsyncIterator[None]:
        """A place among those of a crowd, after those who came before."""
        if not self._call.crowd:
            yield
            return
        line = self._guards.line
        if line.statistics().tasks_waiting >= rate_limits.LINE:
            raise Refused(503, "too many stand in line", 1.0)
        with trio.move_on_after(rate_limits.LINE_SECONDS) as patience:
            await line.acquire_on_behalf_of(self)
        if patience.cancelled_caught:
            raise Refused(503, "stood in line for too long", 1.0)
        try:
            yield
        finally:
            line.release_on_behalf_of(self)

    @contextmanager
    def _room(self) -> Iterator[None]:
        """A place among all that are at work; those of a crowd have their own."""
        room, counted = self._guards.room, not (self._call.waits or self._call.crowd)
        if counted and room.full():
            raise Refused(503, "too many calls at once", 1.0)
        room.at_work += counted
        try:
            yield
        finally:
            room.at_work -= counted

    @contextmanager
    def _share(self, caller: Caller | None) -> Iterator[None]:
        """A place among the caller's own."""
        if caller is None or self._call.waits or self._call.crowd:
            yield
            return
        if not self._guards.room.enter(caller.key, caller.name):
            raise Refused(503, "too many calls of this caller at once", 1.0)
        try:
            yield
        finally:
            self._guards.room.leave(caller.key, caller.name)

    @asynccontextmanager
    async def _long(self) -> AsyncIterator[None]:
        """A place among those whose body may be long, which is waited for as long as for a body."""
        if self._call.body <= rate_limits.LONG_BODY_BYTES:
            yield
            return
        with trio.move_on_after(rate_limits.BODY_SECONDS) as patience:
            await self._guards.long.acquire()
        if patience.cancelled_caught:
            raise Refused(503, "too many long bodies at once", 1.0)
        try:
            yield
        finally:
            self._guards.long.release()

    async def _identify(self) -> Caller:
        authorization = self._request.headers.getlist("authorization")
        caller = await self._guards.callers.identify(self._peer, authorization)
        self._who = caller.name
        if self._call.roles is None or caller.role not in self._call.roles:
            raise Refused(403, f"not for the role {caller.role.value}")
        now, guards = self._guards.clock(), self._guards
        # Replicas may share a token, and so a key; what a call of a crowd is about tells them apart.
        key = f"{caller.key} {self._request.url.path}" if self._call.crowd else caller.key
        asked = [(guards.calls, key), (guards.names, caller.name)]
        if self._call.name == "certificates.issue":
            asked.append((guards.certificates, caller.name))
        for table, key in asked:
            wait = table.take(key, now)
            if wait:
                raise Refused(429, "asks too often", wait)
        return caller

    async def _body(self) -> bytes:
        """The whole body, or Refused (408, 413)."""
        body = bytearray()
        with trio.move_on_after(rate_limits.body_seconds(self._call.body)) as patience:
            async with aclosing(self._request.stream()) as pieces:
                async for piece in pieces:
                    body += piece
                    if len(body) > self._call.body:
                        raise Refused(413, f"more than {self._call.body} bytes")
        if patience.cancelled_caught:
            raise Refused(408, "its body did not come in time")
        return bytes(body)

    # -- how it ends -------------------------------------------------------------------------------------------------

    def _refuse(self, refused: Refused) -> Response:
        """A refusal; whoever is refused too often is told to wait, and no longer fills the log."""
        status, retry_after = refused.status, refused.retry_after
        wait = self._guards.refusals.take(self._peer.address, self._guards.clock())
        if wait:
            status, retry_after = 429, wait
            self._guards.unwritten += 1
            self._guards.figures.unwritten.inc()
        else:
            self._try_to_write("refused", status, reason=refused.reason)
        self._guards.figures.called(self._call.name, "refused")
        reply = _problem(status, problems.body(status, self._id))
        if status == HTTPStatus.UNAUTHORIZED:
            reply.headers["www-authenticate"] = "Bearer"
        if refused.allow and status == HTTPStatus.METHOD_NOT_ALLOWED:
            reply.headers["allow"] = refused.allow
        if retry_after:
            reply.headers["retry-after"] = str(max(1, round(retry_after)))
        return reply

    def _fail(self, status: int) -> Response:
        self._try_to_write("failed", status)
        self._guards.figures.called(self._call.name, "failed")
        return _problem(status, problems.body(status, self._id))

    def _try_to_write(self, verdict: str, status: int, reason: str = "") -> None:
        """A line about what was not granted: where it can't be written nothing was given away."""
        try:
            self._write(verdict, status, reason=reason)
        except AuditFailed as error:
            _log.error("%s", error)

    def _write(self, verdict: str, status: int, reason: str = "", subject: str = "") -> None:
        line = Line(
            time=moment(self._guards.clock()),
            id=self._id,
            who=self._who,
            peer=self._peer.address,
            what=self._call.name,
            verdict=verdict,
            status=status,
            reason=reason,
            subject=subject,
            unwritten=self._guards.unwritten,
        )
        self._guards.audit.write(line)
        self._guards.unwritten = 0


def _success(answer: CallResponse) -> Response:
    headers = dict(answer.headers) | ({"etag": f'"{answer.etag}"'} if answer.etag else {})
    if answer.stream is not None:
        return StreamingResponse(answer.stream, answer.status, headers, answer.content_type)
    if answer.body is None:
        return Response(status_code=answer.status, headers=headers)
    data = answer.body if isinstance(answer.body, bytes) else msgspec.json.encode(answer.body)
    return Response(data, answer.status, headers, answer.content_type)


def _problem(status: int, body: bytes) -> Response:
    return Response(body, status, media_type=PROBLEM)
