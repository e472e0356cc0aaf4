"""Rules of VirtualServices in one line each, for people; without values that may be secrets. Pure.

Called for ``/routes``, which ``sidecarctl routes`` shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from sidecar.http.headers import may_be_secret
from sidecar.resources.virtual_service import (
    Destination,
    HTTPMatchRequest,
    HTTPRedirect,
    HTTPRoute,
    L4MatchAttributes,
    RouteDestination,
    StringMatch,
    TLSMatchAttributes,
)

_PRESENT: Final = StringMatch()


def match_text(matches: list[HTTPMatchRequest]) -> str:
    """Return the conditions of a rule: those of one match joined by ``and``, its matches by ``or``."""
    return " or ".join(" and ".join(_conditions(each)) or "any request" for each in matches) or "any request"


def l4_match_text(matches: list[L4MatchAttributes] | list[TLSMatchAttributes]) -> str:
    """Return the conditions of a TCP or TLS rule, likewise."""
    return " or ".join(" and ".join(_l4_conditions(each)) or "any" for each in matches) or "any"


def action_text(rule: HTTPRoute) -> str:
    """Return what a rule does: where it sends requests, or its own answer."""
    if rule.redirect is not None:
        return _redirect_text(rule.redirect)
    if rule.direct_response is not None:
        return f"answer {rule.direct_response.status}"
    parts = [targets_text([RouteDestination(each.destination, each.weight) for each in rule.route])]
    fault = rule.fault
    if fault is not None:
        parts += [f"delay {fault.delay.fixed_delay}"] if fault.delay is not None else []
        parts += [f"abort {fault.abort.http_status}"] if fault.abort is not None else []
    mirrors = [rule.mirror] if rule.mirror is not None else [each.destination for each in rule.mirrors]
    parts += [f"mirror {_where(each)}" for each in mirrors]
    parts += [f"timeout {rule.timeout}"] if rule.timeout else []
    parts += [f"retries {rule.retries.attempts}"] if rule.retries is not None else []
    return "; ".join(parts)


def _redirect_text(spec: HTTPRedirect) -> str:
    """Return what changes in the URL: ``https://...:8443`` is another scheme and port for the same host and path."""
    port = f":{spec.port}" if spec.port else ":the request's" if spec.derive_port == "FROM_REQUEST_PORT" else ""
    scheme = f"{spec.scheme}://" if spec.scheme else ""
    host = spec.authority or ("..." if scheme or port else "")
    path = spec.uri or (f"{spec.prefix_rewrite}..." if spec.prefix_rewrite else "")
    return f"redirect {spec.redirect_code or 301} {scheme}{host}{port}{path}"


def targets_text(targets: list[RouteDestination]) -> str:
    """Return destinations with their weights."""
    if len(targets) == 1:
        return _where(targets[0].destination)
    return ", ".join(f"{_where(each.destination)} {each.weight or 0}" for each in targets)


def _where(destination: Destination) -> str:
    port = "" if destination.port is None else f":{destination.port.number}"
    return f"{destination.host}{port}" + (f" {destination.subset}" if destination.subset else "")


def _conditions(match: HTTPMatchRequest) -> Iterator[str]:
    for name, text in (
        ("uri", match.uri), ("method", match.method), ("authority", match.authority), ("scheme", match.scheme),
    ):  # fmt: skip
        if text is not None:
            yield f"{name} {_string(text)}"
    for what, texts in (
        ("header", match.headers), ("no header", match.without_headers), ("parameter", match.query_params),
    ):  # fmt: skip
        for name, text in texts.items():
            secret = text != _PRESENT and may_be_secret(name.encode())
            yield f"{what} {name} {'***' if secret else _string(text)}"
    yield from _source(match.port, match.source_labels, match.source_namespace)


def _l4_conditions(match: L4MatchAttributes | TLSMatchAttributes) -> Iterator[str]:
    if isinstance(match, TLSMatchAttributes):
        yield f"SNI {', '.join(match.sni_hosts)}"
    if match.destination_subnets:
        yield f"to {', '.join(match.destination_subnets)}"
    yield from _source(match.port, match.source_labels, match.source_namespace)


def _source(port: int | None, labels: Mapping[str, str], namespace: str) -> Iterator[str]:
    if port is not None:
        yield f"port {port}"
    if labels:
        yield "from " + ",".join(f"{key}={value}" for key, value in labels.items())
    if namespace:
        yield f"from namespace {namespace}"


def _string(text: StringMatch) -> str:
    if text.exact is not None:
        return f"= {text.exact}"
    if text.prefix is not None:
        return f"{text.prefix}*"
    return f"~ {text.regex}" if text.regex is not None else "present"
