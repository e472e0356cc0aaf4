"""A client's HTTP connection: its requests, one after the other, each with its record.

Called by ``inbound`` and ``outbound``, which hand in what to do with a request. Here is what both have in common: the
order of things around a request, and that nothing which fails in one reaches anything else.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from time import monotonic, time

import trio

from sidecar.errors import ProxyError, Reason
from sidecar.proxy.client import NOT_DRAINING, ClientStream
from sidecar.proxy.ids import sane
from sidecar.proxy.rescue import rescue
from sidecar.proxy.shared import Shared
from sidecar.telemetry.record import Record
from sidecar.wire import headers
from sidecar.wire.head import RequestHead

Handler = Callable[[ClientStream, RequestHead, Record], Awaitable[None]]
_log = logging.getLogger(__name__)


async def serve_http(client: ClientStream, direction: str, handle: Handler, shared: Shared) -> None:
    """Serves until either side closes, then closes the channel. Cancelling resets it."""
    peer = client.channel.peer
    counters = shared.telemetry.counters
    if client.drain is NOT_DRAINING:
        client.drain = shared.drain
    while True:
        request: RequestHead | None = None
        failure: ProxyError | None = None
        try:
            request = await client.next_request()
            if request is None:
                client.channel.close()
                return
        except ProxyError as error:
            failure = error
            request = client.head
        record = Record(direction, "HTTP/1.1", peer, time(), monotonic())
        record.origin = client.origin
        if request is not None:
            _describe(record, request)
        counters.requests_active += 1
        try:
            record.request_id = _request_id(request, shared)
            if failure is not None:
                raise failure
            assert request is not None
            if not shared.overload.keepalive:
                client.closing = True
            if not shared.overload.admits(counters.requests_active - 1):
                raise ProxyError(Reason.MEMORY, "the proxy is near its memory limit; try again later")
            await handle(client, request, record)
        except ProxyError as error:
            await rescue(client, request, error, record)
            await trio.lowlevel.checkpoint()  # a refusal waits for nobody, and many may stand in one read
        except Exception:
            _log.exception("a request failed for a reason that is ours; please report it")
            client.closing = True
            await rescue(client, request, ProxyError(Reason.INTERNAL, "the proxy failed; its log says why"), record)
        except BaseException:
            record.reason = Reason.DRAIN_DEADLINE
            client.channel.reset()
            raise
        finally:
            failure = None  # it holds this frame, which holds it
            counters.requests_active -= 1
            record.bytes_received += client.bytes_in
            record.bytes_sent += client.bytes_out
            shared.telemetry.finish(record)
        if client.closing or not client.body_done:
            if request is not None and not request.keep_alive and client.body_done and not client.buffer:
                client.channel.close()  # the client wanted it so: nothing more comes that would turn FIN into RST
            else:
                await client.channel.close_after_reply()
            return


def _describe(record: Record, request: RequestHead) -> None:
    record.method = request.method
    record.path = request.target
    record.sent_target = request.sent
    record.authority = request.authority
    if not request.minor:
        record.protocol = "HTTP/1.0"
    known = request.known
    if headers.USER_AGENT in known:
        record.user_agent = known[headers.USER_AGENT]
    if headers.FORWARDED_FOR in known:
        record.forwarded_for = known[headers.FORWARDED_FOR]


def _request_id(request: RequestHead | None, shared: Shared) -> bytes:
    sent = request.known.get(headers.REQUEST_ID) if request is not None else None
    return sent if sent is not None and sane(sent) else shared.ids.new()
