"""The composition root: builds everything from Settings, starts it, and ends it in the right order.

Nothing imports this but the command line. Order of starting: bind everything (what can't be bound is an error of one
line), then serve, then say so. Order of ending, on one clock from ``--drain-seconds``: not ready any more, and each
reply says ``connection: close``; after ``--drain-delay`` the inbound ports close without losing a connection that was
made; when inbound is empty (and, with interception, the app is gone, or was never seen to listen and calls nobody)
outbound likewise; what is left at the deadline is reset.
"""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic, time
from typing import TYPE_CHECKING

import trio

from sidecar import logging_setup
from sidecar.admin.context import AdminContext, Listening
from sidecar.admin.health import standing
from sidecar.admin.server import serve_admin, serve_scrape
from sidecar.admin.tokens import Token
from sidecar.data_plane import DataPlane, Serve
from sidecar.errors import Reason, StartError
from sidecar.gauges import add_gauges
from sidecar.http.timeouts import Timeouts
from sidecar.net.connection import Connection
from sidecar.net.graceful_drain import ConnectionTracker
from sidecar.net.listener import HANDSHAKE_SECONDS, Listener, bind, is_own
from sidecar.net.relay_reactor import RelayReactor
from sidecar.net.resolve import Resolver
from sidecar.net.splice_pipes import Pipes
from sidecar.net.timers import Sweeper
from sidecar.os_limits import descriptor_limit
from sidecar.policy.egress import Egress
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.explain_request import answer, of_record
from sidecar.resources.protocols import MEANINGS
from sidecar.resources.snapshot import NOTHING, Snapshot
from sidecar.settings import EffectiveOption, Settings
from sidecar.telemetry.memory import MemoryGuard
from sidecar.telemetry.record import Record
from sidecar.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from sidecar.dns.server import DnsServer

if TYPE_CHECKING:
    from sidecar.config_runtime import ConfigRuntime
    from sidecar.mesh_runtime import MeshRuntime

LOG_FLUSH_SECONDS = 2.0
MOST_DNS_SOCKETS = 1000  # or a quarter of the descriptors: connections come first
GC_ALLOCATIONS = 20_000  # requests leave no cycles behind, so the collector need not look after every 700 objects
_TAKEN_OUT = ("healthcheck_failed", "listeners_drained", "not_intercepting", "draining")
_log = logging.getLogger(__name__)


def run(settings: Settings, in_force: Sequence[EffectiveOption] = ()) -> int:
    """Runs until it is told to end; returns the exit code. Raises StartError before anything was served.

    ``in_force`` is what the settings were made of, for those who ask.
    """
    return trio.run(App(settings, in_force).main)


class App:
    """One process's worth of sidecar."""

    def __init__(self, settings: Settings, in_force: Sequence[EffectiveOption] = ()) -> None:
        self._settings = settings
        captured = settings.interception == "redirect"
        self._telemetry = Telemetry(
            settings.access_log, settings.access_log_file, captured=captured, mesh=settings.control is not None
        )
        self._memory = MemoryGuard(settings.memory_limit)
        connections: set[Connection] = set()
        self._membership = _membership(settings, connections)
        self._config_runtime = _config_runtime(settings)
        self._context = _context(
            settings, self._telemetry, self._memory, connections, self._membership, self._config_runtime
        )
        self._directions = DataPlane(settings, self._context)
        outbound = self._directions.outbound
        self._quit = trio.Event()
        self.state = "pre_initializing"
        self._listening: list[Listening] = []
        self._admin = AdminContext(
            telemetry=self._telemetry,
            lifecycle=self,
            listeners=self._listening,
            quit=self._quit.set,
            started=monotonic(),
            memory=self._memory,
            connections=self._context.connections,
            stop_accepting=self._stop_accepting,
            clusters=self._directions.pools,
            in_force=in_force,
            probes=settings.probe,
            dry_runs=self._directions.inbound.policies.dry_runs.shown,
            limits=list if self._context.limits is None else self._context.limits.shown,
            routes=lambda: outbound.shown_routes(self._telemetry.routes),
            outbound=lambda asked: outbound.explain(asked.method, asked.target, asked.authority, asked.fields),
            routed=outbound.explain_record,
            authorized=partial(of_record, self._directions.inbound, self._context),
            hypothetical=partial(answer, self._directions.inbound, self._context),
            drift=self._directions.drift_words,
            mesh_runtime=self._membership,
            config_runtime=self._config_runtime,
            token=Token(settings.admin_token_file),
        )
        if self._membership is not None:
            self._membership.taken_out = self._taken_out
            self._membership.acceptor.scheduler.forwarded = self._forwarded
            self._admin.health.changed = self._membership.change
        self._listeners: dict[str, list[Listener]] = {}
        self._dns: DnsServer | None = None
        self._connections: dict[str, ConnectionTracker] = {}
        add_gauges(self._telemetry, settings, self._admin, self._memory, self._directions, self._context.limits)

    def _forwarded(self) -> int:
        """A number that changes whenever a request or a piece of a relay goes on."""
        counters = self._telemetry.counters
        return counters.pool_hits + counters.pool_misses + counters.spliced_bytes + RelayReactor.current().looks

    async def main(self) -> int:
        """See :func:`run`."""
        self._bind()
        with logging_setup.in_background() as log:  # from here on no task waits for standard error
            self._log = log
            await self._run()
        return 0

    async def _run(self) -> None:
        sweeper = Sweeper(self._context.connections, [self._context.deadlines.sweep, self._tick])
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch_signals, nursery.cancel_scope)  # before anybody is told that it is ready
            nursery.start_soon(sweeper.run)
            inbound = self._serve(nursery, "inbound", self._directions.serve_inbound, self._admits)
            outbound = self._serve(nursery, "outbound", self._directions.serve_outbound, self._admits)
            self._telemetry.gauges.add_labelled(
                "sidecar_connections_open",
                lambda: [(("inbound",), float(inbound.open)), (("outbound",), float(outbound.open))],
            )
            self._serve(nursery, "admin", lambda connection, _: serve_admin(connection, self._admin), _always)
            self._serve(nursery, "scrape", lambda connection, _: serve_scrape(connection, self._admin), _always)
            nursery.start_soon(self._directions.watch_rules)
            await nursery.start(self._context.mirrors.run)
            if self._membership is not None:
                nursery.start_soon(self._membership.run)
            if self._config_runtime is not None:
                nursery.start_soon(self._config_runtime.run)
            if self._dns is not None:
                nursery.start_soon(self._dns.run, self._telemetry.counters)
            gc.collect()
            gc.freeze()  # what lives until the end is never looked at again
            gc.set_threshold(GC_ALLOCATIONS, 20, 20)
            self._telemetry.pauses.install()
            if oddity := self._admin.token.oddity():
                _log.warning("%s", oddity)
            await self._directions.wait_looked()
            self.state = "live"
            if self._membership is not None:
                self._membership.open(self._listeners["inbound"][0].address.port)
            _log.info("ready")
            await self._quit.wait()
            with trio.move_on_after(self._settings.drain_seconds) as patience:
                await self._drain()
            if patience.cancelled_caught:
                _log.warning("--drain-seconds have passed; what is still open is reset")
            nursery.cancel_scope.cancel()
        self._telemetry.pauses.remove()
        self._directions.close()
        self._context.pipes.close()
        if not self._telemetry.close(LOG_FLUSH_SECONDS):
            _log.warning("the last lines of the access log could not be written")

    # -- starting ----------------------------------------------------------------------------------------------------

    def _bind(self) -> None:
        settings = self._settings
        wanted = {
            "inbound": settings.inbound,
            "outbound": settings.outbound,
            "admin": settings.admin,
            "scrape": settings.scrape,
        }
        try:
            for name, addresses in wanted.items():
                listeners, warnings = bind(name, f"--{name}", addresses)
                self._listeners[name] = listeners
                self._context.listeners.extend(listeners)
                for warning in warnings:
                    _log.warning(warning)
            if settings.dns:
                self._bind_dns()
            upstream = settings.upstream
            if upstream is not None and is_own(self._context.listeners, upstream.host, upstream.port):
                raise StartError(f"--upstream: {upstream} is a listener of this very proxy; name the app's own port")
        except StartError:
            for listener in self._context.listeners:
                listener.sock.close()
            if self._dns is not None:
                self._dns.close()
            raise
        for listener in self._context.listeners:
            self._listening.append(Listening(listener.name, listener.address))
            _log.info("%s listening on %s", listener.name, listener.address)
        protocol = settings.protocol
        _log.info("inbound: --protocol %s, unless a service declares more: %s", protocol, MEANINGS[protocol])

    def _bind_dns(self) -> None:
        from sidecar.dns.names import names_of  # with dnspython, some 4 MB that nobody else needs
        from sidecar.dns.server import DnsServer, bind_dns

        listeners, datagrams, warnings = bind_dns(self._settings.dns)
        self._context.listeners.extend(listeners)
        for warning in warnings:
            _log.warning(warning)
        names = names_of(self._settings.dns_host, None if self._membership is None else self._membership.addresses_of)
        sockets = min(MOST_DNS_SOCKETS, descriptor_limit() // 4)
        self._dns = DnsServer(listeners, datagrams, names, self._telemetry.counters, most_sockets=sockets)

    def _serve(
        self, nursery: trio.Nursery, name: str, serve: Serve, admits: Callable[[int], bool]
    ) -> ConnectionTracker:
        counters = self._telemetry.counters if admits is not _always else _Uncounted()

        def refused(peer: str) -> None:
            self._note_refused(name, peer)

        limits = self._context.limits
        gate = None if limits is None or admits is _always else limits.gate(name)
        tracker = ConnectionTracker(nursery, serve, self._context.connections, counters, admits, refused, gate)
        self._connections[name] = tracker
        take = self._directions.outbound_taker(tracker.take) if name == "outbound" else tracker.take
        for listener in self._listeners[name]:
            nursery.start_soon(listener.accept, self._telemetry.counters, take)
        return tracker

    def _admits(self, active: int) -> bool:
        return active < self._settings.max_connections and self._memory.admits(active)

    def _taken_out(self) -> str:
        """Why callers should not be sent here, in a word; empty where they should."""
        word = standing(self._admin)
        return word if word in _TAKEN_OUT else ""

    def _note_refused(self, direction: str, peer: str) -> None:
        """A connection that was refused at the door leaves a record as well, or nobody would know why."""
        record = Record(direction, "TCP", peer, time(), monotonic())
        limit = self._settings.max_connections
        if self._telemetry.counters.connections_active >= limit:
            record.reason, record.detail = Reason.TOO_MANY_CONNECTIONS, f"{limit} connections are open"
        else:
            record.reason, record.detail = Reason.MEMORY, "the proxy is near its memory limit"
        self._telemetry.begin_opaque(record)
        self._telemetry.finish(record)

    # -- running -----------------------------------------------------------------------------------------------------

    def _tick(self, now: float, late: float) -> None:
        self._telemetry.tick(now - late, now)
        self._count_lost_lines()
        self._memory.tick(now)
        self._directions.sweep(now)
        if self._context.limits is not None:
            self._context.limits.sweep()

    def _count_lost_lines(self) -> None:
        self._telemetry.counters.app_log_dropped += self._log.newly_dropped()

    async def _watch_signals(
        self, everything: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self._telemetry.reopen()
                elif not self._quit.is_set():
                    _log.info("%s: draining", signal.Signals(number).name)
                    self._quit.set()
                else:
                    _log.info("%s again: ending at once", signal.Signals(number).name)
                    everything.cancel()

    # -- ending ------------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        self.state = "draining"
        self._context.drain.active = True
        async with trio.open_nursery() as nursery:
            if self._membership is not None:
                self._membership.identity.drain()
                nursery.start_soon(self._membership.leave)  # beside the rest, which waits for it at the end, if at all
            await self._empty_all()

    async def _empty_all(self) -> None:
        await trio.sleep(self._settings.drain_delay)
        await self._empty("inbound")
        await self._directions.wait_app_gone(self._connections["outbound"].wait_drained)
        self._directions.stop_watching()
        await self._empty("outbound")

    async def _empty(self, name: str) -> None:
        for listener in self._listeners[name]:
            listener.refuse_new()
        await trio.sleep(HANDSHAKE_SECONDS)
        self._stop_accepting(name)
        await self._connections[name].wait_drained()

    def _stop_accepting(self, name: str = "inbound") -> None:
        """Closes the listeners of this name; what is connected stays. Once is enough, twice does no harm."""
        for listener in self._listeners[name]:
            listener.close_losslessly(self._telemetry.counters, self._connections[name].take)
        if self._membership is not None and self.state == "live":
            self._membership.change()
        self._listening[:] = [replace(each, accepting=each.accepting and each.name != name) for each in self._listening]


class _Uncounted:
    """Admin connections are bounded by their seats and are not the data plane's."""

    def __init__(self) -> None:
        self.connections_active = self.connections_refused = 0


def _always(_: int) -> bool:
    return True


def _membership(settings: Settings, connections: set[Connection]) -> MeshRuntime | None:
    """The proxy's part in a mesh, where it is told of one; imported only then, since that imports OpenSSL."""
    if settings.control is None:
        return None
    from sidecar.mesh_runtime import MeshRuntime

    return MeshRuntime(settings, connections)


def _config_runtime(settings: Settings) -> ConfigRuntime | None:
    """What the proxy obeys by files alone; imported only then, since most read none."""
    if settings.control is not None or not settings.config:
        return None
    from sidecar.config_runtime import ConfigRuntime

    return ConfigRuntime(settings)


def _context(
    settings: Settings,
    telemetry: Telemetry,
    memory: MemoryGuard,
    connections: set[Connection],
    mesh_runtime: MeshRuntime | None,
    config_runtime: ConfigRuntime | None,
) -> ProxyContext:
    runtime = mesh_runtime or config_runtime
    timeouts = Timeouts(
        request_head=settings.request_head_timeout,
        idle=settings.idle_timeout,
        stream_idle=settings.stream_idle_timeout,
        body_min_rate=settings.body_min_rate,
        body_min_window=settings.body_min_window,
        max_body=settings.max_body,
    )

    def current() -> Snapshot:
        return NOTHING if runtime is None else runtime.current.snapshot

    limits = None
    if runtime is not None:
        from sidecar.proxy.limit_enforcement import LimitsInForce  # without documents there are no limits

        limits = LimitsInForce(telemetry, current)
    return ProxyContext(
        timeouts=timeouts,
        connect_timeout=settings.connect_timeout,
        pool_idle=settings.pool_idle_timeout,
        max_pool=settings.max_app_connections,
        max_waiting=settings.max_waiting,
        trusted_proxies=settings.trusted_proxies,
        via=settings.via,
        telemetry=telemetry,
        overload=memory,
        resolver=Resolver(own=settings.dns),
        pipes=Pipes(),
        connections=connections,
        acceptor=None if mesh_runtime is None else mesh_runtime.acceptor,
        mesh=mesh_runtime,
        current=current,
        documents=None if config_runtime is None else config_runtime.current,
        limits=limits,
        egress=Egress(settings.outbound_policy == "REGISTRY_ONLY", settings.allow_host),
    )
