"""``/events`` and the files of the page, on a port of the admin server and on the real process."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from sidecar.admin import dashboard, events
from sidecar.errors import Reason
from sidecar.telemetry.record import Record
from tests.proxy.adminport import Port, get, port
from tests.support.process import ROOT

PARTS = sorted(path.name for path in (ROOT / "sidecar" / "admin" / "pages").iterdir())
LARGEST_PAGE = 60_000  # bytes in all


def finished(
    telemetry: Any,
    *,
    status: int = 200,
    reason: Reason | None = None,
    seconds: float = 0.002,
    path: bytes = b"/a",
    start: float = 1000.0,
) -> Record:
    record = Record("inbound", "HTTP/1.1", "10.0.0.7:4242", start, 0.0)
    record.duration, record.status, record.reason = seconds, status, reason
    record.method, record.path, record.upstream, record.request_id = b"GET", path, "127.0.0.1:80", b"id-1"
    telemetry.finish(record)
    return record


async def hear(admin: Port, count: int) -> list[dict[str, Any]]:
    """The first ``count`` summaries that a listener gets."""
    told: list[dict[str, Any]] = []
    async with await admin.open() as stream:
        await stream.send_all(get("/events"))
        seen = b""
        while len(told) < count:
            seen += await stream.receive_some()
            while b"\n\n" in seen.partition(b"data: ")[2]:
                event, _, seen = seen.partition(b"data: ")[2].partition(b"\n\n")
                told.append(json.loads(event))
    return told


async def test_rates_are_differences_and_latencies_those_of_the_last_second() -> None:
    async with port() as admin:
        telemetry, latest = admin.process.telemetry, admin.context.latest
        finished(telemetry, seconds=5.0)
        events.bring_up_to_date(latest, admin.context, 100.0)
        for milliseconds in range(1, 101):
            status = 500 if milliseconds == 1 else 200
            finished(telemetry, seconds=milliseconds / 1000, status=status, start=4e9)  # has ended since
        finished(telemetry, reason=Reason.CONNECT_FAILED, status=503, start=4e9)
        events.bring_up_to_date(latest, admin.context, 102.0)
        told = json.loads(latest.event.removeprefix(b"data: "))
    inbound = told["directions"]["inbound"]
    assert (inbound["requests"], inbound["errors"], inbound["total"]) == (50.5, 1.0, 102)
    assert (inbound["p50"], inbound["p95"], inbound["p99"]) == (
        pytest.approx(50, abs=1.5),
        95,
        pytest.approx(99, abs=1),
    )
    assert told["directions"]["outbound"]["requests"] == 0
    assert {each["word"]: each["count"] for each in told["reasons"]} == {"connect_failed": 1, "app_error": 1}
    assert told["sources"] == [{"direction": "inbound", "name": "10.0.0.7", "requests": 102, "failed": 2}]
    assert told["destinations"][0]["name"] == "127.0.0.1:80"


async def test_a_reset_of_the_counters_shows_no_rate_below_zero() -> None:
    async with port() as admin:
        telemetry, latest = admin.process.telemetry, admin.context.latest
        for _ in range(10):
            finished(telemetry)
        events.bring_up_to_date(latest, admin.context, 100.0)
        telemetry.reset()
        finished(telemetry)
        events.bring_up_to_date(latest, admin.context, 101.0)
        assert json.loads(latest.event[6:])["directions"]["inbound"]["requests"] == 1.0


async def test_a_failure_has_its_sentence_and_no_value_of_a_query() -> None:
    async with port() as admin:
        finished(admin.process.telemetry, reason=Reason.POOL_FULL, status=503, path=b"/<b>?token=hunter2&\x1b")
        failure = (await hear(admin, 1))[0]["failures"][0]
    assert failure["path"] == "/<b>?token=***&***"
    assert (failure["flag"], failure["word"], failure["status"], failure["id"]) == ("UO", "pool_full", 503, "id-1")
    assert failure["means"].startswith("All connections to the upstream are in use")


async def test_a_rare_failure_outlives_a_thousand_requests() -> None:
    async with port() as admin:
        finished(admin.process.telemetry, reason=Reason.UPSTREAM_CLOSED, status=503).request_id = b"rare"
        for _ in range(1500):
            finished(admin.process.telemetry)
        assert [each["id"] for each in (await hear(admin, 1))[0]["failures"]] == ["rare"]
        assert (await admin.ask(get("/explain/rare"))).status == 200


async def test_a_second_is_summed_up_once_for_all_who_listen_and_not_for_nobody() -> None:
    heard: list[list[float]] = []

    async def listen(admin: Port) -> None:
        heard.append([told["time"] for told in await hear(admin, 3)])

    async with port() as admin:
        assert admin.context.latest.made == 0
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(listen, admin)
        assert len(heard) == 4
        assert len({time for times in heard for time in times}) == admin.context.latest.made == 3


@pytest.mark.parametrize("name", PARTS)
async def test_each_file_of_the_page_is_served_under_its_policy(name: str) -> None:
    async with port() as admin:
        reply = await admin.ask(get("/" if name == "index.html" else f"/page/{name}"))
    kind = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert reply.status == 200 and reply.body == (ROOT / "sidecar" / "admin" / "pages" / name).read_bytes()
    assert reply.headers["content-type"].startswith(kind[name.rpartition(".")[2]])
    assert reply.headers["content-security-policy"] == dashboard.POLICY
    assert reply.headers["x-content-type-options"] == "nosniff"


async def test_nothing_else_is_served_as_a_part_of_it() -> None:
    async with port() as admin:
        for path in ("/page/", "/page/live.py", "/page/..%2flive.py", "/page/../live.py", "/page/index.html"):
            assert (await admin.ask(get(path))).status == 404, path


def test_the_page_is_small_and_has_nothing_inline_or_from_elsewhere() -> None:
    pages = [ROOT / "sidecar" / "admin" / "pages" / name for name in PARTS]
    assert sum(path.stat().st_size for path in pages) < LARGEST_PAGE
    for path in pages:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "url(" not in text, path
        assert not any(word in text for word in ("innerHTML", "outerHTML", "insertAdjacent", "eval(", "document.write"))
    markup = (ROOT / "sidecar" / "admin" / "pages" / "index.html").read_text()
    assert (
        " style=" not in markup and " on" not in markup.replace(" only", "").replace(" once", "").partition("<main")[0]
    )
