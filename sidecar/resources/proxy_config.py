"""The mesh as one proxy is to see it: what the control plane sends, and what documents amount to without one. Pure.

Who makes it: ``visibility``, from documents and endpoints. Who reads it: ``compile``, which makes the Snapshot. On the
wire it is JSON, ``{"schema": "1.4", "version": "EPOCH.N", "proxy": "spiffe://...", "issued": SECONDS, ...}``; a field
that is not known is refused, since something may have to be enforced by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from sidecar.resources.authorization import PolicySpec
from sidecar.resources.destination_rule import BackendTrafficPolicySpec, DestinationRuleSpec
from sidecar.resources.rate_limits import LimitPolicySpec
from sidecar.resources.schema import EndpointSpec, PeerAuthenticationSpec, PortSpec, ServiceSpec
from sidecar.resources.snapshot import Policy as Policy
from sidecar.resources.snapshot import Resolution as Resolution
from sidecar.resources.virtual_service import VirtualServiceSpec


class RegisteredSpec(EndpointSpec, frozen=True):
    """An endpoint that registered itself, and when: ``since``, in seconds since the epoch; 0: it was written.

    ``also_at`` are further addresses of it. ``unwell``: it is not called, but what is at its addresses is the service
    all the same, so that no call to them goes out in plaintext.
    """

    since: float = 0.0
    also_at: list[str] = msgspec.field(default_factory=list)
    unwell: bool = False

    @property
    def addresses(self) -> list[str]:
        """All of them."""
        return [self.address, *self.also_at]


class ResolvedService(ServiceSpec, frozen=True):
    """A service with all of its endpoints, written and registered."""

    endpoints: list[RegisteredSpec] = msgspec.field(default_factory=list)  # type: ignore[assignment]


def told(spec: ServiceSpec, endpoints: Iterable[EndpointSpec], addresses: list[str]) -> ResolvedService:
    """The service as it is told, with these endpoints and addresses in place of its own."""
    found = [
        each if isinstance(each, RegisteredSpec) else RegisteredSpec(**msgspec.structs.asdict(each))
        for each in endpoints
    ]
    return ResolvedService(**msgspec.structs.asdict(spec) | {"endpoints": found, "addresses": addresses})


class EntrySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"):
    """Hosts without a sidecar, as a ServiceEntry has them: spoken to as the app speaks, without mutual TLS.

    ``hosts`` are names, the first of which stands for all; ``*.`` in front takes every name below. ``addresses`` are IP
    addresses that stand for it. ``resolution``: NONE goes where the app was going, DNS looks up the name that the app
    called, or the endpoints' names; STATIC goes to ``endpoints``.
    """

    name: str
    hosts: list[str]
    ports: list[PortSpec]
    namespace: str = "default"
    addresses: list[str] = []
    resolution: Resolution = "NONE"
    endpoints: list[EndpointSpec] = []


class ProxyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"):
    """All that one proxy obeys. ``version`` is ``EPOCH.N``; ``proxy`` the SPIFFE id that it is for; ``issued`` in
    seconds since the epoch. ``outbound_policy`` None: no document says anything of it. ``authorization``: every policy
    that applies to the proxy, in the order in which records name them; ``rate_limits``: likewise.

    ``virtual_services``: those that the proxy sees, the older first; of two for one host the first counts.
    ``destination_rules``: first those of the proxy's own namespace, then those of other namespaces, then those of
    ROOT_NAMESPACE; in each of these three the older first. For a host, in this order of ranks: the proxy's namespace,
    the namespace of the host's service or entry, ROOT_NAMESPACE. The first rank that has a rule for the host decides
    alone. In it the most specific ``host`` counts, and all rules with that ``host`` are merged: the first
    ``trafficPolicy`` counts, and subsets are appended unless one of their name is there. A rule of another namespace
    than these three is for other hosts. ``backend_traffic_policies``: likewise, and of one host and rank the first
    counts. ``workload_labels`` are those of each service of the workload, for ``sourceLabels``; they are sent only
    beside VirtualServices.
    """

    schema: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,4}\.[0-9]{1,4}$")]
    version: str
    proxy: str
    issued: float
    trust_domain: str
    services: list[ResolvedService] = []
    service_entries: list[EntrySpec] = []
    peer_authentication: PeerAuthenticationSpec = PeerAuthenticationSpec()
    outbound_policy: Policy | None = None
    workload_labels: list[dict[str, str]] = []
    authorization: list[PolicySpec] = []
    rate_limits: list[LimitPolicySpec] = []
    virtual_services: list[VirtualServiceSpec] = []
    destination_rules: list[DestinationRuleSpec] = []
    backend_traffic_policies: list[BackendTrafficPolicySpec] = []
