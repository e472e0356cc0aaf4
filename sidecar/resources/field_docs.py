"""What each field of a document means, in a sentence: for the JSON Schemas that editors read, and for the reference
page. A test holds that each field has one."""

from __future__ import annotations

from typing import Final

from sidecar.resources.authorization import Condition, From, Operation, Rule, Source, To
from sidecar.resources.kinds import (
    AuthorizationPolicy,
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
    WorkloadEntry,
    WorkloadSelector,
)
from sidecar.resources.rate_limits import ByteRate, ConnectionLimit, LimitMatch, LimitOverride, RateLimit, RequestRate
from sidecar.resources.route_field_docs import ROUTE_FIELDS
from sidecar.resources.schema import EndpointSpec, MutualTls, PortSpec

ABOUT: Final[dict[type, dict[str, str]]] = {
    Metadata: {
        "name": "of a Service a DNS label, else labels joined by dots; once in a namespace and kind",
        "namespace": "a DNS label",
        "labels": "of a Service those of its workloads, which selectors of other documents match",
        "annotations": "kept as they are; with istio.io/dry-run: \"true\" an AuthorizationPolicy is judged and refuses "
                       "nothing; others mean nothing here",
    },
    Service: {
        "ports": "one or more",
        "serviceAccounts": "who may serve it: service accounts of its namespace; this or subjectAltNames has an entry",
        "subjectAltNames": "the same as whole SPIFFE ids",
        "addresses": "virtual IP addresses that stand for it; without any it gets one of each family",
        "endpoints": "where it is reached, beside the endpoints that register themselves",
        "exportTo": "namespaces that may see it: names, . for the own one, * for all; without it proxies of other "
                    "namespaces see it only if a Sidecar document of theirs asks",
    },
    PortSpec: {
        "port": "the number by which callers know it",
        "name": "a DNS label; needed where there are several; <protocol> or <protocol>-<suffix> says what is spoken",
        "appProtocol": "what is spoken: http, http2, grpc, grpc-web, https, tls, tcp, mongo, mysql or redis",
        "targetPort": "the app's own port, where it is another",
    },
    EndpointSpec: {
        "address": "an IP address",
        "port": "of the service's only port; where the endpoint is direct its sidecar's port for all of them",
        "ports": "ports by the names of the service's ports",
        "mode": "captured: the app's own port, which rules lead to its sidecar; direct: the sidecar's inbound itself",
        "labels": "for subsets",
        "weight": "how many calls it gets beside those of the others; 1 by default",
    },
    PeerAuthentication: {
        "selector": "the workloads that it is for; without it all of the namespace, in sidecar-system all of the mesh",
        "mtls": "what callers of every port have to bring",
        "portLevelMtls": "the same for single ports, by the port that callers reach; needs a selector",
    },
    Selector: {"matchLabels": "labels that a workload's service has, all of them"},
    MutualTls: {
        "mode": "STRICT: mutual TLS alone; PERMISSIVE: plaintext as well; DISABLE: all goes on as it came; UNSET: as "
                "the next wider document says, else STRICT",
    },
    AuthorizationPolicy: {
        "selector": "the workloads that it applies to; without it all of the namespace, in sidecar-system all of the "
                    "mesh; one in sidecar-system with a selector applies to workloads of any namespace",
        "action": "ALLOW: what a rule matches may pass, and what no ALLOW policy matches is refused; DENY: what a rule "
                  "matches is refused, whatever others allow; AUDIT: what a rule matches is marked",
        "rules": "the policy matches what any of them matches; without rules it matches nothing, so spec: {} allows "
                 "no caller; one empty rule, {}, matches everything",
    },
    Rule: {
        "from": "one of these sources calls; left out: any caller",
        "to": "one of these operations is called; left out: any",
        "when": "all of these conditions hold",
    },
    From: {"source": "all of its fields match; one or more"},
    To: {"operation": "all of its fields match; one or more"},
    Source: {
        "principals": "identities, TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT; cluster.local means the mesh's own trust "
                      "domain; here and below a value is exact, abc* a prefix, *abc a suffix, * anything that is not "
                      "empty",
        "notPrincipals": "none of these",
        "namespaces": "namespaces of the caller's identity",
        "notNamespaces": "none of these",
        "serviceAccounts": "NAMESPACE/ACCOUNT, or ACCOUNT in the policy's namespace; no *, and not with principals or "
                           "namespaces",
        "notServiceAccounts": "none of these",
        "ipBlocks": "IP addresses or CIDRs of the peer of the connection",
        "notIpBlocks": "none of these",
        "remoteIpBlocks": "the same of the original caller: x-forwarded-for, as far as --trusted-proxies wrote it",
        "notRemoteIpBlocks": "none of these",
    },
    Operation: {
        "hosts": "the Host of the request, in any case; without a port it matches any port",
        "notHosts": "none of these",
        "ports": "the app's own port, as text",
        "notPorts": "none of these",
        "methods": "the method of the request",
        "notMethods": "none of these",
        "paths": "the path without the query; segments {*} for one that is not empty, {**} for any number of them",
        "notPaths": "none of these",
    },
    Condition: {
        "key": "request.headers[NAME], source.ip, remote.ip, source.namespace, source.principal, "
               "source.serviceAccount, destination.ip, destination.port or connection.sni",
        "values": "one of these; values or notValues has an entry",
        "notValues": "none of these",
    },
    RateLimitPolicy: {
        "selector": "the workloads that it applies to; without it all of the namespace, in sidecar-system all of the "
                    "mesh; one in sidecar-system with a selector applies to workloads of any namespace",
        "direction": "INBOUND: what others ask of the selected apps; OUTBOUND: what these apps ask of others, captured "
                     "or through the explicit proxy",
        "mode": "ENFORCE; or SHADOW: counted and logged, and never refused",
        "limits": "one or more, 100 at most; a request has to be within all that match it, and is charged to all of "
                  "them or to none",
        "xRateLimitHeaders": "whether a refusal has x-ratelimit-limit, -remaining and -reset, too",
    },
    RateLimit: {
        "name": "a DNS label, once in the policy; what a bucket holds is kept under this name",
        "key": "a bucket for each combination of these: source.principal, source.namespace, source.ip, remote.ip, "
               "request.path, request.method, request.headers[NAME], and with direction OUTBOUND route; a part that is "
               "missing is one shared empty value; without a key there is one bucket",
        "match": "the requests that it is about; without it all",
        "rate": "of requests, for each key",
        "algorithm": "token-bucket: burst at once, then evenly; sliding-window: requests in any period, by two "
                     "counters of which the older is weighted",
        "overrides": "other rates for some sources, each with its own buckets; of several CIDRs the narrowest counts",
        "total": "of requests, over all keys",
        "fairShare": "divide total between the keys that ask: each gets its share, and of the rest what others leave",
        "connections": "of TCP connections, for each key; refused before TLS if the key has no identity in it",
        "bytesPerSecond": "of connections, for each key; they are slowed down to it",
        "prefixLength": "of IPv6 addresses in the key; IPv4 addresses count whole",
        "maxKeys": "keys with a bucket of their own that is not full, 100000 at most; further ones share one; for the "
                   "rate, for each override and for the shares, apart",
    },
    RequestRate: {
        "requests": "one or more",
        "per": "the period, up to 24h: 1s, 500ms, 1m, 1h",
        "burst": "requests at once; by default as requests; not with a sliding window",
    },
    LimitMatch: {
        "methods": "the method; here and below a value is exact, abc* a prefix, *abc a suffix, * anything",
        "paths": "the path without the query; segments {*} for one that is not empty, {**} for any number of them",
        "hosts": "the Host of the request, in any case; without a port it matches any port",
        "headers": "values by the name of the header, all of them",
        "sources": "who asks, as in overrides",
    },
    LimitOverride: {
        "source": "TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT, NAMESPACE/ACCOUNT, ACCOUNT in the policy's namespace, or a "
                  "CIDR; cluster.local means the mesh's own trust domain",
        "requests": "one or more",
        "per": "by default that of rate",
        "burst": "by default as requests",
    },
    ConnectionLimit: {
        "max": "open at a time",
        "perSecond": "accepted in a second, and as many at once",
    },
    ByteRate: {
        "received": "from clients; 4096 or more",
        "sent": "to clients; 4096 or more",
    },
    **ROUTE_FIELDS,
    ServiceEntry: {
        "hosts": "names of the hosts, in lower case; *. in front takes every name below",
        "addresses": "IP addresses that stand for it",
        "ports": "one or more",
        "location": "hosts have no sidecar: what is sent there is sent as the app sends it",
        "resolution": "NONE: where the app was going; STATIC: to the endpoints; DNS: names are looked up, the "
                      "endpoints' or else the one that was called",
        "endpoints": "where its hosts are; not with NONE",
        "workloadSelector": "instead of endpoints: WorkloadEntries of its namespace",
        "exportTo": "namespaces that may see it, as for a Service",
    },
    EntryPort: {
        "number": "the number by which callers know it",
        "name": "a DNS label",
        "protocol": "HTTP, HTTP2, GRPC, GRPC-WEB, HTTPS, TLS, TCP, MONGO, MYSQL or REDIS; left out: by the name",
        "targetPort": "the endpoints' own port, where it is another",
    },
    Host: {
        "address": "an IP address; with resolution DNS a name as well",
        "ports": "ports by the names of the entry's ports",
        "labels": "for subsets",
        "weight": "how many calls it gets beside those of the others; 1 by default",
    },
    WorkloadSelector: {"labels": "labels that it has, all of them"},
    WorkloadEntry: {
        "address": "an IP address, or a name for entries with resolution DNS",
        "ports": "ports by the names of the ports of the ServiceEntry",
        "labels": "by which ServiceEntries select it",
        "weight": "how many calls it gets beside those of the others; 1 by default",
    },
    Sidecar: {
        "workloadSelector": "the workloads that it is for; without it all of the namespace, in sidecar-system all of "
                            "the mesh",
        "egress": "what the proxies know of the mesh; all lists count together",
        "outboundTrafficPolicy": "whom the app may call beside that",
    },
    Egress: {
        "hosts": "NAMESPACE/HOST: . is the own namespace and * any; a host is a full name, *.SUFFIX, or * for all; "
                 "~/* is nothing",
    },
    OutboundTrafficPolicy: {
        "mode": "ALLOW_ANY: anybody; REGISTRY_ONLY: services, service entries and --allow-host; the stricter of this "
                "and --outbound-policy is in force",
    },
}  # fmt: skip
