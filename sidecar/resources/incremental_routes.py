"""VirtualServices, DestinationRules and BackendTrafficPolicies as bytes -> what the Snapshot has of them, in steps.
Pure.

Who calls it: ``incremental_compile``. A VirtualService with thousands of routes is decoded as an envelope, then its
rules a few at a time, and a rule with thousands of matches likewise, so that no step takes long. What is read is judged
as documents are. One that this version can't follow makes the whole Snapshot a refused one: without it requests would
go elsewhere than the document says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from sidecar.resources.destination_rule import BackendTrafficPolicySpec, DestinationRuleSpec
from sidecar.resources.destination_rule_rules import check_backend, check_destination
from sidecar.resources.http_route_rules import check_route
from sidecar.resources.raw_parts import UNREADABLE, size_of, why
from sidecar.resources.route_match_rules import check_match
from sidecar.resources.snapshot_builder import SnapshotBuilder
from sidecar.resources.validation import Path, Problem
from sidecar.resources.virtual_service import (
    HTTPMatchRequest,
    HTTPRoute,
    TCPRoute,
    TLSRoute,
    VirtualServiceSpec,
)
from sidecar.resources.virtual_service_rules import check_routes, check_tcp_route, check_tls_route

A_STEP: Final = 4 << 10  # bytes of rules that are read in one step: some 15, which take most of a millisecond to judge
A_REGEX: Final = 1 << 10  # bytes that take as long as compiling a regex

T = TypeVar("T")


class _LargeVirtualService(VirtualServiceSpec, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The same with its rules as they came."""

    http: list[msgspec.Raw] = msgspec.field(default_factory=list)  # type: ignore[assignment]
    tcp: list[msgspec.Raw] = msgspec.field(default_factory=list)  # type: ignore[assignment]
    tls: list[msgspec.Raw] = msgspec.field(default_factory=list)  # type: ignore[assignment]


class _LargeRule(HTTPRoute, frozen=True, forbid_unknown_fields=True, rename="camel"):
    match: list[msgspec.Raw] = msgspec.field(default_factory=list)  # type: ignore[assignment]


class _Reader(NamedTuple, Generic[T]):
    """How a part is decoded, and what is wrong with one at a path."""

    decoder: msgspec.json.Decoder[T]
    check: Callable[[T, Path], Iterator[Problem]]


_virtual_service: Final = _Reader(
    msgspec.json.Decoder(VirtualServiceSpec), lambda each, at: check_routes(each.http, each.tcp, each.tls, at)
)
_destination_rule: Final = _Reader(
    msgspec.json.Decoder(DestinationRuleSpec),
    lambda each, at: check_destination(each.host, each.traffic_policy, each.subsets, at),
)
_backend_policy: Final = _Reader(
    msgspec.json.Decoder(BackendTrafficPolicySpec),
    lambda each, at: check_backend(each.host, each.retry_budget, each.retry, at),
)
_http: Final = _Reader(msgspec.json.Decoder(HTTPRoute), check_route)
_tcp: Final = _Reader(msgspec.json.Decoder(TCPRoute), check_tcp_route)
_tls: Final = _Reader(msgspec.json.Decoder(TLSRoute), check_tls_route)
_match: Final = _Reader(msgspec.json.Decoder(HTTPMatchRequest), check_match)
_large_virtual_service: Final = msgspec.json.Decoder(_LargeVirtualService)
_large_rule: Final = msgspec.json.Decoder(_LargeRule)


class Routes:
    """What was read so far, in the order in which it counts."""

    def __init__(self) -> None:
        self.virtual_services: list[VirtualServiceSpec] = []
        self.destination_rules: list[DestinationRuleSpec] = []
        self.backend_policies: list[BackendTrafficPolicySpec] = []


class Raws(NamedTuple):
    """The same as bytes, as an envelope has them."""

    virtual_services: Sequence[msgspec.Raw]
    destination_rules: Sequence[msgspec.Raw]
    backend_traffic_policies: Sequence[msgspec.Raw]


def add_routes(tables: SnapshotBuilder, raws: Raws, routes: Routes) -> Iterator[None]:
    """Adds all of them to ``routes``; what is wrong is kept in ``tables``."""
    for index, raw in enumerate(raws.virtual_services):
        yield from _add_virtual_service(tables, raw, routes.virtual_services, ("virtualServices", index))
    for index, raw in enumerate(raws.destination_rules):
        _add(tables, raw, _destination_rule, routes.destination_rules, ("destinationRules", index))
        yield
    for index, raw in enumerate(raws.backend_traffic_policies):
        _add(tables, raw, _backend_policy, routes.backend_policies, ("backendTrafficPolicies", index))
        yield


def _add_virtual_service(
    tables: SnapshotBuilder, raw: msgspec.Raw, found: list[VirtualServiceSpec], path: Path
) -> Iterator[None]:
    """Adds a VirtualService, in one step or, where it is large, in more."""
    if size_of(raw) < A_STEP:
        _add(tables, raw, _virtual_service, found, path)
        yield
        return
    try:
        large = _large_virtual_service.decode(raw)
    except UNREADABLE as error:
        tables.wrong(path, why(error))
        return
    yield
    http: list[HTTPRoute] = []
    tcp: list[TCPRoute] = []
    tls: list[TLSRoute] = []
    yield from _rules(tables, large.http, http, (*path, "http"))
    yield from _parts(tables, large.tcp, _tcp, tcp, (*path, "tcp"))
    yield from _parts(tables, large.tls, _tls, tls, (*path, "tls"))
    found.append(
        VirtualServiceSpec(name=large.name, namespace=large.namespace, hosts=large.hosts, http=http, tcp=tcp, tls=tls)
    )


def _parts(
    tables: SnapshotBuilder, raws: Sequence[msgspec.Raw], reader: _Reader[T], found: list[T], path: Path
) -> Iterator[None]:
    """Adds parts, as many in one step as have A_STEP bytes together."""
    done = 0
    for index, raw in enumerate(raws):
        done += _add(tables, raw, reader, found, (*path, index))
        if done >= A_STEP:
            done = 0
            yield
    yield


def _rules(tables: SnapshotBuilder, raws: Sequence[msgspec.Raw], found: list[HTTPRoute], path: Path) -> Iterator[None]:
    """Adds HTTP rules, likewise; of one that is large the matches."""
    done = 0
    for index, raw in enumerate(raws):
        if size_of(raw) >= A_STEP:
            yield from _add_large_rule(tables, raw, found, (*path, index))
            continue
        done += _add(tables, raw, _http, found, (*path, index))
        if done >= A_STEP:
            done = 0
            yield
    yield


def _add_large_rule(tables: SnapshotBuilder, raw: msgspec.Raw, found: list[HTTPRoute], path: Path) -> Iterator[None]:
    try:
        large = _large_rule.decode(raw)
    except UNREADABLE as error:
        tables.wrong(path, why(error))
        return
    matches: list[HTTPMatchRequest] = []
    yield from _parts(tables, large.match, _match, matches, (*path, "match"))
    fields = msgspec.structs.asdict(large)
    for problem in check_route(HTTPRoute(**(fields | {"match": []})), path):
        tables.wrong(problem.path, problem.why)
    found.append(HTTPRoute(**(fields | {"match": matches})))
    yield


def _add(tables: SnapshotBuilder, raw: msgspec.Raw, reader: _Reader[T], found: list[T], path: Path) -> int:
    """Adds one part, and returns what it took: as much as so many bytes."""
    try:
        each = reader.decoder.decode(raw)
    except UNREADABLE as error:
        tables.wrong(path, why(error))
    else:
        for problem in reader.check(each, path):
            tables.wrong(problem.path, problem.why)
        found.append(each)
    return size_of(raw) + A_REGEX * bytes(raw).count(b'"regex')
