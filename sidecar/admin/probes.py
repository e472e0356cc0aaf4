"""``/app-health/NAME`` on the scrape port: is the app well, as ``--probe`` says to find out?

For orchestrators, whose own probes would meet the proxy, and one day its policy. Other machines may ask, so nothing
that they send reaches the app: the name picks a line of the configuration, and one bit and a word come back.
"""

from __future__ import annotations

import trio

from sidecar.admin.context import AdminContext
from sidecar.admin.responses import Reply, Request
from sidecar.app_probe import Probe
from sidecar.health_check import look_at_port
from sidecar.net.connection import Connection

SECONDS = 1.0  # for all of it, as the kubelet's default
AT_ONCE = 8

_places = trio.CapacityLimiter(AT_ONCE)


async def app_health(context: AdminContext, request: Request) -> Reply:
    """200 where the app is well, else 503 with a word that says what was found."""
    name = request.path.rpartition("/")[2]
    for probe in context.probes:
        if probe.name == name:
            found = await examine(probe, context.connections)
            return Reply(503 if found else 200, f"{found or 'healthy'}\n".encode())
    return Reply(404, b"there is no probe of this name\n")


async def examine(probe: Probe, registry: set[Connection]) -> str:
    """What is wrong, in a word; empty if nothing is."""
    with trio.move_on_after(SECONDS):
        async with _places:
            return await look_at_port(["127.0.0.1"], probe.port, probe.path, registry, seconds=SECONDS)
    return "timeout"
