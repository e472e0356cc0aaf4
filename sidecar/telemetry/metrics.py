"""The numbers: plain integers that the hot path adds to. Nothing here formats, and nothing imports a metrics library.

Who calls it: everybody adds to ``Counters``; ``Telemetry.finish`` gives each record to ``RequestMetrics``;
``telemetry.exposition`` reads both when somebody scrapes.

``RequestMetrics`` keeps all its numbers in one flat list. A series (one set of labels) owns a run of cells in it, found
by a small tuple; to note a record is one look-up and a few additions. A flat run of numbers is also what several
processes can share one day: the list becomes a view of shared memory with the same indexing, or each process is read
out and the lists are added up.

Labels take no value that a peer chooses freely: protocols are mapped to two words, flags and reasons are ours, a status
that is not registered is filed under "other", and past ``MAX_SERIES`` any new one is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

from sidecar.errors import Reason
from sidecar.telemetry.record import Record

# Istio's buckets, in milliseconds; it uses the same numbers for its histograms of bytes.
# fmt: off
BUCKETS = (
    0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000,
)
# fmt: on
_BYTE_BUCKETS = (0, *BUCKETS[1:])  # as BUCKETS for whole numbers, which compare faster among themselves

HISTOGRAM_CELLS = len(BUCKETS) + 2  # each bucket, the one above all, the sum
HTTP_CELLS = 3 * HISTOGRAM_CELLS  # duration, bytes of the request, bytes of the response
TCP_CELLS = 3  # bytes sent, bytes received, connections closed
MAX_SERIES = 256  # 0.5 kB each, and 45 kB of a page; a usual process has a dozen

_REQUEST_AT = HISTOGRAM_CELLS
_REQUEST_SUM = 2 * HISTOGRAM_CELLS - 1
_RESPONSE_AT = 2 * HISTOGRAM_CELLS
_RESPONSE_SUM = 3 * HISTOGRAM_CELLS - 1
_DURATION_SUM = HISTOGRAM_CELLS - 1

REPORTERS = {"inbound": "destination", "outbound": "source"}
_OPAQUE = frozenset(("TCP", "TLS", "HTTP/2"))


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """How a number in Counters is shown: ``kind`` is "counter" or "gauge", ``labels`` are (name, value) pairs."""

    attribute: str
    name: str
    kind: str
    help: str
    labels: tuple[tuple[str, str], ...] = ()


def _captured(direction: str) -> MetricDefinition:
    text = "Connections that rules redirected here, by direction; also those that were refused."
    return MetricDefinition(
        f"captured_{direction}", "sidecar_captured_connections", "counter", text, (("direction", direction),)
    )


def _detected(attribute: str, outcome: str) -> MetricDefinition:
    text = "Connections by what their first bytes were."
    return MetricDefinition(attribute, "sidecar_detected_connections", "counter", text, (("outcome", outcome),))


def _authorized(attribute: str, decision: str) -> MetricDefinition:
    text = "What policies decided of requests, and of connections that are relayed; none where there are no policies."
    return MetricDefinition(attribute, "sidecar_authorization_decisions", "counter", text, (("decision", decision),))


def _dry_run(attribute: str, decision: str) -> MetricDefinition:
    text = "Decisions that would be another one if the policies of a dry run were in force."
    return MetricDefinition(attribute, "sidecar_authorization_dry_run", "counter", text, (("decision", decision),))


def _retried(attribute: str, outcome: str) -> MetricDefinition:
    text = (
        "Requests that retries were about: the last of several attempts succeeded, or one more was wanted, and the "
        "attempts or the budget were used up."
    )
    return MetricDefinition(attribute, "sidecar_retried_requests", "counter", text, (("outcome", outcome),))


def _mirrored(attribute: str, outcome: str) -> MetricDefinition:
    text = "Copies of requests for mirrors, by what became of them; dropped: too many, too long, or not allowed."
    return MetricDefinition(attribute, "sidecar_mirrored_requests", "counter", text, (("outcome", outcome),))


def _dns(attribute: str, outcome: str) -> MetricDefinition:
    return MetricDefinition(
        attribute, "sidecar_dns_queries", "counter", "DNS queries by what became of them.", (("outcome", outcome),)
    )


# One row per number, in the order in which it is shown; rows of one name stand together.
METERS = (
    MetricDefinition(
        "connections_accepted", "sidecar_connections_accepted", "counter", "Connections accepted by a listener."
    ),
    MetricDefinition(
        "connections_refused", "sidecar_connections_refused", "counter", "Connections refused: limit or memory."
    ),
    MetricDefinition("connections_active", "sidecar_connections_active", "gauge", "Client connections open now."),
    MetricDefinition(
        "accept_errors", "sidecar_accept_errors", "counter", "Failures of accept, as for want of descriptors."
    ),
    MetricDefinition(
        "requests_active", "sidecar_requests_active", "gauge", "Requests and opaque connections in progress."
    ),
    MetricDefinition("pool_hits", "sidecar_pool_hits", "counter", "Requests that found an idle upstream connection."),
    MetricDefinition("pool_misses", "sidecar_pool_misses", "counter", "Requests that opened an upstream connection."),
    MetricDefinition("pool_waits", "sidecar_pool_waits", "counter", "Requests that waited for an upstream connection."),
    MetricDefinition("retries", "sidecar_retries", "counter", "Requests sent again over another upstream connection."),
    _retried("retries_succeeded", "succeeded"),
    _retried("retries_exhausted", "attempts_exhausted"),
    _retried("retries_over_budget", "budget_exhausted"),
    _mirrored("mirrors_sent", "answered"),
    _mirrored("mirrors_failed", "failed"),
    _mirrored("mirrors_dropped", "dropped"),
    _authorized("rbac_allowed", "allowed"),
    _authorized("rbac_denied", "denied"),
    _authorized("rbac_audited", "audited"),
    _dry_run("rbac_would_allow", "would_allow"),
    _dry_run("rbac_would_deny", "would_deny"),
    MetricDefinition(
        "rbac_cut",
        "sidecar_authorization_cut",
        "counter",
        "Requests and connections that were ended since a policy that came later denies them.",
    ),
    _detected("detect_http", "http"),
    _detected("detect_tls", "tls"),
    _detected("detect_http2", "http2"),
    _detected("detect_opaque", "opaque"),
    _detected("detect_server_first", "server_first"),
    _detected("detect_nothing", "nothing"),
    _detected("detect_undecided", "undecided"),
    _dns("dns_known", "known"),
    _dns("dns_forwarded", "forwarded"),
    _dns("dns_nxdomain", "nxdomain"),
    _dns("dns_failed", "failed"),
    _dns("dns_refused", "refused"),
    _dns("dns_malformed", "malformed"),
    _dns("dns_looped", "looped"),
    MetricDefinition("dns_active", "sidecar_dns_queries_active", "gauge", "DNS queries that wait for a resolver."),
    MetricDefinition(
        "dns_retries", "sidecar_dns_retries", "counter", "DNS queries sent again, most often to another resolver."
    ),
    MetricDefinition(
        "dns_mismatched",
        "sidecar_dns_mismatched_answers",
        "counter",
        "Answers dropped, since they were not to what a resolver had been asked.",
    ),
    MetricDefinition(
        "dns_connections_refused",
        "sidecar_dns_connections_refused",
        "counter",
        "TCP connections for DNS refused: too many are open.",
    ),
    _captured("inbound"),
    _captured("outbound"),
    MetricDefinition("spliced_bytes", "sidecar_spliced_bytes", "counter", "Bytes relayed inside the kernel."),
    MetricDefinition(
        "access_log_dropped", "sidecar_access_log_dropped_lines", "counter", "Lines dropped: the log was too slow."
    ),
    MetricDefinition(
        "app_log_dropped", "sidecar_app_log_dropped_lines", "counter", "Lines dropped: standard error was too slow."
    ),
    MetricDefinition(
        "access_log_errors",
        "sidecar_access_log_errors",
        "counter",
        "Failed writes of the access log.",
    ),
)


class Counters:
    """One integer per row of METERS; whoever knows of an event adds to it (``counters.pool_hits += 1``)."""

    __slots__ = tuple(meter.attribute for meter in METERS)

    accept_errors: int
    access_log_dropped: int
    access_log_errors: int
    app_log_dropped: int
    captured_inbound: int
    captured_outbound: int
    connections_accepted: int
    connections_active: int
    connections_refused: int
    detect_http: int
    detect_http2: int
    detect_nothing: int
    detect_opaque: int
    detect_server_first: int
    detect_tls: int
    detect_undecided: int
    dns_active: int
    dns_connections_refused: int
    dns_failed: int
    dns_forwarded: int
    dns_known: int
    dns_looped: int
    dns_malformed: int
    dns_mismatched: int
    dns_nxdomain: int
    dns_refused: int
    dns_retries: int
    mirrors_dropped: int
    mirrors_failed: int
    mirrors_sent: int
    pool_hits: int
    pool_misses: int
    pool_waits: int
    rbac_allowed: int
    rbac_audited: int
    rbac_cut: int
    rbac_denied: int
    rbac_would_allow: int
    rbac_would_deny: int
    requests_active: int
    retries: int
    retries_exhausted: int
    retries_over_budget: int
    retries_succeeded: int
    spliced_bytes: int

    def __init__(self) -> None:
        for meter in METERS:
            setattr(self, meter.attribute, 0)

    def read(self) -> tuple[int, ...]:
        """The numbers in the order of METERS."""
        return tuple(getattr(self, meter.attribute) for meter in METERS)

    def reset(self) -> None:
        """Sets all to zero but what is open now."""
        for meter in METERS:
            if meter.kind == "counter":
                setattr(self, meter.attribute, 0)


# (direction, response code or -1 for an opaque connection, reason's flag)
Key = tuple[str, int, str]
SeriesKey = tuple[str, int, str, str]  # and the peer's principal: empty where it showed none
OPAQUE_CODE = -1
OTHER_CODE = 1000  # shown as "other"
OTHER_PEERS = "other"
MAX_PEERS = 64  # principals with series of their own; those after them are "other"
_CODES = frozenset((OPAQUE_CODE, OTHER_CODE, 0, *HTTPStatus))  # 0: no answer could be given


@dataclass(frozen=True, slots=True)
class RequestFigures:
    """A copy of all numbers of RequestMetrics, to be rendered elsewhere, also on another thread."""

    cells: tuple[float, ...]
    series: tuple[tuple[SeriesKey, int], ...]
    opened: tuple[tuple[tuple[str, str], int], ...]  # by direction and peer, as of a series
    errors: tuple[tuple[tuple[str, str], int], ...]


class RequestMetrics:
    """Istio's request and TCP metrics, and the reasons of what failed."""

    __slots__ = ("_cells", "_errors", "_opened", "_runs")

    def __init__(self) -> None:
        self._cells: list[float] = []
        self._runs: dict[Key, int] = {}  # where each series' cells begin
        self._opened = dict.fromkeys(((direction, "") for direction in REPORTERS), 0)
        self._errors: dict[tuple[str, str], int] = {}

    def open_opaque(self, record: Record) -> None:
        """An opaque connection begins, of which the record says who the peer is; it is finished at its end."""
        self._note_opened(record.direction, "")

    def note(self, record: Record) -> None:
        """Counts a finished record."""
        reason = record.reason
        if reason is None:
            flag = record.flags if record.flagged else "-"
        else:
            flag = record.flags
            self._note_error(reason, record.direction)
        if record.protocol in _OPAQUE:
            at = self._run((record.direction, OPAQUE_CODE, flag))
            cells = self._cells
            cells[at] += record.bytes_sent
            cells[at + 1] += record.bytes_received
            cells[at + 2] += 1
            return
        key = (record.direction, record.status, flag)
        found = self._runs.get(key)
        at = self._run(key) if found is None else found
        cells = self._cells
        milliseconds = record.duration * 1000
        received = record.bytes_received
        sent = record.bytes_sent
        cells[at + bisect_left(BUCKETS, milliseconds)] += 1
        cells[at + _DURATION_SUM] += milliseconds
        if received:
            cells[at + _REQUEST_AT + bisect_left(_BYTE_BUCKETS, received)] += 1
            cells[at + _REQUEST_SUM] += received
        else:
            cells[at + _REQUEST_AT] += 1
        cells[at + _RESPONSE_AT + bisect_left(_BYTE_BUCKETS, sent)] += 1
        cells[at + _RESPONSE_SUM] += sent

    def read(self) -> RequestFigures:
        """All numbers as they are now."""
        return RequestFigures(
            cells=tuple(self._cells),
            series=tuple(self._series()),
            opened=tuple(self._opened.items()),
            errors=tuple(self._errors.items()),
        )

    def reset(self) -> None:
        """Sets all to zero. The series stay, so that what a scraper saw before does not vanish."""
        self._cells = [0] * len(self._cells)
        self._opened = dict.fromkeys(self._opened, 0)
        self._errors = dict.fromkeys(self._errors, 0)

    def _series(self) -> Iterator[tuple[SeriesKey, int]]:
        return (((*key, ""), at) for key, at in self._runs.items())

    def _note_opened(self, direction: str, peer: str) -> None:
        key = (direction, peer)
        self._opened[key] = self._opened.get(key, 0) + 1

    def _note_error(self, reason: Reason, direction: str) -> None:
        key = (reason.word, direction)
        self._errors[key] = self._errors.get(key, 0) + 1

    def _run(self, key: Key) -> int:
        """Where the cells of a series begin; makes the series when it is new, or finds the one that stands for it."""
        found = self._runs.get(key)
        if found is not None:
            return found
        direction, code, flag = key
        if code not in _CODES or (code not in (OPAQUE_CODE, OTHER_CODE) and len(self._runs) >= MAX_SERIES):
            return self._run((direction, OTHER_CODE, flag))
        at = self._runs[key] = len(self._cells)
        self._cells.extend([0] * (TCP_CELLS if code == OPAQUE_CODE else HTTP_CELLS))
        return at


class MeshMetrics(RequestMetrics):
    """The same, told apart by who the peer has shown to be: each principal has a table of series of its own, so that a
    proxy without peers does no more than it did. Authorities name their workloads, so there are not many; but past
    ``MAX_PEERS`` they are filed together."""

    __slots__ = ("_by_peer",)

    def __init__(self) -> None:
        super().__init__()
        self._by_peer = {"": self._runs}

    def open_opaque(self, record: Record) -> None:
        """As of ``RequestMetrics``."""
        self._note_opened(record.direction, self._filed(_peer(record)))

    def note(self, record: Record) -> None:
        """As of ``RequestMetrics``."""
        peer = _peer(record)
        runs = self._by_peer.get(peer)
        self._runs = self._by_peer[self._filed(peer)] if runs is None else runs
        super().note(record)

    def _filed(self, peer: str) -> str:
        """The name under which this peer has its table of series."""
        if peer not in self._by_peer and len(self._by_peer) > MAX_PEERS:
            peer = OTHER_PEERS
        self._by_peer.setdefault(peer, {})
        return peer

    def _series(self) -> Iterator[tuple[SeriesKey, int]]:
        return (((*key, peer), at) for peer, runs in self._by_peer.items() for key, at in runs.items())


def _peer(record: Record) -> str:
    return record.principal if record.direction == "inbound" else record.upstream_principal
