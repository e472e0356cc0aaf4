"""One HTTP route of a VirtualService, judged: its action, faults, retries, and all that is changed on the way. Pure.

Called by ``virtual_service_rules``. The rules are those of Istio's ``ValidateVirtualService``, and stricter where a
value would break a message that is sent: a path with a space, an authority with a slash, a replacement with a group
that the expression does not have.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Final

from sidecar.durations import duration
from sidecar.resources.header_rules import TOKEN, authority_of, check_authority, check_headers
from sidecar.resources.route_destinations import check_destination, check_http_destinations
from sidecar.resources.route_match_rules import check_match, check_text
from sidecar.resources.route_regexes import regex_problem, replacement_problem
from sidecar.resources.validation import Path, Problem, shown
from sidecar.resources.virtual_service import (
    CorsPolicy,
    HTTPBody,
    HTTPFaultInjection,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
    HTTPRoute,
    Percent,
)

Found = Iterator[Problem]

RETRY_ON: Final = (
    "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx",
    "retriable-status-codes", "retriable-headers", "envoy-ratelimited",
)  # fmt: skip
RETRY_ON_LATER: Final = {
    "refused-stream": "HTTP/2", "http3-post-connect-failure": "HTTP/3",
    **dict.fromkeys(("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"), "gRPC"),
}  # fmt: skip
"""Names that are taken and act once what they are of is served."""

MOST_BODY_BYTES: Final = 1 << 20  # of a direct response; Istio's bound
LEAST_PERCENT: Final = 0.0001  # Istio's, beside 0
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE")
_STATUSES: Final = frozenset(str(status.value) for status in HTTPStatus)
_PATH: Final = re.compile(r"/[!\"$-\[\]-~]*", re.ASCII)  # visible ASCII without # and backslash
_REPLACEMENT: Final = re.compile(r"[!\"$-~]*", re.ASCII)  # likewise; a backslash begins a group
_PREFIX_REWRITE: Final = "%PREFIX()%"  # Istio's own word for the Gateway API


def check_route(route: HTTPRoute, at: Path) -> Found:
    """All that is wrong with an HTTP route, which is at ``at``."""
    for index, match in enumerate(route.match):
        yield from check_match(match, (*at, "match", index))
    yield from _action(route, at)
    yield from check_http_destinations(route.route, (*at, "route"))
    yield from check_headers(route.headers, (*at, "headers"))
    if route.redirect is not None:
        yield from _redirect(route.redirect, (*at, "redirect"))
    if route.direct_response is not None and route.direct_response.body is not None:
        yield from _body(route.direct_response.body, (*at, "directResponse", "body"))
    if route.rewrite is not None:
        yield from _rewrite(route.rewrite, (*at, "rewrite"))
        if route.rewrite.authority and authority_of(route.headers.request) is not None:
            yield Problem((*at, "rewrite", "authority"), "is set in headers.request.set as well; write one of them")
    if route.timeout:
        yield from check_duration(route.timeout, (*at, "timeout"))
    if route.retries is not None:
        yield from _retries(route.retries, (*at, "retries"))
    if route.fault is not None:
        yield from _fault(route.fault, (*at, "fault"))
    if route.cors_policy is not None:
        yield from _cors(route.cors_policy, (*at, "corsPolicy"))
    yield from _mirrors(route, at)


def check_duration(text: str, at: Path) -> Found:
    """What is wrong with a duration, which has a unit, is 1 ms or more, and of whole milliseconds, as in Istio."""
    try:
        seconds = duration(text)
    except ValueError:
        what = "is negative" if text.startswith("-") else "is not a duration"
        yield Problem(at, f"{shown(text)} {what}; write for example 1s, 250ms, 1m or 1h")
        return
    if text[-1].isdigit():
        yield Problem(at, f"{shown(text)} has no unit; write {text}s for seconds")
    elif seconds < 0.001:
        yield Problem(at, f"{shown(text)} is below 1ms; leave it out to mean none")
    elif abs(seconds * 1000 - round(seconds * 1000)) > 1e-6:
        yield Problem(at, f"{shown(text)} is finer than a millisecond")


def check_percent(percent: Percent | None, at: Path, least: float = LEAST_PERCENT) -> Found:
    """What is wrong with a share: 0, or from ``least`` to 100."""
    if percent is not None and percent.value != 0 and not least <= percent.value <= 100:
        bounds = f"0, nor from {least:g} to 100" if least else "from 0 to 100"
        yield Problem((*at, "value"), f"{percent.value!r} is {'neither' if least else 'not'} {bounds}")


def _action(route: HTTPRoute, at: Path) -> Found:
    """Exactly one of route, redirect, directResponse; a fault and a rewrite are for requests that are routed."""
    given = [
        name
        for name, value in (
            ("route", route.route), ("redirect", route.redirect), ("directResponse", route.direct_response),
        )
        if value
    ]  # fmt: skip
    if not given:
        yield Problem(at, "does nothing; add route, redirect or directResponse")
    if len(given) > 1:
        yield Problem((*at, given[1]), f"and {given[0]} can't be together; write one of them")
    for name, value in (("fault", route.fault), ("rewrite", route.rewrite)):
        if value is not None and given and given != ["route"]:
            yield Problem((*at, name), f"and {given[-1]} can't be together: it is for requests that are routed")
    if route.mirror is not None and route.mirrors:
        yield Problem((*at, "mirrors"), "and mirror can't be together; write mirrors alone")


def _redirect(redirect: HTTPRedirect, at: Path) -> Found:
    path = redirect.uri, redirect.prefix_rewrite
    if not any((*path, redirect.authority, redirect.port, redirect.derive_port, redirect.scheme)):
        yield Problem(at, "redirects to nothing; add uri, prefixRewrite, authority, port, derivePort or scheme")
    if all(path):
        yield Problem((*at, "prefixRewrite"), "and uri can't be together; write one of them")
    if redirect.port is not None and redirect.derive_port:
        yield Problem((*at, "derivePort"), "and port can't be together; write one of them")
    if redirect.scheme not in ("", "http", "https"):
        yield Problem((*at, "scheme"), f"{shown(redirect.scheme)} is neither http nor https")
    if redirect.uri:
        yield from _path(redirect.uri, (*at, "uri"))
    if redirect.prefix_rewrite:
        yield from _path(redirect.prefix_rewrite, (*at, "prefixRewrite"), query=False)
    if redirect.authority:
        yield from check_authority(redirect.authority, (*at, "authority"))


def _rewrite(rewrite: HTTPRewrite, at: Path) -> Found:
    regex = rewrite.uri_regex_rewrite
    if not rewrite.uri and not rewrite.authority and regex is None:
        yield Problem(at, "rewrites nothing; add uri, uriRegexRewrite or authority")
    if rewrite.uri and regex is not None:
        yield Problem((*at, "uriRegexRewrite"), "and uri can't be together; write one of them")
    if rewrite.uri:
        yield from _path(rewrite.uri, (*at, "uri"), query=False)
    if rewrite.authority:
        yield from check_authority(rewrite.authority, (*at, "authority"))
    if regex is not None:
        why = regex_problem(regex.match)
        if why:
            yield Problem((*at, "uriRegexRewrite", "match"), why)
        if not regex.rewrite:
            yield Problem((*at, "uriRegexRewrite", "rewrite"), "is empty; write what replaces the match")
        elif not _REPLACEMENT.fullmatch(regex.rewrite):
            yield Problem((*at, "uriRegexRewrite", "rewrite"), f"{shown(regex.rewrite)} has what no path can have")
        elif not why and (wrong := replacement_problem(regex.match, regex.rewrite)):
            yield Problem((*at, "uriRegexRewrite", "rewrite"), wrong)


def _path(text: str, at: Path, *, query: bool = True) -> Found:
    if text.startswith(_PREFIX_REWRITE):
        yield Problem(at, f"{_PREFIX_REWRITE} is written prefixRewrite here")
    elif not _PATH.fullmatch(text):
        why = "does not begin with /" if not text.startswith("/") else "has what no path can have"
        yield Problem(at, f"{shown(text)} {why}")
    elif not query and "?" in text:
        yield Problem(at, f"{shown(text)} has a query: only the path is rewritten")


def _body(body: HTTPBody, at: Path) -> Found:
    if body.string is not None and body.bytes is not None:
        yield Problem((*at, "bytes"), "and string can't be together; write one of them")
    size = len((body.string or "").encode("utf-8"))
    if body.bytes is not None:
        try:
            size = len(base64.b64decode(body.bytes, validate=True))
        except (binascii.Error, ValueError):
            yield Problem((*at, "bytes"), f"{shown(body.bytes)} is not base64")
    if size > MOST_BODY_BYTES:
        yield Problem(at, f"is longer than {MOST_BODY_BYTES >> 20} MiB")


def _retries(retries: HTTPRetry, at: Path) -> Found:
    if retries.attempts == 0:
        for name, value in (
            ("perTryTimeout", retries.per_try_timeout), ("retryOn", retries.retry_on), ("backoff", retries.backoff),
            ("retryRemoteLocalities", retries.retry_remote_localities is not None),
        ):  # fmt: skip
            if value:
                yield Problem((*at, name), "has no effect with attempts 0, which turns retries off; leave it out")
    for name, text in (("perTryTimeout", retries.per_try_timeout), ("backoff", retries.backoff)):
        if text:
            yield from check_duration(text, (*at, name))
    names: Sequence[str] = retries.retry_on.split(",") if retries.retry_on else ()
    for name in names:
        if name not in RETRY_ON and name not in RETRY_ON_LATER and name not in _STATUSES:
            hint = " (without white space)" if name != name.strip() else ""
            why = f"{shown(name)} is not a reason to retry{hint}; there are {', '.join((*RETRY_ON, *RETRY_ON_LATER))}"
            yield Problem((*at, "retryOn"), f"{why}, and statuses such as 503")


def _fault(fault: HTTPFaultInjection, at: Path) -> Found:
    if fault.delay is None and fault.abort is None:
        yield Problem(at, "injects nothing; add delay or abort")
    if fault.delay is not None:
        yield from check_duration(fault.delay.fixed_delay, (*at, "delay", "fixedDelay"))
        yield from check_percent(fault.delay.percentage, (*at, "delay", "percentage"))
    if fault.abort is not None:
        yield from check_percent(fault.abort.percentage, (*at, "abort", "percentage"))


def _cors(policy: CorsPolicy, at: Path) -> Found:
    for index, origin in enumerate(policy.allow_origins):
        where: Path = (*at, "allowOrigins", index)
        if not (origin.exact or origin.prefix or origin.regex):
            yield Problem(where, "matches no origin; write exact, prefix or regex")
        else:
            yield from check_text(origin, where)
    for index, method in enumerate(policy.allow_methods):
        if method not in METHODS:
            yield Problem((*at, "allowMethods", index), f"{shown(method)} is not one of {', '.join(METHODS)}")
    for field, names in (("allowHeaders", policy.allow_headers), ("exposeHeaders", policy.expose_headers)):
        for index, name in enumerate(names):
            if not TOKEN.fullmatch(name):
                yield Problem((*at, field, index), f"{shown(name)} is not a name of a header")
    if policy.max_age:
        found = list(check_duration(policy.max_age, (*at, "maxAge")))
        yield from found
        if not found and duration(policy.max_age) % 1:
            yield Problem((*at, "maxAge"), f"{shown(policy.max_age)} is finer than a second")


def _mirrors(route: HTTPRoute, at: Path) -> Found:
    if route.mirror is not None:
        yield from check_destination(route.mirror, (*at, "mirror"))
    elif route.mirror_percentage is not None or route.mirror_percent is not None:
        field = "mirrorPercent" if route.mirror_percentage is None else "mirrorPercentage"
        yield Problem((*at, field), "is the share of mirror, and there is none; with mirrors write their percentage")
    yield from check_percent(route.mirror_percentage, (*at, "mirrorPercentage"), 0)
    for index, each in enumerate(route.mirrors):
        yield from check_destination(each.destination, (*at, "mirrors", index, "destination"))
        yield from check_percent(each.percentage, (*at, "mirrors", index, "percentage"), 0)
