"""What is legal in a VirtualService, and yet most likely not what was meant. Pure.

Called by ``lint``. Nothing here keeps a document from being taken: a host or subset that is not there may come later,
and until then such requests are answered with 503.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sidecar.addresses import parse_ip
from sidecar.durations import duration
from sidecar.resources.conflicts import Finding
from sidecar.resources.documents import Document, Key
from sidecar.resources.http_route_rules import RETRY_ON_LATER
from sidecar.resources.kinds import VirtualService
from sidecar.resources.mesh_documents import Mesh
from sidecar.resources.reachability_lint import unreached
from sidecar.resources.route_hosts import full_host
from sidecar.resources.route_regexes import LARGE, instructions, regex_problem
from sidecar.resources.routing_index import about, is_namespace, named, ports_of, subsets_of
from sidecar.resources.validation import Path, shown
from sidecar.resources.virtual_service import (
    MESH,
    Destination,
    HTTPMatchRequest,
    HTTPRoute,
    HTTPRouteDestination,
    L4MatchAttributes,
    RouteDestination,
    StringMatch,
    TCPRoute,
    TLSMatchAttributes,
    TLSRoute,
)

Odd = Iterator[tuple[Path, str]]


def lint_routes(mesh: Mesh, documents: list[Document]) -> Iterator[Finding]:
    """All that is odd in these VirtualServices."""
    batch = {document.key for document in documents}
    for document in documents:
        spec, namespace = document.spec, document.metadata.namespace
        assert isinstance(spec, VirtualService)
        for where, why in (
            *_hosts(mesh, document, spec, batch),
            *_gateways(spec),
            *odd_exports(mesh, spec.export_to),
            *_matches(mesh, spec),
            *_routes(mesh, spec, namespace),
            *unreached(spec),
        ):
            yield Finding(document.key, ("spec", *where), why)


def odd_exports(mesh: Mesh, names: Sequence[str]) -> Odd:
    """Namespaces of ``exportTo`` that there are not."""
    for index, name in enumerate(names):
        if name not in (".", "*") and not is_namespace(mesh, name):
            yield ("exportTo", index), f"no document is in namespace {name}"


def odd_host(mesh: Mesh, host: str, namespace: str) -> str:
    """Return what is odd with a host that a document of this namespace names: it is not there, or only here."""
    full = full_host(host, namespace, mesh.trust_domain)
    found, name = named(mesh, full)
    if found is None:
        hint = "" if "." in host else f"; here it means {full}"
        return f"{shown(host)} is no service and no host of a ServiceEntry{hint}"
    if name != full:
        return f"{shown(host)} works here as {name}, and in Istio it does not; write the full name"
    return ""


def both_seen(one: Document, other: Document) -> bool:
    """Return whether a caller may see both documents, by their ``exportTo``."""
    these, those = (
        {each.metadata.namespace if name == "." else name for name in getattr(each.spec, "export_to", ())} or {"*"}
        for each in (one, other)
    )
    return "*" in these or "*" in those or bool(these & those)


def _hosts(mesh: Mesh, document: Document, spec: VirtualService, batch: set[Key]) -> Odd:
    namespace = document.metadata.namespace
    seen: dict[str, int] = {}
    for index, host in enumerate(spec.hosts):
        full = full_host(host, namespace, mesh.trust_domain)
        if seen.setdefault(full, index) != index:
            yield ("hosts", index), f"is the same host as hosts[{seen[full]}]"
            continue
        found, name = named(mesh, full)
        if ("." not in host and ":" not in host and found is None) or name != full:
            yield ("hosts", index), odd_host(mesh, host, namespace)
        others = [
            key
            for key, other in about(mesh, "routes", full).items()
            if key != document.key and (key not in batch or key < document.key) and both_seen(document, other)
        ]  # of two in a batch the later one is noted
        if others:
            kind, where, name = min(others)
            why = f"{kind} {where}/{name} is for {host} as well; of two that a caller sees the older one counts"
            yield ("hosts", index), f"{why}; with --config, and on ties, the first by namespace and name"


def _gateways(spec: VirtualService) -> Odd:
    for index, name in enumerate(spec.gateways):
        if name != MESH:
            yield ("gateways", index), f"gateways are not supported yet: the routes hold for {MESH} alone"


def _matches(mesh: Mesh, spec: VirtualService) -> Odd:
    kinds: dict[str, Sequence[HTTPRoute | TLSRoute | TCPRoute]] = {"http": spec.http, "tls": spec.tls, "tcp": spec.tcp}
    for kind, routes in kinds.items():
        for number, route in enumerate(routes):
            matches: Sequence[HTTPMatchRequest | L4MatchAttributes | TLSMatchAttributes] = route.match
            for index, match in enumerate(matches):
                at: Path = (kind, number, "match", index)
                yield from _caller(mesh, match, at)
                if isinstance(match, HTTPMatchRequest):
                    yield from _path(match, at)
                    yield from _slow(match, at)
                elif isinstance(match, TLSMatchAttributes):
                    for place, name in enumerate(match.sni_hosts):
                        if parse_ip(name) is not None:
                            yield (*at, "sniHosts", place), f"{name} is an address, which no client sends as a name"


def _slow(match: HTTPMatchRequest, at: Path) -> Odd:
    for field in ("uri", "scheme", "method", "authority"):
        yield from _slow_regex(getattr(match, field), (*at, field))
    for field, texts in (
        ("headers", match.headers), ("withoutHeaders", match.without_headers), ("queryParams", match.query_params),
    ):  # fmt: skip
        for name, text in texts.items():
            yield from _slow_regex(text, (*at, field, name))


def _slow_regex(text: StringMatch | None, at: Path) -> Odd:
    if text is not None and text.regex and not regex_problem(text.regex) and instructions(text.regex) > LARGE:
        why = (
            f"{shown(text.regex)} has more than {LARGE} instructions in RE2, and a long text may take it half a second"
        )
        yield (*at, "regex"), f"{why}; repeat less, or match a prefix"


def _caller(mesh: Mesh, match: HTTPMatchRequest | L4MatchAttributes | TLSMatchAttributes, at: Path) -> Odd:
    if match.gateways and MESH not in match.gateways:
        yield (*at, "gateways"), f"never holds: gateways are not supported yet; for all sidecars write {MESH}"
    if match.source_labels and not _has_service(mesh, match.source_labels):
        why = "match no service of the mesh: callers have the labels of the services they serve"
        yield (*at, "sourceLabels"), why
    if match.source_namespace and not is_namespace(mesh, match.source_namespace):
        yield (*at, "sourceNamespace"), f"no document is in namespace {match.source_namespace}"


def _has_service(mesh: Mesh, labels: Mapping[str, str]) -> bool:
    found = [about(mesh, "label", f"{key}={text}") for key, text in labels.items()]
    return any(labels.items() <= each.metadata.labels.items() for each in min(found, key=len).values())


def _path(match: HTTPMatchRequest, at: Path) -> Odd:
    for field in ("exact", "prefix"):
        text = getattr(match.uri, field, None)
        if text and not text.startswith(("/", "*")):
            yield (*at, "uri", field), f"{shown(text)} matches no path: paths begin with /"
    if match.uri is not None and match.uri.exact == "":
        yield (*at, "uri", "exact"), "is empty, and matches no path"


def _routes(mesh: Mesh, spec: VirtualService, namespace: str) -> Odd:
    for number, route in enumerate(spec.http):
        at: Path = ("http", number)
        yield from _destinations(mesh, route.route, namespace, at)
        mirrors = [((*at, "mirror"), route.mirror)] if route.mirror is not None else []
        for index, mirror in enumerate(route.mirrors):
            mirrors.append(((*at, "mirrors", index, "destination"), mirror.destination))
        own = {_place(mesh, each.destination, namespace) for each in route.route}
        for where, destination in mirrors:
            yield from _destination(mesh, destination, namespace, where)
            if _place(mesh, destination, namespace) in own:
                yield where, "is a destination of the route as well: what is mirrored arrives there twice"
        rewrite = None if route.rewrite is None else route.rewrite.uri_regex_rewrite
        if rewrite is not None:
            for where, why in _slow_regex(StringMatch(regex=rewrite.match), (*at, "rewrite", "uriRegexRewrite")):
                yield (*where[:-1], "match"), why
        yield from _retries(route, at)
        yield from _shares(route, at)
    for number, each in enumerate(spec.tls):
        yield from _destinations(mesh, each.route, namespace, ("tls", number))
    for number, opaque in enumerate(spec.tcp):
        yield from _destinations(mesh, opaque.route, namespace, ("tcp", number))


def _destinations(
    mesh: Mesh, routes: Sequence[HTTPRouteDestination | RouteDestination], namespace: str, at: Path
) -> Odd:
    for index, each in enumerate(routes):
        yield from _destination(mesh, each.destination, namespace, (*at, "route", index, "destination"))
        if len(routes) > 1 and each.weight is None:
            yield (*at, "route", index), "has no weight beside others, so nothing goes there"
        elif len(routes) == 1 and each.weight == 0:
            yield (*at, "route", index, "weight"), "is 0, and yet everything goes there: it is the only destination"


def _destination(mesh: Mesh, destination: Destination, namespace: str, at: Path) -> Odd:
    if why := odd_host(mesh, destination.host, namespace):
        yield (*at, "host"), why
    found, full = named(mesh, full_host(destination.host, namespace, mesh.trust_domain))
    if destination.port is not None and found is not None and destination.port.number not in ports_of(found):
        yield (*at, "port", "number"), f"{destination.port.number} is no port of {full}"
    if destination.subset and all(each.name != destination.subset for each in subsets_of(mesh, full)):
        yield (*at, "subset"), f"{destination.subset} is no subset of a DestinationRule for {full}"


def _place(mesh: Mesh, destination: Destination, namespace: str) -> tuple[str, str, int | None]:
    host = full_host(destination.host, namespace, mesh.trust_domain)
    return host, destination.subset, destination.port.number if destination.port is not None else None


def _retries(route: HTTPRoute, at: Path) -> Odd:
    retries = route.retries
    if retries is None:
        return
    for name in retries.retry_on.split(","):
        if name in RETRY_ON_LATER:
            yield (*at, "retries", "retryOn"), f"{name} is of {RETRY_ON_LATER[name]}, and acts once that is served"
    if retries.retry_remote_localities is not None:
        why = "has no effect yet: endpoints have no localities, and a retry may go to any of them"
        yield (*at, "retries", "retryRemoteLocalities"), why
    if retries.per_try_timeout and route.timeout and duration(retries.per_try_timeout) > duration(route.timeout):
        why = f"{retries.per_try_timeout} is above the timeout of {route.timeout}, which ends the request first"
        yield (*at, "retries", "perTryTimeout"), why


def _shares(route: HTTPRoute, at: Path) -> Odd:
    delay = route.fault.delay if route.fault is not None else None
    abort = route.fault.abort if route.fault is not None else None
    if delay is not None and delay.percent is None and delay.percentage is None:
        yield (*at, "fault", "delay"), "has no percentage, so no request is delayed"
    if abort is not None and abort.percentage is None:
        yield (*at, "fault", "abort"), "has no percentage, so no request is aborted"
    if delay is not None and delay.percent is not None and delay.percentage is not None:
        yield (*at, "fault", "delay", "percent"), "does not count, since percentage is there"
    if route.mirror_percent is not None and route.mirror_percentage is not None:
        yield (*at, "mirrorPercent"), "does not count, since mirrorPercentage is there"
