"""Explanations: how policies judge a request that was never made, or one that was, by the code that judges real ones.

Called by the admin port (``POST /explain``, ``GET /explain/<request-id>``). It dials nothing, counts nothing and
changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic, time
from typing import cast

from sidecar.errors import ProxyError, Reason
from sidecar.http.h1.head import RequestHead, parse_request
from sidecar.http.streams import ServerStream
from sidecar.net.local_addresses import every_outward_address
from sidecar.policy.authorize import Asked
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.inbound import CapturedInbound, Inbound, current
from sidecar.proxy.local_reply import STATUS
from sidecar.proxy.pipeline import RunningRequest
from sidecar.proxy.policy_enforcement import remote_address
from sidecar.telemetry.record import UNKNOWN_CONNECTION, ConnectionInfo, Record


@dataclass(frozen=True, slots=True)
class Question:
    """A hypothetical request. ``peer`` is the SPIFFE id that its sender shows, empty for none; ``client`` the address
    that it comes from; ``port`` the app's port, 0 for the only one."""

    method: str
    target: str
    authority: str
    peer: str = ""
    client: str = "192.0.2.1"
    port: int = 0
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class _Sender:
    """The part of a stream that the header sanitizer reads."""

    peer: str
    peer_ip: bytes
    trusted: bool
    xfcc: bytes


def answer(inbound: Inbound | CapturedInbound, context: ProxyContext, question: Question) -> dict[str, object]:
    """Return what the proxy would do, step by step, as JSON values. Raises ValueError if ``question`` is no request."""
    lines = [f"{question.method} {question.target} HTTP/1.1", f"host: {question.authority}"]
    lines += [f"{name}: {value}" for name, value in question.fields]
    try:
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        parsed = parse_request(head)
        if parsed is None or parsed[1] != len(head):
            raise ValueError("the request is not complete; a line of it may hold a line break")
        return _judged(inbound, context, question, parsed[0])
    except UnicodeEncodeError:
        raise ValueError("the request holds characters that no request can have") from None
    except ProxyError as refused:
        return _refused(refused)


def _judged(
    inbound: Inbound | CapturedInbound, context: ProxyContext, question: Question, request: RequestHead
) -> dict[str, object]:
    snapshot = current(context)
    port = inbound.port_for(question.port)
    xfcc = f"By=;URI={question.peer}".encode() if question.peer else b""
    trusted = bool(question.peer) or context.trusts(question.client)
    sender = _Sender(question.client, question.client.encode(), trusted, xfcc)
    stream = cast(ServerStream, sender)
    route = port.route(snapshot, request)
    record = Record("inbound", "HTTP/1.1", question.client, time(), monotonic())
    fields = port.sanitizer.fields(stream, request, record)
    # Without interception the app is reached at the address of the listener: one of this machine.
    host = port.address.host if port.original else next(iter(every_outward_address()), port.address.host)
    place = (host, port.address.port)
    info = ConnectionInfo(record.start, "", 0.0, "", question.peer, question.client, place)
    asked = port.asked(RunningRequest(port, stream, request, fields, info))
    verdict = inbound.policies.explain(snapshot, asked)
    if verdict["allowed"] and context.limits is not None and (found := context.limits.explain(asked)):
        verdict["limits"] = found
        if not all(each["within"] or each["shadow"] for each in found):
            verdict |= {"allowed": False, "status": STATUS[Reason.RATE_LIMITED], "decided_by": "RateLimitPolicy"}
    return {**verdict, "upstream": route.shown, "headers_stripped": list(record.stripped)}


def of_record(inbound: Inbound | CapturedInbound, context: ProxyContext, record: Record) -> dict[str, object]:
    """Return what decided about a request or connection that has been served, and how each policy in force judges it;
    empty if policies had no part."""
    denied = record.reason in (Reason.RBAC_DENIED, Reason.POLICY_CHANGED)
    if record.direction != "inbound" or not (denied or (record.permit and current(context).policies)):
        return {}
    info = record.origin or UNKNOWN_CONNECTION
    protocol = "HTTP" if record.method else "TLS" if record.protocol == "TLS" else "TCP"
    remote = remote_address(info.client, record.forwarded_for, context.trusts) if record.forwarded_for else info.client
    target = record.sent_target if record.sent_target.startswith(b"/") else record.path
    asked = Asked(
        "inbound", info.principal, info.client, "", protocol, record.method, target, record.authority,
        info.sni or record.sni, remote, info.place, record.judged,
    )  # fmt: skip
    told = inbound.policies.explain(current(context), asked)
    agrees = told["allowed"] is not denied
    decided_by = record.rule or record.detail if denied else record.permit
    told |= {"allowed": not denied, "status": record.status or None, "decided_by": decided_by}
    if record.note:
        told["note"] = record.note
    if not agrees:
        told["changed"] = "the policies have changed since: what follows is by those in force now"
    return told


def _refused(refused: ProxyError) -> dict[str, object]:
    reason: Reason = refused.reason
    return {
        "allowed": False,
        "status": STATUS[reason],
        "flag": reason.flag,
        "reason": reason.word,
        "detail": refused.detail,
        "policies": [],
    }
