"""Figures for Prometheus: calls by what came of them, certificates, waiters, how long the authority lasts.

Who calls it: ``control.middleware`` counts, ``/metrics`` renders. They say that calls were refused, and how many; why
stands in the audit log alone, since anyone may read these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Figures:
    """All of them. Call names and verdicts are ours, so the series are bounded."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._calls = Counter(
            "sidecar_control_calls",
            "Calls by name and by what came of them.",
            ["call", "verdict"],
            registry=self._registry,
        )
        self.unwritten = Counter(
            "sidecar_control_audit_unwritten",
            "Refusals of peers that are refused too often, which are counted and not written one by one.",
            registry=self._registry,
        )
        self.audit_dropped = Counter(
            "sidecar_control_audit_dropped_bytes",
            "Bytes of the audit log's oldest lines that went, since so many came after them.",
            registry=self._registry,
        )

    def called(self, call: str, verdict: str) -> None:
        """One call came to an end."""
        self._calls.labels(call, verdict).inc()

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A figure that is read when somebody asks."""
        self._registry.register(_Gauge(name, text, lambda: {"": read()}, ""))

    def gauges(self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Likewise, one for each value of ``label``."""
        self._registry.register(_Gauge(name, text, read, label))

    def counter(self, name: str, text: str) -> Counter:
        """A figure that only rises."""
        return Counter(name, text, registry=self._registry)

    def histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        """How often something took how long; ``buckets`` are in seconds."""
        return Histogram(name, text, buckets=buckets, registry=self._registry)

    def render(self) -> bytes:
        """The exposition."""
        return generate_latest(self._registry)


class _Gauge(Collector):
    def __init__(self, name: str, text: str, read: Callable[[], Mapping[str, float]], label: str) -> None:
        self._name, self._text, self._read, self._label = name, text, read, label

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, self._text, labels=[self._label] if self._label else [])
        for label, worth in self._read().items():
            family.add_metric([label] if self._label else [], worth)
        yield family
