"""A mesh as one proxy sees it, as bytes -> a Snapshot, in slices. Pure.

Who calls it: ``feed``, on the loop that also serves requests, which is why nothing here takes long at a time: ten
thousand endpoints are decoded and compiled in a thousand steps, each well below a millisecond, and whoever drives them
lets others have their turn in between. The tables are filled on the way; the Snapshot at the end only takes them over.

The envelope is decoded first, with services and entries as the bytes that they are, which costs a glance at each. Then
each is decoded by itself, and one that is large is decoded as an envelope again, its endpoints a few at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec

from sidecar.resources.authorization import PolicySpec
from sidecar.resources.authorization_rules import check_rules
from sidecar.resources.incremental_routes import Raws, Routes, add_routes
from sidecar.resources.proxy_config import EntrySpec, ProxyConfig, RegisteredSpec, ResolvedService
from sidecar.resources.rate_limit_rules import check_limits
from sidecar.resources.rate_limits import LimitPolicySpec
from sidecar.resources.raw_parts import LARGE, UNREADABLE, size_of, why
from sidecar.resources.schema import EndpointSpec
from sidecar.resources.service_entries import add_entry
from sidecar.resources.services import add_service
from sidecar.resources.snapshot import Node, Snapshot, Source, Version
from sidecar.resources.snapshot_builder import SnapshotBuilder
from sidecar.resources.validation import Path, Problem

TOLD: Final = 100  # problems; the rest is a number

_VERSION: Final = re.compile(r"(0|[1-9][0-9]{0,17})\.(0|[1-9][0-9]{0,17})", re.ASCII)


class Compiled(msgspec.Struct, frozen=True):
    """A Snapshot, or (None) why there is none, a line each."""

    snapshot: Snapshot | None
    problems: tuple[str, ...] = ()


class _Envelope(ProxyConfig, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The same with its parts as they came."""

    services: list[msgspec.Raw] = msgspec.field(default_factory=list)  # type: ignore[assignment]
    service_entries: list[msgspec.Raw] = msgspec.field(default_factory=list)  # type: ignore[assignment]
    authorization: list[msgspec.Raw] = msgspec.field(default_factory=list)  # type: ignore[assignment]
    rate_limits: list[msgspec.Raw] = msgspec.field(default_factory=list)  # type: ignore[assignment]
    virtual_services: list[msgspec.Raw] = msgspec.field(default_factory=list)  # type: ignore[assignment]
    destination_rules: list[msgspec.Raw] = msgspec.field(default_factory=list)  # type: ignore[assignment]
    backend_traffic_policies: list[msgspec.Raw] = msgspec.field(default_factory=list)  # type: ignore[assignment]


class _LargeService(ResolvedService, frozen=True, forbid_unknown_fields=True, rename="camel"):
    endpoints: list[msgspec.Raw] = msgspec.field(default_factory=list)  # type: ignore[assignment]


class _LargeEntry(EntrySpec, frozen=True, forbid_unknown_fields=True, rename="camel"):
    endpoints: list[msgspec.Raw] = msgspec.field(default_factory=list)  # type: ignore[assignment]


S = TypeVar("S", ResolvedService, EntrySpec)
Add = Callable[[SnapshotBuilder, S, Iterable[tuple[int, EndpointSpec]], Path], Iterator[None]]

_envelope: Final = msgspec.json.Decoder(_Envelope)
_service: Final = msgspec.json.Decoder(ResolvedService)
_entry: Final = msgspec.json.Decoder(EntrySpec)
_large_service: Final = msgspec.json.Decoder(_LargeService)
_large_entry: Final = msgspec.json.Decoder(_LargeEntry)
_endpoint: Final = msgspec.json.Decoder(RegisteredSpec)
_policy: Final = msgspec.json.Decoder(PolicySpec)
_limits: Final = msgspec.json.Decoder(LimitPolicySpec)


def compile_slices(document: bytes, me: Node, source: Source) -> Generator[None, None, Compiled]:
    """The Snapshot for ``me`` of a ScopedMesh as JSON, or all that is wrong with it. Yields wherever it may be
    interrupted for as long as one likes. Never raises, whatever the bytes are. For whom the mesh was made, and whether
    it is newer than another, is not looked at here."""
    try:
        mesh = _envelope.decode(document)
    except UNREADABLE as error:
        return Compiled(None, (why(error),))
    yield
    tables = SnapshotBuilder(mesh.trust_domain, strict=False)
    version = _version(tables, mesh.version)
    policies: list[PolicySpec] = []
    limits: list[LimitPolicySpec] = []
    routes = Routes()
    if tables.check_head(mesh.schema):
        for index, raw in enumerate(mesh.services):
            yield from _part(tables, raw, _service, _large_service, add_service, ("services", index))
        for index, raw in enumerate(mesh.service_entries):
            yield from _part(tables, raw, _entry, _large_entry, add_entry, ("serviceEntries", index))
        for index, raw in enumerate(mesh.authorization):
            yield from _add_policy(tables, raw, policies, ("authorization", index))
        for index, raw in enumerate(mesh.rate_limits):
            yield from _add_limits(tables, raw, limits, ("rateLimits", index))
        raws = Raws(mesh.virtual_services, mesh.destination_rules, mesh.backend_traffic_policies)
        yield from add_routes(tables, raws, routes)
    if tables.problems:
        return Compiled(None, _told(list(tables.problems)))
    snapshot = tables.snapshot(
        me,
        mesh.peer_authentication,
        version=version,
        source=source,
        outbound_policy=mesh.outbound_policy,
        policies=tuple(policies),
        limits=tuple(limits),
        virtual_services=tuple(routes.virtual_services),
        destination_rules=tuple(routes.destination_rules),
        backend_policies=tuple(routes.backend_policies),
        labels=tuple(mesh.workload_labels),
    )
    return Compiled(snapshot)


def _part(
    tables: SnapshotBuilder,
    raw: msgspec.Raw,
    whole: msgspec.json.Decoder[S],
    large: msgspec.json.Decoder[Any],
    add: Add[S],
    path: Path,
) -> Iterator[None]:
    """Adds a service or an entry, in one step or, where it is large, in more."""
    try:
        spec: S = whole.decode(raw) if size_of(raw) < LARGE else large.decode(raw)
    except UNREADABLE as error:
        tables.wrong(path, why(error))
    else:
        yield from add(tables, spec, _read(tables, spec.endpoints, (*path, "endpoints")), path)
    yield


def _add_policy(tables: SnapshotBuilder, raw: msgspec.Raw, policies: list[PolicySpec], path: Path) -> Iterator[None]:
    """Adds a policy. One that this version can't judge by makes the whole Snapshot a refused one: without it the proxy
    would let pass what the policy refuses."""
    try:
        policy = _policy.decode(raw)
    except UNREADABLE as error:
        tables.wrong(path, why(error))
    else:
        for problem in check_rules(policy.rules, (*path, "rules")):
            tables.wrong(problem.path, problem.why)
        policies.append(policy)
    yield


def _add_limits(tables: SnapshotBuilder, raw: msgspec.Raw, limits: list[LimitPolicySpec], path: Path) -> Iterator[None]:
    """Adds a policy of limits, likewise."""
    try:
        policy = _limits.decode(raw)
    except UNREADABLE as error:
        tables.wrong(path, why(error))
    else:
        for problem in check_limits(policy.limits, policy.namespace, (*path, "limits"), policy.direction):
            tables.wrong(problem.path, problem.why)
        limits.append(policy)
    yield


def _read(
    tables: SnapshotBuilder, endpoints: Sequence[EndpointSpec | msgspec.Raw], path: Path
) -> Iterator[tuple[int, EndpointSpec]]:
    """Endpoints, each with its index; those that are still bytes are decoded when their turn comes."""
    for index, each in enumerate(endpoints):
        try:
            yield index, _endpoint.decode(each) if isinstance(each, msgspec.Raw) else each
        except UNREADABLE as error:
            tables.wrong((*path, index), why(error))


def _version(tables: SnapshotBuilder, text: str) -> Version:
    found = _VERSION.fullmatch(text)
    if found is None:
        tables.wrong(("version",), "is not EPOCH.N, two whole numbers")
        return Version()
    return Version(int(found[1]), int(found[2]))


def _told(problems: list[Problem]) -> tuple[str, ...]:
    lines = [str(each) for each in problems[:TOLD]]
    return (*lines, f"and {len(problems) - TOLD} more problems") if len(problems) > TOLD else tuple(lines)
