"""A client's HTTP connection: its requests, one after the other, each with its record.

Called by ``connection_handler`` and ``explicit``, which pass in the handler of a request (``pipeline``). This module
has the steps around a request, and isolates the failure of one request from everything else.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from time import monotonic, time

import trio

from sidecar.errors import ProxyError, Reason
from sidecar.http import headers
from sidecar.http.message import Request
from sidecar.http.streams import ServerConnection, ServerStream
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.local_reply import rescue
from sidecar.proxy.request_ids import sane
from sidecar.telemetry.record import Record

Handler = Callable[[ServerStream, Request, Record], Awaitable[None]]
_log = logging.getLogger(__name__)


async def serve_http(connection: ServerConnection, direction: str, handle: Handler, context: ProxyContext) -> None:
    """Serve until either side closes, then close the connection. Cancelling resets it."""
    peer = connection.peer
    counters = context.telemetry.counters
    while True:
        stream = await connection.next_stream()
        if stream is None:
            connection.close()
            return
        request = stream.request
        record = Record(direction, stream.protocol, peer, time(), monotonic())
        record.origin = connection.origin
        sent_id = None
        if request is not None:
            record.method = request.method
            record.path = request.target
            record.sent_target = request.sent
            record.authority = request.authority
            known = request.known
            record.user_agent = known.get(headers.USER_AGENT, b"")
            record.forwarded_for = known.get(headers.FORWARDED_FOR, b"")
            sent_id = known.get(headers.REQUEST_ID)
        counters.requests_active += 1
        try:
            record.request_id = context.ids.new() if sent_id is None else _request_id(sent_id, context)
            failure = stream.take_failure()
            if failure is not None:
                raise failure
            assert request is not None
            if not context.overload.keepalive:
                stream.close_after_reply()
                if not context.overload.admits(counters.requests_active - 1):
                    raise ProxyError(Reason.MEMORY, "the proxy is near its memory limit; try again later")
            await handle(stream, request, record)
        except ProxyError as error:
            await rescue(stream, error, record)
            await trio.lowlevel.checkpoint()  # a refusal never waits, and one read may hold many
        except Exception:
            _log.exception("internal error while serving a request; please report it")
            stream.close_after_reply()
            await rescue(
                stream, ProxyError(Reason.INTERNAL, "internal error in the proxy; its log has the details"), record
            )
        except BaseException:
            record.reason = Reason.DRAIN_DEADLINE
            connection.reset()
            raise
        finally:
            failure = None  # it holds this frame, which holds it
            counters.requests_active -= 1
            record.bytes_received += stream.bytes_in
            record.bytes_sent += stream.bytes_out
            context.telemetry.finish(record)
        if (stream.closing or not stream.body_done) and not await connection.goes_on():
            return


def _request_id(sent: bytes, context: ProxyContext) -> bytes:
    return sent if context.keeps_request_ids and sane(sent) else context.ids.new()
