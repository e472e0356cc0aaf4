"""One attempt to have a request answered: it ends with the answer's head in hand, and nothing of it sent on.

Called by ``exchange``, which decides then whether there is another attempt or the answer is the reply.

Theory of operation. Nearly all requests have arrived whole when their head is judged, and one task moves them. Only
where a body is still to come and no more of it is there do two directions really run at once: then an ``Upload`` pumps
the request in a second task while the first reads the answer, which may come early. It goes on after the attempt's end,
since the answer's body may depend on it, until ``stop``. A pump that fails does not raise: it notes why and aborts the
upstream, so that the reader of the answer finds out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from time import monotonic
from typing import Final

import trio

from sidecar.errors import ProxyError, Reason
from sidecar.http.headers import Field
from sidecar.http.message import Request, Response
from sidecar.http.streams import ClientStream, ServerStream
from sidecar.telemetry.record import Record

_log = logging.getLogger(__name__)
INTERIM_HEADS: Final = 10  # of one answer; more is an upstream that does not end (UPS)
KEPT_BYTES: Final = 65_536  # of a request's body for another attempt; longer ones are streamed, and sent once
_PATIENCE: Final = 2  # times that others get their turn before a second task is made for a body's next bytes
_PIECES: Final = 32  # moved without a turn for others: 2 MiB at most, about 1 ms


class Kept:
    """The pieces of a body that were sent, for another attempt. ``whole``: they are all there."""

    __slots__ = ("_frozen", "_pieces", "_size", "whole")

    def __init__(self, first: bytes) -> None:
        self._pieces = [first]
        self._size = len(first)
        self._frozen = False
        self.whole = True

    def freeze(self) -> bool:
        """Return whether all of them are there, and keep it so: the upload may move one more before it is stopped."""
        self._frozen = True
        return self.whole

    def add(self, piece: bytes) -> None:
        """Keep a piece that is sent; beyond KEPT_BYTES nothing is kept any more."""
        if self.whole:
            self._size += len(piece)
            if self._size > KEPT_BYTES and not self._frozen:
                self.whole = False
                self._pieces.clear()
            else:
                self._pieces.append(piece)

    def joined(self) -> bytes:
        """Return all of it as one piece."""
        return b"".join(self._pieces)


async def try_once(
    stream: ServerStream,
    request: Request,
    fields: list[Field],
    body: bytes,
    kept: Kept | None,
    upstream: ClientStream,
    record: Record,
) -> tuple[Response, Upload | None]:
    """Send the request with ``fields``, all of it or as much as goes before the answer; return that one's final head,
    or a 101.

    ``body`` is what came of it so far; ``kept`` keeps what follows, and is None if nothing does. An upload that is
    still under way is returned as well; the caller stops it. Raises ProxyError. Interim answers are passed on.
    """
    sent = upstream.begin(request, fields, body, done=stream.body_done and not stream.request_trailers)
    if kept is not None and not stream.body_done and not request.expects_continue:
        sent = await _push_what_is_there(stream, upstream, sent, kept)
    if sent and stream.body_done:
        if request.body:
            try:
                await upstream.finish_request(stream.request_trailers)
            except ProxyError as error:
                if error.reason is not Reason.UPSTREAM_CLOSED:
                    raise
        head = await upstream.read_head()
        if head.status < 200:
            head = await _final_head(stream, request, upstream, head, None)
        record.first_byte = monotonic()
        record.status = head.status
        return head, None
    upload = Upload(stream, request, upstream, kept)
    return await upload.begin(record), upload


async def _push_what_is_there(stream: ServerStream, upstream: ClientStream, sent: bool, kept: Kept) -> bool:
    """Moves body bytes as long as neither side makes us wait: most bodies come right behind their heads."""
    patience = _PATIENCE
    for _ in range(_PIECES):
        if not sent or stream.body_done:
            break
        piece = stream.body_nowait()
        if piece is None:
            if not patience:
                break
            patience -= 1
            await trio.lowlevel.checkpoint()
        elif piece:
            kept.add(piece)
            try:
                sent = upstream.push(piece)
            except ProxyError as error:
                if error.reason is not Reason.UPSTREAM_CLOSED:
                    raise
                return False  # it may have answered before it left: the reader of the answer decides
    return sent


async def _final_head(
    stream: ServerStream, request: Request, upstream: ClientStream, head: Response, upload: Upload | None
) -> Response:
    """The answer's final head, or 101, beginning with ``head``; other interim heads are passed on."""
    interim = 0
    while True:
        if head.status == 101 and not request.protocol:
            raise ProxyError(Reason.UPSTREAM_PROTOCOL, "the upstream switches to a protocol that was not asked for")
        if head.status >= 200 or head.status == 101:
            return head
        if interim == INTERIM_HEADS:
            raise ProxyError(Reason.UPSTREAM_PROTOCOL, f"the upstream sent more than {INTERIM_HEADS} interim answers")
        interim += 1
        await stream.send_interim(head)
        if upload is not None and head.status == 100:
            upload.invited = True
        head = await upstream.read_head()


class Upload:
    """The rest of a body on its way up, in a task of its own, while the answer comes down.

    ``invited``: it is the client's turn to send. It is not while the client waits for the go-ahead that it asked for.
    ``failure`` is why it ended early.
    """

    __slots__ = (
        "_cancel",
        "_crash",
        "_kept",
        "_request",
        "_scope",
        "_stream",
        "_told",
        "_upstream",
        "_waits",
        "failure",
        "invited",
    )

    def __init__(self, stream: ServerStream, request: Request, upstream: ClientStream, kept: Kept | None) -> None:
        self._stream = stream
        self._request = request
        self._upstream = upstream
        self._kept = kept
        self._scope = AsyncExitStack()  # of the task, which is left in ``stop``
        self._cancel: Callable[[], None] | None = None
        self._waits = False  # for the client
        self._crash: Exception | None = None
        self._told = False  # of the crash: its exception was raised
        self.invited = not request.expects_continue
        self.failure: ProxyError | None = None

    async def begin(self, record: Record) -> Response:
        """Start pumping; return the final head of the answer. Raises ProxyError, and then the pump has ended."""
        upstream = self._upstream
        self._stream.watch(None)  # the pump reads from the client, and so sees it go
        nursery = await self._scope.enter_async_context(trio.open_nursery())
        self._cancel = nursery.cancel_scope.cancel
        nursery.start_soon(self._pump)
        try:
            head = await _final_head(self._stream, self._request, upstream, await upstream.read_head(), self)
        except ProxyError as error:
            try:
                error = self.blame(error)  # under this name, which ends here: an error holds the frames that it passed
            finally:
                await self.stop()
            raise error from None
        except BaseException:
            await self.stop()
            raise
        record.first_byte = monotonic()
        record.status = head.status
        return head

    async def stop(self) -> None:
        """End the pump, wherever it is; safe to call twice."""
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
            await self._scope.aclose()
            if self._crash is not None and not self._told:
                _log.error("an upload failed after its answer; please report it", exc_info=self._crash)
        self.failure = None

    def blame(self, error: ProxyError) -> ProxyError:
        """Return whose fault it is that reading the answer ended with ``error``.

        Both sides' clocks run while neither sends anything, and either may be looked at first. An upstream that has
        not got the whole request owes no answer; one that was asked for a go-ahead does.
        """
        if self._crash is not None:
            self._told = True
            raise self._crash
        if self.failure is not None:
            if self.failure.reason is Reason.CLIENT_IDLE and not self.invited:
                return ProxyError(Reason.UPSTREAM_TIMEOUT, "no answer, and no 100 for the client to go on")
            return self.failure
        if error.reason is Reason.UPSTREAM_TIMEOUT and self._waits and self.invited:
            return ProxyError(Reason.CLIENT_IDLE, "the client stopped in the middle of its body")
        return error

    async def _pump(self) -> None:
        stream, upstream = self._stream, self._upstream
        try:
            sent = False
            while True:
                if not sent:
                    stream.watch(upstream)  # nothing is read from the client while the upstream takes nothing
                    await upstream.flush()
                    stream.watch(None)
                if stream.body_done:
                    break
                self._waits = True
                piece = await stream.read_body()
                self._waits = False
                self.invited = True
                if piece and self._kept is not None:
                    self._kept.add(piece)
                sent = not piece or upstream.push(piece)
            stream.watch(upstream)
            await upstream.finish_request(stream.request_trailers)
        except ProxyError as error:
            # An upstream that no longer reads may still have answered: the reader of the answer decides.
            if error.reason is Reason.UPSTREAM_CLOSED:
                stream.watch(upstream)
            else:
                self.failure = error
                upstream.abort(error.reason)
        except Exception as crash:  # out of a nursery that spans calls, it would not reach the one that waits
            self._crash = crash
            upstream.abort(Reason.INTERNAL)
