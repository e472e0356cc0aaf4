"""VirtualServices in a running sidecar, over real sockets: which app gets a request, what it gets, and what the client
is told if none does."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.proxy.routing import HOST, Routed, document, to
from tests.support.raw import Client, Reply
from tests.support.upstream import hold, send, wait_until

WAIT = (hold,)


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    scripts = {
        "other": {"hang": WAIT},
        "v1": {"slow": WAIT, "busy": (send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),)},
    }
    with Routed(tmp_path_factory.mktemp("routes"), {"route": [to("v1")]}, scripts=scripts) as running:
        yield running


@pytest.fixture(autouse=True)
def forgotten(routed: Routed) -> None:
    """No test sees requests of another one."""
    routed.seen()


def only(routed: Routed) -> tuple[str, Any]:
    (found,) = routed.seen()
    return found


def value(fields: Any, name: bytes) -> list[bytes]:
    return [each for key, each in fields if key.lower() == name]


def problem(reply: Reply) -> tuple[int, str, str]:
    told = json.loads(reply.body)
    return reply.status, told["flag"], told["reason"]


def within(count: int, total: int, share: float) -> bool:
    """Whether so many of ``total`` may well have been drawn with this chance: 5 standard deviations."""
    return abs(count - total * share) <= 5 * math.sqrt(total * share * (1 - share))


# -- which app --------------------------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_decides(routed: Routed) -> None:
    routed.obey(
        {"name": "canary", "match": [{"headers": {"x-canary": {"exact": "true"}}}], "route": [to("v2")]},
        {
            "match": [
                {"uri": {"prefix": "/api/"}, "method": {"exact": "POST"}},
                {"queryParams": {"v": {"exact": "2"}}},
            ],
            "route": [to("v2")],
        },
        {"match": [{"uri": {"regex": "/[a-z]+/[0-9]+"}}], "route": [to(host="other.example")]},
        {"route": [to("v1")]},
    )  # fmt: skip
    for target, method, fields, app, rule in (
        ("/", "GET", (), "v1", "http[3]"),
        ("/", "GET", ("X-Canary: true",), "v2", "canary"),
        ("/", "GET", ("X-Canary: TRUE",), "v1", "http[3]"),
        ("/", "GET", ("X-Canary: no", "x-canary: true"), "v2", "canary"),
        ("/api/x", "POST", (), "v2", "http[1]"),
        ("/api/x", "GET", (), "v1", "http[3]"),
        ("/api/x?a=1&v=2", "GET", (), "v2", "http[1]"),
        ("/items/42", "GET", (), "other", "http[2]"),
        ("/items/42x", "GET", (), "v1", "http[3]"),
        ("/x/../items/%34%32", "GET", (), "other", "http[2]"),
    ):
        assert routed.ask(target, *fields, method=method).status == 200
        name, _ = only(routed)
        record = routed.record()
        assert (name, record["route"]) == (app, f"default/shop/{rule}"), (target, method, fields)
        assert record["subset"] == (None if app == "other" else app)
    counted = routed.figures("sidecar_route_requests_total")
    labels = f'{{destination="{HOST}:80",response_code="200",route="default/shop/canary",subset="v2"}}'
    assert counted[labels] == 2.0


def test_a_request_that_no_rule_matches_gets_404(routed: Routed) -> None:
    routed.obey({"match": [{"uri": {"exact": "/only"}}], "route": [to("v1")]})
    assert problem(routed.ask("/other")) == (404, "NR", "no_route")
    assert "default/shop" in json.loads(routed.ask("/other").body)["detail"]
    assert routed.seen() == []
    assert routed.ask("/other", host="other.example").status == 200, "another host has no VirtualService"


@pytest.mark.parametrize(
    ("target", "outcome"),
    [
        (to(host="nobody.example"), (503, "NC", "no_cluster")),
        (to("v9"), (503, "NC", "no_cluster")),
        (to("none"), (503, "UH", "no_endpoint")),
        ({"destination": {"host": HOST, "port": {"number": 9999}}}, (503, "NC", "no_cluster")),
    ],
)
def test_a_rule_that_leads_nowhere_refuses_its_requests_alone(
    routed: Routed, target: dict[str, Any], outcome: tuple[int, str, str]
) -> None:
    routed.obey({"match": [{"uri": {"prefix": "/nowhere"}}], "route": [target]}, {"route": [to("v1")]})
    assert problem(routed.ask("/nowhere")) == outcome
    assert routed.seen() == []
    assert routed.ask("/somewhere").status == 200


def test_weights_share_the_requests(routed: Routed) -> None:
    """90 to 10, as the mission's canary: within 5 standard deviations over 2,000 requests."""
    routed.obey({"route": [to("v1", weight=90), to("v2", weight=10)]})
    routed.seen()
    for _ in range(20):
        with Client(routed.sidecar.outbound) as client:
            client.send(b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (HOST.encode(), HOST.encode()) * 100)
            assert all(reply.status == 200 for reply in client.replies((b"GET",) * 100, 100))
    counts = Counter(name for name, _ in routed.seen())
    assert counts.total() == 2000 and within(counts["v2"], 2000, 0.1), counts
    routed.obey({"route": [to("v1", weight=0), to("v2", weight=100)]})
    assert {routed.ask().status for _ in range(20)} == {200}
    assert {name for name, _ in routed.seen()} == {"v2"}


# -- what it gets -----------------------------------------------------------------------------------------------------


def test_the_head_is_rewritten(routed: Routed) -> None:
    rewrite = {"uri": "/v2", "authority": "inner.example"}
    headers = {
        "request": {"set": {"x-set": "route"}, "add": {"x-add": "2"}, "remove": ["x-remove"]},
        "response": {"set": {"x-reply": "route"}, "remove": ["x-app"]},
    }
    target = to("v1", headers={"request": {"set": {"x-own": "destination"}}})
    routed.obey({"match": [{"uri": {"prefix": "/old"}}], "rewrite": rewrite, "headers": headers, "route": [target]})
    reply = routed.ask("/old/x?q=/old", "X-Set: client", "X-Add: 1", "X-Remove: me", "x-remove: too")
    _, request = only(routed)
    assert (reply.status, request.target) == (200, b"/v2/x?q=/old")
    assert request.get(b"host") == [b"inner.example"]
    assert (request.get(b"x-set"), request.get(b"x-add"), request.get(b"x-own")) == (
        [b"route"],
        [b"1", b"2"],
        [b"destination"],
    )
    assert request.get(b"x-remove") == []
    assert reply.get(b"x-reply") == [b"route"]
    record = routed.record()
    assert (record["path"], record["authority"]) == ("/old/x?q=***", HOST), "records have what the app asked for"


def test_a_redirect_and_a_direct_response_reach_no_app(routed: Routed) -> None:
    routed.obey(
        {
            "match": [{"uri": {"prefix": "/moved"}}],
            "redirect": {"uri": "/here", "authority": "new.example", "redirectCode": 308},
        },
        {
            "match": [{"uri": {"exact": "/down"}}],
            "directResponse": {"status": 503, "body": {"string": "later"}},
            "headers": {"response": {"add": {"retry-after": "60"}}},
        },
        {"match": [{"uri": {"exact": "/nothing"}}], "directResponse": {"status": 204}},
    )
    moved = routed.ask("/moved/x?q=1")
    assert (moved.status, moved.get(b"location"), moved.body) == (308, [b"http://new.example/here?q=1"], b"")
    down = routed.ask("/down", method="POST", body=b"x" * 1000)
    assert (down.status, down.body, down.get(b"retry-after")) == (503, b"later", [b"60"])
    assert down.get(b"content-type") == [b"text/plain"]
    with Client(routed.sidecar.outbound) as client:  # a 204 has no length, and the next reply begins where it ends
        client.send(b"GET http://%b/nothing HTTP/1.1\r\nHost: %b\r\n\r\n" % (HOST.encode(), HOST.encode()) * 2)
        first, second = client.replies((b"GET", b"GET"), 2)
        assert (first.status, first.get(b"content-length"), second.status) == (204, [], 204)
    assert routed.seen() == []
    assert (routed.record()["reason"], routed.record()["flag"]) == (None, "-")


def test_cors_answers_preflights_and_marks_answers(routed: Routed) -> None:
    policy = {
        "allowOrigins": [{"exact": "https://good.example"}], "allowMethods": ["GET", "PUT"], "allowHeaders": ["x-a"],
        "exposeHeaders": ["x-b"], "maxAge": "24h", "allowCredentials": True,
    }  # fmt: skip
    routed.obey({"corsPolicy": policy, "route": [to("v1")]})
    asked = ("Origin: https://good.example", "Access-Control-Request-Method: PUT")
    reply = routed.ask("/", *asked, method="OPTIONS")
    assert reply.status == 200 and routed.seen() == []
    assert reply.get(b"access-control-allow-origin") == [b"https://good.example"]
    assert reply.get(b"access-control-allow-methods") == [b"GET,PUT"]
    assert reply.get(b"access-control-max-age") == [b"86400"]
    assert reply.get(b"access-control-allow-credentials") == [b"true"]
    actual = routed.ask("/", "Origin: https://good.example")
    assert actual.get(b"access-control-allow-origin") == [b"https://good.example"]
    assert actual.get(b"access-control-expose-headers") == [b"x-b"]
    other = routed.ask("/", "Origin: https://bad.example")
    assert other.status == 200 and other.get(b"access-control-allow-origin") == []
    routed.seen()
    stranger = ("Origin: https://bad.example", "Access-Control-Request-Method: PUT")
    assert routed.ask("/", *stranger, method="OPTIONS").status == 200
    assert len(routed.seen()) == 1, "a preflight of another origin goes on to the app"
    routed.obey({"corsPolicy": {**policy, "unmatchedPreflights": "IGNORE"}, "route": [to("v1")]})
    assert routed.ask("/", *stranger, method="OPTIONS").get(b"access-control-allow-origin") == []
    assert routed.seen() == []


# -- faults -----------------------------------------------------------------------------------------------------------


def test_aborts_are_for_their_share(routed: Routed) -> None:
    """5 % get a 500, as the mission's faults: within 5 standard deviations over 2,000 requests."""
    routed.obey({"fault": {"abort": {"httpStatus": 500, "percentage": {"value": 5}}}, "route": [to("v1")]})
    statuses: Counter[int] = Counter()
    for _ in range(20):
        with Client(routed.sidecar.outbound) as client:
            client.send(b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (HOST.encode(), HOST.encode()) * 100)
            statuses.update(reply.status for reply in client.replies((b"GET",) * 100, 100))
    assert set(statuses) == {200, 500} and within(statuses[500], 2000, 0.05), statuses
    assert len(routed.seen()) == statuses[200]
    routed.obey({"fault": {"abort": {"httpStatus": 418, "percentage": {"value": 100}}}, "route": [to("v1")]})
    assert problem(routed.ask()) == (418, "FI", "fault_injected")


def test_a_delay_is_outside_of_the_timeout_and_its_client_may_leave(routed: Routed) -> None:
    delay = {"delay": {"fixedDelay": "400ms", "percentage": {"value": 100}}}
    routed.obey({"fault": delay, "timeout": "300ms", "route": [to("v1")]})
    assert routed.ask().status == 200
    record = routed.record()
    assert record["flag"] == "DI" and record["duration_ms"] >= 400
    routed.seen()
    routed.obey({"fault": {"delay": {"fixedDelay": "1h", "percentage": {"value": 100}}}, "route": [to("v1")]})
    with Client(routed.sidecar.outbound) as client:
        client.send(b"GET http://%b/left HTTP/1.1\r\nHost: %b\r\n\r\n" % (HOST.encode(), HOST.encode()))
        wait_until(
            lambda: routed.figures("sidecar_requests_active") == {} and _active(routed) >= 1, "the request waits"
        )
    wait_until(lambda: routed.record()["path"] == "/left", "the client's leaving ends the wait")
    assert routed.record()["reason"] == "client_closed" and routed.seen() == []


def _active(routed: Routed) -> float:
    text = routed.sidecar.admin_get("/metrics")[1]
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith("sidecar_requests_active "))


# -- timeouts ---------------------------------------------------------------------------------------------------------


def test_a_timeout_ends_a_request_and_is_passed_on(routed: Routed) -> None:
    routed.obey({"timeout": "300ms", "retries": {"attempts": 0}, "route": [to("v1")]})
    assert problem(routed.ask("/script/slow")) == (504, "UT", "upstream_timeout")
    assert routed.ask("/").status == 200
    requests = [request for _, request in routed.seen()]
    assert all(0 < int(request.get(b"x-envoy-expected-rq-timeout-ms")[0]) <= 300 for request in requests)


def test_the_app_may_shorten_the_time_and_never_lengthens_it(routed: Routed) -> None:
    routed.obey({"timeout": "1h", "retries": {"attempts": 0}, "route": [to("v1")]})
    assert problem(routed.ask("/script/slow", "x-envoy-expected-rq-timeout-ms: 200")) == (504, "UT", "upstream_timeout")
    routed.obey({"timeout": "200ms", "retries": {"attempts": 0}, "route": [to("v1")]})
    assert problem(routed.ask("/script/slow", "x-envoy-expected-rq-timeout-ms: 3600000"))[0] == 504
    routed.obey({"route": [to("v1")]})
    assert problem(routed.ask("/script/slow", "x-envoy-expected-rq-timeout-ms: 200"))[0] == 504
    for odd in ("0", "-1", "x", "9" * 30):
        routed.seen()
        assert routed.ask("/", f"x-envoy-expected-rq-timeout-ms: {odd}").status == 200
        assert only(routed)[1].get(b"x-envoy-expected-rq-timeout-ms") == []


# -- mirrors ----------------------------------------------------------------------------------------------------------


def test_a_mirror_gets_a_copy_and_its_answer_is_dropped(routed: Routed) -> None:
    mirror = {"mirror": {"host": "other.example"}, "rewrite": {"uri": "/new"}, "match": [{"uri": {"prefix": "/old"}}]}
    routed.obey({**mirror, "route": [to("v1")]}, {"route": [to("v1")]})
    routed.seen()
    reply = routed.ask("/old/x", method="POST", body=b"payload")
    assert reply.status == 200
    wait_until(lambda: _mirrored(routed, "answered") == 1, "the copy's answer")
    (first, real), (second, copy) = routed.seen()
    assert (first, second) == ("v1", "other")
    assert (
        (copy.method, copy.target, copy.body)
        == (real.method, real.target, real.body)
        == (b"POST", b"/new/x", b"payload")
    )
    assert copy.get(b"host") == [b"shop.example-shadow"]
    assert routed.ask("/else").status == 200
    assert [name for name, _ in routed.seen()] == ["v1"]


def test_a_long_body_is_not_mirrored_and_a_streamed_one_is(routed: Routed) -> None:
    routed.obey({"mirror": {"host": "other.example"}, "route": [to("v1")]})
    routed.seen()
    dropped = _mirrored(routed, "dropped")
    assert routed.ask("/long", method="POST", body=b"x" * 70_000).status == 200
    assert [name for name, _ in routed.seen()] == ["v1"]
    assert _mirrored(routed, "dropped") == dropped + 1
    answered = _mirrored(routed, "answered")
    with Client(routed.sidecar.outbound) as client:
        client.send(
            b"POST http://%b/chunks HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"
            % (HOST.encode(), HOST.encode())
        )
        wait_until(lambda: any(each.mid_request for each in routed.apps["v1"].live()), "the first piece goes on")
        client.send(b"2\r\nef\r\n0\r\n\r\n")
        assert client.replies((b"POST",), 1)[0].status == 200
    wait_until(lambda: _mirrored(routed, "answered") == answered + 1, "the copy's answer")
    bodies = [(name, request.body) for name, request in routed.seen()]
    assert bodies == [("v1", b"abcdef"), ("other", b"abcdef")]


def test_a_copy_has_a_length_where_the_request_has_one(routed: Routed) -> None:
    routed.obey({"name": "empty", "mirror": {"host": "other.example"}, "route": [to("v1")]})
    answered = _mirrored(routed, "answered")
    assert routed.ask("/empty", "Content-Length: 0", method="POST").status == 200
    wait_until(lambda: _mirrored(routed, "answered") == answered + 1, "the copy's answer")
    assert [(name, request.get(b"content-length")) for name, request in routed.seen()] == [
        ("v1", [b"0"]), ("other", [b"0"]),
    ]  # fmt: skip


def test_mirrors_that_hang_are_bounded_and_delay_nothing(routed: Routed) -> None:
    routed.obey({"mirror": {"host": "other.example"}, "rewrite": {"uri": "/script/hang"}, "route": [to("v2")]})
    routed.seen()
    dropped = _mirrored(routed, "dropped")
    for _ in range(100):
        assert routed.ask().status in (200, 404)
    assert _mirrored(routed, "dropped") == dropped + 100 - 64
    assert sum(name == "v2" for name, _ in routed.seen()) == 100


def test_a_mirror_that_hangs_keeps_no_copies_from_another_one(routed: Routed) -> None:
    both = {"mirrors": [{"destination": {"host": "other.example"}}, {"destination": {"host": HOST, "subset": "v2"}}]}
    routed.obey({**both, "rewrite": {"uri": "/script/hang"}, "route": [to("v1")]})
    answered = _mirrored(routed, "answered")
    for _ in range(70):
        assert routed.ask("/").status == 404, "v1 has no such script, and neither has v2"
    wait_until(lambda: _mirrored(routed, "answered") == answered + 70, "a copy of each for the one that answers")


def test_a_mirror_that_leads_nowhere_fails_no_request(routed: Routed) -> None:
    routed.obey({"mirror": {"host": "nobody.example"}, "route": [to("v1")]})
    assert routed.ask().status == 200


def _mirrored(routed: Routed, outcome: str) -> float:
    return routed.figures("sidecar_mirrored_requests_total").get(f'{{outcome="{outcome}"}}', 0.0)


# -- retries ----------------------------------------------------------------------------------------------------------


def test_retries_of_a_route(routed: Routed) -> None:
    retries = {"attempts": 3, "retryOn": "503", "backoff": "1ms"}
    routed.obey({"retries": retries, "route": [to("v1")]})
    routed.seen()
    reply = routed.ask("/script/busy")
    counts = [request.get(b"x-envoy-attempt-count") for _, request in routed.seen()]
    assert (reply.status, counts) == (503, [[b"1"], [b"2"], [b"3"], [b"4"]])
    record = routed.record()
    assert (record["attempts"], record["flag"]) == (4, "URX")
    assert routed.ask("/script/busy", method="POST", body=b"x").status == 503
    assert len(routed.seen()) == 1, "a POST is not sent twice"


# -- what people see --------------------------------------------------------------------------------------------------


def test_routes_are_listed_and_explained(routed: Routed) -> None:
    routed.obey(
        {"name": "canary", "match": [{"headers": {"x-canary": {"exact": "true"}}}], "route": [to("v2")]},
        {"route": [to("v1", weight=90), to("none", weight=10)], "timeout": "2s"},
    )
    routed.ask("/", "x-canary: true")
    first, second = json.loads(routed.sidecar.admin_get("/routes")[1])
    assert (first["rule"], first["match"], first["action"]) == ("canary", "header x-canary = true", f"{HOST} v2")
    assert first["requests"][f"{HOST}:80 v2"] >= 1
    assert second["action"] == f"{HOST} v1 90, {HOST} none 10; timeout 2s"
    assert json.loads(routed.sidecar.admin_get("/routes?host=none.example")[1]) == []
    told = json.loads(routed.sidecar.admin_get(f"/explain?direction=outbound&host={HOST}&path=/x", "POST")[1])
    assert told["tried"] == [
        {"rule": "canary", "match": "match[0]", "failed": "headers[x-canary]"},
        {"rule": "http[1]", "match": "any request", "failed": None},
    ]
    one, two = told["destinations"]
    assert (one["cluster"], one["share"]) == (f"outbound|80|v1|{HOST}", 0.9)
    assert [each["endpoint"] for each in one["endpoints"]] == [f"127.0.0.1:{routed.apps['v1'].port}"]
    assert two["endpoints"] == []
    assert told["timeout_seconds"] == 2.0
    asked = f"/explain?direction=outbound&host={HOST}&path=/x&header.x-canary=true"
    assert json.loads(routed.sidecar.admin_get(asked, "POST")[1])["rule"] == "canary"


def test_a_request_that_was_made_is_explained_with_its_route(routed: Routed) -> None:
    routed.obey(
        {"name": "canary", "match": [{"headers": {"x-canary": {"exact": "true"}}}], "route": [to("v2")]},
        {"route": [to("v1")]},
    )
    for fields, rule, tried in ((("X-Canary: true",), "canary", 1), ((), "http[1]", 2)):
        routed.ask("/story", *fields)
        story = json.loads(routed.sidecar.admin_get(f"/explain/{routed.record()['request_id']}")[1])["route"]
        assert story["rule"] == f"default/shop/{rule}" and "changed" not in story
        now = story["by_routes_in_force"]
        assert now["rule"] == rule and len(now["tried"]) == tried
    routed.obey({"name": "other", "route": [to("v1")]})
    story = json.loads(routed.sidecar.admin_get(f"/explain/{routed.record()['request_id']}")[1])["route"]
    assert story["rule"] == "default/shop/http[1]" and "changed" in story


def test_of_two_virtual_services_for_a_host_the_first_counts(routed: Routed) -> None:
    later = document("VirtualService", "zebra", {"hosts": [HOST], "http": [{"route": [to("v2")]}]})
    routed.obey({"route": [to("v1")]}, more=(later,))
    routed.seen()
    assert routed.ask().status == 200
    assert only(routed)[0] == "v1"
    told = json.loads(routed.sidecar.admin_get(f"/explain?direction=outbound&host={HOST}", "POST")[1])
    assert told["virtual_service"] == "default/shop"
    assert told["not_used"] == ["VirtualService default/zebra: default/shop comes first"]
    assert any(f"VirtualService default/shop is for {HOST} as well" in line for line in routed.sidecar.errors), (
        "a note names it"
    )


def test_each_route_has_a_limit_of_its_own(routed: Routed) -> None:
    limits = [{"name": "each", "key": ["route"], "rate": {"requests": 2, "per": "1h"}}]
    policy = {
        "apiVersion": "sidecar/v1", "kind": "RateLimitPolicy", "metadata": {"name": "routes"},
        "spec": {"direction": "OUTBOUND", "limits": limits},
    }  # fmt: skip
    routed.obey(
        {"name": "pay", "match": [{"uri": {"prefix": "/pay"}}], "route": [to("v1")]},
        {"route": [to("v2")]},
        more=(policy,),
    )
    assert [routed.ask("/pay").status for _ in range(3)] == [200, 200, 429]
    assert [routed.ask("/else").status for _ in range(3)] == [200, 200, 429]
    assert [routed.ask(host="other.example").status for _ in range(3)] == [200, 200, 429], "no route is one more value"
