"""What the admin and the scrape port answer, and what they never say (CTL-7)."""

from __future__ import annotations

import json

import h11
import pytest

from sidecar.admin import responses, routes
from sidecar.admin.context import AdminContext
from sidecar.admin.server import serve_admin, serve_scrape
from sidecar.telemetry.record import Record
from tests.proxy.adminport import Serve, get, port, read_reply


@pytest.mark.parametrize(
    ("state", "path", "status", "body"),
    [
        ("pre_initializing", "/ready", 503, b"PRE_INITIALIZING\n"),
        ("live", "/ready", 200, b"LIVE\n"),
        ("draining", "/ready", 503, b"DRAINING\n"),
        ("pre_initializing", "/live", 200, b"LIVE\n"),
        ("draining", "/live", 200, b"LIVE\n"),
    ],
)
async def test_ready_and_live(state: str, path: str, status: int, body: bytes) -> None:
    for serve, prefix in ((serve_admin, ""), (serve_scrape, "/healthz")):
        async with port(serve, state=state) as asked:
            reply = await asked.ask(get(prefix + path))
            assert (reply.status, reply.body) == (status, body)


async def test_memory_tells_what_is_held() -> None:
    async with port() as admin:
        admin.process.telemetry.lag.note(1.0, 1.25)
        shown = json.loads((await admin.ask(get("/memory"))).body)
    assert shown["rss_bytes"] > 10_000_000
    assert shown["tasks"] >= 3
    assert shown["descriptors"] > 3
    assert shown["channels"] == 1
    assert shown["loop_lag_seconds"] == {"last": 0.25, "max": 0.25}
    assert shown["buffers"] == {"access_log_bytes": 0}
    assert shown["guard"] == {"state": "normal", "used_bytes": 0, "limit_bytes": 0}


async def test_help_names_every_path_and_404_repeats_it() -> None:
    async with port() as admin:
        listed = (await admin.ask(get("/help"))).body.decode()
        assert [line.split()[:2] for line in listed.splitlines()] == [
            [route.allow.partition(",")[0], path + route.rest] for path, route in routes.ADMIN.items()
        ]
        assert all(line.split()[2:] for line in listed.splitlines())
        unknown = await admin.ask(get("/nothing"))
        assert unknown.status == 404
        assert listed in unknown.body.decode()


@pytest.mark.parametrize("path", ["/explain/", "/explain/a/b", "/help/", "/help/x", "//help", "/ready/x"])
async def test_a_path_is_one_of_the_table(path: str) -> None:
    async with port() as admin:
        assert b"unknown path" in (await admin.ask(get(path))).body


@pytest.mark.parametrize("path", ["/metrics", "/stats/prometheus"])
@pytest.mark.parametrize("serve", [serve_admin, serve_scrape], ids=["admin", "scrape"])
async def test_metrics_in_both_formats(serve: Serve, path: str) -> None:
    async with port(serve) as asked:
        done = Record("inbound", "HTTP/1.1", "10.0.0.9:1", 1.0, 1.0)
        done.status, done.duration = 200, 0.01
        asked.process.telemetry.finish(done)
        plain = await asked.ask(get(path))
        assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert b'\nistio_requests_total{connection_security_policy="none",destination_app="unknown"' in plain.body
        openmetrics = await asked.ask(get(path, b"Accept: application/openmetrics-text\r\n"))
        assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
        assert openmetrics.body.endswith(b"# EOF\n")


async def test_quitquitquit_answers_and_then_begins_the_drain(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with port() as admin:
        reply = await admin.ask(b"POST /quitquitquit HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (reply.status, reply.body, reply.headers["connection"]) == (200, b"OK\n", "close")
        assert admin.process.quits == 1
    assert "POST /quitquitquit from 127.0.0.1:40000" in caplog.text


async def test_head_has_the_headers_only() -> None:
    async with port() as admin:
        reply = await admin.ask(b"HEAD /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (reply.status, reply.headers["content-length"], reply.body) == (200, "5", b"")


@pytest.mark.parametrize("path", sorted(set(routes.ADMIN) - set(routes.SCRAPE)))
async def test_the_scrape_port_has_nothing_else_and_changes_nothing(path: str) -> None:
    async with port(serve_scrape) as scrape:
        for method in (b"GET", b"POST"):
            reply = await scrape.ask(
                b"%b %b HTTP/1.1\r\nHost: pod:15020\r\n\r\n" % (method, path.encode()), "10.0.0.7:1"
            )
            assert reply.status == 404
        assert scrape.process.quits == 0
    assert not any(route.mutates for route in routes.SCRAPE.values())


async def test_the_scrape_port_answers_other_machines() -> None:
    async with port(serve_scrape) as scrape:
        for path, route in routes.SCRAPE.items():
            request = b"GET %b HTTP/1.1\r\nHost: 10.0.0.5:15020\r\n\r\n" % (path + route.rest).encode()
            assert (await scrape.ask(request, "10.0.0.7:5")).status == (404 if route.rest else 200)


async def test_ctl_7_an_error_of_ours_is_logged_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: AdminContext, __: responses.Request) -> responses.Reply:
        raise RuntimeError("key=hunter2")

    monkeypatch.setitem(routes.ADMIN, "/memory", responses.Route(broken, "breaks"))
    async with port() as admin, await admin.open() as stream:
        await stream.send_all(get("/memory"))
        reply = await read_reply(stream, h11.Connection(h11.CLIENT), b"")
        assert (reply.status, reply.body) == (500, b"internal error; the log has it\n")
        await stream.send_all(get("/live"))
        assert (await read_reply(stream, h11.Connection(h11.CLIENT), b"")).status == 200
    assert "RuntimeError" in caplog.text
