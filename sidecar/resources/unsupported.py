"""What is known of documents and not supported: each is an error that names it, and never passed over in silence.

The tables are Istio's reference of these kinds and Kubernetes' of metadata. A key is a field, or ``field=value`` where
only one value of it is not supported.
"""

from __future__ import annotations

from typing import Final

from sidecar.resources.authorization import Source
from sidecar.resources.destination_rule import (
    BackendRetry,
    LoadBalancerSettings,
    PortTrafficPolicy,
    RetryBudget,
    RetryRatioBudget,
    Subset,
    TrafficPolicy,
)
from sidecar.resources.kinds import (
    AuthorizationPolicy,
    BackendTrafficPolicy,
    DestinationRule,
    Egress,
    EntryPort,
    Host,
    Metadata,
    OutboundTrafficPolicy,
    PeerAuthentication,
    RateLimitPolicy,
    Selector,
    Service,
    ServiceEntry,
    Sidecar,
    VirtualService,
    WorkloadEntry,
    WorkloadSelector,
)
from sidecar.resources.rate_limits import RateLimit
from sidecar.resources.schema import KNOWN as OF_MESH_FILES
from sidecar.resources.schema import EndpointSpec, PortSpec
from sidecar.resources.virtual_service import (
    Abort,
    CorsPolicy,
    Delay,
    Destination,
    HTTPMatchRequest,
    HTTPRedirect,
    HTTPRoute,
    L4MatchAttributes,
    PortSelector,
    StringMatch,
    TLSMatchAttributes,
)

_LATER: Final = "is not supported yet; leave it out"
_PLAIN: Final = (
    "is not supported yet: hosts of a ServiceEntry have no sidecar, so nobody shows an identity; leave it out"
)

_JWT: Final = "is not supported yet: no JSON Web Token is read"
_TRUST_DOMAINS: Final = 'is not supported yet; write principals, for example "TRUST-DOMAIN/*"'

_UPSTREAMS: Final = "is not supported yet: upstreams are neither limited nor ejected; leave it out"
_TLS: Final = (
    "is not supported yet: services with a sidecar are called with mutual TLS, and other hosts as the app speaks; "
    "leave it out"
)
_SUBNET: Final = "is not supported; write sourceLabels or sourceNamespace"
_PER_POLICY: Final = {"connectionPool": _UPSTREAMS, "outlierDetection": _UPSTREAMS, "tls": _TLS}

SET_BY_SERVERS: Final = frozenset(
    {"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink"}
)
"""Of metadata: what is left aside, since a server adds it to what it shows."""

_WORKLOAD: Final = {
    "locality": _LATER, "network": _LATER, "serviceAccount": _PLAIN,
    "port": "is written ports here, by the names of the ports",
    "mode": "is not a field here: nobody of these has a sidecar",
}  # fmt: skip

KEYS: Final[dict[str, str]] = {
    "request.auth.": _JWT,
    "experimental.envoy.filters.": _LATER,
    "source.trustDomain": 'is not supported yet; write source.principal, for example with "TRUST-DOMAIN/*"',
    "destination.namespace": "is written as the namespace of the policy",
    "destination.labels[": "is written in spec.selector",
    "destination.name": "is not supported; write a selector",
    "destination.user": "is not supported; write a selector",
}
"""Keys of a condition that Istio knows or knew, by their beginnings, and what to say of them."""

KNOWN: Final[dict[type, dict[str, str]]] = {
    PortSpec: OF_MESH_FILES[PortSpec],
    EndpointSpec: OF_MESH_FILES[EndpointSpec],
    Metadata: {
        "ownerReferences": _LATER, "finalizers": _LATER, "generateName": "is not supported yet; give it a name",
        "deletionTimestamp": _LATER, "deletionGracePeriodSeconds": _LATER, "clusterName": _LATER,
    },
    Service: {
        "selector": "is not supported yet; endpoints are registered, or listed in endpoints",
        "clusterIP": "is written addresses here, a list", "clusterIPs": "is written addresses here",
        "type": _LATER, "externalName": "is not supported; write a ServiceEntry", "externalIPs": _LATER,
        "sessionAffinity": _LATER, "sessionAffinityConfig": _LATER, "loadBalancerIP": _LATER,
        "loadBalancerClass": _LATER, "loadBalancerSourceRanges": _LATER, "allocateLoadBalancerNodePorts": _LATER,
        "externalTrafficPolicy": _LATER, "internalTrafficPolicy": _LATER, "healthCheckNodePort": _LATER,
        "ipFamilies": _LATER, "ipFamilyPolicy": _LATER, "publishNotReadyAddresses": _LATER,
        "trafficDistribution": _LATER, "hosts": "is not a field here; a service has a name and a namespace",
        "name": "is written in metadata", "namespace": "is written in metadata", "labels": "is written in metadata",
    },
    Selector: {"matchExpressions": "is not supported yet; write matchLabels"},
    PeerAuthentication: {"targetRef": _LATER, "targetRefs": _LATER},
    AuthorizationPolicy: {
        "action=CUSTOM": "is not supported yet; write ALLOW, DENY or AUDIT",
        "provider": "is not supported yet, since it is for action CUSTOM; leave it out",
        "targetRef": _LATER, "targetRefs": _LATER,
    },
    Source: {
        "requestPrincipals": _JWT, "notRequestPrincipals": _JWT,
        "trustDomains": _TRUST_DOMAINS, "notTrustDomains": _TRUST_DOMAINS,
    },
    RateLimitPolicy: {"targetRef": _LATER, "targetRefs": _LATER, "rateLimits": "is written limits here"},
    RateLimit: {
        "maxTokens": "is written rate.burst here", "fillInterval": "is written rate.per here",
        "tokensPerFill": "is written rate.requests here", "limit": "is written rate here",
    },
    VirtualService: {
        "host": "is written hosts here, a list", "gateway": "is written gateways here, a list",
        "routes": "is written http, tcp or tls here", "selector": _LATER, "parentRefs": "is written gateways here",
    },
    HTTPRoute: {
        "delegate": "is not supported yet; write the routes of the delegate here",
        "websocketUpgrade": "is not supported any more: a WebSocket needs no word; leave it out",
        "appendHeaders": "is written headers.request.add here",
        "appendRequestHeaders": "is written headers.request.add here",
        "appendResponseHeaders": "is written headers.response.add here",
        "removeRequestHeaders": "is written headers.request.remove here",
        "removeResponseHeaders": "is written headers.response.remove here",
        "retry": "is written retries here", "matches": "is written match here", "filters": _LATER,
        "backendRefs": "is written route here", "timeouts": "is written timeout and retries.perTryTimeout here",
    },
    HTTPMatchRequest: {
        "statPrefix": "is not supported yet: metrics name the route, http[].name; leave it out",
        "path": "is written uri here", "host": "is written authority here", "sourceSubnet": _SUBNET,
    },
    StringMatch: {"suffix": "is not supported; write a regex", "ignoreCase": "is not supported; write (?i) in a regex"},
    Destination: {"name": "is written host here", "namespace": "is a part of the host here: NAME.NAMESPACE.svc...."},
    PortSelector: {"name": "is not supported; write number"},
    HTTPRedirect: {"redirectPort": "is written port here", "statusCode": "is written redirectCode here"},
    Delay: {"exponentialDelay": "is not supported yet; write fixedDelay"},
    Abort: {
        "grpcStatus": "is not supported yet: no gRPC is served; write httpStatus",
        "http2Error": "is not supported yet: no HTTP/2 is served; write httpStatus",
        "percent": "is written percentage: {value: NUMBER} here",
    },
    CorsPolicy: {"allowOrigin": "is not supported any more; write allowOrigins, with exact, prefix or regex each"},
    L4MatchAttributes: {"sourceSubnet": _SUBNET},
    TLSMatchAttributes: {"sourceSubnet": _SUBNET, "sni": "is written sniHosts here, a list"},
    DestinationRule: {
        "hosts": "is written host here, one for each document", "selector": "is written workloadSelector here",
    },
    TrafficPolicy: {
        **_PER_POLICY, "tunnel": "is not supported yet; leave it out",
        "proxyProtocol": "is not supported yet; leave it out",
    },
    PortTrafficPolicy: {**_PER_POLICY, "retryBudget": "is of the whole destination; write it in trafficPolicy"},
    LoadBalancerSettings: {
        "consistentHash": _LATER, "localityLbSetting": _LATER, "warmup": _LATER, "warmupDurationSecs": _LATER,
    },
    Subset: {"selector": "is written labels here"},
    RetryBudget: {
        "budgetPercent": "is written percent here",
        **dict.fromkeys(("retryRatio", "minRetriesPerSecond", "ttl"), "is a field of a BackendTrafficPolicy"),
    },
    BackendTrafficPolicy: {
        "targetRefs": "is written host here", "targetRef": "is written host here", "hosts": "is written host here",
    },
    RetryRatioBudget: dict.fromkeys(("percent", "minRetryConcurrency"), "is a field of a DestinationRule, retryBudget"),
    BackendRetry: dict.fromkeys(
        ("attempts", "perTryTimeout", "retryOn", "backoff"), "is a field of a VirtualService, http[].retries"
    ),
    ServiceEntry: {
        "subjectAltNames": _PLAIN,
        "location=MESH_INTERNAL": "is not supported yet: where there are sidecars write a Service, and where there are "
                                  "none MESH_EXTERNAL, since plaintext goes there",
        "resolution=DNS_ROUND_ROBIN": "is not supported yet; write DNS",
        "resolution=DYNAMIC_DNS": "is not supported yet; write NONE",
    },
    EntryPort: {
        "port": "is written number here", "appProtocol": "is written protocol here",
        "protocol=UDP": "is not supported yet",
    },
    Host: _WORKLOAD,
    WorkloadEntry: _WORKLOAD,
    WorkloadSelector: {"matchLabels": "is written labels here", "matchExpressions": _LATER},
    Sidecar: {
        "ingress": _LATER, "inboundConnectionPool": _LATER,
        "selector": "is written workloadSelector here",
    },
    Egress: {
        "port": "is not supported yet: all ports of a host are meant; leave it out",
        "bind": _LATER, "captureMode": _LATER,
    },
    OutboundTrafficPolicy: {"egressProxy": _LATER},
}  # fmt: skip

_KIND_LATER: Final = "is not supported yet"

OTHER_KINDS: Final[dict[str, str]] = {
    kind: f"{kind} {_KIND_LATER}"
    for kind in (
        "EnvoyFilter", "Gateway", "GatewayClass", "GRPCRoute", "HTTPRoute",
        "ProxyConfig", "ReferenceGrant", "RequestAuthentication", "TCPRoute", "Telemetry",
        "TLSRoute", "WasmPlugin", "WorkloadGroup",
    )
} | {
    "List": "List is not supported yet; write the documents one after the other, with --- between them",
    **dict.fromkeys(
        ("ConfigMap", "Deployment", "Endpoints", "EndpointSlice", "Ingress", "Namespace", "Pod", "Secret",
         "ServiceAccount", "StatefulSet"),
        "is a kind of Kubernetes', which nobody reads here",
    ),
}  # fmt: skip
"""Kinds that people have, and what to say of them."""
