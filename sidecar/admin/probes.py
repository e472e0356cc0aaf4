"""``/app-health/NAME`` on the scrape port: is the app well, as ``--probe`` says to find out?

For orchestrators, whose own probes would meet the proxy, and one day its policy. Other machines may ask, so nothing
that they send reaches the app: the name picks a line of the configuration, and one bit and a word come back.
"""

from __future__ import annotations

import h11
import trio

from sidecar.admin.context import AdminContext
from sidecar.admin.replies import Reply, Request
from sidecar.errors import ProxyError, Reason
from sidecar.net.channel import Channel, ChannelClosed
from sidecar.net.dial import dial
from sidecar.probe import Probe

SECONDS = 1.0  # for all of it, as the kubelet's default
AT_ONCE = 8
_MAX_HEAD = 65_536

_places = trio.CapacityLimiter(AT_ONCE)


async def app_health(context: AdminContext, request: Request) -> Reply:
    """200 where the app is well, else 503 with a word that says what was found."""
    name = request.path.rpartition("/")[2]
    for probe in context.probes:
        if probe.name == name:
            found = await examine(probe, context.channels)
            return Reply(503 if found else 200, f"{found or 'healthy'}\n".encode())
    return Reply(404, b"there is no probe of this name\n")


async def examine(probe: Probe, registry: set[Channel]) -> str:
    """What is wrong, in a word; empty if nothing is."""
    with trio.move_on_after(SECONDS):
        async with _places:
            try:
                channel = await dial(["127.0.0.1"], probe.port, timeout=2 * SECONDS, registry=registry)
            except ProxyError as error:
                return error.reason.word
            try:
                return await _ask(channel, probe) if probe.path else ""
            except ChannelClosed:
                return "closed"
            except h11.RemoteProtocolError:
                return "not_http"
            except ProxyError as error:  # expired by somebody else: a drain
                return error.reason.word
            finally:
                channel.close()
    return "timeout"


async def _ask(channel: Channel, probe: Probe) -> str:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
    headers = [("host", f"127.0.0.1:{probe.port}"), ("user-agent", "sidecar-probe"), ("connection", "close")]
    head = connection.send(h11.Request(method="GET", target=probe.path, headers=headers))
    channel.limit(2 * SECONDS, Reason.UPSTREAM_TIMEOUT)  # in case it outlives its scope
    await channel.send_all(head or b"")
    connection.send(h11.EndOfMessage())
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await channel.recv())
        elif isinstance(event, h11.Response):
            return "" if 200 <= event.status_code < 400 else f"status_{event.status_code}"
        elif not isinstance(event, h11.InformationalResponse):
            return "closed"
