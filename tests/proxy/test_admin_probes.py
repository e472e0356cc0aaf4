"""/app-health/NAME on the scrape port: the app's health as --probe says, and never a way to anything else."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from sidecar.admin import probes
from sidecar.admin.server import serve_admin, serve_scrape
from sidecar.app_probe import Probe, parse_probes
from tests.proxy.adminport import get, port
from tests.support.ports import held_port


class App:
    """An app that answers each connection with the same bytes, or (None) not at all, and keeps what it was asked."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self.asked: list[bytes] = []
        self.connected = 0
        self.most = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connected += 1
        self.most = max(self.most, self.connected)
        try:
            heard = b""
            while b"\r\n\r\n" not in heard and (data := await stream.receive_some()):
                heard += data
            self.asked.append(heard)
            if self._answer is None:
                await stream.receive_some()
            else:
                await stream.send_all(self._answer)
                await stream.aclose()
        except trio.BrokenResourceError:
            pass
        finally:
            self.connected -= 1


@asynccontextmanager
async def app(answer: bytes | None) -> AsyncGenerator[tuple[App, int]]:
    served = App(answer)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, served.serve, 0, host="127.0.0.1"))
        yield served, listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def asked(*configured: Probe, name: str = "web", peer: str = "10.0.0.7:5") -> tuple[int, bytes]:
    async with port(serve_scrape, probes=configured) as scrape:
        reply = await scrape.ask(b"GET /app-health/%b HTTP/1.1\r\nHost: pod:15020\r\n\r\n" % name.encode(), peer)
        assert not [connection for connection in scrape.process.connections if connection not in scrape.served]
        return reply.status, reply.body


@pytest.mark.parametrize(
    ("answer", "status", "word"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"healthy\n"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 200, b"healthy\n"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\n\r\n", 200, b"healthy\n"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 200, b"healthy\n"),
        (b"HTTP/1.0 200 OK\r\n\r\n", 200, b"healthy\n"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 503, b"status_404\n"),
        (b"HTTP/1.1 500 Oops\r\nX: hunter2\r\n\r\nhunter2", 503, b"status_500\n"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", 503, b"not_http\n"),
        (b"", 503, b"not_http\n"),
    ],
)
async def test_http(answer: bytes, status: int, word: bytes) -> None:
    async with app(answer) as (served, at):
        assert await asked(Probe("web", at, "/health?full=1")) == (status, word)
    (request,) = served.asked
    assert request.startswith(b"GET /health?full=1 HTTP/1.1\r\n")
    assert b"host: 127.0.0.1:%d\r\n" % at in request.lower()
    assert b"pod" not in request


async def test_tcp() -> None:
    async with app(None) as (_, at):
        assert await asked(Probe("web", at, "")) == (200, b"healthy\n")


@pytest.mark.parametrize("path", ["", "/health"])
async def test_nobody_there(path: str) -> None:
    with held_port() as at:
        assert await asked(Probe("web", at, path)) == (503, b"connect_failed\n")


async def test_an_app_that_hangs(autojump_clock: trio.testing.MockClock) -> None:
    async with app(None) as (_, at):
        began = trio.current_time()
        assert await probes.examine(Probe("web", at, "/health"), set()) == "timeout"
        assert trio.current_time() - began == pytest.approx(probes.SECONDS)


async def test_no_more_than_so_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SECONDS", 0.3)
    async with app(None) as (served, at), trio.open_nursery() as nursery:
        for _ in range(3 * probes.AT_ONCE):
            nursery.start_soon(probes.examine, Probe("web", at, "/health"), set())
        while served.most < probes.AT_ONCE:
            await trio.lowlevel.checkpoint()
    assert served.most == probes.AT_ONCE


@pytest.mark.parametrize("name", ["other", "WEB", "web/", "web/x", "..", "http:80/", "web%00", "127.0.0.1:22", ""])
async def test_only_what_was_configured_is_asked(name: str) -> None:
    async with app(b"HTTP/1.1 200 OK\r\n\r\n") as (served, at):
        status, _ = await asked(Probe("web", at, "/"), name=name)
        assert status == 404
    assert not served.connected + len(served.asked)


async def test_a_query_or_a_body_never_reaches_the_app() -> None:
    async with (
        app(b"HTTP/1.1 200 OK\r\n\r\n") as (served, at),
        port(serve_scrape, probes=[Probe("web", at, "/h")]) as scrape,
    ):
        head = b"GET /app-health/web?x=/secret HTTP/1.1\r\nHost: a\r\nX-Key: k\r\nContent-Length: 4\r\n\r\nbody"
        assert (await scrape.ask(head)).status == 200
        posted = await scrape.ask(b"POST /app-health/web HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD")
    (request,) = served.asked
    assert b"secret" not in request
    assert b"X-Key" not in request


async def test_the_admin_port_does_not_have_them() -> None:
    async with port(serve_admin, probes=[Probe("web", 1, "")]) as admin:
        assert (await admin.ask(get("/app-health/web"))).status == 404


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("none", ()),
        ("web=http:8080/healthz", (Probe("web", 8080, "/healthz"),)),
        ("web=http:8080", (Probe("web", 8080, "/"),)),
        ("a=tcp:1,b-c.d_e=http:2/x?y=%2C", (Probe("a", 1, ""), Probe("b-c.d_e", 2, "/x?y=%2C"))),
        ("a=tcp:1, b=tcp:2", (Probe("a", 1, ""), Probe("b", 2, ""))),
    ],
)
def test_how_a_probe_is_written(text: str, found: tuple[Probe, ...]) -> None:
    assert parse_probes(text) == found
    assert parse_probes(",".join(map(str, found)) or "none") == found


@pytest.mark.parametrize(
    "text",
    ["", ",", "web", "web=", "web=http", "web=http:", "web=http:0/", "web=http:70000/", "web=https:80/", "web=tcp:80/",
     "=tcp:80", "a b=tcp:80", "../x=tcp:80", "a=http:80/a b", "a=http:80/\nb", "a=http:evil.example:80/",
     "a=tcp:1,a=tcp:2", "a=http://evil.example/", "a" * 64 + "=tcp:80"],
)  # fmt: skip
def test_what_is_no_probe(text: str) -> None:
    with pytest.raises(ValueError):
        parse_probes(text)
