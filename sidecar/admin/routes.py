"""What the admin and the scrape port answer: a table of paths each. A new path is one line here.

Who calls it: ``admin.server``. What an answer is made of is in ``admin.replies``; the functions stand in rooms by what
they show. Names and texts are Envoy's where Envoy has the path. A page shows figures and addresses; no header value but
two, no value of a query, no key or token ever comes near one of them (CTL-7).
"""

from __future__ import annotations

import logging

from sidecar.admin.context import AdminContext
from sidecar.admin.figures import memory, metrics
from sidecar.admin.health import listeners, live, ready, server_info
from sidecar.admin.live import events
from sidecar.admin.page import page, part
from sidecar.admin.replies import Reply, Request, Route, Routes, help_text

logger = logging.getLogger("sidecar.admin")


async def help_page(_: AdminContext, __: Request) -> Reply:
    return Reply(200, help_text(ADMIN))


async def quit_quit_quit(context: AdminContext, request: Request) -> Reply:
    logger.info("admin: POST /quitquitquit from %s: draining", request.peer)
    return Reply(200, b"OK\n", then=context.quit)


ADMIN: Routes = {
    "/": Route(page, "a page to look at: what goes on, live"),
    "/page/": Route(part, "what the page is made of", rest="FILE"),
    "/events": Route(events, "a summary per second, as server-sent events: what the page shows"),
    "/help": Route(help_page, "this list"),
    "/ready": Route(ready, "200 LIVE once everything is bound; 503 before, and while draining"),
    "/live": Route(live, "200 as long as the process answers"),
    "/stats/prometheus": Route(metrics, "metrics, as text or OpenMetrics"),
    "/metrics": Route(metrics, "the same"),
    "/memory": Route(memory, "resident memory, tasks, descriptors, loop lag, buffers"),
    "/listeners": Route(listeners, "what is bound where; ?format=json"),
    "/server_info": Route(server_info, "version, state, uptime"),
    "/quitquitquit": Route(quit_quit_quit, "drains and ends the process", mutates=True),
}

SCRAPE: Routes = {
    "/metrics": Route(metrics, "metrics, as text or OpenMetrics"),
    "/stats/prometheus": Route(metrics, "the same"),
    "/healthz/ready": Route(ready, "200 LIVE once everything is bound; 503 before, and while draining"),
    "/healthz/live": Route(live, "200 as long as the process answers"),
}
