"""Opaque bytes: relayed as they are, with a record per connection; also tunnels (CONNECT, Upgrade)."""

from __future__ import annotations

from sidecar.errors import CUTS, Reason
from sidecar.net.channel import Channel
from sidecar.net.relay import relay
from sidecar.proxy.shared import HALF_CLOSE_IDLE, Shared
from sidecar.proxy.streams import ServerStream
from sidecar.proxy.upstream import UpstreamStream
from sidecar.telemetry.record import Record
from sidecar.wire.message import Response


async def tunnel(
    client: Channel,
    upstream: Channel,
    record: Record,
    shared: Shared,
    *,
    to_upstream: bytes = b"",
    to_client: bytes = b"",
) -> None:
    """Relays until both sides have ended, and adds the bytes to ``record``. Closes neither channel."""
    try:
        relayed = await relay(
            client,
            upstream,
            to_right=to_upstream,
            to_left=upstream.take_unread() + to_client,
            idle=shared.timeouts.idle,
            half_close_idle=HALF_CLOSE_IDLE,
            counters=shared.telemetry.counters,
            pipes=shared.pipes,
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


async def switch(
    stream: ServerStream, upstream: UpstreamStream, head: Response, record: Record, shared: Shared
) -> None:
    """After ``head``, a 101: passes it on, and then what either side sends. Closes the upstream."""
    try:
        channel, data = await stream.take_over(head)
        await tunnel(channel, upstream.channel, record, shared, to_upstream=data, to_client=upstream.take_buffer())
    finally:
        upstream.close()
