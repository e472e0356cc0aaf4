"""The limits of a RateLimitPolicy, judged: every problem, each with its path. Pure.

Called by ``field_rules`` for documents, and by ``incremental_compile`` for what the control plane sends: a proxy takes
no limit that it can't apply.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from sidecar.durations import positive_duration
from sidecar.resources.authorization_rules import check_paths, check_texts, is_block
from sidecar.resources.kinds import Metadata, RateLimitPolicy
from sidecar.resources.rate_limits import Direction, LimitMatch, LimitOverride, LimitPolicySpec, RateLimit, RequestRate
from sidecar.resources.sni import LABEL
from sidecar.resources.validation import Path, Problem, shown

Found = Iterator[Problem]

LOCAL_TRUST_DOMAIN: Final = "cluster.local"  # in a policy: the mesh's own, whatever its name
MOST_LIMITS: Final = 100  # in one policy: each request is held against each limit
MOST_OVERRIDES: Final = 100  # of one limit: each has a table of its own
LONGEST_SECONDS: Final = 86_400.0
SOURCE_PARTS: Final = ("source.principal", "source.namespace", "source.ip")
PARTS: Final = (*SOURCE_PARTS, "remote.ip", "request.path", "request.method")
HEADER: Final = re.compile(r"request\.headers\[([!#$%&'*+.^_`|~0-9A-Za-z-]+)\]", re.ASCII)  # RFC 9110 token
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_NAME: Final = re.compile(LABEL, re.ASCII)
_ACCOUNT: Final = re.compile(
    r"(?![0-9.]+\Z)[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII
)  # no address, no number
_PRINCIPAL: Final = re.compile(r"([^/*]+)/ns/([^/*]+)/sa/([^/*]+)")
ROUTE: Final = "route"  # the rule of a VirtualService, which is chosen by the caller's proxy


def limit_policy_of(metadata: Metadata, spec: RateLimitPolicy) -> LimitPolicySpec:
    """The policy as proxies are told it."""
    return LimitPolicySpec(
        metadata.name, metadata.namespace, spec.limits, spec.direction, spec.mode, spec.x_rate_limit_headers
    )


def check_limits(limits: Sequence[RateLimit], namespace: str, path: Path, direction: Direction = "INBOUND") -> Found:
    """All that is wrong with these limits of a policy in ``namespace``, which are at ``path``."""
    if not limits:
        yield Problem(path, "is empty; a policy has one limit or more")
    if len(limits) > MOST_LIMITS:
        yield Problem(path, f"has {len(limits)} limits; at most {MOST_LIMITS} are allowed, since each is looked at")
    names: dict[str, int] = {}
    for index, limit in enumerate(limits):
        at: Path = (*path, index)
        if not _NAME.fullmatch(limit.name):
            why = f"{shown(limit.name)} is not a DNS label (a-z, 0-9 and inner hyphens, at most 63)"
            yield Problem((*at, "name"), why)
        elif names.setdefault(limit.name, index) != index:
            yield Problem((*at, "name"), f"{limit.name} is the name of limits[{names[limit.name]}] already")
        yield from _limit(limit, namespace, at, direction)


def _limit(limit: RateLimit, namespace: str, at: Path, direction: Direction) -> Found:
    if limit.rate is None and limit.total is None and limit.connections is None and limit.bytes_per_second is None:
        yield Problem(at, "limits nothing; add rate, total, connections or bytesPerSecond")
    yield from _key(limit, at, direction)
    if limit.match is not None:
        yield from _match(limit.match, (*at, "match"))
    for name, rate in (("rate", limit.rate), ("total", limit.total)):
        if rate is not None:
            yield from _rate(rate, limit, (*at, name))
    yield from _overrides(limit, namespace, (*at, "overrides"))
    if limit.fair_share:
        if limit.total is None:
            yield Problem((*at, "fairShare"), "shares a total, and there is none; add total")
        elif (limit.total.burst or limit.total.requests) < 2:
            yield Problem((*at, "total"), "has a burst of 1, of which no part can be kept for others; write 2 or more")
        if not limit.key:
            yield Problem((*at, "fairShare"), "shares between the values of a key, and there is none; add key")
        if limit.algorithm != "token-bucket":
            yield Problem((*at, "fairShare"), "works with algorithm token-bucket alone")
    for name, given in (("connections", limit.connections), ("bytesPerSecond", limit.bytes_per_second)):
        if given is not None:
            yield from _of_connections(limit, (*at, name))
            if not any(msgspec.structs.astuple(given)):
                fields = ", ".join(each.encode_name for each in msgspec.structs.fields(given))
                yield Problem((*at, name), f"has no field; there are {fields}")


def _key(limit: RateLimit, at: Path, direction: Direction) -> Found:
    seen: set[str] = set()
    for index, part in enumerate(limit.key):
        where: Path = (*at, "key", index)
        header = HEADER.fullmatch(part)
        if header is not None:
            yield from _header(header[1], where)
        elif part == ROUTE:
            if direction != "OUTBOUND":
                yield Problem(where, "route is known to the caller's proxy alone; write direction: OUTBOUND")
        elif part.startswith("request.headers"):
            yield Problem(where, f"{shown(part)} names no header; write request.headers[NAME]")
        elif part not in PARTS:
            yield Problem(
                where, f"{shown(part)} is not a key; there are {', '.join(PARTS)}, {ROUTE}, request.headers[NAME]"
            )
        if part.lower() in seen:
            yield Problem(where, f"{shown(part)} stands here twice")
        seen.add(part.lower())


def _header(name: str, at: Path) -> Found:
    if name.lower() == "host":
        yield Problem(at, "the Host is not read as a header; write match.hosts")
    elif name.lower().replace("_", "-") in _UNSEEN or name.lower().startswith(_OF_MESHES):
        yield Problem(at, f"{name} is removed from requests before policies see them")


_UNSEEN: Final = frozenset(
    {
        "connection", "http2-settings", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "x-b3-flags-internal", "x-forwarded-client-cert",
    }
)  # fmt: skip
_OF_MESHES: Final = ("x-envoy-", "l5d-", "x-source-", "x-istio-", "x-sidecar-")


def _match(match: LimitMatch, at: Path) -> Found:
    if match == LimitMatch():
        yield Problem(at, "has no field; leave it out to mean every request")
    yield from check_texts(match.methods, (*at, "methods"))
    yield from check_texts(match.hosts, (*at, "hosts"))
    yield from check_paths(match.paths, (*at, "paths"))
    for name, values in match.headers.items():
        where: Path = (*at, "headers", name)
        if not _TOKEN.fullmatch(name):
            yield Problem(where, f"{shown(name)} is not a field name")
        else:
            yield from _header(name, where)
        if not values:
            yield Problem(where, 'is empty; write values, or "*" for any that is not empty')
        yield from check_texts(values, where)
    for index, text in enumerate(match.sources):
        if source_of(text, "") is None:
            yield Problem((*at, "sources", index), _no_source(text))


def _rate(rate: RequestRate, limit: RateLimit, at: Path) -> Found:
    yield from _period(rate.per, (*at, "per"))
    if rate.burst is not None and limit.algorithm == "sliding-window":
        yield Problem((*at, "burst"), "a sliding window has no burst; leave it out, or write algorithm token-bucket")


def _period(text: str, at: Path) -> Found:
    try:
        seconds = positive_duration(text)
    except ValueError as error:
        yield Problem(at, f"{error}; write for example 1s, 500ms, 1m or 1h")
        return
    if seconds > LONGEST_SECONDS:
        yield Problem(at, f"{shown(text)} is longer than 24h")


def _overrides(limit: RateLimit, namespace: str, at: Path) -> Found:
    if limit.overrides and limit.rate is None:
        yield Problem(at, "replace the rate, and there is none; add rate")
    if len(limit.overrides) > MOST_OVERRIDES:
        yield Problem(at, f"has {len(limit.overrides)} entries; at most {MOST_OVERRIDES} are allowed")
    known: dict[str, int] = {}
    for index, each in enumerate(limit.overrides):
        where: Path = (*at, index)
        source = source_of(each.source, namespace)
        if source is None:
            yield Problem((*where, "source"), _no_source(each.source))
        elif known.setdefault(source, index) != index:
            why = f"{shown(each.source)} is the source of overrides[{known[source]}] already"
            yield Problem((*where, "source"), why)
        if each.per:
            yield from _period(each.per, (*where, "per"))
        if each.burst is not None and limit.algorithm == "sliding-window":
            yield Problem((*where, "burst"), "a sliding window has no burst; leave it out")


def _of_connections(limit: RateLimit, at: Path) -> Found:
    """A connection has a source, and nothing of a request."""
    for part in limit.key:
        if part not in SOURCE_PARTS:
            yield Problem(at, f"a connection has no {part}; write a limit of its own, with a key of {_SOURCES}")
    match = limit.match
    if match is not None and (match.methods or match.paths or match.hosts or match.headers):
        yield Problem(at, "a connection has nothing to match but sources; write a limit of its own")


_SOURCES: Final = ", ".join(SOURCE_PARTS)


def _no_source(text: str) -> str:
    return f"{shown(text)} is neither TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT, NAMESPACE/ACCOUNT, ACCOUNT nor a CIDR"


def source_of(text: str, namespace: str) -> str | None:
    """Return a source in canonical form: ``TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`` (with an account of ``namespace``,
    and ``cluster.local`` for the mesh's own trust domain), or a CIDR; None for what is neither."""
    if is_block(text):
        return str(ipaddress.ip_network(text, strict=False))
    if _PRINCIPAL.fullmatch(text):
        return text
    parts = text.split("/")
    if len(parts) > 2 or not _ACCOUNT.fullmatch(parts[-1]) or (len(parts) == 2 and not _NAME.fullmatch(parts[0])):
        return None
    return f"{LOCAL_TRUST_DOMAIN}/ns/{parts[0] if len(parts) == 2 else namespace}/sa/{parts[-1]}"


def rate_of(limit: RateLimit, override: LimitOverride) -> RequestRate:
    """Return the rate of an override, with the limit's period if it has none of its own."""
    assert limit.rate is not None
    return RequestRate(override.requests, override.per or limit.rate.per, override.burst)
