"""What may be written in a mesh file, as frozen structs; and what we know of the field, but do not support.

The names are the field's own: a service and its ports as Kubernetes has them, endpoints as in WorkloadEntry, modes as
in PeerAuthentication. ``validation`` makes these structs of plain values; whether what they say holds together is for
``compile`` to see.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from sidecar.resources.snapshot import Reach

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
EndpointWeight = Annotated[int, msgspec.Meta(ge=1, le=4_294_967_295)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"):
    """A mapping whose every field is known."""


class PortSpec(_Part, frozen=True):
    """A port of a service. ``target_port`` is the app's own; None: the same."""

    port: Port
    name: str = ""
    app_protocol: str = ""
    target_port: Port | None = None


class EndpointSpec(_Part, frozen=True):
    """Where a service is reached: ``port`` for its only port, or for all of them where it is ``direct``; ``ports`` by
    the names of the service's ports; neither: its ``targetPort``. ``weight``: how many calls it gets, beside those of
    the others."""

    address: str
    port: Port | None = None
    ports: dict[str, Port] = {}
    mode: Reach = "captured"
    labels: dict[str, str] = {}
    weight: EndpointWeight = 1


class ServiceSpec(_Part, frozen=True):
    """A service, and who may serve it: names of service accounts of its namespace, whole SPIFFE ids, or both."""

    name: str
    ports: list[PortSpec]
    namespace: str = "default"
    service_accounts: list[str] = []
    subject_alt_names: list[str] = []
    addresses: list[str] = []
    endpoints: list[EndpointSpec] = []


class MutualTls(_Part, frozen=True):
    """``UNSET`` inherits."""

    mode: Literal["UNSET", "STRICT", "PERMISSIVE", "DISABLE"] = "UNSET"


class PeerAuthenticationSpec(_Part, frozen=True):
    """What this sidecar's own ports take; by the port that callers reach."""

    mtls: MutualTls = MutualTls()
    port_level_mtls: dict[Port, MutualTls] = {}


class MeshFile(_Part, frozen=True):
    """The whole file."""

    schema: str = "1.0"
    trust_domain: str = "cluster.local"
    services: list[ServiceSpec] = []
    peer_authentication: PeerAuthenticationSpec = PeerAuthenticationSpec()


_DOCUMENTS: Final = "documents are not supported yet; a mesh file has services and peerAuthentication"
_LATER: Final = "is not supported yet; leave it out"

KNOWN: Final[dict[type, dict[str, str]]] = {
    MeshFile: {
        "apiVersion": _DOCUMENTS, "kind": _DOCUMENTS, "metadata": _DOCUMENTS, "spec": _DOCUMENTS,
        "workloads": _LATER, "destinationRules": _LATER, "virtualServices": _LATER, "authorizationPolicies": _LATER,
        "outboundTrafficPolicy": "is not read from here; say --outbound-policy",
    },
    ServiceSpec: {
        "hosts": "is not supported yet; a service has a name and a namespace",
        "location": _LATER, "resolution": _LATER, "exportTo": _LATER, "type": _LATER, "externalName": _LATER,
        "sessionAffinity": _LATER, "trafficPolicy": _LATER, "subsets": _LATER,
        "selector": "is not supported yet; list the endpoints",
        "workloadSelector": "is not supported yet; list the endpoints",
        "clusterIP": "is written addresses here, a list",
        "clusterIPs": "is written addresses here",
    },
    PortSpec: {
        "number": "is written port here",
        "protocol": "is written appProtocol here",
        "nodePort": _LATER,
    },
    EndpointSpec: {
        "locality": _LATER, "network": _LATER, "ttl": _LATER, "hostname": _LATER,
        "serviceAccount": "is not taken from an endpoint: the service lists who may serve it, in serviceAccounts",
    },
    PeerAuthenticationSpec: {
        "selector": "is not supported yet; the file is for one sidecar, and so is this",
    },
}  # fmt: skip
"""Fields of the field that we do not take: (struct, field) -> what to say of it."""
