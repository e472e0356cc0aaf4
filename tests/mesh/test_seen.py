"""Who the peers are is seen: log, /requests, /explain, /clusters, metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.member import Shop
from tests.support.raw import Client
from tests.support.upstream import wait_until

WEB, CALLER = "spiffe://cluster.local/ns/shop/sa/web", "spiffe://cluster.local/ns/shop/sa/caller"
RECORD: dict[str, Any] = {}  # of the one request, in the caller's log


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop() as shop:
        with Client(shop.caller.outbound) as client:
            client.send(b"GET http://web.shop/seen HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n")
            assert client.replies((b"GET",), 1)[0].status == 200
        RECORD.update(shop.caller.record_of(client.heard.port))
        yield shop


def test_log_and_explain_name_both_ends(shop: Shop) -> None:
    assert RECORD["upstream_peer_uri_san"] == WEB
    assert RECORD["downstream_peer_uri_san"] is None
    status, text = shop.web.admin_get(f"/explain/{RECORD['request_id']}")
    assert status == 200
    assert json.loads(text)["connection"]["peer"] == CALLER
    _, text = shop.caller.admin_get(f"/explain/{RECORD['request_id']}")
    assert json.loads(text)["upstream"]["tries"][0]["peer"] == WEB
    _, text = shop.caller.admin_get("/requests?format=json")
    assert WEB in text


def test_metrics_are_told_apart_by_principal_and_count_handshakes(shop: Shop) -> None:
    _, page = shop.web.admin_get("/metrics")
    (line,) = [each for each in page.splitlines() if each.startswith("istio_requests_total{")]
    for label in (f'source_principal="{CALLER}"', f'destination_principal="{WEB}"',
                  'connection_security_policy="mutual_tls"'):  # fmt: skip
        assert label in line
    assert 'sidecar_tls_handshakes_total{outcome="ok"} 1.0' in page
    assert 'sidecar_tls_groups_total{group="' in page
    _, page = shop.caller.admin_get("/metrics")
    (line,) = [each for each in page.splitlines() if each.startswith("istio_requests_total{")]
    assert f'destination_principal="{WEB}"' in line
    assert f'source_principal="{CALLER}"' in line
    assert 'connection_security_policy="unknown"' in line


def test_clusters_say_who_may_answer(shop: Shop) -> None:
    _, text = shop.caller.admin_get("/clusters")
    assert f"outbound|http|web.shop.svc.cluster.local:80::identities::{WEB}\n" in text


def test_a_reset_counts_handshakes_renewals_and_configurations_anew() -> None:
    with Shop() as shop:
        with shop.stranger(shop.authority.issue("caller")) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            assert client.replies((b"GET",), 1)[0].status == 200
        counted = 'sidecar_tls_handshakes_total{outcome="ok"}', 'sidecar_snapshots_total{outcome="accepted"}'
        page = shop.web.admin_get("/metrics")[1].splitlines()
        assert not [each for each in counted if f"{each} 0.0" in page]
        assert shop.web.admin_get("/reset_counters", "POST")[0] == 200
        page = shop.web.admin_get("/metrics")[1].splitlines()
        assert [each for each in counted if f"{each} 0.0" in page] == list(counted)
        assert json.loads(shop.web.admin_get("/certs")[1])["handshakes"]["outcomes"] == {"ok": 1}


def _tcp_series(page: str, name: str) -> dict[tuple[str, str], float]:
    """The value of each series that counted something, by the two principals."""
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == f"istio_tcp_{name}_total" and sample.value:
                ends = sample.labels["source_principal"], sample.labels["destination_principal"]
                found[ends] = found.get(ends, 0.0) + sample.value
    return found


def test_opaque_connections_are_told_apart_by_principal_from_their_beginning_on() -> None:
    with Shop(strict=False) as shop, Client(shop.caller.outbound) as client:
        client.send(b"CONNECT web.shop:3306 HTTP/1.1\r\nHost: web.shop:3306\r\n\r\n")
        client.replies((b"CONNECT",), 1)
        client.send(b"\0opaque")
        wait_until(lambda: shop.seen() == len(b"\0opaque"), "it is in the app")
        page = shop.web.admin_get("/metrics")[1]
        assert _tcp_series(page, "connections_opened") == {(CALLER, WEB): 1.0}
        assert _tcp_series(page, "connections_closed") == {}
        client.finish()
        client.sock.close()
        wait_until(lambda: bool(_tcp_series(shop.web.admin_get("/metrics")[1], "connections_closed")), "its end")
        page = shop.web.admin_get("/metrics")[1]
        for name in ("connections_opened", "connections_closed"):
            assert _tcp_series(page, name) == {(CALLER, WEB): 1.0}, name
        assert _tcp_series(page, "received_bytes") == {(CALLER, WEB): float(len(b"\0opaque"))}
