"""What the admin and the scrape port answer: a table of paths each. A new path is one line here.

Who calls it: ``admin.server``. What an answer is made of is in ``admin.responses``; the functions stand in rooms by
what they show. Names and texts are Envoy's where Envoy has the path. A page shows figures and addresses; no header
value but two, no value of a query, no key or token ever comes near one of them (CTL-7).
"""

from __future__ import annotations

from sidecar.admin.context import AdminContext
from sidecar.admin.dashboard import page, part
from sidecar.admin.dump import certificates, clusters, config_dump, listeners, server_info
from sidecar.admin.events import events
from sidecar.admin.explain_request import dry_runs, limits, routes, would_be
from sidecar.admin.health import live, ready
from sidecar.admin.metrics import memory, metrics
from sidecar.admin.mutations import (
    drain_listeners,
    fail_health,
    log_level,
    quit_quit_quit,
    reset_counters,
    restore_health,
)
from sidecar.admin.probes import app_health
from sidecar.admin.recent_requests import explanation, requests
from sidecar.admin.responses import Reply, Request, Route, Routes, help_text
from sidecar.admin.stats import stats
from sidecar.admin.tap import tap

_QUESTION = "method= path= host= from=SPIFFE-ID ip= port= header.NAME=VALUE"
_FILTERS = "status=503|5xx flag= reason= path=PREFIX source=IP-PREFIX direction= limit="


async def help_page(_: AdminContext, __: Request) -> Reply:
    return Reply(200, help_text(ADMIN))


ADMIN: Routes = {
    "/": Route(page, "a page to look at: what goes on, live"),
    "/page/": Route(part, "what the page is made of", rest="FILE"),
    "/events": Route(events, "a summary per second, as server-sent events: what the page shows"),
    "/help": Route(help_page, "this list"),
    "/ready": Route(ready, "200 LIVE while new connections are welcome; else 503 and why not"),
    "/live": Route(live, "200 as long as the process answers"),
    "/server_info": Route(server_info, "version, uptime, state; flags in force and where each came from"),
    "/stats": Route(
        stats, "all numbers; filter=TEXT, where only | ^ $ and .* are special; usedonly, buckets, format=json"
    ),
    "/stats/prometheus": Route(metrics, "metrics, as text or OpenMetrics"),
    "/metrics": Route(metrics, "the same"),
    "/listeners": Route(listeners, "what is bound where; format=json"),
    "/clusters": Route(clusters, "connections to the app and to outbound destinations; format=json"),
    "/config_dump": Route(config_dump, "settings, listeners, timeouts, limits, as JSON"),
    "/certs": Route(certificates, "our certificate, whom we trust, handshakes; never a key"),
    "/memory": Route(memory, "resident memory, tasks, descriptors, loop lag, buffers"),
    "/requests": Route(requests, f"the last 1,000, newest first; {_FILTERS} format=json"),
    "/explain": Route(would_be, f"what would become of a request: {_QUESTION}", asks=True),
    "/explain/": Route(explanation, "the story of a request, as JSON; format=text", rest="<request-id>"),
    "/dry_runs": Route(dry_runs, "what dry runs of policies would have decided otherwise; policy=NS/NAME"),
    "/limits": Route(limits, "limits of RateLimitPolicies, and the keys that are limited now; policy=NS/NAME"),
    "/routes": Route(routes, "rules of VirtualServices in the order in which they count, and what each routed; host="),
    "/tap": Route(tap, f"records as they come, as server-sent events; {_FILTERS}"),
    "/logging": Route(log_level, "level=debug|info|warning|error", mutates=True),
    "/reset_counters": Route(reset_counters, "counters and histograms begin at zero", mutates=True),
    "/drain_listeners": Route(drain_listeners, "accepts no more inbound connections; goes on otherwise", mutates=True),
    "/healthcheck/fail": Route(fail_health, "not ready any more, until /healthcheck/ok", mutates=True),
    "/healthcheck/ok": Route(restore_health, "ready again", mutates=True),
    "/quitquitquit": Route(quit_quit_quit, "drains and ends the process", mutates=True),
}

SCRAPE: Routes = {
    "/metrics": Route(metrics, "metrics, as text or OpenMetrics"),
    "/stats/prometheus": Route(metrics, "the same"),
    "/healthz/ready": Route(ready, "200 LIVE while new connections are welcome; else 503 and why not"),
    "/healthz/live": Route(live, "200 as long as the process answers"),
    "/app-health/": Route(app_health, "is the app well? as --probe says to find out", rest="<name>"),
}
