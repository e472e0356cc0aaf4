"""Errors to replies: the only place where a reason becomes a status.

A reply says what went wrong, whose word for it is used in logs and metrics, and the request's id; never what a peer
sent. The body is RFC 9457's problem document.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

from sidecar.errors import CUTS, Fault, ProxyError, Reason
from sidecar.proxy.client import ClientStream
from sidecar.telemetry.record import Record
from sidecar.wire.head import RequestHead

RETRY_AFTER_SECONDS: Final = 1
STATUS: Final = {
    Reason.BAD_REQUEST: 400,
    Reason.BAD_FRAMING: 400,
    Reason.UNKNOWN_CODING: 501,
    Reason.BAD_VERSION: 505,
    Reason.METHOD_REFUSED: 405,
    Reason.HEAD_TOO_LARGE: 431,
    Reason.REQUEST_LINE_TOO_LONG: 414,
    Reason.PROTOCOL_REFUSED: 400,
    Reason.HEAD_TIMEOUT: 408,
    Reason.BODY_TOO_LARGE: 413,
    Reason.BODY_TOO_SLOW: 408,
    Reason.CLIENT_IDLE: 408,
    Reason.CONNECTION_IDLE: 408,
    Reason.CLIENT_CLOSED: 0,
    Reason.NO_ROUTE: 404,
    Reason.CALLER_REFUSED: 403,
    Reason.OWN_LISTENER: 403,
    Reason.NOT_REDIRECTED: 403,
    Reason.NOT_THIS_POD: 403,
    Reason.BLACK_HOLE: 502,
    Reason.PEER_REFUSED: 403,
    Reason.PLAINTEXT_REFUSED: 403,
    Reason.HANDSHAKE_FAILED: 400,
    Reason.HANDSHAKE_TIMEOUT: 408,
    Reason.REVOKED: 403,
    Reason.CERTIFICATE_EXPIRED: 403,
    Reason.ROOT_WITHDRAWN: 403,
    Reason.NO_IDENTITY: 503,
    Reason.NO_ENDPOINT: 503,
    Reason.UPSTREAM_HANDSHAKE: 503,
    Reason.UPSTREAM_IDENTITY: 503,
    Reason.NO_CONFIGURATION: 503,
    Reason.DNS_FAILED: 503,
    Reason.CONNECT_FAILED: 503,
    Reason.CONNECT_TIMEOUT: 503,
    Reason.UPSTREAM_CLOSED: 503,
    Reason.UPSTREAM_PROTOCOL: 502,
    Reason.UPSTREAM_TIMEOUT: 504,
    Reason.UPSTREAM_IDLE: 504,
    Reason.POOL_FULL: 503,
    Reason.POOL_TIMEOUT: 503,
    Reason.MEMORY: 503,
    Reason.TOO_MANY_CONNECTIONS: 503,
    Reason.DRAIN_DEADLINE: 503,
    Reason.INTERNAL: 500,
}
_RETRY_LATER: Final = frozenset({Fault.OVERLOAD, Fault.DRAIN})


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457, with ours beside its members: the response flag, the reason's word, the request's id."""

    type: str
    title: str
    status: int
    detail: str
    flag: str
    reason: str
    request_id: str


async def rescue(client: ClientStream, request: RequestHead | None, error: ProxyError, record: Record) -> None:
    """Tells the client, if it can still be told, and fills ``record``. Never raises ProxyError.

    A reply that had begun can't be taken back: then the connection is reset, so that it does not look complete.
    """
    ended = client.channel.overdue
    cut = ended in CUTS  # who is cut is told nothing
    if ended is not None and cut:
        error = ProxyError(ended, client.channel.cut_for)
    record.blame(error)
    status = STATUS[error.reason]
    if cut or client.reply_begun:
        client.closing = True
        client.channel.reset()
        return
    record.status = status
    if not status:
        client.closing = True
        client.channel.close()
        return
    if request is None or request.length or error.reason.fault is Fault.CLIENT or client.drain.active:
        client.closing = True  # with a body there may be doubt where the next request begins
    head_only = request is not None and request.method == b"HEAD"
    client.channel.revive()
    try:
        head, body = _reply(status, error, record, close=client.closing)
        await client.send_whole(head, b"" if head_only else body)
    except ProxyError:
        client.closing = True
        client.channel.close()


def _reply(status: int, error: ProxyError, record: Record, *, close: bool) -> tuple[bytes, bytes]:
    phrase = HTTPStatus(status).phrase
    body = msgspec.json.encode(
        Problem(
            "about:blank",
            phrase,
            status,
            error.detail,
            error.reason.flag,
            error.reason.word,
            record.request_id.decode("ascii", "replace"),
        )
    )
    extra = b"retry-after: %d\r\n" % RETRY_AFTER_SECONDS if error.reason.fault in _RETRY_LATER else b""
    if status == 405:
        extra += b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
    connection = b"connection: close\r\n" if close else b""
    head = b"HTTP/1.1 %d %b\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n%b%b\r\n" % (
        status,
        phrase.encode(),
        len(body),
        extra,
        connection,
    )
    return head, body
