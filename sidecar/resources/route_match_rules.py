"""What a route is matched by, judged: conditions on requests and on connections. Pure.

Called by ``http_route_rules`` and ``virtual_service_rules``. The rules are those of Istio's ``ValidateVirtualService``,
and stricter where Istio takes a name twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sidecar.resources.authorization_rules import is_block
from sidecar.resources.header_rules import name_problem
from sidecar.resources.names import NOT_A_LABEL, check_labels, is_label, is_subdomain
from sidecar.resources.route_regexes import regex_problem
from sidecar.resources.validation import Path, Problem, shown
from sidecar.resources.virtual_service import (
    MESH,
    HTTPMatchRequest,
    L4MatchAttributes,
    StringMatch,
    TLSMatchAttributes,
)

Found = Iterator[Problem]

_CLAIM: Final = "@request.auth.claims"


def check_match(match: HTTPMatchRequest, at: Path) -> Found:
    """All that is wrong with the conditions on a request."""
    if match.uri is not None:
        yield from check_text(match.uri, (*at, "uri"), empty_prefix=True)
    for field, text in (("scheme", match.scheme), ("method", match.method), ("authority", match.authority)):
        if text is not None:
            yield from check_text(text, (*at, field))
    yield from _headers(match.headers, (*at, "headers"))
    yield from _headers(match.without_headers, (*at, "withoutHeaders"), present=True)
    for name, text in match.query_params.items():
        if not name:
            yield Problem((*at, "queryParams", name), "a name of a parameter is empty")
        yield from check_text(text, (*at, "queryParams", name))
    yield from _caller(match, at)


def check_l4_match(match: L4MatchAttributes | TLSMatchAttributes, at: Path) -> Found:
    """All that is wrong with the conditions on a connection, but for its server names."""
    for index, text in enumerate(match.destination_subnets):
        if not is_block(text):
            yield Problem((*at, "destinationSubnets", index), f"{shown(text)} is neither an IP address nor a CIDR")
    yield from _caller(match, at)


def check_text(text: StringMatch, at: Path, *, empty_prefix: bool = False) -> Found:
    """All that is wrong with a condition on a text. ``empty_prefix``: a prefix may be empty, and matches anything."""
    given = [name for name in ("exact", "prefix", "regex") if getattr(text, name) is not None]
    if len(given) > 1:
        yield Problem(at, f"has {' and '.join(given)}; write one of them")
    if text.prefix == "" and not empty_prefix:
        yield Problem((*at, "prefix"), "is empty; leave it out to mean anything")
    if text.regex is not None and (why := regex_problem(text.regex)):
        yield Problem((*at, "regex"), why)


def check_gateways(names: Sequence[str], at: Path) -> Found:
    """All that is wrong with the names of gateways: ``mesh``, NAME or NAMESPACE/NAME."""
    for index, name in enumerate(names):
        namespace, slash, gateway = name.partition("/")
        if slash:
            if not is_label(namespace):
                yield Problem((*at, index), f"{shown(namespace)} {NOT_A_LABEL}")
            if not is_label(gateway):
                yield Problem((*at, index), f"{shown(gateway)} {NOT_A_LABEL}")
        elif not is_subdomain(name):
            yield Problem((*at, index), f"{shown(name)} is no gateway: {MESH}, NAME or NAMESPACE/NAME")


def _headers(headers: Mapping[str, StringMatch], at: Path, *, present: bool = False) -> Found:
    """``present``: the regex ``*`` means that the header is there, as in Istio."""
    seen: set[str] = set()
    for name, text in headers.items():
        where: Path = (*at, name)
        if name.startswith(_CLAIM):
            yield Problem(where, f"{shown(name)} is not supported yet: no JSON Web Token is read")
        elif why := name_problem(name):
            yield Problem(where, why)
        if name.lower() in seen:
            yield Problem(where, f"{shown(name)} stands here twice: case does not count")
        seen.add(name.lower())
        if not (present and text == StringMatch(regex="*")):
            yield from check_text(text, where)


def _caller(match: HTTPMatchRequest | L4MatchAttributes | TLSMatchAttributes, at: Path) -> Found:
    yield from check_labels(match.source_labels, (*at, "sourceLabels"))
    yield from check_gateways(match.gateways, (*at, "gateways"))
    if match.source_namespace and not is_label(match.source_namespace):
        yield Problem((*at, "sourceNamespace"), f"{shown(match.source_namespace)} {NOT_A_LABEL}")
