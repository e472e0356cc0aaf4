"""Explanations of outbound requests: which rule of which VirtualService, which cluster and endpoint, and why not the
others. By the code that routes real requests.

Called by the admin port: ``POST /explain`` with ``direction=outbound``, ``GET /explain/<request-id>`` and ``GET
/routes``. It dials nothing, counts
nothing and changes nothing.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from sidecar.errors import ProxyError, Reason
from sidecar.http.authority import authority_parts, check_authority
from sidecar.http.h1.head import parse_request
from sidecar.http.message import Request
from sidecar.policy.http_routes import Tried
from sidecar.policy.retry import RetryPolicy
from sidecar.policy.route_actions import RouteAction
from sidecar.policy.route_texts import action_text, l4_match_text, match_text, targets_text
from sidecar.proxy.local_reply import STATUS
from sidecar.proxy.route import Route
from sidecar.proxy.route_table import RouteTable
from sidecar.proxy.virtual_routes import question
from sidecar.telemetry.record import Record
from sidecar.telemetry.route_counts import RouteCounts
from sidecar.upstream.cluster import Cluster

Told = dict[str, object]
_SHOWN: Final = 50  # matches that were tried first, and as many that were tried last


def explain_route(routes: RouteTable, method: str, target: str, authority: str, fields: Any) -> Told:
    """Return what would become of a request of the app, step by step, as JSON values. Raises ValueError if it is no
    request."""
    lines = [f"{method} {target} HTTP/1.1", f"host: {authority}", *(f"{name}: {value}" for name, value in fields)]
    try:
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        parsed = parse_request(head)
        if parsed is None or parsed[1] != len(head):
            raise ValueError("the request is not complete; a line of it may hold a line break")
        check_authority(authority.encode())
        return _explained(routes, parsed[0])
    except UnicodeEncodeError:
        raise ValueError("the request holds characters that no request can have") from None
    except ProxyError as refused:
        return _refused(refused)


def of_record(routes: RouteTable, record: Record) -> Told:
    """Return by which rule a request of the app was routed, and how it would be routed now; empty if no VirtualService
    had a part. Fields that no rule looks at are not kept, and have no part in this."""
    if record.direction != "outbound" or not record.method or record.method == b"CONNECT":
        return {}
    target = record.sent_target if record.sent_target.startswith(b"/") else record.path
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in record.judged]
    try:
        now = explain_route(
            routes,
            record.method.decode("latin-1"),
            target.decode("latin-1"),
            record.authority.decode("latin-1"),
            fields,
        )
    except ValueError:
        now = {}
    if not record.route and not now.get("virtual_service"):
        return {}
    told: Told = {"rule": record.route or None, "subset": record.subset or None, "by_routes_in_force": now}
    if record.route and record.route != f"{now.get('virtual_service')}/{now.get('rule')}":
        told["changed"] = "the routes have changed since: what follows is by those in force now"
    return told


def _explained(routes: RouteTable, request: Request) -> Told:
    snapshot = routes.current()
    host, port = authority_parts(request.authority)
    base = routes.named(snapshot, host, port or 80)
    virtual = base.virtual
    told: Told = {"host": host, "port": port or 80, "kind": base.kind}
    if virtual is None:
        told["virtual_service"] = None
        return told | _destination(base) | {"allowed": base.allowed}
    told["virtual_service"] = virtual.title
    if others := routes.not_used(base.host):
        told["not_used"] = [f"VirtualService {each}: {virtual.title} comes first" for each in others]
    asked = question(request, base.called.port)
    tried = virtual.tried(asked)
    if len(tried) > 2 * _SHOWN:
        told["tried_and_not_shown"] = len(tried) - 2 * _SHOWN
        tried = tried[:_SHOWN] + tried[-_SHOWN:]
    told["tried"] = [_tried(each) for each in tried]
    found = virtual.first(asked)
    if found is None:
        why = f"no rule of VirtualService {virtual.title} matches the request"
        return told | _refused(ProxyError(Reason.NO_ROUTE, why))
    rule, match = found
    action = rule.action
    told["rule"] = rule.name or f"http[{rule.number}]"
    told |= _action(action)
    if action.split is None:
        return told
    targets: list[Told] = []
    for number, target in enumerate(action.targets):
        row: Told = {
            "host": target.host,
            "subset": target.subset or None,
            "share": round(action.split.share(number), 6),
        }
        try:
            route = routes.to_target(base, virtual, rule, match, number)
        except ProxyError as refused:
            targets.append(row | _refused(refused))
        else:
            targets.append(row | _destination(route))
    told["destinations"] = targets
    return told


def _tried(each: Tried) -> Told:
    """Return a match that was tried; ``failed`` is the first field of it that does not hold."""
    rule = each.rule_name or f"http[{each.rule}]"
    match = "any request" if each.match < 0 else each.match_name or f"match[{each.match}]"
    return {"rule": rule, "match": match, "failed": each.field or None}


def _action(action: RouteAction) -> Told:
    """Return what the rule does beside choosing a destination; what it does not do is left out."""
    told: Told = {}
    if action.redirect is not None:
        told["redirect"] = action.redirect.status
    if action.direct is not None:
        told["direct_response"] = action.direct.status
    if action.faults is not None:
        faults = action.faults
        told["faults"] = {
            "delay_seconds": faults.wait, "delayed_share": faults.delayed,
            "abort_status": faults.abort or None, "aborted_share": faults.aborted,
        }  # fmt: skip
    if action.mirrors:
        told["mirrors"] = [
            {"host": each.host, "subset": each.subset or None, "share": each.share} for each in action.mirrors
        ]
    told["timeout_seconds"] = action.timeout or None
    return told


def _destination(route: Route) -> Told:
    """Return the cluster that a route leads to, its endpoints as they are now, and when there is another attempt."""
    cluster: Cluster[Any] = route.cluster
    limits = route.limits
    told: Told = {
        "cluster": cluster.name,
        "endpoints": cluster.explained(monotonic())
        if route.at is None
        else [{"endpoint": str(route.at), "chosen_by": "caller"}],
        "retries": _retries(route.retry),
        "budget": str(cluster.load.budget) if cluster.load.budget is not None else "none",
    }
    if limits is not None:
        told["timeouts"] = {"total_seconds": _finite(limits.total), "per_try_seconds": _finite(limits.per_try)}
    return told


def _retries(retry: RetryPolicy) -> Told:
    return {
        "most": retry.retries,
        "after_statuses": sorted(retry.statuses)[:20],
        "after_failures": sorted(each.word for each in retry.reasons),
        "before_a_byte_was_taken": sorted(each.word for each in retry.unsent),
        "any_method": retry.repeatable,
    }


def _finite(seconds: float) -> float | None:
    return None if seconds == float("inf") else seconds


def _refused(refused: ProxyError) -> Told:
    reason = refused.reason
    return {
        "allowed": False,
        "status": STATUS[reason],
        "flag": reason.flag,
        "reason": reason.word,
        "detail": refused.detail,
    }


def shown_routes(routes: RouteTable, counts: RouteCounts) -> list[Told]:
    """Return each rule of each VirtualService in force, in the order in which they count, as JSON values: for
    ``/routes``."""
    rows: list[Told] = []
    requests = counts.by_destination()
    for spec in routes.current().virtual_services:
        found: Told = {"virtual_service": spec.title, "hosts": spec.hosts}
        for number, rule in enumerate(spec.http):
            name = rule.name or f"http[{number}]"
            told: Told = {"rule": name, "match": match_text(rule.match), "action": action_text(rule)}
            rows.append(found | told | {"requests": requests.get(f"{spec.title}/{name}", {})})
        for number, tcp in enumerate(spec.tcp):
            told = {"rule": f"tcp[{number}]", "match": l4_match_text(tcp.match), "action": targets_text(tcp.route)}
            rows.append(found | told)
        for number, tls in enumerate(spec.tls):
            told = {"rule": f"tls[{number}]", "match": l4_match_text(tls.match), "action": targets_text(tls.route)}
            rows.append(found | told)
    return rows
