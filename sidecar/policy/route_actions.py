"""What a route's rule does with a request that it matched, compiled from the document. Pure.

Made once for each rule (``policy.http_routes``), when the Snapshot arrives; ``proxy.routed_request`` follows it.
"""

from __future__ import annotations

import base64
from typing import Final

import msgspec

from sidecar.durations import duration
from sidecar.http.message import LocalReply
from sidecar.policy.cors import Cors, compile_cors
from sidecar.policy.faults import Faults, compile_faults, share_of
from sidecar.policy.header_edits import NO_EDITS, HeaderEdits, compile_edits
from sidecar.policy.redirect import NO_REWRITE, Redirect, Rewrite, compile_redirect, compile_rewrite
from sidecar.policy.traffic_split import Split
from sidecar.resources.virtual_service import (
    Destination,
    Headers,
    HTTPDirectResponse,
    HTTPRetry,
    HTTPRoute,
    HTTPRouteDestination,
)

_ALL: Final = Split([None])  # of a single destination; thousands of rules share it
_TEXT: Final = (b"content-type", b"text/plain")  # as Envoy labels the body of a direct response


class Target(msgspec.Struct, frozen=True, gc=False):
    """A destination of a rule, with the changes to fields on the way there and back. ``port`` 0: its only one."""

    host: str
    subset: str
    port: int
    request: HeaderEdits = NO_EDITS
    response: HeaderEdits = NO_EDITS


class Mirror(msgspec.Struct, frozen=True, gc=False):
    """A destination that gets a copy of a share of requests."""

    host: str
    subset: str
    port: int
    share: float


class RouteAction(msgspec.Struct, frozen=True, gc=False):
    """The action of a rule. ``timeout`` and ``per_try`` in seconds, 0.0: none; ``retries`` None: the default ones."""

    targets: tuple[Target, ...]
    split: Split | None
    redirect: Redirect | None
    direct: LocalReply | None
    rewrite: Rewrite
    cors: Cors | None
    faults: Faults | None
    mirrors: tuple[Mirror, ...]
    timeout: float
    per_try: float
    retries: HTTPRetry | None
    response: HeaderEdits  # of replies that this proxy makes

    @property
    def replies(self) -> bool:
        """Whether the proxy itself answers, and forwards nothing."""
        return self.redirect is not None or self.direct is not None


def compile_action(spec: HTTPRoute) -> RouteAction:
    """Return what the rule does. ``spec`` has been judged (``resources.virtual_service_rules``)."""
    several = len(spec.route) > 1
    targets = tuple([_target(each, spec.headers, several=several) for each in spec.route])
    return RouteAction(
        targets,
        Split([each.weight for each in spec.route]) if several else _ALL if targets else None,
        None if spec.redirect is None else compile_redirect(spec.redirect),
        None if spec.direct_response is None else _direct(spec.direct_response),
        NO_REWRITE if spec.rewrite is None else compile_rewrite(spec.rewrite),
        None if spec.cors_policy is None else compile_cors(spec.cors_policy),
        None if spec.fault is None else compile_faults(spec.fault),
        tuple(_mirrors(spec)),
        duration(spec.timeout) if spec.timeout else 0.0,
        duration(spec.retries.per_try_timeout) if spec.retries is not None and spec.retries.per_try_timeout else 0.0,
        spec.retries,
        compile_edits(spec.headers.response),
    )


def _target(each: HTTPRouteDestination, rule: Headers, *, several: bool) -> Target:
    where, own = each.destination, each.headers
    if several:
        request = compile_edits(own.request).then(compile_edits(rule.request))
        response = compile_edits(own.response).then(compile_edits(rule.response))
    else:
        request, response = compile_edits(rule.request, own.request), compile_edits(rule.response, own.response)
    return Target(where.host, where.subset, _port(where), request, response)


def _mirrors(spec: HTTPRoute) -> list[Mirror]:
    if spec.mirror is not None:
        share = share_of(spec.mirror_percentage)
        if spec.mirror_percentage is None and spec.mirror_percent is not None:
            share = spec.mirror_percent / 100
        return [Mirror(spec.mirror.host, spec.mirror.subset, _port(spec.mirror), share)]
    return [
        Mirror(each.destination.host, each.destination.subset, _port(each.destination), share_of(each.percentage))
        for each in spec.mirrors
    ]


def _direct(spec: HTTPDirectResponse) -> LocalReply:
    body = b""
    if spec.body is not None:
        body = base64.b64decode(spec.body.bytes) if spec.body.bytes is not None else (spec.body.string or "").encode()
    return LocalReply(spec.status, [_TEXT] if body else [], body)


def _port(destination: Destination) -> int:
    return 0 if destination.port is None else destination.port.number
