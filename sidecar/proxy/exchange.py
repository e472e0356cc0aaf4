"""One HTTP request from its head to its reply: messages in, messages out, whatever protocol carries them.

Called by ``pipeline`` with a request that was judged. It imports no codec and no socket.

An exchange is a loop of attempts (``attempt``), each of which ends with the answer's head in hand, and then a reply.
``policy.retry`` decides whether there is another attempt. By default there is one in a single case: the connection was
reused, the upstream closed it before the first byte of an answer, and either no byte of the request was taken or the
method is idempotent and the request has no body (RFC 9110 section 9.2.2). So by default a POST is never sent again
once a byte of it was written. ``deadlines`` ends an exchange that exceeds its limits, if it has any.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import Any

from sidecar.errors import ProxyError, Reason
from sidecar.http.headers import Field
from sidecar.http.message import Request, Response
from sidecar.http.streams import ClientStream, ServerStream, StreamOpener
from sidecar.policy.authorize import Permit
from sidecar.policy.retry import REPLACE_STALE, RetryPolicy
from sidecar.proxy.attempt import Kept, Upload, try_once
from sidecar.proxy.deadlines import Limits, TimeBudget
from sidecar.telemetry.record import Record


@dataclass(frozen=True, slots=True)
class Upgraded:
    """The outcome of an exchange whose upstream has switched to another protocol."""

    upstream: ClientStream
    head: Response


async def exchange(
    stream: ServerStream,
    request: Request,
    fields: list[Field],
    client: StreamOpener[Any],
    permit: Permit,
    record: Record,
    retry: RetryPolicy = REPLACE_STALE,
    limits: Limits | None = None,
) -> Upgraded | None:
    """Forward ``request`` with ``fields``, reply with the answer, and fill ``record``.

    Return None when reply and record are complete, or the 101 that the caller has to turn into a tunnel; the caller
    then closes the upstream. Raises ProxyError; ``stream.reply_begun`` is true if a reply had begun. Cancelling closes
    the upstream.
    """
    body = stream.first_piece()
    kept = None if stream.body_done else Kept(body)
    fresh = False
    allotted = None if limits is None else TimeBudget(limits, stream)
    try:
        while True:
            record.attempts += 1
            record.upstream = client.name
            record.tried = monotonic()
            upstream: ClientStream | None = None
            upload: Upload | None = None
            switched = False
            try:
                endpoint = client.pick(permit)
                if not fresh and allotted is None:
                    upstream = client.open_nowait(endpoint)
                if upstream is None:
                    if allotted is None:
                        upstream = await client.open(endpoint, fresh=fresh)
                    else:
                        upstream = await allotted.open(client, endpoint, fresh=fresh)
                    if (cut := stream.cut_off()) is not None:
                        raise cut  # while a connection was waited for: nothing of the request has gone yet
                record.upstream = upstream.name
                record.upstream_principal = upstream.principal
                record.reused = upstream.reused
                stream.watch(upstream)
                head, upload = await try_once(stream, request, fields, body, kept, upstream, record)
                if allotted is not None:
                    allotted.end_try()
                if (
                    head.status not in retry.statuses
                    or (allotted is not None and allotted.spent)
                    or not retry.again_after_answer(request, record.attempts, kept=kept is None or kept.freeze())
                ):
                    if head.status == 101:
                        switched = True
                        return Upgraded(upstream, head)
                    if upload is None and upstream.done and not upstream.trailers:
                        await stream.send_head(head, upstream.first_piece(), done=True)  # ``_reply``, a call less
                        return None
                    await _reply(stream, upstream, head, upload)
                    return None
                record.keep_try()
            except ProxyError as error:
                if upload is not None:
                    error = upload.blame(error)
                if (
                    stream.reply_begun
                    or (allotted is not None and allotted.spent)
                    or not _again(retry, error, request, record.attempts, kept, upstream)
                ):
                    raise error from None
                record.keep_try(error)
                fresh = error.reason is Reason.UPSTREAM_CLOSED
            finally:
                if allotted is not None:
                    allotted.end_try()
                try:
                    if upload is not None:
                        await upload.stop()
                finally:
                    stream.watch(None)
                    if upstream is not None and not switched:
                        upstream.close()
            if kept is not None:
                body = kept.joined()
    finally:
        if allotted is not None:
            allotted.over()


def _again(
    retry: RetryPolicy,
    error: ProxyError,
    request: Request,
    number: int,
    kept: Kept | None,
    upstream: ClientStream | None,
) -> bool:
    return retry.again_after_failure(
        error.reason,
        request,
        number,
        kept=kept is None or kept.freeze(),
        reused=upstream is not None and upstream.reused,
        answered=upstream is not None and upstream.answered,
        wrote=upstream is not None and upstream.wrote,
    )


async def _reply(stream: ServerStream, upstream: ClientStream, head: Response, upload: Upload | None) -> None:
    """Pass on the answer that begins with ``head``."""
    if upstream.done and not upstream.trailers:
        if upload is not None:
            await upload.stop()  # the rest of the body has no use any more: the stream may read it, and continue
        await stream.send_head(head, upstream.first_piece(), done=True)
        return
    await stream.send_head(head, upstream.first_piece(), done=False)
    while not upstream.done:
        piece = await upstream.read_body()
        if piece:
            await stream.send_body(piece)
    await stream.finish_reply(upstream.trailers)
