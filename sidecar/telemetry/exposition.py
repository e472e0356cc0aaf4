"""What a scraper is given: the numbers of ``telemetry.metrics`` in Prometheus' text format or as OpenMetrics.

Who calls it: the admin server, at a scrape, on a worker thread. This is the one module that imports prometheus-client,
and nothing may import this module before the first scrape: most processes are local runs that nobody scrapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

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
_WEIGHT = re.compile(r"q=([01](?:\.[0-9]{0,3})?)")
_HTTP_LABELS = ("reporter", "request_protocol", "response_code", "response_flags", "connection_security_policy")
_TCP_LABELS = ("reporter", "request_protocol", "response_flags", "connection_security_policy")
_HISTOGRAMS = (
    ("istio_request_duration_milliseconds", "How long requests took, in milliseconds."),
    ("istio_request_bytes", "Body bytes received with requests."),
    ("istio_response_bytes", "Body bytes sent with responses."),
)
_TCP_COUNTERS = (
    ("istio_tcp_sent_bytes", "Bytes sent to the clients of opaque connections."),
    ("istio_tcp_received_bytes", "Bytes received from the clients of opaque connections."),
    ("istio_tcp_connections_closed", "Opaque connections that ended."),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """All that is shown, copied from the event loop."""

    counters: tuple[int, ...]  # in the order of METERS
    requests: RequestFigures
    gauges: tuple[tuple[str, str, float], ...]  # name, help, value
    version: str


def render(figures: Figures, accept: str) -> tuple[str, bytes]:
    """The content type that suits an Accept header, and the page in it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(figures))
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
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures
        yield from _http(figures.requests)
        yield from _tcp(figures.requests)
        errors = CounterMetricFamily(
            "sidecar_errors", "Requests and connections that failed, by reason.", labels=("reason", "direction")
        )
        for labels, count in figures.requests.errors:
            errors.add_metric(labels, count)
        yield errors
        yield from _counters(figures.counters)
        for name, text, value in figures.gauges:
            yield GaugeMetricFamily(name, text, value=value)
        yield InfoMetricFamily("sidecar_build", "The version that runs.", value={"version": figures.version})


def _http(requests: RequestFigures) -> Iterator[Metric]:
    total = CounterMetricFamily("istio_requests", "Requests that ended, answered or not.", labels=_HTTP_LABELS)
    histograms = [HistogramMetricFamily(name, text, labels=_HTTP_LABELS) for name, text in _HISTOGRAMS]
    for key, at in requests.series:
        if key[1] == OPAQUE_CODE:
            continue
        labels = _http_labels(key)
        for number, histogram in enumerate(histograms):
            begin = at + number * HISTOGRAM_CELLS
            buckets, count = _cumulated(requests.cells[begin : begin + HISTOGRAM_CELLS - 1])
            histogram.add_metric(labels, buckets, requests.cells[begin + HISTOGRAM_CELLS - 1])
            if number == 0:
                total.add_metric(labels, count)
    yield total
    yield from histograms


def _tcp(requests: RequestFigures) -> Iterator[Metric]:
    opened = CounterMetricFamily("istio_tcp_connections_opened", "Opaque connections that began.", labels=_TCP_LABELS)
    for direction, count in requests.opened:
        opened.add_metric((REPORTERS[direction], "tcp", "-", "none"), count)
    yield opened
    for number, (name, text) in enumerate(_TCP_COUNTERS):
        family = CounterMetricFamily(name, text, labels=_TCP_LABELS)
        for (direction, code, flag), at in requests.series:
            if code == OPAQUE_CODE:
                family.add_metric((REPORTERS[direction], "tcp", flag, "none"), requests.cells[at + number])
        yield family


def _counters(values: Iterable[int]) -> Iterator[Metric]:
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for meter, value in zip(METERS, values, strict=True):
        family = families.get(meter.name)
        if family is None:
            kind = CounterMetricFamily if meter.kind == "counter" else GaugeMetricFamily
            family = families[meter.name] = kind(meter.name, meter.help, labels=[name for name, _ in meter.labels])
        family.add_metric([label for _, label in meter.labels], value)
    yield from families.values()


def _http_labels(key: SeriesKey) -> tuple[str, ...]:
    direction, code, flag = key
    return (REPORTERS[direction], "http", "other" if code == OTHER_CODE else str(code), flag, "none")


def _cumulated(counts: tuple[float, ...]) -> tuple[list[tuple[str, float]], float]:
    """A histogram's own counts as the format wants them: each bucket with all below it. Also the total."""
    buckets: list[tuple[str, float]] = []
    total = 0.0
    for bound, count in zip((*_BOUNDS, "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets, total
