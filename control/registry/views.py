"""Services and who serves them, as people and programs are shown them. Pure.

Who calls it: ``control.registry.api``. What the service's document says and what was registered stand side by side:
an endpoint without an ``id`` is the document's, which nobody has to be heard for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from control.registry.address_check import RefusedAddress
from control.registry.liveness import Liveness
from control.registry.registration import RegisteredEndpoint
from control.schemas import moment
from sidecar.resources.documents import Document
from sidecar.resources.kinds import Service
from sidecar.resources.schema import EndpointSpec, PortSpec


class EndpointShown(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An endpoint. ``addresses`` are all that it has, where there are several. ``health``: ``healthy``, ``unhealthy``,
    or ``unknown`` if no sidecar checks the app; ``since`` when that is so. ``stale``: it has been silent for longer
    than its ``ttl``, and stays as no other endpoint was heard. ``last_heard`` is left out where it has not been heard
    since the control plane started. Times as in RFC 3339; ``ttl`` in seconds."""

    address: str
    mode: str
    health: str
    addresses: tuple[str, ...] = ()
    id: str = ""
    identity: str = ""
    port: int | None = None
    ports: dict[str, int] = {}
    labels: dict[str, str] = {}
    detail: str = ""
    stale: bool = False
    last_heard: str = ""
    registered: str = ""
    since: str = ""
    ttl: float = 0.0


class ServiceShown(msgspec.Struct, frozen=True, rename="camel"):
    """A service. ``addresses`` stand for it where its document names no ``addresses``."""

    namespace: str
    name: str
    ports: list[PortSpec]
    service_accounts: list[str]
    subject_alt_names: list[str]
    labels: dict[str, str]
    export_to: list[str]
    addresses: list[str]
    virtual_addresses: list[str]
    endpoints: list[EndpointShown]


class ServiceList(msgspec.Struct, frozen=True, omit_defaults=True, rename={"more": "continue"}):
    """A page of services. ``continue`` asks for the next one."""

    items: list[ServiceShown]
    more: str = ""


class RegisteredShown(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a registration: where callers will go, how long it may be silent, and at which of the addresses
    that it named it is not registered."""

    address: str
    addresses: tuple[str, ...]
    ttl: str
    refused: tuple[RefusedAddress, ...] = ()


def service(
    document: Document,
    virtual: Iterable[str],
    endpoints: Iterable[RegisteredEndpoint],
    hearings: Mapping[str, Liveness],
    now: float,
    monotonic: float,
) -> ServiceShown:
    """A service. ``now`` in seconds since the epoch, ``monotonic`` on the clock of the hearings."""
    spec = document.spec
    assert isinstance(spec, Service)
    return ServiceShown(
        namespace=document.metadata.namespace,
        name=document.metadata.name,
        ports=spec.ports,
        service_accounts=spec.service_accounts,
        subject_alt_names=spec.subject_alt_names,
        labels=document.metadata.labels,
        export_to=spec.export_to,
        addresses=spec.addresses,
        virtual_addresses=[] if spec.addresses else list(virtual),
        endpoints=[
            *(_written(each) for each in spec.endpoints),
            *(_registered(each, hearings.get(each.key), now, monotonic) for each in endpoints),
        ],
    )


def _written(each: EndpointSpec) -> EndpointShown:
    return EndpointShown(each.address, each.mode, "unknown", port=each.port, ports=each.ports, labels=each.labels)


def _registered(each: RegisteredEndpoint, hearing: Liveness | None, now: float, monotonic: float) -> EndpointShown:
    heard = hearing is not None and hearing.since is not None
    return EndpointShown(
        address=each.address,
        addresses=each.addresses if each.others else (),
        mode=each.mode,
        health=each.health,
        id=each.id,
        identity=each.identity,
        port=each.port,
        ports=each.ports,
        labels=each.labels,
        detail=hearing.detail if hearing is not None and heard else each.detail,
        stale=hearing is not None and hearing.stale(monotonic),
        last_heard=moment(now - (monotonic - hearing.at)) if hearing is not None and heard else "",
        registered=moment(each.registered),
        since=moment(each.changed),
        ttl=each.ttl,
    )
