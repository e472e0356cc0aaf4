"""The two directions of the proxy, as ``--interception`` says. Part of the composition root.

Called once by ``app``. Without interception inbound serves one app and outbound is an explicit proxy; with it both look
first where a connection wanted to go.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable

import trio

from sidecar import ports
from sidecar.addresses import ClientAddr
from sidecar.net.connection import Connection
from sidecar.net.interception_monitor import InterceptionMonitor
from sidecar.net.local_addresses import outward_addresses
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.inbound import CapturedInbound, Inbound
from sidecar.proxy.original_destination import InterceptedInbound, InterceptedOutbound
from sidecar.proxy.outbound import Outbound
from sidecar.settings import Settings
from sidecar.upstream.pool_stats import PoolsShown

LOOK_SECONDS = 0.5  # between two looks whether the app is gone

Serve = Callable[[Connection, str], Awaitable[None]]
Take = Callable[[socket.socket, ClientAddr], None]
_log = logging.getLogger(__name__)


class DataPlane:
    """``serve_inbound`` and ``serve_outbound`` take connections that were accepted."""

    def __init__(self, settings: Settings, context: ProxyContext) -> None:
        self.outbound = Outbound(context)
        self._watching = trio.CancelScope()
        self.inbound: Inbound | CapturedInbound
        self.captured: CapturedInbound | None = None
        self.intercepted_inbound: InterceptedInbound | None = None
        self.interception_monitor: InterceptionMonitor | None = None
        if settings.upstream is not None:
            self.inbound = inbound = Inbound(settings.upstream, settings.protocol, context)
            self.serve_inbound: Serve = inbound.serve
            self.serve_outbound: Serve = self.outbound.serve
        else:
            self.inbound = self.captured = captured = CapturedInbound(settings.protocol, context)
            self.intercepted_inbound = InterceptedInbound(captured.serve_captured, captured.knows, context)
            self.interception_monitor = InterceptionMonitor(ports.DRIFT, outward_addresses, _tell)
            self.serve_inbound = self.intercepted_inbound.serve
            self.serve_outbound = InterceptedOutbound(self.outbound.serve, self.outbound.serve_captured, context).serve

    def drift_words(self) -> str:
        """What is wrong with the rules that redirect connections here, in a sentence; empty where nothing is."""
        return "" if self.interception_monitor is None else self.interception_monitor.words

    async def watch_rules(self) -> None:
        """With interception: looks after the rules until ``stop_watching``."""
        with self._watching:
            if self.interception_monitor is not None:
                await self.interception_monitor.run()

    async def wait_looked(self) -> None:
        """With interception: until it is known whether the rules are there, which takes a moment, or 3 s where not."""
        if self.interception_monitor is not None:
            await self.interception_monitor.looked.wait()

    def stop_watching(self) -> None:
        """Before the outbound port closes: nobody would be met there."""
        self._watching.cancel()

    def outbound_taker(self, take: Take) -> Take:
        """What the outbound listener hands its connections to, in front of ``take``."""
        interception_monitor = self.interception_monitor
        if interception_monitor is None:
            return take

        def meet_or_take(sock: socket.socket, client: ClientAddr) -> None:
            if not interception_monitor.meets(sock, client):
                take(sock, client)

        return meet_or_take

    async def wait_app_gone(self, outbound_idle: Callable[[], Awaitable[None]]) -> None:
        """With interception: waits until nobody listens at the app's ports any more, as far as any was ever reached; an
        app that was never seen to listen can't be seen to go, and is waited for by ``outbound_idle``."""
        if self.captured is None:
            return
        if not self.captured.app_was_seen:
            await outbound_idle()
            return
        while True:
            if await self.captured.app_is_gone():
                return
            await trio.sleep(LOOK_SECONDS)

    def pools(self) -> dict[str, PoolsShown]:
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


def _tell(sentence: str) -> None:
    _log.warning("interception: %s", sentence)
