"""Redirected listeners (--interception redirect): find a connection's original destination, and judge if it is served.

Made by ``data_plane``, which passes in the serving functions of both directions; this module imports neither. A
connection that may not be served is reset before a byte of it was read, and leaves a record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic, time

from sidecar import ports
from sidecar.addresses import OriginalDst, parse_ip
from sidecar.errors import ProxyError, Reason
from sidecar.net.connection import Connection
from sidecar.net.dial import SOURCES
from sidecar.net.local_addresses import is_local
from sidecar.net.original_dst import original_dst
from sidecar.policy.authorize import authorize_captured
from sidecar.proxy.context import ProxyContext
from sidecar.telemetry.record import ConnectionInfo, Record

Serve = Callable[[Connection, str], Awaitable[None]]
ServeCaptured = Callable[[Connection, str, OriginalDst], Awaitable[None]]


class InterceptedInbound:
    """The server of port 15006. ``knows`` returns whether a destination was accepted before, and so needs no check."""

    def __init__(self, serve: ServeCaptured, knows: Callable[[OriginalDst], bool], context: ProxyContext) -> None:
        self._serve = serve
        self._knows = knows
        self._context = context
        self.last_seen = 0.0  # when the last captured connection came, on the wall clock; 0: never

    async def serve(self, connection: Connection, host: str) -> None:
        """Serve a connection from ``host``, or resets it; closes it."""
        original = original_dst(connection.plain)
        try:
            self._judge(original, host)
            assert original is not None
            self.last_seen = time()
            self._context.telemetry.counters.captured_inbound += 1
            await self._serve(connection, host, original)
        except ProxyError as error:
            refuse(connection, "inbound", error, _text(original), self._context)

    def _judge(self, original: OriginalDst | None, host: str) -> None:
        listening = self._context.listeners
        authorize_captured(
            redirected=original is not None
            and not any(each.name == "inbound" and each.address.port == original.port for each in listening),
            # The reserved port is ours as well: the rules would redirect our dial of it to our own outbound listener.
            own_listener=original is not None
            and (original.port == ports.DRIFT or any(each.address.port == original.port for each in listening)),
            came_back=host in SOURCES,
            local=original is not None and (self._knows(original) or _is_of_pod(original.host)),
        )


class InterceptedOutbound:
    """The server of port 15001. The explicit proxy serves connections that are not captured."""

    def __init__(self, explicit: Serve, captured: ServeCaptured, context: ProxyContext) -> None:
        self._explicit = explicit
        self._captured = captured
        self._context = context

    async def serve(self, connection: Connection, host: str) -> None:
        """Serve a connection from ``host``, or resets it; closes it."""
        original = original_dst(connection.plain)
        if original is None:
            await self._explicit(connection, host)
            return
        self._context.telemetry.counters.captured_outbound += 1
        try:
            if original.port == ports.DRIFT and is_local(original.host):
                raise ProxyError(
                    Reason.OWN_LISTENER, f"port {ports.DRIFT} of this pod is reserved for the proxy itself"
                )
            await self._captured(connection, host, original)
        except ProxyError as error:
            refuse(connection, "outbound", error, _text(original), self._context)


def refuse(connection: Connection, direction: str, error: ProxyError, original: str, context: ProxyContext) -> None:
    """Reset the connection and record the reason; ``original`` is its original destination, if known."""
    record = Record(direction, "TCP", connection.peer, time(), monotonic())
    record.origin = ConnectionInfo(record.start, "nothing: refused at the door", 0.0, original)
    record.request_id = context.ids.new()  # for ``/explain``
    record.blame(error)
    connection.reset()
    context.telemetry.begin_opaque(record)
    context.telemetry.finish(record)


def _text(original: OriginalDst | None) -> str:
    return "" if original is None else str(original)


def _is_of_pod(host: str) -> bool:
    """Return whether other pods can reach this pod there. Loopback is private, whatever the rules redirect here."""
    address = parse_ip(host)
    return address is not None and not address.is_loopback and is_local(host)
