"""What a scraper is given: the numbers of ``telemetry.metrics`` in Prometheus' text format or as OpenMetrics.

Who calls it: the admin server, at a scrape, on a worker thread. This is the one module that imports prometheus-client,
and nothing may import this module before the first scrape: most processes are local runs that nobody scrapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from sidecar.errors import Reason
from sidecar.telemetry import metric_catalog, timings
from sidecar.telemetry.metric_catalog import MUTUAL_TLS, PARTIES, SECURITY, UNKNOWN, Metric
from sidecar.telemetry.metric_snapshot import MetricSnapshot
from sidecar.telemetry.metrics import (
    BUCKETS,
    HISTOGRAM_CELLS,
    METERS,
    OPAQUE_CODE,
    OTHER_CODE,
    REPORTERS,
    RequestFigures,
    SeriesKey,
)

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_BOUNDS = tuple(str(float(bound)) for bound in BUCKETS)  # "1.0", never "1": OpenMetrics insists
_SECONDS_BOUNDS = tuple(str(bound) for bound in timings.BOUNDS)
_WEIGHT = re.compile(r"q=([01](?:\.[0-9]{0,3})?)")
_PARTIES = (UNKNOWN,) * len(PARTIES)


def render(figures: MetricSnapshot, version: str, accept: str) -> tuple[str, bytes]:
    """The content type that suits an Accept header, and the page in it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(figures, version))
    ProcessCollector(registry=registry)
    if wants_openmetrics(accept):
        page: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
        return OPENMETRICS, page
    return PLAIN, generate_latest(registry)


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header prefers OpenMetrics to plain text (RFC 9110 section 12.5.1); without a word it does not.

    The library's own choice fails on a version that is not a number, and repeats what the peer wrote in its answer.
    """
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for item in accept.split(","):
        media, *parameters = [part.strip().lower() for part in item.split(";")]
        weight = 1.0
        for parameter in parameters:
            if found := _WEIGHT.fullmatch(parameter):
                weight = float(found[1])
        if media in weights:
            weights[media] = max(weights[media], weight)
    openmetrics, plain = weights.values()
    return openmetrics > 0.0 and openmetrics >= plain


class _Page(Collector):
    def __init__(self, figures: MetricSnapshot, version: str) -> None:
        self._figures = figures
        self._version = version

    def collect(self) -> Iterator[Family]:
        figures = self._figures
        yield from _http(figures.requests, figures.principal)
        yield from _tcp(figures.requests, figures.principal)
        errors = _counter(metric_catalog.ERRORS)
        found = dict(figures.requests.errors)
        for reason in Reason:  # from the start: of a series that begins at 1 a scraper never sees the first increase
            for direction in REPORTERS:
                errors.add_metric((reason.word, direction), found.get((reason.word, direction), 0))
        yield errors
        yield from _counted(figures.counters)
        yield from _timings(figures)
        yield from _read(figures)
        build = metric_catalog.BUILD
        yield InfoMetricFamily(build.name, build.help, value={"version": self._version})


def _http(requests: RequestFigures, ours: str) -> Iterator[Family]:
    total = _counter(metric_catalog.REQUESTS)
    histograms = [_histogram(metric) for metric in metric_catalog.REQUEST_HISTOGRAMS]
    for key, at in requests.series:
        if key[1] == OPAQUE_CODE:
            continue
        labels = _http_labels(key, ours)
        for number, histogram in enumerate(histograms):
            begin = at + number * HISTOGRAM_CELLS
            buckets, count = _cumulated(_BOUNDS, requests.cells[begin : begin + HISTOGRAM_CELLS - 1])
            histogram.add_metric(labels, buckets, requests.cells[begin + HISTOGRAM_CELLS - 1])
            if number == 0:
                total.add_metric(labels, count)
    yield total
    yield from histograms


def _tcp(requests: RequestFigures, ours: str) -> Iterator[Family]:
    opened = _counter(metric_catalog.OPENED)
    for (direction, peer), count in requests.opened:
        opened.add_metric(_tcp_labels(direction, "-", peer, ours), count)
    yield opened
    for number, metric in enumerate(metric_catalog.TCP_COUNTERS):
        family = _counter(metric)
        for (direction, code, flag, peer), at in requests.series:
            if code == OPAQUE_CODE:
                family.add_metric(_tcp_labels(direction, flag, peer, ours), requests.cells[at + number])
        yield family


def _counted(values: Iterable[int]) -> Iterator[Family]:
    families = {metric.name: _family(metric) for metric in metric_catalog.COUNTED}
    for meter, value in zip(METERS, values, strict=True):
        families[meter.name].add_metric([label for _, label in meter.labels], value)
    yield from families.values()


def _timings(figures: MetricSnapshot) -> Iterator[Family]:
    found = dict(figures.timings)
    for metric in metric_catalog.TIMINGS:
        family = _histogram(metric)
        for labels, seconds in found.get(metric.name, ()):
            family.add_metric(labels, _cumulated(_SECONDS_BOUNDS, seconds.counts)[0], seconds.total)
        yield family


def _read(figures: MetricSnapshot) -> Iterator[Family]:
    found = dict(figures.read)
    for metric in metric_catalog.READ:
        family = _family(metric)
        for labels, value in found.get(metric.name, ()):
            family.add_metric(labels, value)
        yield family


def _http_labels(key: SeriesKey, ours: str) -> tuple[str, ...]:
    direction, code, flag, peer = key
    shown = "other" if code == OTHER_CODE else str(code)
    return (REPORTERS[direction], *_parties(direction, peer, ours), "http", shown, flag, _security(direction, peer))


def _tcp_labels(direction: str, flag: str, peer: str, ours: str) -> tuple[str, ...]:
    return (REPORTERS[direction], *_parties(direction, peer, ours), "tcp", flag, _security(direction, peer))


def _parties(direction: str, peer: str, ours: str) -> tuple[str, ...]:
    """The labels of both ends, of which the two principals are known where there is a mesh."""
    if not ours:
        return _PARTIES
    known = dict.fromkeys(PARTIES, UNKNOWN)
    ends = ("source_principal", "destination_principal")
    theirs, own = ends if direction == "inbound" else ends[::-1]
    known[theirs], known[own] = peer or UNKNOWN, ours
    return tuple(known.values())


def _security(direction: str, peer: str) -> str:
    reporter = REPORTERS[direction]
    return MUTUAL_TLS if peer and reporter == "destination" else SECURITY[reporter]


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily:
    if metric.kind == "counter":
        return _counter(metric)
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)


def _counter(metric: Metric) -> CounterMetricFamily:
    return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)


def _histogram(metric: Metric) -> HistogramMetricFamily:
    return HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)


def _cumulated(bounds: tuple[str, ...], counts: tuple[float, ...]) -> tuple[list[tuple[str, float]], float]:
    """A histogram's own counts as the format wants them: each bucket with all below it. Also the total."""
    buckets: list[tuple[str, float]] = []
    total = 0.0
    for bound, count in zip((*bounds, "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets, total
