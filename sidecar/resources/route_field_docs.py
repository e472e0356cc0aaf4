"""What each field of VirtualService, DestinationRule and BackendTrafficPolicy means, in a sentence. A part of
``field_docs``."""

from __future__ import annotations

from typing import Final

from sidecar.resources.destination_rule import (
    BackendRetry,
    LoadBalancerSettings,
    PortTrafficPolicy,
    RetryBudget,
    RetryRatioBudget,
    Subset,
    TrafficPolicy,
)
from sidecar.resources.kinds import BackendTrafficPolicy, DestinationRule, VirtualService
from sidecar.resources.virtual_service import (
    Abort,
    CorsPolicy,
    Delay,
    Destination,
    HeaderOperations,
    Headers,
    HTTPBody,
    HTTPDirectResponse,
    HTTPFaultInjection,
    HTTPMatchRequest,
    HTTPMirrorPolicy,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
    HTTPRoute,
    HTTPRouteDestination,
    L4MatchAttributes,
    Percent,
    PortSelector,
    RegexRewrite,
    RouteDestination,
    StringMatch,
    TCPRoute,
    TLSMatchAttributes,
    TLSRoute,
)

_EXPORT: Final = "namespaces whose proxies obey it: names, . for the own one, * for all; without it all"
_WEIGHT: Final = "its share of the sum of all weights; a single destination gets everything"
_CALLER: Final = {
    "port": "the port that the app calls",
    "sourceLabels": "labels that one of the caller's services has, all of them",
    "gateways": "mesh, or nothing: gateways are not supported yet, so a match without mesh never holds",
    "sourceNamespace": "the namespace of the caller",
}

ROUTE_FIELDS: Final[dict[type, dict[str, str]]] = {
    VirtualService: {
        "hosts": "one or more: names, *. and a name, or IP addresses; a name without a dot is a service of the "
                 "document's namespace",
        "gateways": "mesh, the default: all sidecars; others are not supported yet, and only noted beside mesh",
        "http": "routes of requests; the first that matches counts",
        "tls": "routes of an app's own TLS, by its server name",
        "tcp": "routes of opaque bytes",
        "exportTo": _EXPORT,
    },
    HTTPRoute: {
        "name": "for logs, metrics and nonIdempotentRoutes of a BackendTrafficPolicy",
        "match": "one of these holds; left out: every request",
        "route": "destinations by weight; this, redirect or directResponse",
        "redirect": "answer with a redirect",
        "directResponse": "answer without any upstream",
        "rewrite": "another path or authority for the upstream",
        "timeout": "from the end of the request to the last byte of the response, over all tries; left out: none",
        "retries": "left out: 2, on connect-failure and on a reset before any byte was taken",
        "fault": "delays and errors on purpose",
        "mirror": "a destination of copies, whose answers are dropped",
        "mirrors": "the same for several, each with its share",
        "mirrorPercentage": "the share of mirror; left out: all",
        "mirrorPercent": "the same in whole percents; mirrorPercentage counts before it",
        "corsPolicy": "which origins browsers may call from",
        "headers": "changes to fields, for all destinations",
    },
    HTTPMatchRequest: {
        "name": "for explain; the name of a route is http[].name",
        "uri": "the path, without the query",
        "scheme": "http or https",
        "method": "the method of the request",
        "authority": "the Host of the request",
        "headers": "conditions by the name of the header; without any of exact, prefix, regex: it is there",
        "queryParams": "conditions by the name of the parameter, likewise",
        "ignoreUriCase": "whether case counts in uri; a regex says it itself, with (?i)",
        "withoutHeaders": "conditions that must not hold",
        **_CALLER,
    },
    StringMatch: {
        "exact": "all of the text",
        "prefix": "its beginning",
        "regex": "all of the text, by RE2, 1024 characters at most",
    },
    HTTPRouteDestination: {
        "destination": "where requests go",
        "weight": _WEIGHT,
        "headers": "changes to fields for this destination alone",
    },
    Destination: {
        "host": "a service or a host of a ServiceEntry; a name without a dot is a service of the document's namespace",
        "subset": "one of the host's DestinationRule; left out: all endpoints",
        "port": "left out: the only port, or that which the app calls",
    },
    PortSelector: {"number": "the number by which callers know it"},
    Headers: {"request": "changes before it is sent", "response": "changes before the app gets it"},
    HeaderOperations: {
        "set": "values by name, in place of all that are there; of requests also Host; %% is a percent sign",
        "add": "values by name, beside those that are there",
        "remove": "names",
    },
    HTTPRedirect: {
        "uri": "another path",
        "prefixRewrite": "another beginning of the path, in place of the prefix that matched",
        "authority": "another host",
        "port": "another port",
        "derivePort": "FROM_PROTOCOL_DEFAULT: that of the scheme; FROM_REQUEST_PORT: that of the request",
        "scheme": "http or https",
        "redirectCode": "the status; left out: 301",
    },
    HTTPDirectResponse: {"status": "the status", "body": "left out: empty"},
    HTTPBody: {"string": "as text", "bytes": "in base64; at most 1 MiB"},
    HTTPRewrite: {
        "uri": "replaces the prefix that matched, or else all of the path",
        "authority": "replaces the Host",
        "uriRegexRewrite": "replaces a part of the path, by an expression",
    },
    RegexRewrite: {"match": "an expression of RE2", "rewrite": "what replaces the match; \\1 is its first group"},
    HTTPRetry: {
        "attempts": "retries after the first try; 0 turns them off",
        "perTryTimeout": "of each try; left out: timeout",
        "retryOn": "names and statuses, joined by commas; left out: connect-failure, reset-before-request, "
                   "refused-stream, unavailable, cancelled; names of HTTP/2 and gRPC act once these are served",
        "retryRemoteLocalities": "whether retries may go to other localities",
        "retryIgnorePreviousHosts": "whether retries prefer endpoints that were not tried; left out: they do",
        "backoff": "the base of the wait between tries; left out: 25ms",
    },
    HTTPFaultInjection: {"delay": "a wait, outside of timeout", "abort": "an error in place of the upstream"},
    Delay: {
        "fixedDelay": "how long",
        "percentage": "of how many requests; left out: all",
        "percent": "the same in whole percents; percentage counts before it",
    },
    Abort: {"httpStatus": "the status", "percentage": "of how many requests; left out: all"},
    Percent: {"value": "0, or from 0.0001 to 100"},
    HTTPMirrorPolicy: {"destination": "where copies go", "percentage": "of how many requests; left out: all"},
    CorsPolicy: {
        "allowOrigins": "conditions on Origin",
        "allowMethods": "of access-control-allow-methods",
        "allowHeaders": "of access-control-allow-headers",
        "exposeHeaders": "of access-control-expose-headers",
        "maxAge": "of access-control-max-age, in whole seconds",
        "allowCredentials": "of access-control-allow-credentials",
        "unmatchedPreflights": "IGNORE: answer preflights of other origins without permission; FORWARD and "
                               "UNSPECIFIED: send them on",
    },
    TLSRoute: {"match": "one of these holds; one or more", "route": "destinations by weight; one or more"},
    TLSMatchAttributes: {
        "sniHosts": "server names, or *. and a name; each is one of hosts or covered by one",
        "destinationSubnets": "IP addresses or CIDRs that the app calls",
        **_CALLER,
    },
    TCPRoute: {"match": "one of these holds; left out: every connection", "route": "destinations by weight"},
    L4MatchAttributes: {"destinationSubnets": "IP addresses or CIDRs that the app calls", **_CALLER},
    RouteDestination: {"destination": "where bytes go", "weight": _WEIGHT},
    DestinationRule: {
        "host": "a service or a host of a ServiceEntry; *. and a name, or *: all that have no rule of their own",
        "trafficPolicy": "how it is called",
        "subsets": "parts of its endpoints, for the routes of a VirtualService",
        "exportTo": _EXPORT,
        "workloadSelector": "the callers that it is for, in its own namespace; without it all",
    },
    TrafficPolicy: {
        "loadBalancer": "which endpoint is next",
        "retryBudget": "how many retries there may be; not beside that of a BackendTrafficPolicy",
        "portLevelSettings": "what holds for single ports, in place of all of the above",
    },
    PortTrafficPolicy: {"port": "the port", "loadBalancer": "which endpoint is next"},
    LoadBalancerSettings: {
        "simple": "ROUND_ROBIN, LEAST_REQUEST (the better of two; the default), RANDOM, or PASSTHROUGH: where the app "
                  "was going; LEAST_CONN is LEAST_REQUEST",
    },
    RetryBudget: {
        "percent": "retries in progress, of the requests in progress; left out: 20",
        "minRetryConcurrency": "retries that may always be in progress; left out: 3",
    },
    Subset: {
        "name": "a DNS label, once in the document",
        "labels": "labels that an endpoint registered, all of them",
        "trafficPolicy": "goes before that of the whole host",
    },
    BackendTrafficPolicy: {
        "host": "as in a DestinationRule",
        "retryBudget": "how many retries there may be, by ratio; not beside that of a DestinationRule",
        "retry": "what may be retried",
        "exportTo": _EXPORT,
    },
    RetryRatioBudget: {
        "retryRatio": "retries for each request of the last ttl, 0 to 1000",
        "minRetriesPerSecond": "retries in a second beside that",
        "ttl": "how long a request counts, 1s to 60s",
    },
    BackendRetry: {
        "nonIdempotentRoutes": "names of routes, http[].name, whose requests may be sent again whatever their method",
    },
}  # fmt: skip
