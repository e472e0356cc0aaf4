"""/requests and /explain: the last records, found again by what one knows of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.errors import Reason
from sidecar.telemetry.history import KEPT
from sidecar.telemetry.reason_texts import MEANINGS
from sidecar.telemetry.record import Attempt, ConnectionInfo, Record
from tests.proxy.adminport import Port, get, port


def finish(
    admin: Port,
    name: str,
    status: int = 200,
    *,
    path: bytes = b"/",
    client: str = "10.0.0.9:1",
    reason: Reason | None = None,
    direction: str = "inbound",
) -> Record:
    record = Record(direction, "HTTP/1.1", client, 1_700_000_000.25, 1.0)
    record.status, record.duration, record.reason, record.request_id = status, 0.01, reason, name.encode()
    record.method, record.path, record.sent_target, record.authority = b"GET", path, path, b"app"
    admin.process.telemetry.finish(record)
    return record


def finish_six(admin: Port) -> None:
    finish(admin, "ok", path=b"/a/1?x=1")
    finish(admin, "missing", 404, path=b"/b", client="[2001:db8::7]:99")
    finish(admin, "down", 503, path=b"/a/2", reason=Reason.CONNECT_FAILED)
    finish(admin, "app", 500, path=b"/a/3", client="10.0.1.1:2")
    finish(admin, "out", 502, reason=Reason.UPSTREAM_PROTOCOL, direction="outbound", client="127.0.0.1:3")
    finish(admin, "gone", 0, reason=Reason.CLIENT_CLOSED)


async def rows(admin: Port, query: str) -> list[dict[str, Any]]:
    reply = await admin.ask(get(f"/requests?format=json{query}"))
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json"), reply.body
    found: list[dict[str, Any]] = json.loads(reply.body)
    return found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["gone", "out", "app", "down", "missing", "ok"]),
        ("&status=503", ["down"]),
        ("&status=5xx", ["out", "app", "down"]),
        ("&status=0", ["gone"]),
        ("&flag=UF", ["down"]),
        ("&flag=-", ["app", "missing", "ok"]),
        ("&reason=client_closed", ["gone"]),
        ("&path=/a", ["app", "down", "ok"]),
        ("&path=/a/1%3Fx=", ["ok"]),
        ("&source=10.0.0.", ["gone", "down", "ok"]),
        ("&source=2001:db8:", ["missing"]),
        ("&source=[2001:db8::7]", ["missing"]),
        ("&direction=outbound", ["out"]),
        ("&limit=2", ["gone", "out"]),
        ("&status=5xx&path=/a&limit=1", ["app"]),
    ],
)
async def test_newest_first_and_filtered(query: str, found: list[str]) -> None:
    async with port() as admin:
        finish_six(admin)
        assert [row["request_id"] for row in await rows(admin, query)] == found


async def test_retries_that_were_used_up_are_found_by_their_flag_and_explained() -> None:
    async with port() as admin:
        finish(admin, "ok")
        for name, reason, exhausted in (("down", Reason.CONNECT_FAILED, "attempts"), ("app", None, "budget")):
            record = Record("outbound", "HTTP/1.1", "127.0.0.1:3", 1_700_000_000.25, 1.0)
            record.status, record.reason, record.exhausted, record.request_id = 503, reason, exhausted, name.encode()
            admin.process.telemetry.finish(record)
        assert [(row["request_id"], row["flag"]) for row in await rows(admin, "&flag=URX")] == [
            ("app", "URX"),
            ("down", "UF,URX"),
        ]
        assert [row["request_id"] for row in await rows(admin, "&flag=UF")] == ["down"]
        for name, flags, why in (("down", "UF,URX", "no more attempts"), ("app", "URX", "budget for retries")):
            outcome = json.loads((await admin.ask(get(f"/explain/{name}"))).body)["outcome"]
            assert outcome["flag"] == flags and why in outcome["retries"]


@pytest.mark.parametrize("where", ["/requests", "/tap"])
@pytest.mark.parametrize(
    "query",
    ["status=6xx", "status=abc", "flag=XX", "reason=bad", "direction=up", "limit=0", "limit=1001", "limit=x",
     "limit=-1", "statsu=503", "path=" + "a" * 600],
)  # fmt: skip
async def test_a_filter_that_is_not_understood_is_refused_in_words(where: str, query: str) -> None:
    async with port() as admin:
        reply = await admin.ask(get(f"{where}?{query}"))
        assert reply.status == 400
        assert reply.body.strip()
        assert b"statsu" not in reply.body


async def test_a_line_per_request_for_people() -> None:
    async with port() as admin:
        finish(admin, "the-id", 503, path=b"/a?x=1", reason=Reason.CONNECT_FAILED)
        assert (await admin.ask(get("/requests"))).body == (
            b"2023-11-14T22:13:20.250Z inbound 503 UF connect_failed 10.0ms GET /a?x=*** app 10.0.0.9:1 - the-id\n"
        )


async def test_a_hundred_unless_more_are_asked_for_and_never_more_than_are_kept() -> None:
    async with port() as admin:
        for number in range(KEPT + 5):
            finish(admin, f"n{number}")
        assert len(await rows(admin, "")) == 100
        found = await rows(admin, f"&limit={KEPT}")
        assert (len(found), found[-1]["request_id"]) == (KEPT, "n5")


async def test_a_failure_is_found_when_a_thousand_others_came_after_it() -> None:
    async with port() as admin:
        finish(admin, "down", 503, reason=Reason.CONNECT_FAILED)
        for number in range(KEPT):
            finish(admin, f"n{number}")
        assert [row["request_id"] for row in await rows(admin, "&status=503")] == ["down"]
        assert (await admin.ask(get("/explain/down"))).status == 200


async def test_hdr_6_bytes_of_a_peer_break_no_line_and_no_document() -> None:
    async with port() as admin:
        record = finish(admin, "the-id", path=b'/a\x7f"<script>\xff\r\n')
        record.user_agent = record.forwarded_for = record.authority = b'\r\n\x1b[31m"\xff\x00'
        (row,) = await rows(admin, "")
        assert row["path"] == '/a\\x7f"<script>\\xff\\x0d\\x0a'
        text = (await admin.ask(get("/requests"))).body
        assert text.count(b"\n") == 1
        assert text.rstrip(b"\n").decode("ascii").isprintable()
        story = (await admin.ask(get("/explain/the-id?format=text"))).body.decode("ascii")
        assert all(line.isprintable() for line in story.splitlines())


async def told(admin: Port) -> dict[str, Any]:
    record = finish(admin, "the-id", 503, path=b"/a?x=1", reason=Reason.CONNECT_FAILED)
    record.sent_target = b"/b/../a?x=1"
    record.origin = ConnectionInfo(1_700_000_000.0, "HTTP/1: a known method", 0.0005)
    record.stripped = ("x-envoy-force",)
    record.tries = (
        Attempt("127.0.0.1:8080", "", True, 0.0, 0.0, record.began + 0.002, 0, Reason.UPSTREAM_CLOSED, "it went away"),
    )
    record.attempts, record.upstream, record.detail = 2, "127.0.0.1:8080", "connection refused"
    reply = await admin.ask(get("/explain/the-id"))
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    found: dict[str, Any] = json.loads(reply.body)
    return found


async def test_the_story_of_a_request() -> None:
    async with port() as admin:
        story = await told(admin)
    assert story["time"] == "2023-11-14T22:13:20.250Z"
    assert story["connection"]["detected"] == "HTTP/1: a known method"
    assert story["connection"]["detected_after_ms"] == 0.5
    assert (story["request"]["path_as_sent"], story["request"]["path_forwarded"]) == ("/b/../a?x=***", "/a?x=***")
    assert story["headers_stripped"] == ["x-envoy-force"]
    first, last = story["upstream"]["tries"]
    assert (first["connection"], first["outcome"], first["ended_after_ms"]) == ("reused", "upstream_closed", 2.0)
    assert (last["connection"], last["outcome"]) == ("none", "connect_failed")
    outcome = story["outcome"]
    assert (outcome["status"], outcome["flag"], outcome["fault"]) == (503, "UF", "upstream")
    assert outcome["means"]
    assert outcome["what_to_do"]


@pytest.mark.parametrize(("query", "accept"), [("?format=text", b"*/*"), ("", b"text/plain")])
async def test_the_story_as_text(query: str, accept: bytes) -> None:
    async with port() as admin:
        await told(admin)
        reply = await admin.ask(get(f"/explain/the-id{query}", b"Accept: %b\r\n" % accept))
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    lines = reply.body.decode().splitlines()
    assert "request_id: the-id" in lines
    assert "  path_as_sent: /b/../a?x=***" in lines
    assert "    - upstream: 127.0.0.1:8080" in lines
    assert "      outcome: connect_failed" in lines
    assert "  - x-envoy-force" in lines
    assert f"  what_to_do: {MEANINGS[Reason.CONNECT_FAILED].cure}" in lines


async def test_an_id_that_is_not_there_says_how_far_back_history_goes() -> None:
    async with port() as admin:
        assert (await admin.ask(get("/explain/x"))).body.endswith(b"; nothing has ended so far\n")
        finish(admin, "the-id")
        reply = await admin.ask(get("/explain/x"))
        assert (reply.status, b"x;" in reply.body) == (404, False)
        assert b"history goes back to 2023-11-14T22:13:20.250Z" in reply.body


async def test_an_id_of_a_caller_may_have_a_slash() -> None:
    async with port() as admin:
        finish(admin, "a/b=c")
        assert (await admin.ask(get("/explain/a%2Fb=c"))).status == 200
