"""Relaying of opaque bytes as they are, with a record per connection; also tunnels (CONNECT, Upgrade)."""

from __future__ import annotations

from sidecar.errors import CUTS, Reason
from sidecar.http.message import Response
from sidecar.http.streams import ClientStream, ServerStream
from sidecar.net.connection import Connection
from sidecar.net.relay import relay
from sidecar.proxy.context import HALF_CLOSE_IDLE, ProxyContext
from sidecar.telemetry.record import Record


async def tunnel(
    client: Connection,
    upstream: Connection,
    record: Record,
    context: ProxyContext,
    *,
    to_upstream: bytes = b"",
    to_client: bytes = b"",
) -> None:
    """Relay until both sides have ended, and add the bytes to ``record``. Closes neither connection."""
    try:
        relayed = await relay(
            client,
            upstream,
            to_right=to_upstream,
            to_left=upstream.take_unread() + to_client,
            idle=context.timeouts.idle,
            half_close_idle=HALF_CLOSE_IDLE,
            counters=context.telemetry.counters,
            pipes=context.pipes,
        )
    except BaseException:
        record.reason = Reason.DRAIN_DEADLINE
        client.reset()
        upstream.reset()
        raise
    record.bytes_received += relayed.bytes_to_right
    record.bytes_sent += relayed.bytes_to_left
    record.reason = relayed.reason
    if relayed.reason in CUTS:
        record.detail = client.cut_for or upstream.cut_for


async def tunnel_upgraded(
    stream: ServerStream, upstream: ClientStream, head: Response, record: Record, context: ProxyContext
) -> None:
    """Send ``head``, a 101, then relay what either side sends. Close the upstream at the end."""
    try:
        client, from_client = await stream.take_over(head)
        server, from_server = upstream.take_over()
        await tunnel(client, server, record, context, to_upstream=from_client, to_client=from_server)
    finally:
        upstream.close()
