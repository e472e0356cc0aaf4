"""What the admin port tells of routes: bounded, at a cost that does not multiply, and without secrets."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from sidecar.proxy.explain_route import explain_route, shown_routes
from sidecar.telemetry.record import Record
from sidecar.telemetry.route_counts import RouteCounts
from tests.support.operations import lines_of
from tests.unit.test_virtual_routes import table

HOST = "web.shop.svc.cluster.local"


def many(count: int) -> dict[str, Any]:
    """A VirtualService with so many rules."""
    route = [{"destination": {"host": HOST}}]
    http = [{"match": [{"uri": {"prefix": f"/{number}/"}}], "route": route} for number in range(count)]
    return {"name": "vs", "namespace": "shop", "hosts": [HOST], "http": http}


def test_of_very_many_matches_the_first_and_the_last_that_were_tried_are_told() -> None:
    told = explain_route(table(virtual=[many(1000)]), "GET", "/777/", "web.shop", [])
    tried = cast("list[dict[str, Any]]", told["tried"])
    assert told["rule"] == "http[777]" and told["tried_and_not_shown"] == 778 - 100
    assert [each["rule"] for each in tried] == [f"http[{number}]" for number in (*range(50), *range(728, 778))]
    assert tried[-1]["failed"] is None
    few = explain_route(table(virtual=[many(100)]), "GET", "/99/", "web.shop", [])
    assert len(cast("list[Any]", few["tried"])) == 100 and "tried_and_not_shown" not in few


def test_a_page_of_rules_reads_the_counts_once() -> None:
    found, counts = table(virtual=[many(200)]), RouteCounts()
    for number in range(200):
        record = Record("outbound", "HTTP/1.1", "", 0.0, 0.0)
        record.route, record.cluster, record.status = f"shop/vs/http[{number}]", f"outbound|80||{HOST}", 200
        counts.note(record)
    rows = shown_routes(found, counts)
    assert [row["requests"] for row in rows] == [{f"{HOST}:80": 1}] * 200
    assert lines_of(lambda: shown_routes(found, counts)) < 200 * 100


def test_no_page_shows_a_value_that_may_be_a_secret() -> None:
    match = {
        "headers": {
            "Authorization": {"exact": "Bearer hunter2"}, "x-api_key": {"prefix": "hunter2"}, "x-a": {"exact": "1"},
        },
        "withoutHeaders": {"cookie": {"regex": ".*hunter2.*"}},
        "queryParams": {"token": {"exact": "hunter2"}, "session": {}},
    }  # fmt: skip
    virtual = {
        "name": "vs", "namespace": "shop", "hosts": [HOST],
        "http": [{"match": [match], "route": [{"destination": {"host": HOST}}]}],
    }  # fmt: skip
    found = table(virtual=[virtual])
    (row,) = shown_routes(found, RouteCounts())
    told = explain_route(found, "GET", "/", "web.shop", [("authorization", "Bearer hunter2")])
    assert "hunter2" not in json.dumps([row, told])
    assert row["match"] == (
        "header Authorization *** and header x-api_key *** and header x-a = 1 and no header cookie *** "
        "and parameter token *** and parameter session present"
    )


@pytest.mark.parametrize(
    ("redirect", "text"),
    [
        ({"uri": "/b", "authority": "there.example", "redirectCode": 308}, "redirect 308 there.example/b"),
        ({"prefixRewrite": "/b"}, "redirect 301 /b..."),
        ({"scheme": "https"}, "redirect 301 https://..."),
        ({"scheme": "https", "port": 8443}, "redirect 301 https://...:8443"),
        ({"derivePort": "FROM_REQUEST_PORT", "uri": "/b"}, "redirect 301 ...:the request's/b"),
    ],
)
def test_a_redirect_is_told_with_all_that_it_changes(redirect: dict[str, Any], text: str) -> None:
    virtual = {"name": "vs", "namespace": "shop", "hosts": [HOST], "http": [{"redirect": redirect}]}
    (row,) = shown_routes(table(virtual=[virtual]), RouteCounts())
    assert row["action"] == text
