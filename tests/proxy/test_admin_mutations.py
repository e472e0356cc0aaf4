"""What changes something: what it changes, who may (CTL-5), and that it is told in the log.

Whatever stands in the table as a mutation is tried here, so that a new one can't be forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import pytest

from sidecar.addresses import Address
from sidecar.admin import routes
from sidecar.admin.context import Listening
from tests.proxy.adminport import Port, get, port

MUTATIONS = sorted(path for path, route in routes.ADMIN.items() if route.mutates)
each = pytest.mark.parametrize("path", MUTATIONS)
FORM = b"Content-Type: %b\r\nContent-Length: 11\r\n\r\nlevel=error"


def post(path: str, more: bytes = b"", host: bytes = b"localhost:15000") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (path.encode(), host, more)


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """The level as it was, afterwards."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


class Watched:
    """A port, and all that a mutation may change."""

    def __init__(self, admin: Port, stops: list[str]) -> None:
        self.admin = admin
        self.stops = stops
        admin.process.telemetry.counters.retries = 7
        self.before = self.state()

    def state(self) -> tuple[object, ...]:
        process, health = self.admin.process, self.admin.context.health
        return (
            process.quits, self.stops[:], health.failed, process.telemetry.counters.retries, logging.getLogger().level,
        )  # fmt: skip

    @property
    def changed(self) -> bool:
        return self.state() != self.before


@asynccontextmanager
async def watched() -> AsyncGenerator[Watched]:
    stops: list[str] = []
    async with port(stop_accepting=lambda: stops.append("inbound")) as admin:
        yield Watched(admin, stops)


def test_the_table_has_them() -> None:
    assert MUTATIONS == [
        "/drain_listeners", "/healthcheck/fail", "/healthcheck/ok", "/logging", "/quitquitquit", "/reset_counters",
    ]  # fmt: skip


@each
async def test_each_changes_something_by_post_and_is_told_in_the_log(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched() as port_, _failed(port_, path):
        reply = await port_.admin.ask(post(path + "?level=error"))
        assert reply.status == 200
        assert port_.changed
    assert f"admin: POST {path} from 127.0.0.1:40000" in caplog.messages


@asynccontextmanager
async def _failed(watched: Watched, path: str) -> AsyncGenerator[None]:
    """Something for /healthcheck/ok to change."""
    if path == "/healthcheck/ok":
        watched.admin.context.health.failed = True
        watched.before = watched.state()
    yield


@each
async def test_it_is_told_however_little_is_logged(path: str, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger().setLevel(logging.ERROR)
    async with watched() as port_:
        await port_.admin.ask(post(path))
    assert f"admin: POST {path} from 127.0.0.1:40000" in caplog.messages


@each
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"])
async def test_ctl_5_a_mutation_is_a_post(path: str, method: bytes) -> None:
    async with watched() as port_:
        request = b"%b %b?level=error HTTP/1.1\r\nHost: localhost\r\n\r\n" % (method, path.encode())
        reply = await port_.admin.ask(request)
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
        assert not port_.changed


@each
@pytest.mark.parametrize("peer", ["10.0.0.7:5000", "[2001:db8::1]:5000", "[::ffff:10.0.0.7]:5000"])
async def test_ctl_5_another_machine_is_refused(path: str, peer: str) -> None:
    async with watched() as port_:
        assert (await port_.admin.ask(post(path + "?level=error"), peer)).status == 403
        assert not port_.changed


@each
@pytest.mark.parametrize("host", [b"evil.example:15000", b"127.0.0.1.evil.example", b"10.0.0.7:15000"])
async def test_ctl_5_a_page_with_a_rebound_name_is_refused(path: str, host: bytes) -> None:
    """Such a page is of one origin with itself: a browser sends its own name as Host and Origin, and same-origin."""
    async with watched() as port_:
        more = b"Origin: http://%b\r\nSec-Fetch-Site: same-origin\r\n" % host
        reply = await port_.admin.ask(post(path + "?level=error", more, host))
        assert reply.status == 421
        assert not port_.changed


@each
@pytest.mark.parametrize(
    "page",
    [b"Origin: https://evil.example\r\n", b"Origin: null\r\n", b"Sec-Fetch-Site: cross-site\r\n",
     b"Sec-Fetch-Site: same-site\r\n", b"Origin: http://localhost:3000\r\n"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data"])
async def test_ctl_5_a_form_of_another_site_is_refused(path: str, page: bytes, kind: bytes) -> None:
    """Such forms are posted without asking first."""
    async with watched() as port_:
        request = post(path + "?level=error", page + (FORM % kind))
        assert (await port_.admin.ask(request)).status == 403
        assert not port_.changed


async def test_logging_sets_the_level_and_tells_it(caplog: pytest.LogCaptureFixture) -> None:
    async with port() as admin:
        for level, number in (("debug", 10), ("info", 20), ("warning", 30), ("error", 40)):
            reply = await admin.ask(post(f"/logging?level={level}"))
            assert (reply.status, reply.body) == (200, f"level: {level}\n".encode())
            assert logging.getLogger().level == number
            assert caplog.messages[-1] == f"admin: the log level is {level} from now on"
        assert (await admin.ask(post("/logging"))).body == b"level: error\n"
        refused = await admin.ask(post("/logging?level=trace"))
        assert (refused.status, refused.body) == (400, b"level= is one of debug, info, warning, error\n")
        assert logging.getLogger().level == 40


async def test_reset_counters_begins_at_zero() -> None:
    async with port() as admin:
        admin.process.telemetry.counters.retries = 7
        assert b"sidecar_retries_total: 7" in (await admin.ask(get("/stats"))).body
        assert (await admin.ask(post("/reset_counters"))).status == 200
        assert b"sidecar_retries_total: 0" in (await admin.ask(get("/stats"))).body


async def test_healthcheck_fail_and_ok() -> None:
    async with port() as admin:
        await admin.ask(post("/healthcheck/fail"))
        reply = await admin.ask(get("/ready"))
        assert (reply.status, reply.body) == (503, b"HEALTHCHECK_FAILED\n")
        assert (await admin.ask(get("/live"))).status == 200
        await admin.ask(post("/healthcheck/ok"))
        assert (await admin.ask(get("/ready"))).status == 200
        admin.process.state = "draining"
        assert (await admin.ask(get("/ready"))).body == b"DRAINING\n"


async def test_a_listener_that_was_drained_is_shown_and_makes_it_unready() -> None:
    async with port() as admin:
        admin.process.listeners[:] = [Listening("inbound", Address("127.0.0.1", 15006), accepting=False)]
        assert (await admin.ask(get("/ready"))).body == b"LISTENERS_DRAINED\n"
        assert (await admin.ask(get("/listeners"))).body == b"inbound::127.0.0.1:15006 (drained)\n"
