"""VirtualServices as their documents read, word by word and slowly: what the compiled form is held against.

Written apart from ``sidecar.policy``: nothing is compiled, indexed or kept, and expressions are Python's own, which
mean the same for those that are drawn. ``tests.support.route_drawing`` draws what the two are judged by.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sidecar.policy.route_question import RouteQuestion
from sidecar.resources.virtual_service import (
    HTTPMatchRequest,
    L4MatchAttributes,
    StringMatch,
    TLSMatchAttributes,
    VirtualServiceSpec,
)

Labels = Sequence[Mapping[str, str]]


class Answer(NamedTuple):
    """A rule, and the match of it that held; -1 for a rule without matches."""

    title: str
    rule: int
    match: int


class Unreadable(Exception):
    """An expression that has no meaning."""


def text_matches(match: StringMatch, seen: str, ignore_case: bool = False) -> bool:
    if match.exact is not None:
        return seen.lower() == match.exact.lower() if ignore_case else seen == match.exact
    if match.prefix is not None:
        return (seen.lower().startswith if ignore_case else seen.startswith)(
            match.prefix.lower() if ignore_case else match.prefix
        )
    if match.regex is None or match.regex == "*":
        return True
    try:
        return re.fullmatch(match.regex, seen) is not None
    except re.error:
        raise Unreadable from None


def presence(match: StringMatch) -> bool:
    return match == StringMatch() or match == StringMatch(regex="*")


def field_values(asked: RouteQuestion, name: str) -> list[str]:
    name = name.lower()
    if name in (":authority", "host"):
        return [asked.authority.decode()]
    if name in (":method", ":path", ":scheme"):
        return [{":method": asked.method, ":path": asked.target, ":scheme": asked.scheme}[name].decode()]
    return [value.decode() for field, value in asked.fields if field.decode().lower() == name]


def first_param(asked: RouteQuestion, name: str) -> str | None:
    _, mark, query = asked.target.decode().partition("?")
    for pair in query.split("&") if mark and query else []:
        if pair == name or pair.startswith(name + "="):
            return pair[len(name) + 1 :]
    return None


def caller_fails(
    match: HTTPMatchRequest | L4MatchAttributes | TLSMatchAttributes, namespace: str, labels: Labels
) -> str | None:
    if isinstance(match, HTTPMatchRequest):
        if match.gateways:  # what is asked of the caller is not asked beside them
            return None if "mesh" in match.gateways else "gateways"
    elif match.gateways and "mesh" not in match.gateways:
        return "gateways"
    wanted = match.source_labels
    if wanted and not any(all(have.get(name) == value for name, value in wanted.items()) for have in labels):
        return "sourceLabels"
    if match.source_namespace and match.source_namespace != namespace:
        return "sourceNamespace"
    return None


def conditions(match: HTTPMatchRequest, asked: RouteQuestion) -> Iterator[tuple[str, bool]]:
    """The fields of a match and whether they hold, in the order in which they are tried."""
    if match.port is not None:
        yield "port", asked.port == match.port
    if match.uri is not None:
        path = asked.target.decode().split("?")[0]
        yield "uri", text_matches(match.uri, path, match.ignore_uri_case)
    if match.scheme is not None:
        yield "scheme", text_matches(match.scheme, asked.scheme.decode())
    if match.method is not None:
        yield "method", text_matches(match.method, asked.method.decode())
    if match.authority is not None:
        yield "authority", text_matches(match.authority, asked.authority.decode())
    for name, wanted in match.headers.items():
        yield f"headers[{name}]", any(text_matches(wanted, value) for value in field_values(asked, name))
    for name, wanted in match.without_headers.items():
        values = field_values(asked, name)
        if presence(wanted):
            yield f"withoutHeaders[{name}]", values == []
        else:
            yield f"withoutHeaders[{name}]", not any(text_matches(wanted, value) for value in values or [""])
    for name, wanted in match.query_params.items():
        value = first_param(asked, name)
        yield f"queryParams[{name}]", value is not None and text_matches(wanted, value)


def failed_field(match: HTTPMatchRequest, asked: RouteQuestion, namespace: str, labels: Labels) -> str:
    """The first field that fails; "" if none does. One without meaning fails whatever the request is."""
    caller = caller_fails(match, namespace, labels)
    if caller is not None:
        return caller
    unreadable = unreadable_field(match)
    return unreadable or next((name for name, holds in conditions(match, asked) if not holds), "")


def unreadable_field(match: HTTPMatchRequest) -> str:
    parts = {"uri": match.uri, "scheme": match.scheme, "method": match.method, "authority": match.authority}
    parts |= {f"headers[{name}]": wanted for name, wanted in match.headers.items()}
    parts |= {f"withoutHeaders[{name}]": wanted for name, wanted in match.without_headers.items()}
    parts |= {f"queryParams[{name}]": wanted for name, wanted in match.query_params.items()}
    for name, wanted in parts.items():
        try:
            if wanted is not None:
                text_matches(wanted, "")
        except Unreadable:
            return name
    return ""


def tries(
    spec: VirtualServiceSpec, asked: RouteQuestion, namespace: str, labels: Labels
) -> Iterator[tuple[int, int, str]]:
    """Rule, match and the field that failed, up to the first that holds."""
    for number, rule in enumerate(spec.http):
        for place, match in enumerate(rule.match):
            failed = failed_field(match, asked, namespace, labels)
            yield number, place, failed
            if not failed:
                return
        if not rule.match:
            yield number, -1, ""
            return


def host_rank(written: str, host: str) -> int:
    """How specific a host of a document is for this one; -1 if it is another."""
    written = written.lower()
    if written == host:
        return 1000
    if written == "*":
        return 0
    if written.startswith("*.") and host.endswith(written[1:]) and len(host) > len(written) - 1:
        return len(written)
    return -1


def chosen(specs: Sequence[VirtualServiceSpec], host: str, counts: Sequence[bool]) -> VirtualServiceSpec | None:
    """The most specific one for a host of those that count, and of equals the first."""
    best, best_rank = None, -1
    for spec, taken in zip(specs, counts, strict=True):
        rank = max((host_rank(written, host) for written in spec.hosts), default=-1)
        if taken and rank > best_rank:
            best, best_rank = spec, rank
    return best


def http_counts(spec: VirtualServiceSpec, asked: RouteQuestion, namespace: str, labels: Labels) -> bool:
    """Whether a VirtualService has anything to say to this caller on this port."""
    return any(
        not rule.match
        or any(
            caller_fails(match, namespace, labels) is None
            and not unreadable_field(match)
            and match.port in (None, asked.port)
            for match in rule.match
        )
        for rule in spec.http
    )


def read_http(
    specs: Sequence[VirtualServiceSpec], host: str, asked: RouteQuestion, namespace: str, labels: Labels
) -> tuple[str | None, Answer | None]:
    """The title of the VirtualService that counts, and what it says."""
    spec = chosen(specs, host, [http_counts(each, asked, namespace, labels) for each in specs])
    if spec is None:
        return None, None
    for rule, match, failed in tries(spec, asked, namespace, labels):
        if not failed:
            return spec.title, Answer(spec.title, rule, match)
    return spec.title, None


def in_subnets(subnets: list[str], address: str) -> bool:
    return not subnets or any(
        ipaddress.ip_address(address) in ipaddress.ip_network(subnet, strict=False) for subnet in subnets
    )


def sni_matches(names: list[str], sni: str) -> bool:
    sni = sni.lower()
    return any(
        name == "*"
        or name.lower() == sni
        or (name.startswith("*") and len(sni) > len(name) - 1 and sni.endswith(name[1:].lower()))
        for name in names
    )


def read_l4(
    specs: Sequence[VirtualServiceSpec],
    host: str,
    sni: str | None,
    address: str,
    port: int,
    namespace: str,
    labels: Labels,
) -> tuple[str | None, Answer | None]:
    """The same for a connection: TLS with a server name, opaque without."""
    found: list[list[tuple[int, int, L4MatchAttributes | TLSMatchAttributes]]] = []
    for spec in specs:
        matches: list[tuple[int, int, L4MatchAttributes | TLSMatchAttributes]] = []
        if sni is None:
            for number, tcp in enumerate(spec.tcp):
                matches += [(number, place, match) for place, match in enumerate(tcp.match or [L4MatchAttributes()])]
        else:
            for number, tls in enumerate(spec.tls):
                matches += [(number, place, match) for place, match in enumerate(tls.match)]
        found.append([each for each in matches if caller_fails(each[2], namespace, labels) is None])
    counts = [any(match.port in (None, port) for _, _, match in each) for each in found]
    spec_found = chosen(specs, host, counts)
    if spec_found is None:
        return None, None
    place_of = next(place for place, spec in enumerate(specs) if spec is spec_found)
    for number, place, match in found[place_of]:
        named = not isinstance(match, TLSMatchAttributes) or sni_matches(match.sni_hosts, sni or "")
        if named and match.port in (None, port) and in_subnets(match.destination_subnets, address):
            return spec_found.title, Answer(spec_found.title, number, place)
    return spec_found.title, None
