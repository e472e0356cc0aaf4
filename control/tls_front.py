"""15012: our own inbound in front of the API, for sidecars. Part of the composition root, which makes one of it where
``--tls-listen`` says so; nothing else of the control plane may import it, as it imports the proxy, and that OpenSSL.

What comes here is TLS that ends here, whatever its server name: plaintext is reset, a client certificate is asked for
and, where it is shown, must be good; a caller without one needs a token, as the API says. Each request goes on over the
socket in ``--ca-dir`` on which identities are believed, as the proxy sends requests to an app: identity headers of
callers taken out, ``x-forwarded-client-cert`` and ``x-forwarded-for`` put in, bounds and timeouts kept. The connection
stays HTTP/1.1: a caller that could change its protocol would speak past whoever reads its requests.

Our own certificate is kept by ``control.server_certificate``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

import trio

from certs.errors import IdentityError
from control import rate_limits
from control.certificate_authority import Authority
from control.metrics import Figures
from control.serve import CONNECTIONS, IDLE_SECONDS
from control.server_certificate import ServerCertificate
from control.store import StoreFailed
from sidecar.addresses import Address
from sidecar.errors import Fault, ProxyError, Reason, StartError
from sidecar.http import headers
from sidecar.http.message import Request
from sidecar.http.timeouts import Timeouts
from sidecar.identity import Identity
from sidecar.net.connection import Connection, ConnectionClosed
from sidecar.net.connection_pool import Lease, Limits
from sidecar.net.dial import dial_unix
from sidecar.net.graceful_drain import ConnectionTracker
from sidecar.net.listener import HANDSHAKE_SECONDS, bind
from sidecar.net.resolve import Resolver
from sidecar.net.splice_pipes import Pipes
from sidecar.net.timers import Sweeper
from sidecar.os_limits import descriptor_limit
from sidecar.policy.authorize import Asked, Permit, authorize_inbound
from sidecar.proxy.cluster_client import ClusterClient
from sidecar.proxy.connection_handler import serve_target
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.header_sanitizer import HeaderSanitizer
from sidecar.proxy.original_destination import refuse
from sidecar.proxy.pipeline import RunningBytes, RunningRequest
from sidecar.proxy.protocol_detection import Detection
from sidecar.proxy.route import Route
from sidecar.resources.protocols import Protocol
from sidecar.resources.snapshot import NOTHING, Snapshot
from sidecar.telemetry.memory import MemoryGuard
from sidecar.telemetry.record import ConnectionInfo, Record
from sidecar.telemetry.telemetry import Telemetry
from sidecar.telemetry.throttled_log import ThrottledLog
from sidecar.tls.acceptor import OPTIONAL, TlsAcceptor
from sidecar.upstream.cluster import Cluster, Terms

TIMEOUTS: Final = Timeouts(
    request_head=10.0,
    idle=IDLE_SECONDS,
    stream_idle=90.0,  # a call may wait for a minute
    body_min_rate=240,
    body_min_window=30.0,
    max_body=rate_limits.APPLY_BODY_BYTES,  # of any call; what each takes is judged by its gate
)
POOL_IDLE_SECONDS: Final = 55.0  # less than the API keeps a connection
_QUIET: Final = (Fault.OVERLOAD, Fault.DRAIN)  # the one is said already, the other is nobody's
WAIT_SECONDS: Final = 1.0  # for a connection to the API
RECHECK_SECONDS: Final = 1.0  # how often open connections are held against the clock
_log = logging.getLogger(__name__)


class TlsFront:
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
        connections: set[Connection] = set()
        self._identity = Identity(connections, clock)
        self._papers = ServerCertificate(authority, self._identity, clock)
        self._acceptor = TlsAcceptor(self._identity, lambda _: OPTIONAL, None)
        self._telemetry = _Telling()
        counters = self._telemetry.counters
        self._acceptor.scheduler.forwarded = lambda: counters.pool_hits + counters.pool_misses
        self._context = _context(self._telemetry, self._acceptor, connections, self._most)
        self._context.listeners.extend(self._listeners)
        self._api = ApiPort(private, self._context)
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
                nursery.start_soon(Sweeper(self._context.connections, [self._context.deadlines.sweep, self._tick]).run)
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
        tracker = ConnectionTracker(
            nursery, self._serve, self._context.connections, counters, lambda active: active < self._most, self._full
        )
        for listener in self._listeners:
            nursery.start_soon(listener.accept, counters, tracker.take)
        await closing.wait()
        self._context.drain.active = True
        self._identity.drain()
        with trio.move_on_after(grace):
            for listener in self._listeners:
                listener.refuse_new()
            await trio.sleep(HANDSHAKE_SECONDS)
            for listener in self._listeners:
                listener.close_losslessly(counters, tracker.take)
            await tracker.wait_drained()

    async def _serve(self, connection: Connection, host: str) -> None:
        try:
            connection, security = await self._acceptor.accept(connection, host, 0)
            await serve_target(connection, host, self._api, self._context, security)
        except ProxyError as refused:
            refuse(connection, "inbound", refused, "", self._context)
        except ConnectionClosed:
            self._telemetry.counters.detect_nothing += 1  # it came and went
        finally:
            connection.close()

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
            lambda: self._acceptor.outcomes,
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
    """The API behind its socket at ``private``: a ``proxy.connection_handler.Target`` that speaks HTTP/1.1 and nothing
    else."""

    direction = "inbound"
    protocol: Protocol = "http"
    vouches = True
    by_server_name = False
    rejudged = False
    original = ""
    name = "api"

    def __init__(self, private: str, context: ProxyContext) -> None:
        self._context = context
        self.sanitizer = HeaderSanitizer(context, appends_caller=True)
        limits = Limits(context.max_pool, context.max_waiting, WAIT_SECONDS, context.pool_idle)
        terms = Terms("inbound|api||", "api", limits, WAIT_SECONDS)
        self.api: Cluster[str] = Cluster(terms, self._connect, context.telemetry.counters, places=(private,))
        self.server_first_cache = self.api
        client = ClusterClient(self.api, None, "api", context.timeouts.stream_idle)
        self._route = Route("app", self.api, client, None, Address("api", 0), "api")

    def trusts(self, host: str) -> bool:
        """See ``Target``: there is no proxy before it."""
        return False

    def current(self) -> Snapshot:
        """See ``Routing``: it has no configuration."""
        return NOTHING

    def route(self, snapshot: Snapshot, request: Request) -> Route:
        """See ``Routing``."""
        if request.method == b"CONNECT":
            raise ProxyError(Reason.METHOD_REFUSED, "nothing is tunnelled here")
        if headers.UPGRADE in request.known:
            raise ProxyError(Reason.BAD_REQUEST, "only HTTP/1.1 is spoken here, to the end of a connection: no Upgrade")
        return self._route

    async def authorize(self, snapshot: Snapshot, route: Route, wanted: RunningRequest) -> Permit:
        """See ``Routing``: the API itself judges each call."""
        return authorize_inbound(self._context.rules, self.asked(wanted))

    def asked(self, wanted: RunningRequest) -> Asked:
        """See ``Routing``."""
        return Asked("inbound", wanted.info.principal, wanted.info.client, self.api.name, "HTTP")

    def route_bytes(self, snapshot: Snapshot, found: Detection) -> Route:
        """See ``BytesRouting``."""
        raise ProxyError(Reason.BAD_REQUEST, "only HTTP/1.1 is served here")

    async def authorize_bytes(self, snapshot: Snapshot, route: Route, wanted: RunningBytes) -> Permit:
        """See ``BytesRouting``."""
        raise ProxyError(Reason.BAD_REQUEST, "only HTTP/1.1 is served here")

    def asked_of_bytes(self, wanted: RunningBytes) -> Asked:
        """See ``BytesRouting``."""
        return Asked("inbound", wanted.info.principal, wanted.info.client, self.api.name, "TCP")

    def reached(self, connection: Connection) -> tuple[str, int]:
        """See ``Target``: no policy asks for it."""
        return "", 0

    async def dial_early(self, info: ConnectionInfo) -> Lease:
        """See ``Target``."""
        raise ProxyError(Reason.BAD_REQUEST, "only HTTP/1.1 is served here")

    async def _connect(self, private: str, seconds: float) -> Connection:
        return dial_unix(private, "api", self._context.connections)


class _Telling(Telemetry):
    """Counts; and says of what was refused here, and so never came to the audit log, a line per kind now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._refusals = ThrottledLog()

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


def _context(telemetry: Telemetry, acceptor: TlsAcceptor, connections: set[Connection], most: int) -> ProxyContext:
    return ProxyContext(
        timeouts=TIMEOUTS,
        connect_timeout=WAIT_SECONDS,
        pool_idle=POOL_IDLE_SECONDS,
        max_pool=most,
        max_waiting=most,
        trusted_proxies=(),
        via=False,
        keeps_request_ids=False,  # the audit log is searched by them: not for callers to choose
        telemetry=telemetry,
        overload=MemoryGuard(0),
        resolver=Resolver(own=()),
        pipes=Pipes(),
        acceptor=acceptor,
        connections=connections,
    )
