"""A request that a VirtualService's rule decided about: what the rule does with it before and while it is forwarded.

Called by ``pipeline`` once the request is permitted and within its limits. In order: faults are
injected; a redirect or a direct response is sent, or a preflight answered; otherwise the head is rewritten, mirrors get
their copies, and ``exchange`` forwards the rest. Only a proxy that has such rules loads this module.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import random

import msgspec

from sidecar.errors import ProxyError, Reason
from sidecar.http.headers import FIRST_ATTEMPT, Field
from sidecar.http.message import LocalReply, Request, Response
from sidecar.http.streams import ServerStream
from sidecar.policy.authorize import Permit
from sidecar.policy.header_edits import HeaderEdits
from sidecar.policy.redirect import NO_REWRITE
from sidecar.policy.route_actions import RouteAction, Target
from sidecar.proxy.attempt import Kept
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.exchange import Upgraded, exchange
from sidecar.proxy.mirror import Copy
from sidecar.proxy.pause import pause
from sidecar.proxy.route import ChosenRule, Route
from sidecar.telemetry.record import Record

PermitFor = Callable[[Route], Awaitable[Permit]]
"""Return the permit to send the same request along another route. Raises ProxyError."""


def forwards(action: RouteAction, target: Target | None, mirrors: Sequence[object]) -> bool:
    """Return whether requests of a rule go to this target as they are, with nothing done here."""
    if target is None or mirrors or action.faults is not None or action.cors is not None:
        return False
    changes = target.request.changes or target.request.authority or target.response.changes
    return not changes and action.rewrite == NO_REWRITE


async def serve_by_rule(
    context: ProxyContext,
    stream: ServerStream,
    request: Request,
    fields: list[Field],
    route: Route,
    permit: Permit,
    record: Record,
    permit_for: PermitFor,
) -> Upgraded | None:
    """Do with the request what ``route.rule`` says. The rest is as of ``exchange``."""
    rule = route.rule
    assert rule is not None
    edits = rule.action.response if rule.target is None else rule.target.response
    if rule.target is None:
        record.cluster = ""  # the proxy itself answers
    try:
        return await _serve(context, stream, request, fields, route, permit, record, permit_for)
    except ProxyError as error:
        if edits.changes:
            error.edit = edits.apply
        raise


async def _serve(
    context: ProxyContext,
    stream: ServerStream,
    request: Request,
    fields: list[Field],
    route: Route,
    permit: Permit,
    record: Record,
    permit_for: PermitFor,
) -> Upgraded | None:
    rule = route.rule
    assert rule is not None
    action, target = rule.action, rule.target
    if action.faults is not None:
        await _inject(action, stream, record)
    if target is None:
        await _answer(stream, _own_reply(rule, route, request), record)
        return None
    extra: tuple[Field, ...] = ()
    if action.cors is not None:
        preflight = action.cors.reply(request.method, fields)
        if preflight is not None:
            await _answer(stream, preflight, record)
            return None
        extra = action.cors.fields_for(fields)
    edit = _ReplyEdit(target.response, extra) if extra or target.response.changes else None
    request, fields = _rewritten(rule, target, request, fields)
    client, retry, limits = route.client, route.retry, route.limits
    chosen = [mirror for share, mirror in rule.mirrors if random() < share]
    if not chosen:
        return await exchange(stream, request, fields, client, permit, record, retry, limits, edit=edit)
    body = stream.first_piece()
    kept = None if stream.body_done else Kept(body)
    copy = Copy(context, request, fields, action.timeout)
    if kept is None:
        for mirror in chosen:
            copy.send(mirror, permit_for, body)
    try:
        return await exchange(
            stream, request, fields, client, permit, record, retry, limits, edit=edit, body=body, kept=kept
        )
    finally:
        if kept is not None and stream.body_done:
            for mirror in chosen:
                copy.send(mirror, permit_for, kept.joined() if kept.whole else None)


async def _inject(action: RouteAction, stream: ServerStream, record: Record) -> None:
    """Delay the request, then fail it, if the rule's faults were drawn. Raises ProxyError(FAULT_INJECTED), or why the
    client is gone."""
    faults = action.faults
    assert faults is not None
    seconds = faults.delay(random())
    if seconds:
        record.delay()
        await pause(stream, seconds)
    status = faults.status(random())
    if status:
        error = ProxyError(Reason.FAULT_INJECTED, "the route injects this fault (fault.abort)")
        error.status = status
        raise error


def _own_reply(rule: ChosenRule, route: Route, request: Request) -> LocalReply:
    """Return the redirect or the direct response of a rule."""
    action = rule.action
    if action.redirect is not None:
        authority = request.authority or str(route.called).encode()  # HTTP/1.0 needs no Host
        location = action.redirect.location(request.target, authority, route.called.port, rule.match)
        reply = LocalReply(action.redirect.status, [(b"location", location)], b"")
    else:
        assert action.direct is not None
        reply = action.direct
    if action.response.changes:
        reply = msgspec.structs.replace(reply, fields=action.response.apply(reply.fields))
    return reply


async def _answer(stream: ServerStream, reply: LocalReply, record: Record) -> None:
    record.status = reply.status
    await stream.send_local(reply, in_doubt=False)


def _rewritten(rule: ChosenRule, target: Target, request: Request, fields: list[Field]) -> tuple[Request, list[Field]]:
    """Return the request and its fields as they go to the rule's target. What was rewritten is told in Envoy's
    fields."""
    edits, rewrite = target.request, rule.action.rewrite
    if edits.changes:
        fields = edits.apply(fields)
    authority = rewrite.authority or edits.authority or request.authority
    path = request.target
    if path.startswith(b"/"):
        path = rewrite.target(path, rule.match)
    if path != request.target:
        fields.append((b"x-envoy-original-path", request.target))
    if authority != request.authority:
        fields.append((b"x-envoy-original-host", request.authority))
    if path != request.target or authority != request.authority:
        request = msgspec.structs.replace(request, target=path, authority=authority)
    fields.append(FIRST_ATTEMPT)
    return request, fields


class _ReplyEdit(msgspec.Struct, frozen=True, gc=False):
    """The changes to the answer's head: those of the rule, then the fields of CORS, which replace any other."""

    edits: HeaderEdits
    extra: tuple[Field, ...]

    def __call__(self, head: Response) -> Response:
        fields = self.edits.apply(head.fields)
        if self.extra:
            named = {name for name, _ in self.extra}
            fields = [*(field for field in fields if field[0].lower() not in named), *self.extra]
        return msgspec.structs.replace(head, fields=fields)
