"""One HTTP request from its head to its reply: messages in, messages out, whatever protocol carries them.

Called by ``pipeline`` with a request that was judged. It imports no codec and no socket.

An exchange is a loop of attempts (``attempt``), each of which ends with the answer's head in hand, and then a reply.
``retrying`` decides whether there is another attempt, by the route's ``policy.retry`` and the cluster's budget. Without
a policy there is one in a single case: the connection was reused, the upstream closed it before the first byte of an
answer, and either no byte of the request was taken or the method is idempotent and the request has no body (RFC 9110
section 9.2.2). No policy sends a POST again once a byte of it was written, unless the request or the operator allows
it by name. ``deadlines`` ends an exchange that exceeds its limits, if it has any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

import trio

from sidecar.errors import ProxyError
from sidecar.http.headers import Field
from sidecar.http.message import Request, Response
from sidecar.http.streams import ClientStream, ServerStream, StreamOpener
from sidecar.policy.authorize import Permit
from sidecar.policy.retry import REPLACE_STALE, RetryPolicy
from sidecar.proxy.attempt import Kept, Upload, try_once
from sidecar.proxy.deadlines import Limits, TimeBudget
from sidecar.proxy.retrying import Retrying, marked
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
    *,
    edit: Callable[[Response], Response] | None = None,
    body: bytes | None = None,
    kept: Kept | None = None,
) -> Upgraded | None:
    """Forward ``request`` with ``fields``, reply with the answer, and fill ``record``.

    ``edit`` changes the head of the answer. ``body`` is the part of the body that has arrived, if the caller has taken
    it; ``kept`` has it, too, for a caller that wants the rest.

    Return None when reply and record are complete, or the 101 that the caller has to turn into a tunnel; the caller
    then closes the upstream. Raises ProxyError; ``stream.reply_begun`` is true if a reply had begun. Cancelling closes
    the upstream.
    """
    if body is None:
        body = stream.first_piece()
        kept = None if stream.body_done else Kept(body)
    load = client.load
    if load is not None:
        load.requests += 1
        if load.dated and load.budget is not None:
            load.budget.note(trio.current_time())
    retrying: Retrying | None = None  # there has been an attempt that may be followed by another one
    allotted: TimeBudget | None = None
    sent = fields
    if limits is not None:
        allotted = TimeBudget(limits, stream)
        if kept is not None:
            kept.ended = allotted.request_ended
        sent = [*fields, *limits.first]
    try:
        while True:
            record.attempts += 1
            record.upstream = client.name
            record.tried = monotonic()
            endpoint: object | None = None
            upstream: ClientStream | None = None
            upload: Upload | None = None
            switched = False
            try:
                if retrying is None:
                    endpoint = client.pick(permit)
                    upstream = client.open_nowait(endpoint)
                else:
                    endpoint = retrying.pick(permit)
                    sent = marked(fields, retrying.number, allotted)
                    if not retrying.fresh:
                        upstream = client.open_nowait(endpoint)
                if upstream is None:
                    upstream = await _opened(client, endpoint, retry, retrying, allotted)
                    if (cut := stream.cut_off()) is not None:
                        raise cut  # while a connection was waited for: nothing of the request has gone yet
                elif allotted is not None:
                    allotted.attach(upstream)
                record.upstream = upstream.name
                record.upstream_principal = upstream.principal
                record.reused = upstream.reused
                stream.watch(upstream)
                head, upload = await try_once(stream, request, sent, body, kept, upstream, record)
                if allotted is not None:
                    allotted.end_try()
                again = False
                if head.status in retry.statuses:
                    retrying = retrying or Retrying(retry, client, stream, request, record, allotted)
                    again = retrying.after_answer(head, endpoint, kept)
                if not again:
                    if edit is not None:
                        head = edit(head)
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
                if allotted is not None:
                    allotted.end_try()
                if upload is not None:
                    error = upload.blame(error)
                retrying = retrying or Retrying(retry, client, stream, request, record, allotted)
                if stream.reply_begun or not retrying.after_failure(error.reason, endpoint, upstream, kept):
                    if allotted is not None:
                        error = allotted.explained(error)
                    error = retrying.ending(error)
                    raise error from None
                record.keep_try(error)
            finally:
                try:
                    if upload is not None:
                        await upload.stop()
                finally:
                    stream.watch(None)
                    if upstream is not None and not switched:
                        upstream.close()
            if kept is not None:
                body = kept.joined()
            if retrying is not None:
                await retrying.wait()
    finally:
        if load is not None:
            load.requests -= 1
            if retrying is not None:
                retrying.end()
        if allotted is not None:
            allotted.over()


async def _opened(
    client: StreamOpener[Any],
    endpoint: object,
    retry: RetryPolicy,
    retrying: Retrying | None,
    allotted: TimeBudget | None,
) -> ClientStream:
    """Return a stream for the next attempt. Raises ProxyError."""
    if retrying is None:
        fresh, seconds, again, tried = False, client.patience, retry.retries > 0, 0
    else:
        fresh, seconds, again, tried = retrying.fresh, retrying.patience, retrying.left, len(retrying.tried)
    hasty = again and client.has_others(tried + 1)
    if allotted is None:
        return await client.open(endpoint, fresh=fresh, seconds=seconds, hasty=hasty)
    return await allotted.open(client, endpoint, fresh=fresh, seconds=seconds, hasty=hasty)


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
