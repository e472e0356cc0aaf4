"""One HTTP request from its head to its reply: messages in, messages out, whatever protocol carries them.

Called by ``inbound`` and ``outbound`` with a request that was judged. It imports no codec and no socket.

Theory of operation. Nearly all requests have arrived whole when their head is judged; they and their replies are moved
by the one task that serves the connection. Only where a body is still to come and no more of it is there do two
directions really run at once: then a second task pumps the request while the first already reads the answer, which
may come early. A pump that fails does not raise: it notes why and aborts the upstream, so that whoever reads the
answer learns of it.

A request is sent a second time in one case: the connection was a reused one, the upstream closed it before a byte of
an answer, and either no byte of the request was taken or its method is idempotent and its body is still in hand
(RFC 9110 section 9.2.2). So a POST of which a byte was written is never sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import Final, Generic, TypeVar

import trio

from sidecar.errors import ProxyError, Reason
from sidecar.policy.authorize import Permit
from sidecar.proxy.streams import Origin, ServerStream, Upstream
from sidecar.telemetry.record import Record, Try
from sidecar.wire.headers import Field
from sidecar.wire.message import Request, Response

INTERIM_HEADS: Final = 10  # of one answer; more is an upstream that does not end (UPS)
IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
U = TypeVar("U", bound=Upstream)
_PATIENCE: Final = 2  # times that others get their turn before a second task is made for a body's next bytes
_PIECES: Final = 32  # moved without a turn for others: 2 MiB at most, about 1 ms


@dataclass(frozen=True, slots=True)
class Switched(Generic[U]):
    """The upstream agreed to speak another protocol from here on."""

    upstream: U
    head: Response


async def exchange(
    client: ServerStream, request: Request, fields: list[Field], origin: Origin[U], permit: Permit, record: Record
) -> Switched[U] | None:
    """Forwards ``request`` with ``fields`` and replies with the answer; fills ``record``.

    Returns None when reply and record are complete, or the 101 that the caller has to make a tunnel of (it closes the
    upstream then). Raises ProxyError; whether a reply had begun, ``client`` knows. Cancelling closes the upstream.
    """
    body = client.first_piece()
    fresh = False
    while True:
        record.attempts += 1
        record.upstream = origin.name
        upstream = await origin.open(permit, fresh=fresh)
        record.upstream = upstream.name
        record.upstream_principal = upstream.principal
        record.reused = upstream.reused
        tunnel = False
        client.watch(upstream)
        try:
            head = await _ask(client, request, fields, body, upstream, record)
            if head.status == 101:
                tunnel = True
                return Switched(upstream, head)
            if upstream.done and not upstream.trailers and not client.reply_begun:
                await client.send_head(head, upstream.first_piece(), done=True)
            else:
                await _reply(client, upstream, head)
            return None
        except ProxyError as error:
            if fresh or not _may_send_again(error, request, upstream, client):
                raise
            record.tries = (Try(upstream.name, True, error.reason, error.detail, monotonic() - record.began),)
            fresh = True
        finally:
            client.watch(None)
            if not tunnel:
                upstream.close()


def _may_send_again(error: ProxyError, request: Request, upstream: Upstream, client: ServerStream) -> bool:
    if error.reason is not Reason.UPSTREAM_CLOSED or not upstream.reused or upstream.answered or client.reply_begun:
        return False
    return not upstream.wrote or (request.method in IDEMPOTENT and not request.body)


async def _ask(
    client: ServerStream,
    request: Request,
    fields: list[Field],
    body: bytes,
    upstream: Upstream,
    record: Record,
) -> Response:
    """Sends the request, all of it or as much as goes before the answer; returns the answer's final head, or 101.

    When it returns while the body still comes, the reply has been passed on as well: see :func:`_both_ways`.
    """
    sent = upstream.begin(request, fields, body, done=client.body_done and not client.request_trailers)
    if not client.body_done and not request.expects_continue:
        sent = await _push_what_is_there(client, upstream, sent)
    if not sent or not client.body_done:
        return await _both_ways(client, request, upstream, record)
    if request.body:
        try:
            await upstream.finish_request(client.request_trailers)
        except ProxyError as error:
            if error.reason is not Reason.UPSTREAM_CLOSED:
                raise
    head = await upstream.read_head()
    if head.status < 200:
        return await _final_head(client, request, upstream, record, head)
    record.first_byte = monotonic()
    record.status = head.status
    return head


async def _push_what_is_there(client: ServerStream, upstream: Upstream, sent: bool) -> bool:
    """Moves body bytes as long as neither side makes us wait: most bodies come right behind their heads."""
    patience = _PATIENCE
    for _ in range(_PIECES):
        if not sent or client.body_done:
            break
        piece = client.body_nowait()
        if piece is None:
            if not patience:
                break
            patience -= 1
            await trio.lowlevel.checkpoint()
        elif piece:
            try:
                sent = upstream.push(piece)
            except ProxyError as error:
                if error.reason is not Reason.UPSTREAM_CLOSED:
                    raise
                return False  # it may have answered before it left: whoever reads the answer decides
    return sent


async def _final_head(
    client: ServerStream,
    request: Request,
    upstream: Upstream,
    record: Record,
    head: Response,
    upload: _Upload | None = None,
) -> Response:
    """The answer's final head, or 101, beginning with ``head``; other interim heads are passed on."""
    interim = 0
    while True:
        if head.status == 101 and not request.protocol:
            raise ProxyError(Reason.UPSTREAM_PROTOCOL, "the upstream switches to a protocol that was not asked for")
        if head.status >= 200 or head.status == 101:
            record.first_byte = monotonic()
            record.status = head.status
            return head
        if interim == INTERIM_HEADS:
            raise ProxyError(Reason.UPSTREAM_PROTOCOL, f"the upstream sent more than {INTERIM_HEADS} interim answers")
        interim += 1
        await client.send_interim(head)
        if upload is not None and head.status == 100:
            upload.invited = True
        head = await upstream.read_head()


@dataclass(slots=True)
class _Upload:
    """How the pump of a body is, for who reads the answer beside it.

    ``invited``: it is the client's turn to send. It is not while the client waits for the go-ahead that it asked for.
    """

    invited: bool
    failure: ProxyError | None = None
    waits_for_client: bool = False

    def blame(self, error: ProxyError) -> ProxyError:
        """Whose fault it is that reading the answer ended with ``error``.

        Both sides' clocks run while nobody says anything, and either may be looked at first. An upstream that has not
        got the whole request owes no answer; one that was asked for a go-ahead does.
        """
        if self.failure is not None:
            if self.failure.reason is Reason.CLIENT_IDLE and not self.invited:
                return ProxyError(Reason.UPSTREAM_TIMEOUT, "no answer, and no 100 for the client to go on")
            return self.failure
        if error.reason is Reason.UPSTREAM_TIMEOUT and self.waits_for_client and self.invited:
            return ProxyError(Reason.CLIENT_IDLE, "the client stopped in the middle of its body")
        return error


async def _both_ways(client: ServerStream, request: Request, upstream: Upstream, record: Record) -> Response:
    """The body's rest goes up while the answer comes down; an answer that comes early ends the upload with it."""
    upload = _Upload(invited=not request.expects_continue)
    caught: ProxyError | None = None
    head: Response | None = None
    client.watch(None)  # the pump reads from the client, and so sees it go
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pump, client, upstream, upload)
        try:
            head = await _final_head(client, request, upstream, record, await upstream.read_head(), upload)
            if not client.body_done:
                client.close_after_reply()  # the rest of the body must never be read as a request; the reply says so
            if head.status != 101:
                await _reply(client, upstream, head)
        except ProxyError as error:
            caught = error
        nursery.cancel_scope.cancel()
    try:
        if caught is not None:
            raise upload.blame(caught)
        assert head is not None
        return head
    finally:
        caught = None  # an exception holds this frame: what holds the exception would keep both
        upload.failure = None


async def _pump(client: ServerStream, upstream: Upstream, upload: _Upload) -> None:
    try:
        sent = False
        while True:
            if not sent:
                client.watch(upstream)  # nobody reads from the client while the upstream takes nothing
                await upstream.flush()
                client.watch(None)
            if client.body_done:
                break
            upload.waits_for_client = True
            piece = await client.read_body()
            upload.waits_for_client = False
            upload.invited = True
            sent = not piece or upstream.push(piece)
        client.watch(upstream)
        await upstream.finish_request(client.request_trailers)
    except ProxyError as error:
        # An upstream that no longer reads may still have answered: whoever reads the answer decides.
        if error.reason is Reason.UPSTREAM_CLOSED:
            client.watch(upstream)
        else:
            upload.failure = error
            upstream.abort(error.reason)


async def _reply(client: ServerStream, upstream: Upstream, head: Response) -> None:
    """Passes the final answer on; does nothing where that has happened already."""
    if client.reply_begun:
        return
    piece = upstream.first_piece()
    await client.send_head(head, piece, done=upstream.done and not upstream.trailers)
    if upstream.done and not upstream.trailers:
        return
    while not upstream.done:
        piece = await upstream.read_body()
        if piece:
            await client.send_body(piece)
    await client.finish_reply(upstream.trailers)
