"""15012: our own inbound in front of the API, for sidecars. Part of the composition root, which makes one of it where
``--tls-listen`` says so; nothing else of the control plane may import it, as it imports the proxy, and that OpenSSL.

What comes here is TLS that ends here, whatever its server name: plaintext is reset, a client certificate is asked for
and, where it is shown, must be good; a caller without one needs a token, as the API says. Each request goes on over the
socket in ``--ca-dir`` on which identities are believed, as the proxy sends requests to an app: identity headers of
callers taken out, ``x-forwarded-client-cert`` and ``x-forwarded-for`` put in, bounds and timeouts kept. The connection
stays HTTP/1.1: a caller that could change its protocol would speak past whoever reads its requests.

Our own certificate is kept by ``control.papers``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

import trio

from certs.errors import IdentityError
from control import limits
from control.authority import Authority
from control.figures import Figures
from control.papers import Papers
from control.serve import CONNECTIONS, IDLE_SECONDS
from control.store import StoreFailed
from sidecar.addresses import Address
from sidecar.errors import Fault, ProxyError, Reason, StartError
from sidecar.identity import Identity
from sidecar.machine import descriptor_limit
from sidecar.net.channel import Channel, ChannelClosed
from sidecar.net.dial import dial_unix
from sidecar.net.drain import Connections
from sidecar.net.listener import HANDSHAKE_SECONDS, bind
from sidecar.net.pipes import Pipes
from sidecar.net.pool import Lease, Limits
from sidecar.net.resolve import Resolver
from sidecar.net.timers import Sweeper
from sidecar.policy.authorize import Asked, Permit, authorize_inbound
from sidecar.proxy.captured import refuse
from sidecar.proxy.client import Timeouts
from sidecar.proxy.exchange import exchange
from sidecar.proxy.forwarding import Forwarder
from sidecar.proxy.gate import OPTIONAL, Gate
from sidecar.proxy.intake import serve_target
from sidecar.proxy.origin import ClusterOrigin
from sidecar.proxy.shared import Shared
from sidecar.proxy.sniff import Sniffed
from sidecar.proxy.streams import ServerStream
from sidecar.resources.protocols import Protocol
from sidecar.telemetry.complaints import Complaints
from sidecar.telemetry.memory import MemoryGuard
from sidecar.telemetry.record import Record
from sidecar.telemetry.telemetry import Telemetry
from sidecar.upstream.cluster import Cluster, Terms
from sidecar.wire import headers
from sidecar.wire.message import Request

TIMEOUTS: Final = Timeouts(
    request_head=10.0,
    idle=IDLE_SECONDS,
    stream_idle=90.0,  # a call may wait for a minute
    body_min_rate=240,
    body_min_window=30.0,
    max_body=limits.APPLY_BODY_BYTES,  # of any call; what each takes is judged by its gate
)
POOL_IDLE_SECONDS: Final = 55.0  # less than the API keeps a connection
_QUIET: Final = (Fault.OVERLOAD, Fault.DRAIN)  # the one is said already, the other is nobody's
WAIT_SECONDS: Final = 1.0  # for a connection to the API
RECHECK_SECONDS: Final = 1.0  # how often open connections are held against the clock
_log = logging.getLogger(__name__)


class Front:
    """The listeners at ``addresses``, bound. ``private`` is the API's socket. Raises StartError."""

    def __init__(
        self,
        addresses: Sequence[Address],
        private: str,
        authority: Authority,
        figures: Figures,
        clock: Callable[[], float],
    ) -> None:
        self._listeners, warnings = bind("tls", "--tls-listen", addresses)
        for warning in warnings:
            _log.warning("%s", warning)
        self._most = min(CONNECTIONS, descriptor_limit() // 4)  # each may need three: here, to the API, and there
        channels: set[Channel] = set()
        self._identity = Identity(channels, clock)
        self._papers = Papers(authority, self._identity, clock)
        self._gate = Gate(self._identity, lambda _: OPTIONAL, None)
        self._telemetry = _Telling()
        counters = self._telemetry.counters
        self._gate.turns.forwarded = lambda: counters.pool_hits + counters.pool_misses
        self._shared = _shared(self._telemetry, self._gate, channels, self._most)
        self._shared.listeners.extend(self._listeners)
        self._api = ApiPort(private, self._shared)
        self._add_gauges(figures)

    @property
    def listening(self) -> list[Address]:
        """Where."""
        return [listener.address for listener in self._listeners]

    async def start(self) -> None:
        """Gets the first certificate; before anybody is served. Raises StartError."""
        try:
            await self._papers.renew()
        except (StoreFailed, IdentityError, OSError) as error:
            raise StartError(f"--tls-listen: no certificate can be issued for it: {error}") from None

    def close(self) -> None:
        """Closes the listeners of what was never served."""
        for listener in self._listeners:
            listener.sock.close()

    async def serve(self, closing: trio.Event, grace: float) -> None:
        """Serves until ``closing`` is set; then what is under way has ``grace`` seconds. Closes the listeners."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Sweeper(self._shared.channels, [self._shared.deadlines.sweep, self._tick]).run)
                nursery.start_soon(self._papers.run)
                nursery.start_soon(self._recheck)
                await self._serve_until(closing, grace, nursery)
                nursery.cancel_scope.cancel()
        finally:
            for listener in self._listeners:
                listener.close()
            self._api.api.close()

    async def _serve_until(self, closing: trio.Event, grace: float, nursery: trio.Nursery) -> None:
        counters = self._telemetry.counters
        connections = Connections(
            nursery, self._serve, self._shared.channels, counters, lambda active: active < self._most, self._full
        )
        for listener in self._listeners:
            nursery.start_soon(listener.accept, counters, connections.take)
        await closing.wait()
        self._shared.drain.active = True
        self._identity.drain()
        with trio.move_on_after(grace):
            for listener in self._listeners:
                listener.refuse_new()
            await trio.sleep(HANDSHAKE_SECONDS)
            for listener in self._listeners:
                listener.close_losslessly(counters, connections.take)
            await connections.wait_drained()

    async def _serve(self, channel: Channel, host: str) -> None:
        try:
            channel, admitted = await self._gate.admit(channel, host, 0)
            await serve_target(channel, host, self._api, self._shared, admitted)
        except ProxyError as refused:
            refuse(channel, "inbound", refused, "", self._shared)
        except ChannelClosed:
            self._telemetry.counters.detect_nothing += 1  # it came and went
        finally:
            channel.close()

    async def _recheck(self) -> None:
        while True:
            await trio.sleep(RECHECK_SECONDS)
            self._identity.recheck()

    def _tick(self, now: float, late: float) -> None:
        self._telemetry.tick(now - late, now)
        self._api.api.sweep(now)

    def _full(self, peer: str) -> None:
        self._telemetry.tell(Reason.TOO_MANY_CONNECTIONS, f"{peer}: {self._most} connections are open")

    def _add_gauges(self, figures: Figures) -> None:
        figures.gauges(
            "sidecar_control_tls_handshakes",
            "Handshakes on --tls-listen since the start, by how they ended.",
            "outcome",
            lambda: self._gate.outcomes,
        )
        counters = self._telemetry.counters
        figures.gauge(
            "sidecar_control_tls_connections",
            "Open connections on --tls-listen.",
            lambda: float(counters.connections_active),
        )
        figures.gauge(
            "sidecar_control_tls_expiry_seconds",
            "When the certificate of --tls-listen ends, in seconds since the epoch.",
            lambda: self._identity.generation.credentials.not_after if self._identity.generation else 0.0,
        )


class ApiPort:
    """The API behind its socket at ``private``: a ``proxy.intake.Target`` that speaks HTTP/1.1 and nothing else."""

    direction = "inbound"
    protocol: Protocol = "http"
    vouches = True
    original = ""
    cluster = ""
    name = "api"

    def __init__(self, private: str, shared: Shared) -> None:
        self._shared = shared
        self._forwarder = Forwarder(shared, appends_caller=True)
        limits = Limits(shared.max_pool, shared.max_waiting, WAIT_SECONDS, shared.pool_idle)
        terms = Terms("inbound|api||", "api", limits, WAIT_SECONDS)
        self.api: Cluster[str] = Cluster(terms, self._connect, shared.telemetry.counters, places=(private,))
        self.habits = self.api
        self._origin = ClusterOrigin(self.api, None, "api", shared.timeouts.stream_idle)

    def trusts(self, host: str) -> bool:
        """See ``Target``: nobody stands before it whose word would count."""
        return False

    async def permit(self, found: Sniffed, peer: str) -> Permit:
        """See ``Target``."""
        raise ProxyError(Reason.BAD_REQUEST, "only HTTP/1.1 is served here")

    async def dial(self, permit: Permit) -> Lease:
        """See ``Target``."""
        raise ProxyError(Reason.BAD_REQUEST, "only HTTP/1.1 is served here")

    async def dial_early(self, peer: str) -> Lease:
        """See ``Target``."""
        raise ProxyError(Reason.BAD_REQUEST, "only HTTP/1.1 is served here")

    def led_by(self, name: bytes) -> ApiPort:
        """See ``Target``: there is nothing but the API here."""
        return self

    async def handle(self, stream: ServerStream, request: Request, record: Record) -> None:
        """See ``Target``."""
        record.request_id = self._shared.ids.new()  # by which the audit log is searched: not for callers to choose
        if request.method == b"CONNECT":
            raise ProxyError(Reason.METHOD_REFUSED, "nothing is tunnelled here")
        if headers.UPGRADE in request.known:
            raise ProxyError(Reason.BAD_REQUEST, "only HTTP/1.1 is spoken here, to the end of a connection: no Upgrade")
        fields = self._forwarder.fields(stream, request, record)
        permit = authorize_inbound(self._shared.rules, Asked("inbound", record.principal, "", self.api.name, "HTTP"))
        await exchange(stream, request, fields, self._origin, permit, record)

    async def _connect(self, private: str, seconds: float) -> Channel:
        return dial_unix(private, "api", self._shared.channels)


class _Telling(Telemetry):
    """Counts; and says of what was refused here, and so never came to the audit log, a line per kind now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._refusals = Complaints()

    def finish(self, record: Record) -> None:
        super().finish(record)
        if (
            record.reason is not None
            and record.reason is not Reason.CLIENT_CLOSED
            and record.reason.fault not in _QUIET
        ):
            detail = record.detail.removeprefix(f"{record.client}: ")
            self.tell(record.reason, f"{record.client}: {detail}")

    def tell(self, reason: Reason, sentence: str) -> None:
        """What was refused, and why."""
        self._refusals.note(f"--tls-listen: {reason.word}", sentence, monotonic())

    def tick(self, due: float, now: float) -> None:
        super().tick(due, now)
        self._refusals.tick(now)


def _shared(telemetry: Telemetry, gate: Gate, channels: set[Channel], most: int) -> Shared:
    return Shared(
        timeouts=TIMEOUTS,
        connect_timeout=WAIT_SECONDS,
        pool_idle=POOL_IDLE_SECONDS,
        max_pool=most,
        max_waiting=most,
        trusted_proxies=(),
        via=False,
        telemetry=telemetry,
        overload=MemoryGuard(0),
        resolver=Resolver(own=()),
        pipes=Pipes(),
        gate=gate,
        channels=channels,
    )
