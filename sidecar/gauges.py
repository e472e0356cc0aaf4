"""What a scraper reads of the process as it is now: pools, limits, memory, lag. Part of the composition root.

Called once by ``app``; from then on ``Telemetry.read`` asks each reader when somebody scrapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.admin.context import AdminContext
from sidecar.admin.health import standing
from sidecar.data_plane import DataPlane
from sidecar.net.connection_pool import PoolUse
from sidecar.settings import Settings
from sidecar.telemetry.memory import MemoryGuard, MemoryState
from sidecar.telemetry.metric_snapshot import Readings
from sidecar.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from sidecar.mesh_runtime import MeshRuntime
    from sidecar.proxy.limit_enforcement import LimitsInForce

_PRESSURE = {state: number for number, state in enumerate(MemoryState)}


def add_gauges(
    telemetry: Telemetry,
    settings: Settings,
    admin: AdminContext,
    memory: MemoryGuard,
    directions: DataPlane,
    limits: LimitsInForce | None = None,
) -> None:
    """Gives every metric of ``catalog.READ`` its reader."""
    gauges = telemetry.gauges
    inbound, outbound = directions.inbound, directions.outbound
    gauges.add("sidecar_ready", lambda: standing(admin) == "live")
    gauges.add("sidecar_draining", lambda: admin.lifecycle.state == "draining")
    gauges.add("sidecar_connections_limit", lambda: settings.max_connections)
    gauges.add("sidecar_memory_limit_bytes", lambda: memory.limit)
    gauges.add("sidecar_memory_used_bytes", lambda: memory.used)
    gauges.add("sidecar_memory_pressure", lambda: _PRESSURE[memory.state])
    gauges.add("sidecar_loop_lag_last_seconds", lambda: telemetry.lag.last)
    gauges.add("sidecar_loop_lag_max_seconds", lambda: telemetry.lag.max)
    gauges.add_labelled("sidecar_gc_pause_max_seconds", telemetry.pauses.longest)
    log = telemetry.access_log
    gauges.add("sidecar_access_log_pending_bytes", lambda: 0 if log is None else log.writer.pending)
    gauges.add("sidecar_taps_open", lambda: len(telemetry.taps))
    gauges.add("sidecar_taps_dropped", lambda: telemetry.taps.dropped)

    interception_monitor, intercepted_inbound = directions.interception_monitor, directions.intercepted_inbound
    if interception_monitor is not None and intercepted_inbound is not None:
        gauges.add_labelled(
            "sidecar_interception_in_force",
            lambda: [((family,), float(met)) for family, met in interception_monitor.in_force.items()],
        )
        gauges.add("sidecar_interception_inbound_last_seen_timestamp_seconds", lambda: intercepted_inbound.last_seen)

    if admin.mesh_runtime is not None:
        _add_handshakes(telemetry, admin.mesh_runtime)

    if limits is not None:
        gauges.add_labelled("sidecar_rate_limit", limits.counts)
    feed = admin.mesh_runtime or admin.config_runtime
    if feed is not None:
        gauges.add_labelled("sidecar_route_requests", telemetry.routes.read)
        feed.add_gauges(gauges)

    def pools(number: Callable[[PoolUse], int]) -> Callable[[], Readings]:
        return lambda: [((name,), number(use)) for name, use in (inbound.uses() | outbound.uses()).items()]

    gauges.add_labelled("sidecar_pool_open_connections", pools(lambda use: use.open))
    gauges.add_labelled("sidecar_pool_idle_connections", pools(lambda use: use.idle))
    gauges.add_labelled("sidecar_pool_waiting_requests", pools(lambda use: use.waiting))
    gauges.add_labelled("sidecar_pool_limit_connections", pools(lambda use: use.limit))
    gauges.add_labelled("sidecar_pool_upstreams", pools(lambda use: use.upstreams))


def _add_handshakes(telemetry: Telemetry, mesh_runtime: MeshRuntime) -> None:
    gauges, acceptor = telemetry.gauges, mesh_runtime.acceptor
    gauges.add_labelled(
        "sidecar_tls_handshakes",
        lambda: [((outcome,), float(times)) for outcome, times in ({"ok": 0} | acceptor.outcomes).items()],
    )
    gauges.add_labelled(
        "sidecar_tls_groups", lambda: [((group,), float(times)) for group, times in acceptor.groups.items()]
    )
    gauges.add("sidecar_tls_handshakes_open", lambda: acceptor.under_way)
    gauges.add_labelled(
        "sidecar_tls_connections_cut",
        lambda: [((reason.word,), float(times)) for reason, times in mesh_runtime.identity.cut.items()],
    )
    telemetry.who = lambda: str(mesh_runtime.identity.spiffe_id or "")
