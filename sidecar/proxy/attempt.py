"""One attempt to get a request answered. It ends with the head of the answer in hand; nothing of it is sent on yet.

Called by ``exchange``, which then decides whether to make another attempt or to reply with the answer.

Theory of operation. Nearly all requests have arrived completely when their head is judged, and one task moves them. Two
directions run at once only if more of a body is to come and none of it has arrived: then an ``Upload`` pumps the
request in a second task while the first reads the answer, which may come early. The upload continues after the attempt
ends, until ``stop``, because the answer's body may depend on it. A pump that fails does not raise: it notes the error
and aborts the upstream, so that the reader of the answer finds out.
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
INTERIM_HEADS: Final = 10  # of one answer; an upstream that sends more may never end (UPS)
KEPT_BYTES: Final = 65_536  # of a request's body for another attempt; longer bodies are streamed, and sent once
_PATIENCE: Final = 2  # yields to other tasks before a second task is started for the body's next bytes
_PIECES: Final = 32  # moved without a yield: 2 MiB at most, about 1 ms


class Kept:
    """The pieces of a body that were sent, kept for another attempt. ``whole``: all of them are kept. ``ended`` is
    called when the last byte of the body has been taken from the client."""

    __slots__ = ("_frozen", "_pieces", "_size", "ended", "whole")

    def __init__(self, first: bytes) -> None:
        self._pieces = [first]
        self._size = len(first)
        self._frozen = False
        self.whole = True
        self.ended: Callable[[], None] = _nothing

    def freeze(self) -> bool:
        """Return whether all pieces are kept, and keep them all from now on.

        The upload may move one more piece before it is stopped."""
        self._frozen = True
        return self.whole

    def add(self, piece: bytes) -> None:
        """Keep a piece that is sent. Beyond KEPT_BYTES, drop all pieces and keep no more."""
        if self.whole:
            self._size += len(piece)
            if self._size > KEPT_BYTES and not self._frozen:
                self.whole = False
                self._pieces.clear()
            else:
                self._pieces.append(piece)

    def joined(self) -> bytes:
        """Return all pieces as one."""
        return b"".join(self._pieces)


def _nothing() -> None:
    """Follow the end of a body that no time limit depends on."""


async def try_once(
    stream: ServerStream,
    request: Request,
    fields: list[Field],
    body: bytes,
    kept: Kept | None,
    upstream: ClientStream,
    record: Record,
) -> tuple[Response, Upload | None]:
    """Send the request with ``fields``, all of it or as much as goes before the answer. Return the final head of the
    answer, or a 101.

    ``body`` is the part of the body that has arrived; ``kept`` keeps what follows, and is None if nothing follows. An
    upload that is still under way is returned as well; the caller stops it. Interim answers are passed on. Raises
    ProxyError.
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
    """Move body bytes while neither side makes the proxy wait: most bodies come right behind their heads."""
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
                return False  # the upstream may have answered before it left: the reader of the answer decides
    if stream.body_done:
        kept.ended()
    return sent


async def _final_head(
    stream: ServerStream, request: Request, upstream: ClientStream, head: Response, upload: Upload | None
) -> Response:
    """Return the final head of the answer, or a 101. ``head`` is its first head; other interim heads are passed on."""
    interim = 0
    while True:
        if head.status == 101 and not request.protocol:
            raise ProxyError(Reason.UPSTREAM_PROTOCOL, "the upstream switches to a protocol that was not requested")
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

    ``invited``: it is the client's turn to send. This is false while the client waits for the 100 that it expects.
    ``failure`` is the error that ended the upload early.
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
        self._scope = AsyncExitStack()  # of the task; ``stop`` leaves it
        self._cancel: Callable[[], None] | None = None
        self._waits = False  # the pump waits for the client
        self._crash: Exception | None = None
        self._told = False  # the crash has been raised to the caller
        self.invited = not request.expects_continue
        self.failure: ProxyError | None = None

    async def begin(self, record: Record) -> Response:
        """Start pumping, and return the final head of the answer. Raises ProxyError; the pump has ended then."""
        upstream = self._upstream
        self._stream.watch(None)  # the pump reads from the client, and so notices if it leaves
        nursery = await self._scope.enter_async_context(trio.open_nursery())
        self._cancel = nursery.cancel_scope.cancel
        nursery.start_soon(self._pump)
        try:
            head = await _final_head(self._stream, self._request, upstream, await upstream.read_head(), self)
        except ProxyError as error:
            try:
                error = self.blame(error)  # reuse the name, which ends here: an error holds the frames that it passed
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
        """Stop the pump, whatever it waits for. Safe to call twice."""
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
            await self._scope.aclose()
            if self._crash is not None and not self._told:
                _log.error("internal error in an upload after its answer; please report it", exc_info=self._crash)
        self.failure = None

    def blame(self, error: ProxyError) -> ProxyError:
        """Return the error with the side at fault, after reading the answer ended with ``error``.

        Both sides' deadlines run while neither sends anything, and either may be checked first. An upstream that has
        not received the whole request owes no answer; one that was sent Expect: 100-continue does. Raises what crashed
        the pump.
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
                    stream.watch(upstream)  # the pump does not read from the client while the upstream takes nothing
                    await upstream.flush()
                    stream.watch(None)
                if stream.body_done:
                    if self._kept is not None:
                        self._kept.ended()
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
        except Exception as crash:  # raised out of a nursery that spans calls, it would not reach the task that waits
            self._crash = crash
            upstream.abort(Reason.INTERNAL)
