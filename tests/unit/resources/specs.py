"""A document of each kind, with every field that it has. Used by ``test_documents`` and ``test_json_schemas``."""

from __future__ import annotations

from typing import Any

WEB: dict[str, Any] = {
    "apiVersion": "sidecar/v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop", "labels": {"app.kubernetes.io/name": "web"}},
    "spec": {
        "ports": [{"port": 80, "name": "http", "appProtocol": "http", "targetPort": 8080}],
        "serviceAccounts": ["web"],
        "subjectAltNames": ["spiffe://other.example/ns/shop/sa/web"],
        "addresses": ["10.96.0.7"],
        "endpoints": [{"address": "10.0.0.7", "ports": {"http": 9090}, "labels": {"version": "v2"}}],
        "exportTo": [".", "front"],
    },
}
SPECS: dict[str, dict[str, Any]] = {
    "PeerAuthentication": {
        "selector": {"matchLabels": {"app": "web"}},
        "mtls": {"mode": "PERMISSIVE"},
        "portLevelMtls": {"8080": {"mode": "DISABLE"}, "80": {}},
    },
    "AuthorizationPolicy": {
        "selector": {"matchLabels": {"app": "web"}},
        "action": "DENY",
        "rules": [
            {
                "from": [
                    {"source": {"principals": ["*/ns/shop/sa/web"], "notIpBlocks": ["10.0.0.0/8", "2001:db8::1"]}}
                ],
                "to": [{"operation": {"hosts": ["*.example.com"], "ports": ["80"], "notPaths": ["/{*}/x/{**}"]}}],
                "when": [{"key": "request.headers[X-Team]", "values": ["a*"], "notValues": ["abc"]}],
            },
            {},
        ],
    },
    "RateLimitPolicy": {
        "selector": {"matchLabels": {"app": "web"}},
        "direction": "OUTBOUND",
        "mode": "SHADOW",
        "xRateLimitHeaders": True,
        "limits": [
            {
                "name": "calls",
                "key": ["source.principal", "request.headers[x-team]"],
                "match": {"methods": ["GET"], "paths": ["/a/{*}"], "hosts": ["b"], "headers": {"x-a": ["b*"]}},
                "rate": {"requests": 5, "per": "1s", "burst": 7},
                "overrides": [{"source": "cron", "requests": 1, "per": "1m", "burst": 2}],
                "total": {"requests": 9, "per": "1s"},
                "fairShare": True,
                "maxKeys": 10,
            },
            {
                "name": "connections",
                "key": ["source.ip"],
                "prefixLength": 48,
                "connections": {"max": 5, "perSecond": 7},
                "bytesPerSecond": {"received": 5000, "sent": 7000},
            },
            {"name": "window", "rate": {"requests": 5, "per": "1h"}, "algorithm": "sliding-window"},
        ],
    },
    "VirtualService": {
        "hosts": ["web", "*.shop.example", "192.0.2.7"],
        "gateways": ["mesh", "edge/public"],
        "http": [
            {
                "name": "pay",
                "match": [
                    {
                        "name": "cards",
                        "uri": {"prefix": "/pay"},
                        "scheme": {"exact": "http"},
                        "method": {"regex": "P.*"},
                        "authority": {"prefix": "web"},
                        "headers": {"x-tier": {"exact": "gold"}, "x-there": {}},
                        "port": 80,
                        "sourceLabels": {"app": "front"},
                        "gateways": ["mesh"],
                        "queryParams": {"beta": {"exact": "1"}},
                        "ignoreUriCase": True,
                        "withoutHeaders": {"x-off": {"regex": "*"}},
                        "sourceNamespace": "front",
                    },
                    {},
                ],
                "route": [
                    {
                        "destination": {"host": "web", "subset": "v1", "port": {"number": 80}},
                        "weight": 95,
                        "headers": {"request": {"set": {"x-version": "100%%"}}},
                    },
                    {"destination": {"host": "web.shop.svc.cluster.local", "subset": "v2"}, "weight": 5},
                ],
                "rewrite": {"uri": "/v2/pay", "authority": "pay.example:8080"},
                "timeout": "1m0.5s",
                "retries": {
                    "attempts": 3,
                    "perTryTimeout": "2s",
                    "retryOn": "5xx,refused-stream,503",
                    "retryRemoteLocalities": True,
                    "retryIgnorePreviousHosts": False,
                    "backoff": "25ms",
                },
                "fault": {
                    "delay": {"fixedDelay": "5s", "percentage": {"value": 0.1}, "percent": 10},
                    "abort": {"httpStatus": 503, "percentage": {"value": 5}},
                },
                "mirror": {"host": "shadow"},
                "mirrorPercentage": {"value": 0.5},
                "mirrorPercent": 1,
                "corsPolicy": {
                    "allowOrigins": [{"exact": "https://a.example"}, {"regex": "https://.*"}],
                    "allowMethods": ["GET"],
                    "allowHeaders": ["*"],
                    "exposeHeaders": ["x-id"],
                    "maxAge": "5m",
                    "allowCredentials": True,
                    "unmatchedPreflights": "IGNORE",
                },
                "headers": {
                    "request": {"set": {"x-b": "c"}, "add": {"x-a": "b"}, "remove": ["x-c"]},
                    "response": {"add": {"x-d": "e"}},
                },
            },
            {
                "redirect": {
                    "uri": "/new?a=b",
                    "authority": "b.example",
                    "port": 8443,
                    "scheme": "https",
                    "redirectCode": 308,
                },
            },
            {"redirect": {"derivePort": "FROM_REQUEST_PORT", "scheme": "https"}},
            {"directResponse": {"status": 503, "body": {"string": "closed"}}},
            {"directResponse": {"status": 200, "body": {"bytes": "AAE="}}},
            {
                "route": [{"destination": {"host": "web"}}],
                "rewrite": {"uriRegexRewrite": {"match": "^/a/([^/]+)", "rewrite": "/b/\\1"}},
                "mirrors": [{"destination": {"host": "shadow"}, "percentage": {"value": 1.5}}],
                "headers": {"request": {"set": {"Host": "a.example"}}},
            },
        ],
        "tls": [
            {
                "match": [
                    {
                        "sniHosts": ["a.shop.example"],
                        "destinationSubnets": ["192.0.2.0/24"],
                        "port": 443,
                        "sourceLabels": {"app": "front"},
                        "gateways": ["mesh"],
                        "sourceNamespace": "front",
                    },
                ],
                "route": [{"destination": {"host": "web"}}],
            },
        ],
        "tcp": [
            {
                "match": [
                    {
                        "destinationSubnets": ["192.0.2.7", "2001:db8::/32"],
                        "port": 5432,
                        "sourceLabels": {"app": "front"},
                        "gateways": ["mesh"],
                        "sourceNamespace": "front",
                    },
                ],
                "route": [
                    {"destination": {"host": "db", "subset": "v1"}, "weight": 4294967294},
                    {"destination": {"host": "db", "subset": "v2"}, "weight": 1},
                ],
            },
        ],
        "exportTo": [".", "front"],
    },
    "DestinationRule": {
        "host": "web",
        "trafficPolicy": {
            "loadBalancer": {"simple": "ROUND_ROBIN"},
            "retryBudget": {"percent": 12.5, "minRetryConcurrency": 5},
            "portLevelSettings": [{"port": {"number": 80}, "loadBalancer": {"simple": "RANDOM"}}],
        },
        "subsets": [
            {"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": {"loadBalancer": {"simple": "LEAST_CONN"}}},
            {"name": "all"},
        ],
        "exportTo": ["."],
        "workloadSelector": {"matchLabels": {"app": "front"}},
    },
    "BackendTrafficPolicy": {
        "host": "*.shop.example",
        "retryBudget": {"retryRatio": 0.5, "minRetriesPerSecond": 3, "ttl": "30s"},
        "retry": {"nonIdempotentRoutes": ["pay"]},
        "exportTo": ["*"],
    },
    "ServiceEntry": {
        "hosts": ["api.example.com", "*.example.net"],
        "addresses": ["192.0.2.7", "2001:db8::7"],
        "ports": [{"number": 443, "name": "tls", "protocol": "TLS", "targetPort": 8443}],
        "location": "MESH_EXTERNAL",
        "resolution": "STATIC",
        "endpoints": [{"address": "192.0.2.8", "ports": {"tls": 9443}, "labels": {"zone": "a"}, "weight": 3}],
        "exportTo": ["*"],
    },
    "WorkloadEntry": {"address": "vm.example.com", "ports": {"tls": 443}, "labels": {"app": "vm"}, "weight": 3},
    "Sidecar": {
        "workloadSelector": {"labels": {"app": "web"}},
        "egress": [{"hosts": ["./*", "*/*.example.com", "shop/web.shop.svc.cluster.local", "~/*"]}],
        "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
    },
}
