"""The two sidecars of a call within a mesh, as command lines: the caller's (outbound) and the app's (inbound).

Called by the proxies' table, for those who can play it: ours and Envoy. Both have the same duties: mutual TLS 1.3 with
P-256 leaves below an intermediate, key agreement by X25519MLKEM768, the peer's SPIFFE id matched, ALPN istio-http/1.1,
x-forwarded-client-cert for the app, no session resumed; and those of the other scenarios (access log, request id,
deadlines, counters).
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench import envoy, routes
from bench.processes import fill
from sidecar.feed.state_dir import StateDir
from tests.support.papers import Papers

NAMESPACE, SERVICE = "shop", "app"
PLAIN = "plain"  # the same workload by another name, which never has a route
HOST = f"{SERVICE}.{NAMESPACE}.svc.cluster.local"
HTTP_PORT, TCP_PORT = 8080, 9000  # of the service
HTTP, TCP = f"{HOST}:{HTTP_PORT}", f"{HOST}:{TCP_PORT}"
GROUP = "X25519MLKEM768"
_NEVER = 1_000_000_000  # requests in a second


@dataclass(frozen=True, slots=True)
class Hop:
    """One sidecar of a pair. It listens on `listen`; `next` is where it goes on to: the other sidecar's inbound port,
    or the app's. `papers` are its own, `caller` and `callee` the two ids; `opaque`: it relays bytes. `rules`: inbound
    has an ALLOW policy of so many rules, of which the last one is the caller's; 0: it has none. `limited`: inbound has
    a limit of requests for each caller, which is never reached. `routes`: outbound has so many (`bench.routes`)."""

    name: str  # outbound or inbound
    run: Path
    listen: int
    next: int
    papers: Papers
    caller: str
    callee: str
    opaque: bool
    rules: int = 0
    limited: bool = False
    routes: int = 0

    @property
    def log(self) -> Path:
        return self.run / f"{self.name}.log"


def our_hop(hop: Hop) -> list[str]:
    """Our own command line: the defaults but for the places, with an identity."""
    return [sys.executable, "-m", "bench.with_identity", *our_words(hop)]


def our_words(hop: Hop) -> list[str]:
    """What follows the module's name in it. What it is to know of the mesh it has kept from before, as a sidecar that
    starts while its control plane is away."""
    inbound = hop.next if hop.name == "outbound" else hop.listen
    account = hop.papers.spiffe_id.rpartition("/")[2]
    state = hop.run / f"{hop.name}-state"
    told = {
        "schema": "1.0", "version": "1.1", "proxy": hop.papers.spiffe_id, "issued": time.time(),
        "trustDomain": "cluster.local", "services": [_service(name, inbound, hop.callee) for name in (SERVICE, PLAIN)],
    }  # fmt: skip
    if hop.rules and hop.name == "inbound":
        told |= {"schema": "1.2", "authorization": [{"name": "callers", "namespace": NAMESPACE, "rules": _rules(hop)}]}
    if hop.limited and hop.name == "inbound":
        limit = {"name": "each", "key": ["source.principal"], "rate": {"requests": _NEVER, "per": "1s"}}
        told |= {"schema": "1.3", "rateLimits": [{"name": "callers", "namespace": NAMESPACE, "limits": [limit]}]}
    if hop.routes and hop.name == "outbound":
        told |= routes.documents(hop.routes, HOST, NAMESPACE)
    StateDir(str(state)).store("1.1", hop.papers.spiffe_id, json.dumps(told).encode())
    places = (
        ("--outbound", f"127.0.0.1:{hop.listen}", "--inbound", "127.0.0.1:0", "--upstream", "127.0.0.1:9")
        if hop.name == "outbound"
        else (
            "--inbound",
            f"127.0.0.1:{hop.listen}",
            "--outbound",
            "127.0.0.1:0",
            "--upstream",
            f"127.0.0.1:{hop.next}",
        )
    )
    return [
        *hop.papers.words, *places, "--state-dir", str(state), "--namespace", NAMESPACE, "--service-account", account,
        "--admin", "127.0.0.1:0", "--scrape", "off", "--access-log-file", str(hop.log),
    ]  # fmt: skip


def _callers(hop: Hop) -> list[str]:
    """The principals that the rules name, one each, without the scheme."""
    others = [f"cluster.local/ns/{NAMESPACE}/sa/other-{number}" for number in range(hop.rules - 1)]
    return [*others, hop.caller.removeprefix("spiffe://")]


def _rules(hop: Hop) -> list[dict[str, object]]:
    return [
        {
            "from": [{"source": {"principals": [caller]}}],
            "to": [{"operation": {"methods": ["GET"], "paths": ["/*"]}}],
        }
        for caller in _callers(hop)
    ]


def _envoy_rbac(hop: Hop) -> str:
    """The same rules as Envoy's filter, in the form in which istiod writes them; empty where there are none."""
    if not hop.rules:
        return ""
    policies = {
        f"ns[{NAMESPACE}]-policy[callers]-rule[{number}]": {
            "permissions": [
                {
                    "and_rules": {
                        "rules": [
                            {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
                            {"url_path": {"path": {"prefix": "/"}}},
                        ]
                    }
                }
            ],
            "principals": [{"authenticated": {"principal_name": {"exact": f"spiffe://{caller}"}}}],
        }
        for number, caller in enumerate(_callers(hop))
    }
    config = {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": policies},
        },
    }
    return f"                  - {json.dumps(config)}\n"


def _envoy_limit(hop: Hop) -> str:
    """The same limit as Envoy's filter: a bucket for each value of the header that names the caller; empty where there
    is none."""
    if not hop.limited:
        return ""
    bucket = {"max_tokens": _NEVER, "tokens_per_fill": _NEVER, "fill_interval": "1s"}
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    action = {"request_headers": {"header_name": "x-forwarded-client-cert", "descriptor_key": "caller"}}
    config = {
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "callers",
            "token_bucket": bucket,
            "filter_enabled": always,
            "filter_enforced": always,
            "descriptors": [{"entries": [{"key": "caller"}], "token_bucket": bucket}],
            "rate_limits": [{"actions": [action]}],
        },
    }
    return f"                  - {json.dumps(config)}\n"


def _service(name: str, inbound: int, callee: str) -> dict[str, object]:
    return {
        "name": name,
        "namespace": NAMESPACE,
        "ports": [
            {"port": HTTP_PORT, "name": "http", "appProtocol": "http"},
            {"port": TCP_PORT, "name": "tcp", "appProtocol": "tcp"},
        ],
        "subjectAltNames": [callee],
        "endpoints": [{"address": "127.0.0.1", "port": inbound, "mode": "direct"}],
    }


def envoy_hop(hop: Hop) -> list[str]:
    """Envoy's, with its configuration written."""
    port = TCP_PORT if hop.opaque else HTTP_PORT
    config = fill(
        f"envoy-{hop.name}-tcp.yaml" if hop.opaque else f"envoy-{hop.name}.yaml",
        hop.run / f"envoy-{hop.name}.yaml",
        SIDE=hop.name,
        LISTEN_PORT=hop.listen,
        NEXT_PORT=hop.next,
        LOG=hop.log,
        ALPN="sidecar-tcp" if hop.opaque else "istio-http/1.1",
        SNI=f"outbound_.{port}_._.{HOST}",
        CHAIN=hop.papers.chain,
        KEY=hop.papers.key,
        ROOTS=hop.papers.roots,
        RBAC=_envoy_rbac(hop) + _envoy_limit(hop),
        VIRTUAL_HOSTS=routes.envoy_hosts(hop.routes, HOST, HTTP_PORT),
        BREAKERS=routes.envoy_breakers(hop.routes),
        EXPECTED="spiffe://cluster.local/" if hop.name == "inbound" else hop.callee,
    )
    return envoy.command(config)
