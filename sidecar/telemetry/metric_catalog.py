"""Every metric that a scraper can see: its name, kind, labels and what it says. One table, from which the exposition
takes its help texts and ``docs/reference/metrics.md`` is made.

Names, labels and buckets are Istio's where Istio has the metric; the rest is ours and begins with ``sidecar_``. A
counter's name stands here without ``_total``, which the formats add. Pure: data, and nothing that counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sidecar.telemetry.metrics import METERS

UNKNOWN: Final = "unknown"
_PARTY: Final = (
    "workload", "workload_namespace", "principal", "app", "version", "cluster", "canonical_service",
    "canonical_revision",
)  # fmt: skip
# What no identity or resource tells us yet is "unknown", as with Istio; a host that a client named is not believed.
PARTIES: Final = (
    *(f"source_{each}" for each in _PARTY),
    *(f"destination_{each}" for each in _PARTY),
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
)
HTTP_LABELS: Final = (
    "reporter",
    *PARTIES,
    "request_protocol",
    "response_code",
    "response_flags",
    "connection_security_policy",
)
TCP_LABELS: Final = tuple(label for label in HTTP_LABELS if label != "response_code")

# Istio: only who reports as the destination can know how the connection was secured.
SECURITY: Final = {"destination": "none", "source": UNKNOWN}
MUTUAL_TLS: Final = "mutual_tls"


@dataclass(frozen=True, slots=True)
class Metric:
    """``kind`` is counter, gauge, histogram or info."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[str, ...]:
        """The names of its samples."""
        ends = {"counter": ("_total",), "info": ("_info",), "histogram": ("_bucket", "_sum", "_count")}
        return tuple(self.name + end for end in ends.get(self.kind, ("",)))


def _istio(name: str, kind: str, text: str) -> Metric:
    return Metric(f"istio_{name}", kind, text, TCP_LABELS if name.startswith("tcp_") else HTTP_LABELS)


REQUESTS: Final = _istio("requests", "counter", "Requests that ended, answered or not.")
# In the order in which RequestMetrics has their cells.
REQUEST_HISTOGRAMS: Final = (
    _istio("request_duration_milliseconds", "histogram", "How long requests took, in milliseconds."),
    _istio("request_bytes", "histogram", "Body bytes received with requests."),
    _istio("response_bytes", "histogram", "Body bytes sent with responses."),
)
OPENED: Final = _istio(
    "tcp_connections_opened", "counter", "Opaque connections that began, counted once it is known who the peer is."
)
TCP_COUNTERS: Final = (
    _istio("tcp_sent_bytes", "counter", "Bytes sent to the clients of opaque connections."),
    _istio("tcp_received_bytes", "counter", "Bytes received from the clients of opaque connections."),
    _istio("tcp_connections_closed", "counter", "Opaque connections that ended."),
)
ERRORS: Final = Metric(
    "sidecar_errors", "counter", "Requests and connections that failed, by reason.", ("reason", "direction")
)
COUNTED: Final = tuple(
    dict.fromkeys(Metric(row.name, row.kind, row.help, tuple(name for name, _ in row.labels)) for row in METERS)
)

DETECTION: Final = Metric("sidecar_detection_seconds", "histogram", "How long it took to find out what is spoken.")
LAG: Final = Metric("sidecar_loop_lag_seconds", "histogram", "How late the event loop was, at each look.")
PAUSES: Final = Metric(
    "sidecar_gc_pause_seconds", "histogram", "Pauses of the garbage collector, by generation.", ("generation",)
)
TIMINGS: Final = (DETECTION, LAG, PAUSES)

# What is read only when somebody asks. The pools: "inbound" and "inbound_opaque" lead to the app, "outbound" is all
# destinations together.
READ: Final = (
    Metric("sidecar_ready", "gauge", "1 while new work is taken: bound, and not draining."),
    Metric("sidecar_draining", "gauge", "1 while the process drains."),
    Metric(
        "sidecar_interception_in_force", "gauge",
        "1 where the rules lead the pod's own connections to the outbound port, at the last look.", ("family",),
    ),
    Metric(
        "sidecar_interception_inbound_last_seen_timestamp_seconds", "gauge",
        "When a redirected connection last came to the inbound port, since unix epoch in seconds; 0: never.",
    ),
    Metric(
        "sidecar_tls_handshakes", "counter",
        "TLS handshakes of the mesh, inbound and outbound, by how they ended: ok, or the rule that was broken.",
        ("outcome",),
    ),
    Metric("sidecar_tls_groups", "counter", "Handshakes that ended well, by key agreement.", ("group",)),
    Metric("sidecar_tls_handshakes_open", "gauge", "Handshakes with callers that are under way."),
    Metric(
        "sidecar_tls_connections_cut", "counter",
        "Connections that were cut since a certificate was no longer good, by reason: revoked, certificate_expired "
        "(also where it is this proxy's own), root_withdrawn.",
        ("reason",),
    ),
    Metric("sidecar_connections_limit", "gauge", "Client connections that may be open, --max-connections."),
    Metric("sidecar_connections_open", "gauge", "Client connections open now, by direction.", ("direction",)),
    Metric("sidecar_pool_open_connections", "gauge", "Upstream connections open or being made.", ("pool",)),
    Metric("sidecar_pool_idle_connections", "gauge", "Upstream connections that wait for a request.", ("pool",)),
    Metric("sidecar_pool_waiting_requests", "gauge", "Requests that wait for an upstream connection.", ("pool",)),
    Metric("sidecar_pool_limit_connections", "gauge", "Connections that one upstream may have.", ("pool",)),
    Metric("sidecar_pool_upstreams", "gauge", "Upstreams that have connections, or had them lately.", ("pool",)),
    Metric("sidecar_memory_limit_bytes", "gauge", "What memory in use is held against; 0: no limit."),
    Metric("sidecar_memory_used_bytes", "gauge", "Memory in use as the limit counts it; 0 where there is no limit."),
    Metric("sidecar_memory_pressure", "gauge", "0 normal, 1 keep-alive off, 2 new work refused."),
    Metric("sidecar_loop_lag_last_seconds", "gauge", "How late the event loop was last."),
    Metric("sidecar_loop_lag_max_seconds", "gauge", "How late the event loop was at most, since the start or a reset."),
    Metric(
        "sidecar_gc_pause_max_seconds", "gauge", "The longest pause of the collector, since the start or a reset.",
        ("generation",),
    ),
    Metric(
        "sidecar_certificate_expiry_timestamp_seconds", "gauge",
        "When this proxy's certificate ends, since unix epoch in seconds; 0: it has none.",
    ),
    Metric(
        "sidecar_certificate_renewals", "counter",
        "Certificates asked for, by what came of it: ok, or what went wrong.", ("outcome",),
    ),
    Metric(
        "sidecar_control_plane_errors", "counter",
        "Calls of the control plane that failed, by call (certificate, snapshot, ...) and what went wrong.",
        ("call", "reason"),
    ),
    Metric(
        "sidecar_control_plane_clock_skew_seconds", "gauge",
        "How far the control plane's clock is ahead of ours, at its last answer.",
    ),
    Metric(
        "sidecar_revocation_list_overdue", "gauge",
        "1 where a revocation list should have been followed by a newer one; it goes on being used.",
    ),
    Metric("sidecar_snapshot_source", "gauge", "1 for where what is obeyed came from.", ("source",)),
    Metric(
        "sidecar_snapshot_version", "gauge",
        "The number in the version of what is obeyed; it rises within an epoch of the control plane.",
    ),
    Metric(
        "sidecar_snapshot_taken_timestamp_seconds", "gauge",
        "When that came, or was last confirmed after a restart, since unix epoch in seconds; 0: never.",
    ),
    Metric("sidecar_snapshots", "counter", "Configurations by what became of them: accepted, refused.", ("outcome",)),
    Metric(
        "sidecar_snapshot_slice_max_seconds", "gauge",
        "The longest that applying configuration from the control plane held the event loop, in seconds of its CPU, "
        "since the start or a reset.",
    ),
    Metric(
        "sidecar_snapshot_apply_cpu_seconds", "gauge", "CPU that the last such configuration cost, in all its slices.",
    ),
    Metric(
        "sidecar_registration_state", "gauge",
        "1 for how this sidecar stands as an endpoint of its service: waiting, registered, left.", ("state",),
    ),
    Metric(
        "sidecar_rate_limit", "counter",
        "Requests and connections that limits of RateLimitPolicies were about, by what became of them: admitted, "
        "refused, or shadowed (beyond a limit of mode SHADOW).",
        ("policy", "limit", "of", "decision"),
    ),
    Metric(
        "sidecar_route_requests", "counter",
        "Requests that a rule of a VirtualService was about: the rule as NAMESPACE/VIRTUAL-SERVICE/RULE, where it sent "
        "them (empty: the proxy answered), and the status.",
        ("route", "destination", "subset", "response_code"),
    ),
    Metric("sidecar_app_healthy", "gauge", "1 where --health finds the app well."),
    Metric("sidecar_access_log_pending_bytes", "gauge", "Bytes of the access log that are not written yet."),
    Metric("sidecar_taps_open", "gauge", "Readers of live records, as by /tap."),
    Metric("sidecar_taps_dropped", "counter", "Readers of live records that were too slow and got no more."),
)  # fmt: skip
BUILD: Final = Metric("sidecar_build", "info", "The version that runs.", ("version",))
# prometheus-client's own, under the names that every client library uses.
PROCESS: Final = (
    Metric("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes."),
    Metric("process_resident_memory_bytes", "gauge", "Resident memory size in bytes."),
    Metric("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds."),
    Metric("process_cpu_seconds", "counter", "Total user and system CPU time spent in seconds."),
    Metric("process_open_fds", "gauge", "Number of open file descriptors."),
    Metric("process_max_fds", "gauge", "Maximum number of open file descriptors."),
)

ISTIO: Final = (REQUESTS, *REQUEST_HISTOGRAMS, OPENED, *TCP_COUNTERS)
OURS: Final = (ERRORS, *COUNTED, *TIMINGS, *READ, BUILD)
METRICS: Final = (*ISTIO, *OURS, *PROCESS)
