"""The kinds of documents, as frozen structs: what may be written below ``spec``, and in ``metadata``.

Names and forms are the field's own: Istio's for the kinds that it has, Kubernetes' for metadata; ``Service`` is ours,
since here a service says itself who may serve it. ``documents`` makes these of plain values, ``unsupported`` has what
is known of each kind but not supported, ``field_rules`` judges what stands in the fields.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from sidecar.resources.authorization import Action, Rule
from sidecar.resources.destination_rule import BackendRetry, RetryRatioBudget, Subset, TrafficPolicy
from sidecar.resources.rate_limits import Direction, LimitMode, RateLimit
from sidecar.resources.schema import EndpointSpec, EndpointWeight, MutualTls, Port, PortSpec
from sidecar.resources.snapshot import Policy, Resolution
from sidecar.resources.virtual_service import HTTPRoute, TCPRoute, TLSRoute

ROOT_NAMESPACE: Final = "sidecar-system"  # where a document without a selector is for the whole mesh

DRY_RUN: Final = "istio.io/dry-run"  # the annotation of an AuthorizationPolicy

_ISTIO_SECURITY: Final = ("security.istio.io/v1", "security.istio.io/v1beta1")
_ISTIO_NETWORKING: Final = (
    "networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3",
)  # fmt: skip


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"):
    """A mapping whose every field is known."""


class Metadata(_Part, frozen=True):
    """Who a document is. ``annotations`` are kept, and mean nothing here but for DRY_RUN."""

    name: str
    namespace: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Service(_Part, frozen=True):
    """A service of the mesh: its ports, and who may serve it. ``metadata.labels`` are those of its workloads, for the
    selectors of other documents. ``endpoints`` are those that nobody has to register."""

    ports: list[PortSpec]
    service_accounts: list[str] = []
    subject_alt_names: list[str] = []
    addresses: list[str] = []
    endpoints: list[EndpointSpec] = []
    export_to: list[str] = []


class Selector(_Part, frozen=True):
    """Workloads by their labels; without any: all."""

    match_labels: dict[str, str] = {}


class PeerAuthentication(_Part, frozen=True):
    """What callers have to bring: to the workloads selected, else to all of its namespace, else to all of the mesh."""

    selector: Selector = Selector()
    mtls: MutualTls = MutualTls()
    port_level_mtls: dict[Port, MutualTls] = {}


class AuthorizationPolicy(_Part, frozen=True):
    """Who may call what: at the workloads selected, else in all of its namespace, else in all of the mesh. All policies
    that apply to a workload hold together. Without rules a policy matches nothing."""

    selector: Selector = Selector()
    action: Action = "ALLOW"
    rules: list[Rule] = []


class RateLimitPolicy(_Part, frozen=True):
    """How much callers may ask for: of the workloads selected, else of all in its namespace, else of all in the mesh;
    with direction OUTBOUND, how much these workloads may ask of others. All limits of all policies hold together."""

    limits: list[RateLimit]
    selector: Selector = Selector()
    direction: Direction = "INBOUND"
    mode: LimitMode = "ENFORCE"
    x_rate_limit_headers: bool = False


class VirtualService(_Part, frozen=True):
    """How calls to these hosts are routed: by HTTP requests (``http``), by bytes (``tcp``) or by the SNI of an app's
    own TLS (``tls``). A host without a dot is a service of the document's namespace."""

    hosts: list[str] = []
    gateways: list[str] = []
    http: list[HTTPRoute] = []
    tls: list[TLSRoute] = []
    tcp: list[TCPRoute] = []
    export_to: list[str] = []


class DestinationRule(_Part, frozen=True):
    """How a host is called once it has been chosen, and the subsets of its endpoints. ``workload_selector``: by these
    workloads of the document's namespace alone."""

    host: str
    traffic_policy: TrafficPolicy | None = None
    subsets: list[Subset] = []
    export_to: list[str] = []
    workload_selector: Selector | None = None


class BackendTrafficPolicy(_Part, frozen=True):
    """What a DestinationRule can't say of a host: Linkerd's form of a retry budget, and which routes are retried though
    their requests are not idempotent."""

    host: str
    retry_budget: RetryRatioBudget | None = None
    retry: BackendRetry = BackendRetry()
    export_to: list[str] = []


class EntryPort(_Part, frozen=True):
    """A port of a ServiceEntry. ``protocol`` left out: by the name. ``target_port``: the endpoints' own, where it is
    another."""

    number: Port
    name: str
    protocol: str = ""
    target_port: Port | None = None


class Host(_Part, frozen=True):
    """An endpoint of a ServiceEntry: an IP address, or with resolution DNS a name. ``ports`` by the names of the
    entry's; ``weight`` as of a service's endpoint."""

    address: str
    ports: dict[str, Port] = {}
    labels: dict[str, str] = {}
    weight: EndpointWeight = 1


class WorkloadSelector(_Part, frozen=True):
    """Workloads of the document's own namespace that have all of these labels."""

    labels: dict[str, str]


class ServiceEntry(_Part, frozen=True):
    """Hosts without a sidecar, which are spoken to as the app speaks, without mutual TLS."""

    hosts: list[str]
    ports: list[EntryPort]
    addresses: list[str] = []
    location: Literal["MESH_EXTERNAL"] = "MESH_EXTERNAL"
    resolution: Resolution = "NONE"
    endpoints: list[Host] = []
    workload_selector: WorkloadSelector | None = None
    export_to: list[str] = []


class WorkloadEntry(_Part, frozen=True):
    """A machine without a sidecar, which ServiceEntries of its namespace select by its labels."""

    address: str
    ports: dict[str, Port] = {}
    labels: dict[str, str] = {}
    weight: EndpointWeight = 1


class Egress(_Part, frozen=True):
    """What may be known: ``NAMESPACE/HOST``, where ``.`` is the own namespace, ``*`` any, and a host ``*`` all of
    them."""

    hosts: list[str]


class OutboundTrafficPolicy(_Part, frozen=True):
    """Whether hosts that nobody described may be called."""

    mode: Policy


class Sidecar(_Part, frozen=True):
    """What the selected proxies are to know, and whom else their apps may call. A field that is left out is taken from
    the next wider document: a namespace's, then the mesh's."""

    workload_selector: WorkloadSelector | None = None
    egress: list[Egress] = []
    outbound_traffic_policy: OutboundTrafficPolicy | None = None


Spec = (
    Service
    | PeerAuthentication
    | AuthorizationPolicy
    | RateLimitPolicy
    | VirtualService
    | DestinationRule
    | BackendTrafficPolicy
    | ServiceEntry
    | WorkloadEntry
    | Sidecar
)
Kind = Literal[
    "Service", "PeerAuthentication", "AuthorizationPolicy", "RateLimitPolicy", "VirtualService", "DestinationRule",
    "BackendTrafficPolicy", "ServiceEntry", "WorkloadEntry", "Sidecar",
]  # fmt: skip

KINDS: Final[dict[str, type[Spec]]] = {
    "Service": Service,
    "PeerAuthentication": PeerAuthentication,
    "AuthorizationPolicy": AuthorizationPolicy,
    "RateLimitPolicy": RateLimitPolicy,
    "VirtualService": VirtualService,
    "DestinationRule": DestinationRule,
    "BackendTrafficPolicy": BackendTrafficPolicy,
    "ServiceEntry": ServiceEntry,
    "WorkloadEntry": WorkloadEntry,
    "Sidecar": Sidecar,
}
API_VERSIONS: Final[dict[str, tuple[str, ...]]] = {
    "Service": ("sidecar/v1",),
    "PeerAuthentication": _ISTIO_SECURITY,
    "AuthorizationPolicy": _ISTIO_SECURITY,
    "RateLimitPolicy": ("sidecar/v1",),
    "VirtualService": _ISTIO_NETWORKING,
    "DestinationRule": _ISTIO_NETWORKING,
    "BackendTrafficPolicy": ("sidecar/v1",),
    "ServiceEntry": _ISTIO_NETWORKING,
    "WorkloadEntry": _ISTIO_NETWORKING,
    "Sidecar": _ISTIO_NETWORKING,
}
