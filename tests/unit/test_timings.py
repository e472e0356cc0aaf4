"""Histograms of seconds, pauses of the collector, what is read at a scrape, and how all of it begins anew."""

from __future__ import annotations

import gc

import pytest

from sidecar.errors import Reason
from sidecar.telemetry import metric_catalog
from sidecar.telemetry.gc_pauses import GENERATIONS, GcPauses
from sidecar.telemetry.metrics import METERS
from sidecar.telemetry.record import Record
from sidecar.telemetry.telemetry import Telemetry
from sidecar.telemetry.timings import BOUNDS, Seconds


@pytest.mark.parametrize(("seconds", "at"), [(0.0, 0), (0.0001, 0), (0.00011, 1), (0.1, 6), (10.0, 10), (11.0, 11)])
def test_a_duration_is_in_the_first_bucket_that_holds_it(seconds: float, at: int) -> None:
    timings = Seconds()
    timings.note(seconds)
    assert timings.read().counts == tuple(int(number == at) for number in range(len(BOUNDS) + 1))
    assert (timings.read().total, timings.longest) == (seconds, seconds)


def test_the_collectors_runs_are_timed_by_generation() -> None:
    pauses = GcPauses()
    pauses.install()
    try:
        gc.collect(2)
        gc.collect(0)
    finally:
        pauses.remove()
    counted = [sum(each.counts) for each in pauses.by_generation]
    assert counted[0] >= 1 and counted[2] == 1
    assert dict(pauses.longest())[("2",)] == pauses.by_generation[2].longest > 0.0
    gc.collect(2)
    assert sum(pauses.by_generation[2].counts) == 1, "it was removed"


def test_a_collection_that_had_begun_before_is_not_timed() -> None:
    pauses = GcPauses()
    pauses.note("stop", {"generation": 2})
    assert [sum(each.counts) for each in pauses.by_generation] == [0] * GENERATIONS


def test_what_is_read_is_asked_for_at_each_scrape() -> None:
    telemetry = Telemetry()
    numbers = iter((1, 2))
    telemetry.gauges.add("sidecar_ready", lambda: next(numbers))
    telemetry.gauges.add_labelled("sidecar_pool_upstreams", lambda: [(("outbound",), 3)])
    first, second = telemetry.read().read, telemetry.read().read
    assert first == (("sidecar_ready", (((), 1.0),)), ("sidecar_pool_upstreams", ((("outbound",), 3),)))
    assert second[0] == ("sidecar_ready", (((), 2.0),))


def test_a_reset_leaves_what_is_open_and_begins_the_rest_anew() -> None:
    telemetry = Telemetry()
    for meter in METERS:
        setattr(telemetry.counters, meter.attribute, 7)
    for protocol in ("HTTP/1.1", "TCP"):
        record = Record("inbound", protocol, "192.0.2.1:1", 1.0, 1.0)
        record.duration, record.status, record.reason = 0.1, 200, Reason.INTERNAL
        record.bytes_sent = record.bytes_received = 5
        telemetry.begin_opaque(record)
        telemetry.finish(record)
    telemetry.note_detection(0.5)
    telemetry.lag.note(1.0, 1.5)
    telemetry.pauses.by_generation[1].note(0.5)
    series = dict(telemetry.requests.read().series)

    telemetry.reset()

    kept = {meter.attribute for meter in METERS if meter.kind == "gauge"}
    assert kept == {"connections_active", "requests_active", "dns_active"}
    for meter in METERS:
        assert getattr(telemetry.counters, meter.attribute) == (7 if meter.attribute in kept else 0)
    requests = telemetry.requests.read()
    assert dict(requests.series) == series and len(series) == 2, "a series that a scraper saw does not vanish"
    assert not any(requests.cells)
    assert not any(number for _, number in (*requests.opened, *requests.errors))
    for name, histograms in telemetry.read().timings:
        for _, figures in histograms:
            assert not any(figures.counts) and not figures.total, name
    assert (telemetry.lag.last, telemetry.lag.max) == (0.5, 0.0)


def test_each_metric_stands_once_in_the_catalog() -> None:
    names = [metric.name for metric in metric_catalog.METRICS]
    assert len(names) == len(set(names))
    for metric in metric_catalog.METRICS:
        assert metric.help.endswith(".") and metric.kind in ("counter", "gauge", "histogram", "info")
    assert not set(metric_catalog.HTTP_LABELS) & {"method", "path", "host", "authority", "user_agent"}
