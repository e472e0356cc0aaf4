"""CTL-7: whatever went through the proxy, or is asked of the admin port, no page of it repeats a secret."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import pytest
import trio

from sidecar.admin import routes
from sidecar.admin.tokens import Token
from sidecar.errors import Reason
from sidecar.settings import in_force
from sidecar.telemetry.record import Record
from tests.proxy.adminport import Port, get, port, read_reply

SECRET = "hunter2"
STREAMS = {"/tap", "/events"}
READERS = sorted(path for path, route in routes.ADMIN.items() if not route.mutates and not route.asks)
MUTATIONS = sorted(path for path, route in routes.ADMIN.items() if route.mutates)


def secretive() -> Record:
    record = Record("inbound", "HTTP/1.1", "10.0.0.9:1", 1.0, 1.0)
    record.status, record.duration, record.reason, record.detail = 502, 0.1, Reason.UPSTREAM_CLOSED, "it went away"
    record.method, record.authority, record.request_id = b"GET", b"app", b"the-id"
    record.path = record.sent_target = b"/login?token=hunter2&hunter2;sid=hunter2"
    record.stripped = ("x-forwarded-client-cert",)
    return record


@asynccontextmanager
async def used_port(tmp_path: Path) -> AsyncGenerator[Port]:
    """A port of a process that has served secrets and was told one."""
    file = tmp_path / "token"
    file.write_text(SECRET)
    async with port(token=Token(str(file)), in_force=in_force({"admin_token_file": str(file)}, {})) as admin:
        admin.process.telemetry.finish(secretive())
        yield admin


@pytest.mark.parametrize("path", sorted(set(READERS) - STREAMS))
@pytest.mark.parametrize("form", ["", "&format=json", "&format=text"])
async def test_ctl_7_no_page_repeats_a_secret(path: str, form: str, tmp_path: Path) -> None:
    rest = {"/explain/": "the-id", "/page/": "page.js"}.get(path, "")
    async with used_port(tmp_path) as admin:
        more = b"Authorization: Bearer hunter2\r\nCookie: s=hunter2\r\nX-Key: hunter2\r\n"
        for query in ("", "?token=hunter2", "?path=/login?token=hunter2", "?filter=hunter2"):
            asked = path + rest + (query + form if query else form.replace("&", "?"))
            reply = await admin.ask(get(asked, more))
            assert reply.status in (200, 400)
            assert SECRET not in reply.body.decode() + repr(reply.headers)


@pytest.mark.parametrize("path", ["/requests?format=json", "/explain/the-id", "/requests"])
async def test_ctl_7_names_are_shown_and_values_are_not(path: str, tmp_path: Path) -> None:
    async with used_port(tmp_path) as admin:
        body = (await admin.ask(get(path))).body
    assert b"/login?token=***&***" in body


async def test_ctl_7_a_hidden_value_can_not_be_guessed_by_its_beginning(tmp_path: Path) -> None:
    async with used_port(tmp_path) as admin:
        assert (await admin.ask(get("/requests?path=/login%3Ftoken%3Dhunter"))).body == b""
        assert (await admin.ask(get("/requests?path=/login%3Ftoken%3D"))).body != b""


async def test_ctl_7_streams_do_not_either(tmp_path: Path) -> None:
    async with used_port(tmp_path) as admin:
        for path in sorted(STREAMS):
            async with await admin.open() as stream:
                await stream.send_all(get(path))
                heard = await stream.receive_some()
                while b"data: {" not in heard:
                    admin.process.telemetry.finish(secretive())
                    with trio.move_on_after(0.05):
                        heard += await stream.receive_some()
                assert b"app" in heard
                assert b"hunter2" not in heard


@pytest.mark.parametrize("path", MUTATIONS)
@pytest.mark.parametrize("token", [b"hunter2", b"hunter2x", b""])
async def test_ctl_7_a_token_is_in_no_reply_and_no_log(
    path: str, token: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with used_port(tmp_path) as admin:
        bearer = b"Authorization: Bearer %b\r\n" % token if token else b""
        reply = await admin.ask(b"POST %b?level=info HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (path.encode(), bearer))
        assert reply.status == {b"hunter2": 200, b"": 401}.get(token, 403)
        assert SECRET not in reply.body.decode() + repr(reply.headers)
    assert SECRET not in caplog.text


async def test_ctl_7_a_wrong_request_is_not_repeated(tmp_path: Path) -> None:
    async with used_port(tmp_path) as admin, await admin.open() as stream:
        await stream.send_all(get("/hunter2?hunter2", b"X-Key: hunter2\r\n"))
        reply = await read_reply(stream, h11.Connection(h11.CLIENT), b"")
        assert reply.status == 404
        assert SECRET not in reply.body.decode()
