"""A reset leaves no counter, histogram or peak of the catalog as it was. Each of them is moved here before, so a new
one that nobody resets, or that this test does not move, is found."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from sidecar.errors import Reason
from sidecar.feed.time_slicer import TimeSlicer
from sidecar.telemetry import metric_catalog
from sidecar.telemetry.exposition import render
from sidecar.telemetry.metric_catalog import Metric
from sidecar.telemetry.metrics import METERS
from sidecar.telemetry.record import Record
from sidecar.telemetry.telemetry import Telemetry

# The kernel counts these, of the process.
KEPT = {metric.name for metric in metric_catalog.PROCESS}
COUNTED = [each for each in metric_catalog.METRICS if each.kind in ("counter", "histogram") and each.name not in KEPT]
PEAKS = [each for each in metric_catalog.METRICS if each.name.endswith("_max_seconds")]


class Told:
    """All that is counted, with what counts for itself: each event moves it by one."""

    def __init__(self) -> None:
        self.telemetry = Telemetry(mesh=True)
        self.events = 0
        self.slices = TimeSlicer()
        gauges = self.telemetry.gauges
        for metric in metric_catalog.READ:
            if metric.kind == "counter":
                labels = tuple("x" for _ in metric.labels)
                gauges.add_labelled(metric.name, lambda labels=labels: [(labels, float(self.events))])  # type: ignore[misc]
        # As ``sidecar.gauges`` and ``feed.config_status`` have them.
        gauges.add("sidecar_loop_lag_max_seconds", lambda: self.telemetry.lag.max)
        gauges.add_labelled("sidecar_gc_pause_max_seconds", self.telemetry.pauses.longest)
        gauges.add_peak("sidecar_snapshot_slice_max_seconds", lambda: self.slices.longest, self.slices.forget_longest)

    def happen(self) -> None:
        """Once of everything."""
        telemetry = self.telemetry
        self.events += 1
        self.slices.note(0.25)
        for meter in METERS:
            setattr(telemetry.counters, meter.attribute, getattr(telemetry.counters, meter.attribute) + 1)
        for protocol in ("HTTP/1.1", "TCP"):
            record = Record("inbound", protocol, "10.0.0.9:4444", 1_700_000_000.0, 100.0, duration=0.001)
            record.reason, record.bytes_sent, record.bytes_received = Reason.CLIENT_CLOSED, 5, 5
            telemetry.finish(record)
        telemetry.begin_opaque(record)
        telemetry.note_detection(0.25)
        telemetry.lag.note(1.0, 1.25)
        for each in telemetry.pauses.by_generation:
            each.note(0.25)

    def sums(self) -> dict[str, float]:
        """Of each metric by its name: the sum of all samples of a page."""
        _, page = render(self.telemetry.read(), "1.2.3", "")
        found = dict.fromkeys((each.name for each in metric_catalog.METRICS), 0.0)
        for family in text_string_to_metric_families(page.decode()):
            for sample in family.samples:
                name = next(each.name for each in metric_catalog.METRICS if sample.name in each.shown)
                found[name] += sample.value
        return found


def _where(sums: dict[str, float], metrics: list[Metric], *, zero: bool) -> list[str]:
    return [metric.name for metric in metrics if (sums[metric.name] == 0.0) is zero]


def test_every_counter_histogram_and_peak_begins_at_zero() -> None:
    told = Told()
    told.happen()
    told.happen()
    assert not _where(told.sums(), COUNTED + PEAKS, zero=True), "this test does not move these"
    told.telemetry.reset()
    assert not _where(told.sums(), COUNTED + PEAKS, zero=False), "a reset forgets these"


def test_after_a_reset_only_what_comes_then_is_counted() -> None:
    once, again = Told(), Told()
    once.happen()
    for _ in range(3):
        again.happen()
        again.telemetry.reset()
    again.happen()
    first, later = once.sums(), again.sums()
    assert {each.name: later[each.name] for each in COUNTED} == {each.name: first[each.name] for each in COUNTED}


def test_what_is_open_stays() -> None:
    told = Told()
    told.happen()
    before = told.sums()
    told.telemetry.reset()
    active = [meter.name for meter in METERS if meter.kind == "gauge"]
    assert active and {name: told.sums()[name] for name in active} == {name: before[name] for name in active}
