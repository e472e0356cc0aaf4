"""Errors to replies: the only place where a reason becomes a status.

A reply reports what went wrong, the reason's word that logs and metrics use, and the request's id. It never repeats
what a peer sent. The body is RFC 9457's problem document.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

import msgspec

from sidecar.errors import Fault, ProxyError, Reason
from sidecar.http.message import LocalReply
from sidecar.http.streams import ServerStream
from sidecar.telemetry.record import Record

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
    Reason.RBAC_DENIED: 403,
    Reason.POLICY_CHANGED: 403,
    Reason.RATE_LIMITED: 429,
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
    Reason.NO_CLUSTER: 503,
    Reason.FAULT_INJECTED: 503,  # unless the route says another
    Reason.NO_CONFIGURATION: 503,
    Reason.DNS_FAILED: 503,
    Reason.CONNECT_FAILED: 503,
    Reason.CONNECT_TIMEOUT: 503,
    Reason.UPSTREAM_CLOSED: 503,
    Reason.UPSTREAM_PROTOCOL: 502,
    Reason.UPSTREAM_TIMEOUT: 504,
    Reason.UPSTREAM_IDLE: 504,
    Reason.RETRY_BUDGET: 503,
    Reason.POOL_FULL: 503,
    Reason.POOL_TIMEOUT: 503,
    Reason.MEMORY: 503,
    Reason.TOO_MANY_CONNECTIONS: 503,
    Reason.DRAIN_DEADLINE: 503,
    Reason.INTERNAL: 500,
}
_NOT_QUOTED: Final = re.compile(r"[^\x20-\x7e]")  # not allowed in a string of RFC 9651 section 3.3.3
_RETRY_LATER: Final = frozenset({Fault.OVERLOAD, Fault.DRAIN})


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457's problem document, extended by the response flag, the reason's word and the request's id."""

    type: str
    title: str
    status: int
    detail: str
    flag: str
    reason: str
    request_id: str


async def rescue(stream: ServerStream, error: ProxyError, record: Record) -> None:
    """Reply to the client with the error, if a reply is still possible, and fill ``record``. Never raises ProxyError.

    If a reply had begun, it can't be taken back: the stream is reset, so that the reply does not look complete.
    """
    cut = stream.cut_off()  # if it was cut, nothing can be sent
    error = cut or error
    record.blame(error)
    if cut is not None or stream.reply_begun:
        stream.reset()
        return
    status = record.status = error.status or STATUS[error.reason]
    if not status:
        stream.drop()
        return
    try:
        in_doubt = error.reason.fault is Fault.CLIENT
        if error.reason is Reason.RBAC_DENIED:
            reply = rbac_reply(error, record.request_id, of_mesh=bool(record.principal))
        else:
            if error.reason is Reason.RATE_LIMITED and not record.principal and record.direction == "inbound":
                error = _without_name(error)
            reply = local_reply(status, error, record.request_id, record.flags)
        if error.edit is not None:
            reply = msgspec.structs.replace(reply, fields=error.edit(reply.fields))
        await stream.send_local(reply, in_doubt=in_doubt)
    except ProxyError:
        stream.drop()


def local_reply(status: int, error: ProxyError, request_id: bytes, flags: str = "") -> LocalReply:
    """Return the reply with ``status`` that reports the error; ``flags``: if there are others beside its own."""
    problem = Problem(
        "about:blank",
        _title(status),
        status,
        error.detail,
        flags or error.reason.flag,
        error.reason.word,
        request_id.decode("ascii", "replace"),
    )
    fields = [(b"content-type", b"application/problem+json")]
    if error.reason.fault in _RETRY_LATER:
        fields.append((b"retry-after", b"%d" % RETRY_AFTER_SECONDS))
    if status == 405:
        fields.append((b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"))
    fields.extend(error.fields)
    return LocalReply(status, fields, msgspec.json.encode(problem))


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return str(status)  # a document may ask for any


def _without_name(error: ProxyError) -> ProxyError:
    """Return the refusal by a limit without its name, which strangers do not learn."""
    told = ProxyError(error.reason, "too many requests; try again later")
    told.fields = error.fields
    return told


def rbac_reply(error: ProxyError, request_id: bytes, *, of_mesh: bool) -> LocalReply:
    """Return the refusal by a policy, in Envoy's words. A peer of the mesh gets the rule that decided (RFC 9209); any
    other peer does not, because the rule would show it what to try next."""
    fields = [(b"content-type", b"text/plain")]
    if of_mesh:
        details = f"{error.rule}; {error.detail}; decision {request_id.decode('ascii', 'replace')}"
        quoted = _NOT_QUOTED.sub("?", details).replace("\\", "\\\\").replace('"', '\\"')
        fields.append((b"proxy-status", f'sidecar; error=http_request_denied; details="{quoted}"'.encode()))
    return LocalReply(403, fields, b"RBAC: access denied")
