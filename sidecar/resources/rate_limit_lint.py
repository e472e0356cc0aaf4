"""What is legal in a RateLimitPolicy, and yet most likely not what was meant. Pure. Called by ``lint``."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.durations import positive_duration
from sidecar.resources.authorization_lint import services_of
from sidecar.resources.conflicts import Finding
from sidecar.resources.documents import Document
from sidecar.resources.kinds import RateLimitPolicy, Service
from sidecar.resources.mesh_documents import Mesh
from sidecar.resources.protocols import protocol_of
from sidecar.resources.rate_limit_rules import SOURCE_PARTS, rate_of
from sidecar.resources.rate_limits import RateLimit, RequestRate
from sidecar.resources.validation import Path


def lint_limits(mesh: Mesh, documents: list[Document]) -> Iterator[Finding]:
    """All that is odd in these policies."""
    for document in documents:
        spec = document.spec
        assert isinstance(spec, RateLimitPolicy)
        for index, limit in enumerate(spec.limits):
            path: Path = ("spec", "limits", index)
            for where, why in _odd(spec, limit):
                yield Finding(document.key, (*path, *where), why)
            if spec.direction == "INBOUND" and limit.rate is not None and (why := _opaque(mesh, document)):
                yield Finding(document.key, (*path, "rate"), why)


def _odd(spec: RateLimitPolicy, limit: RateLimit) -> Iterator[tuple[Path, str]]:
    if limit.total is not None:
        whole = _per_second(limit.total)
        if limit.rate is not None and _per_second(limit.rate) > whole:
            yield ("rate",), "is above the total, which is reached first"
        for index, each in enumerate(limit.overrides if limit.rate is not None else ()):
            if _per_second(rate_of(limit, each)) > whole:
                yield ("overrides", index), "is above the total, which is reached first"
    chosen = [part for part in limit.key if part.startswith(("request.", "remote."))]
    if chosen and len(chosen) == len(limit.key):
        yield ("key",), "is chosen by the caller alone, who can have a fresh bucket at any time; add source.principal"
    if spec.direction == "OUTBOUND" and (found := [part for part in limit.key if part in SOURCE_PARTS]):
        why = f"has {found[0]}, and there is one source with direction OUTBOUND: the app beside the proxy"
        yield ("key",), why


def _per_second(rate: RequestRate) -> float:
    return rate.requests / positive_duration(rate.per)


def _opaque(mesh: Mesh, policy: Document) -> str:
    """The service whose ports are all declared tcp: there, no request is seen."""
    for service in services_of(mesh, policy):
        assert isinstance(service.spec, Service)
        ports = service.spec.ports
        if all(protocol_of(port.port, port.name, port.app_protocol) == "tcp" for port in ports):
            where = f"{service.metadata.namespace}/{service.metadata.name}"
            return f"is of requests, and the ports of service {where} are tcp: write connections for that"
    return ""
