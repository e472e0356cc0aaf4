"""Where finished records go, and the one object through which the rest of the process is counted and logged.

Who calls it: the composition root makes one; the proxy hands it records (``finish``) and adds to ``counters``; the
sweeper ticks it; the admin server reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from sidecar.errors import Fault
from sidecar.telemetry import metric_catalog
from sidecar.telemetry.access_log import AccessLog
from sidecar.telemetry.gc_pauses import GcPauses
from sidecar.telemetry.history import History, Taps
from sidecar.telemetry.log_writer import LogWriter
from sidecar.telemetry.metric_snapshot import Gauges, MetricSnapshot
from sidecar.telemetry.metrics import Counters, MeshMetrics, RequestMetrics
from sidecar.telemetry.process import LoopLag
from sidecar.telemetry.record import Record
from sidecar.telemetry.route_counts import RouteCounts
from sidecar.telemetry.throttled_log import ThrottledLog
from sidecar.telemetry.timings import Seconds

_SHOULD_NOT_RISE = {
    "accept_errors": "connections could not be accepted; are there descriptors left (ulimit -n)?",
    "dns_refused": "DNS queries were refused: a zone transfer, or too many wait; do the resolvers answer?",
    "dns_looped": "the proxy's own DNS queries came back to it; leave its uid alone, or correct the resolvers",
    "access_log_dropped": "lines of the access log were lost: whatever takes them is too slow",
}


class Telemetry:
    """A Sink for records: metrics, then the access log. ``log_form`` is "text", "json" or "off"; ``log_path`` a file or
    ``-`` for standard output; ``captured``: its lines say where connections wanted to go; ``mesh``: they and the
    metrics say who the peers are. Raises StartError when the file can't be opened."""

    def __init__(
        self, log_form: str = "off", log_path: str = "-", *, captured: bool = False, mesh: bool = False
    ) -> None:
        self.counters = Counters()
        self.requests = MeshMetrics() if mesh else RequestMetrics()
        self.who: Callable[[], str] = str  # who this proxy is; empty outside a mesh
        self.lag = LoopLag()
        self.detection = Seconds()
        self.pauses = GcPauses()  # measured once installed
        self.gauges = Gauges()
        self.history = History()
        self.routes = RouteCounts()
        self.taps = Taps()
        self._complaints = ThrottledLog()
        self._risen = dict.fromkeys(_SHOULD_NOT_RISE, 0)
        self.access_log = (
            None
            if log_form == "off"
            else AccessLog(log_form, LogWriter(log_path), self.counters, captured=captured, mesh=mesh)
        )

    def begin_opaque(self, record: Record) -> None:
        """An opaque connection (protocol TCP, TLS or HTTP/2) begins: once per record, before its ``finish``, and when
        it is known who the peer is, or that this will not be known. Istio counts it then too."""
        self.requests.open_opaque(record)

    def finish(self, record: Record) -> None:
        """Counts and logs a record, whose ``duration`` is filled in here if it is not yet. Never blocks."""
        if not record.duration:
            record.duration = monotonic() - record.began
        if record.attempts > 1 or record.flagged:
            self._note_retries(record)
        self.requests.note(record)
        if record.route:
            self.routes.note(record)
        if self.access_log is not None:
            self.access_log.write(record)
        reason = record.reason
        if reason is not None and reason.fault is Fault.OVERLOAD:
            self._complaints.note(f"{reason.word} ({reason.flag})", record.detail, monotonic())
        self.history.add(record)  # after the log, since it cuts what is long
        if self.taps.listeners:
            self.taps.offer(record)

    def _note_retries(self, record: Record) -> None:
        counters = self.counters
        counters.retries += max(0, record.attempts - 1)
        if record.exhausted == "attempts":
            counters.retries_exhausted += 1
        elif record.exhausted:
            counters.retries_over_budget += 1
        elif record.attempts > 1 and not record.failed:
            counters.retries_succeeded += 1

    def note_detection(self, seconds: float) -> None:
        """How long it took to find out what a connection speaks."""
        self.detection.note(seconds)

    def tick(self, due: float, now: float) -> None:
        """To be called every 50-100 ms, with when that was due and when it is, on the monotonic clock."""
        self.lag.note(due, now)
        if self.access_log is not None:
            self.access_log.tick(now)
        for name, sentence in _SHOULD_NOT_RISE.items():
            number = getattr(self.counters, name)
            if number > self._risen[name]:
                self._complaints.note(name, sentence, now, number - self._risen[name])
            self._risen[name] = number
        self._complaints.tick(now)

    def read(self) -> MetricSnapshot:
        """All numbers of this moment; call it on the event loop."""
        return MetricSnapshot(
            counters=self.counters.read(),
            requests=self.requests.read(),
            timings=(
                (metric_catalog.DETECTION.name, (((), self.detection.read()),)),
                (metric_catalog.LAG.name, (((), self.lag.times.read()),)),
                (
                    metric_catalog.PAUSES.name,
                    tuple(((str(number),), each.read()) for number, each in enumerate(self.pauses.by_generation)),
                ),
            ),
            read=self.gauges.read(),
            principal=self.who(),
        )

    def reset(self) -> None:
        """Counters, histograms and peaks begin at zero again; what is open or in use now stays as it is."""
        self.counters.reset()
        self.requests.reset()
        self.detection.reset()
        self.lag.reset()
        self.pauses.reset()
        self.gauges.reset()
        if self.access_log is not None:
            self.access_log.reset()

    def reopen(self) -> None:
        """For log rotation: opens the log file that has the name now."""
        if self.access_log is not None:
            self.access_log.reopen()

    def close(self, seconds: float) -> bool:
        """Writes the last log lines within ``seconds``, while the caller waits; says whether all were written."""
        return self.access_log is None or self.access_log.close(seconds)
