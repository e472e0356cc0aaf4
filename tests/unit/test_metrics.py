"""The counters, the request metrics and what a scraper reads of them, in both formats."""

from __future__ import annotations

import itertools
import os
from http import HTTPStatus

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from sidecar.errors import Reason
from sidecar.telemetry import metric_catalog
from sidecar.telemetry.exposition import OPENMETRICS, PLAIN, render, wants_openmetrics
from sidecar.telemetry.metrics import (
    MAX_PEERS,
    MAX_SERIES,
    METERS,
    OTHER_PEERS,
    Counters,
    MeshMetrics,
    RequestMetrics,
)
from sidecar.telemetry.record import Record
from sidecar.telemetry.telemetry import Telemetry
from tests.support.modules import among, loaded_by

PARTIES = dict.fromkeys(metric_catalog.PARTIES, "unknown")
HTTP = {**PARTIES, "request_protocol": "http", "connection_security_policy": "none", "reporter": "destination"}
BY_SOURCE = {"connection_security_policy": "unknown", "reporter": "source"}


def record(
    direction: str = "inbound", protocol: str = "HTTP/1.1", status: int = 200, duration: float = 0.001
) -> Record:
    made = Record(direction, protocol, "10.0.0.9:4444", 1_700_000_000.0, 100.0)
    made.status, made.duration = status, duration
    return made


def page(telemetry: Telemetry, accept: str = "") -> str:
    return render(telemetry.read(), "1.2.3", accept)[1].decode()


def samples(telemetry: Telemetry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(page(telemetry))
        for sample in family.samples
    }


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return samples(telemetry).get((name, tuple(sorted(labels.items()))))


def test_every_counter_has_a_row_and_starts_at_zero() -> None:
    assert sorted(Counters.__annotations__) == sorted(meter.attribute for meter in METERS)
    assert set(Counters().read()) == {0}
    with pytest.raises(AttributeError):
        Counters().pool_hit = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("meter", METERS, ids=lambda meter: meter.attribute)
def test_each_counter_is_shown_under_its_own_name(meter: object) -> None:
    telemetry = Telemetry()
    attribute, name, kind, labels = (getattr(meter, each) for each in ("attribute", "name", "kind", "labels"))
    setattr(telemetry.counters, attribute, 7)
    assert value(telemetry, name + ("_total" if kind == "counter" else ""), **dict(labels)) == 7
    assert sum(telemetry.counters.read()) == 7


@pytest.mark.parametrize(("direction", "reported"), [("inbound", {}), ("outbound", BY_SOURCE)])
def test_a_request_is_counted_by_istios_names(direction: str, reported: dict[str, str]) -> None:
    telemetry = Telemetry()
    failed = record(direction, status=503)
    failed.reason = Reason.CONNECT_FAILED
    for each in (record(direction), record(direction), failed):
        telemetry.finish(each)
    labels = {**HTTP, **reported}
    assert value(telemetry, "istio_requests_total", response_code="200", response_flags="-", **labels) == 2
    assert value(telemetry, "istio_requests_total", response_code="503", response_flags="UF", **labels) == 1
    assert value(telemetry, "sidecar_errors_total", reason="connect_failed", direction=direction) == 1


def test_retries_are_counted_by_how_they_ended() -> None:
    telemetry = Telemetry()
    for attempts, status, reason, exhausted in (
        (1, 200, None, ""),
        (2, 200, None, ""),
        (3, 503, None, "attempts"),
        (1, 503, None, "budget"),
        (2, 503, Reason.RETRY_BUDGET, "budget"),
        (3, 503, Reason.CONNECT_FAILED, "attempts"),
    ):
        each = record("outbound", status=status)
        each.attempts, each.reason = attempts, reason
        if exhausted:
            each.exhaust(exhausted)
        telemetry.finish(each)
    assert value(telemetry, "sidecar_retries_total") == 6
    for outcome, count in (("succeeded", 1), ("attempts_exhausted", 2), ("budget_exhausted", 2)):
        assert value(telemetry, "sidecar_retried_requests_total", outcome=outcome) == count
    labels = {**HTTP, **BY_SOURCE, "response_code": "503"}
    assert value(telemetry, "istio_requests_total", response_flags="URX", **labels) == 3
    assert value(telemetry, "istio_requests_total", response_flags="UF,URX", **labels) == 1


@pytest.mark.parametrize(
    ("milliseconds", "bucket"),
    [(0.5, "0.5"), (0.51, "1.0"), (1.0, "1.0"), (1.01, "5.0"), (250.0, "250.0"), (3_600_000.0, "3600000.0")],
)
def test_a_duration_is_in_its_bucket_and_all_above(milliseconds: float, bucket: str) -> None:
    telemetry = Telemetry()
    telemetry.finish(record(duration=milliseconds / 1000))
    labels = {**HTTP, "response_code": "200", "response_flags": "-"}
    name = "istio_request_duration_milliseconds"
    found = {
        float(dict(key[1])["le"]): count for key, count in samples(telemetry).items() if key[0] == f"{name}_bucket"
    }
    assert len(found) == 20
    assert found == {bound: float(bound >= float(bucket)) for bound in found}
    assert value(telemetry, f"{name}_count", **labels) == 1
    assert value(telemetry, f"{name}_sum", **labels) == pytest.approx(milliseconds)


def test_a_duration_above_all_buckets_is_counted() -> None:
    telemetry = Telemetry()
    telemetry.finish(record(duration=4_000.0))
    labels = {**HTTP, "response_code": "200", "response_flags": "-"}
    name = "istio_request_duration_milliseconds_bucket"
    assert value(telemetry, name, le="3600000.0", **labels) == 0
    assert value(telemetry, name, le="+Inf", **labels) == 1


@pytest.mark.parametrize(("size", "bucket"), [(0, "0.5"), (1, "1.0"), (2, "5.0"), (5, "5.0"), (6, "10.0")])
def test_body_bytes_are_in_their_bucket(size: int, bucket: str) -> None:
    telemetry = Telemetry()
    done = record()
    done.bytes_received, done.bytes_sent = size, 100
    telemetry.finish(done)
    labels = {**HTTP, "response_code": "200", "response_flags": "-"}
    below = {"0.5": "0.5", "1.0": "0.5", "5.0": "1.0", "10.0": "5.0"}[bucket]
    assert value(telemetry, "istio_request_bytes_bucket", le=bucket, **labels) == 1
    assert value(telemetry, "istio_request_bytes_bucket", le=below, **labels) == float(below == bucket)
    assert value(telemetry, "istio_request_bytes_sum", **labels) == size
    assert value(telemetry, "istio_response_bytes_bucket", le="50.0", **labels) == 0
    assert value(telemetry, "istio_response_bytes_sum", **labels) == 100


@pytest.mark.parametrize("protocol", ["TCP", "TLS", "HTTP/2"])
def test_an_opaque_connection_has_the_four_tcp_metrics(protocol: str) -> None:
    telemetry = Telemetry()
    done = record("outbound", protocol, status=0)
    done.bytes_sent, done.bytes_received, done.reason = 11, 5, Reason.CLIENT_CLOSED
    telemetry.begin_opaque(done)
    telemetry.begin_opaque(done)
    telemetry.finish(done)
    labels = {**PARTIES, **BY_SOURCE, "request_protocol": "tcp"}
    assert value(telemetry, "istio_tcp_connections_opened_total", response_flags="-", **labels) == 2
    assert value(telemetry, "istio_tcp_connections_closed_total", response_flags="DC", **labels) == 1
    assert value(telemetry, "istio_tcp_sent_bytes_total", response_flags="DC", **labels) == 11
    assert value(telemetry, "istio_tcp_received_bytes_total", response_flags="DC", **labels) == 5
    assert not any(name.startswith("istio_re") for name, _ in samples(telemetry))


def test_finish_fills_in_a_duration_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.telemetry.telemetry.monotonic", lambda: 102.5)
    done = record(duration=0.0)
    Telemetry().finish(done)
    assert done.duration == 2.5


def test_what_a_peer_chooses_freely_makes_no_series() -> None:
    """A hundred thousand methods, hosts and paths: as many series as one request made."""
    telemetry = Telemetry()
    for status in (200, 299):
        telemetry.finish(record(status=status))
    before = samples(telemetry).keys()
    codes = [code for code in range(100, 1000) if code not in tuple(HTTPStatus)]
    for number in range(100_000):
        done = record(protocol=os.urandom(4).hex(), status=codes[number % len(codes)] if number % 2 else 200)
        done.method, done.path, done.authority, done.user_agent = (os.urandom(8) for _ in range(4))
        done.upstream = os.urandom(8).hex()
        telemetry.finish(done)
    assert samples(telemetry).keys() == before
    assert value(telemetry, "istio_requests_total", response_code="200", response_flags="-", **HTTP) == 50_001
    assert value(telemetry, "istio_requests_total", response_code="other", response_flags="-", **HTTP) == 50_001


def test_the_number_of_series_has_a_bound_and_nothing_is_lost() -> None:
    metrics = RequestMetrics()
    made = 0
    for direction, status, reason in itertools.product(("inbound", "outbound"), HTTPStatus, Reason):
        done = record(direction, status=status)
        done.reason = reason
        metrics.note(done)
        made += 1
    figures = metrics.read()
    flags = {reason.flag for reason in Reason}
    assert MAX_SERIES <= len(figures.series) <= MAX_SERIES + 2 * len(flags)
    telemetry = Telemetry()
    telemetry.requests = metrics
    counted = [number for (name, _), number in samples(telemetry).items() if name == "istio_requests_total"]
    assert sum(counted) == made


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_a_page_is_valid_in_its_format(accept: str) -> None:
    telemetry = Telemetry()
    telemetry.begin_opaque(record(protocol="TCP", status=0))
    for each in (record(), record("outbound", status=404), record(protocol="TCP", status=0)):
        telemetry.finish(each)
    text = page(telemetry, accept)
    parse = parse_openmetrics if "openmetrics" in accept else parse_text
    names = {family.name for family in parse(text)}
    assert {"istio_requests", "istio_request_duration_milliseconds", "sidecar_errors", "process_open_fds"} <= names
    assert text.endswith("# EOF\n") == ("openmetrics" in accept)
    assert 'sidecar_build_info{version="1.2.3"} 1.0' in text


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("text/html, text/plain", False),
        ("application/openmetrics-text", True),
        (PROMETHEUS, True),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.3", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;version=x;q=x", True),
        (";;,;q=1,=", False),
    ],
)
def test_the_format_follows_accept(accept: str, expected: bool) -> None:
    assert wants_openmetrics(accept) is expected
    assert render(Telemetry().read(), "1", accept)[0] == (OPENMETRICS if expected else PLAIN)


def test_prometheus_client_is_not_imported_before_a_scrape() -> None:
    loaded = loaded_by("import sidecar.telemetry.telemetry, sidecar.admin.server")
    assert among(loaded, "prometheus_client") == []


def test_peers_past_the_bound_are_filed_together_when_they_open_as_when_they_close() -> None:
    metrics = MeshMetrics()
    for number in range(MAX_PEERS + 5):
        begun = record("outbound", "TCP", status=0)
        begun.upstream_principal = f"spiffe://cluster.local/ns/shop/sa/{number}"
        metrics.open_opaque(begun)
        metrics.note(begun)
    figures = metrics.read()
    opened = {peer: count for (direction, peer), count in figures.opened if direction == "outbound"}
    closed = {peer: figures.cells[at + 2] for (_, _, _, peer), at in figures.series}
    assert opened.pop("") == 0 and opened == closed
    assert len(opened) <= MAX_PEERS + 1 and opened[OTHER_PEERS] >= 5
