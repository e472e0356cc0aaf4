"""The two directions of the proxy, as ``--interception`` says. Part of the composition root.

Called once by ``app``. Without interception inbound serves one app and outbound is an explicit proxy; with it both look
first where a connection wanted to go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sidecar.net.channel import Channel
from sidecar.net.pool import Pool
from sidecar.proxy.captured import InboundDoor, OutboundDoor
from sidecar.proxy.inbound import CapturedInbound, Inbound
from sidecar.proxy.outbound import Outbound
from sidecar.proxy.shared import Shared
from sidecar.settings import Settings

Serve = Callable[[Channel, str], Awaitable[None]]


class Directions:
    """``serve_inbound`` and ``serve_outbound`` take connections that were accepted."""

    def __init__(self, settings: Settings, shared: Shared) -> None:
        self.outbound = Outbound(shared)
        self.inbound: Inbound | CapturedInbound
        self.captured: CapturedInbound | None = None
        self.door: InboundDoor | None = None
        if settings.upstream is not None:
            self.inbound = inbound = Inbound(settings.upstream, settings.protocol, shared)
            self.serve_inbound: Serve = inbound.serve
            self.serve_outbound: Serve = self.outbound.serve
        else:
            self.inbound = self.captured = captured = CapturedInbound(settings.protocol, shared)
            self.door = InboundDoor(captured.serve_captured, captured.knows, shared)
            self.serve_inbound = self.door.serve
            self.serve_outbound = OutboundDoor(self.outbound.serve, self.outbound.serve_captured, shared).serve

    def pools(self) -> dict[str, Pool]:
        """All pools, by a name for people."""
        return self.inbound.pools() | self.outbound.pools()

    def sweep(self, now: float) -> None:
        """Closes connections that have been idle for too long (``now`` is monotonic)."""
        self.inbound.sweep(now)
        self.outbound.sweep(now)

    def close(self) -> None:
        """Closes idle connections."""
        self.inbound.close()
        self.outbound.close()
