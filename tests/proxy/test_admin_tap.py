"""/tap: records as they come, for those who want them, at nobody else's cost."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sidecar.telemetry.history import TAP_BUFFER
from tests.proxy.adminport import Port, get, port
from tests.proxy.test_admin_requests import finish


class Tapped:
    """A tap that is open, event by event."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.heard = b""

    async def next(self) -> bytes:
        """The next event, or comment; b"" at the end of the stream."""
        while b"\n\n" not in self.heard:
            data = await self._stream.receive_some()
            if not data:
                return b""
            self.heard += data
        event, _, self.heard = self.heard.partition(b"\n\n")
        return event

    async def record(self) -> dict[str, Any]:
        event = await self.next()
        found: dict[str, Any] = json.loads(event.partition(b"data: ")[2])
        return found


async def tapped(admin: Port, query: str = "") -> tuple[trio.SocketStream, Tapped]:
    stream = await admin.open()
    await stream.send_all(get(f"/tap{query}"))
    tap = Tapped(stream)
    assert (await tap.next()).endswith(b": tapping")
    await wait_all_tasks_blocked()
    return stream, tap


async def test_records_as_they_come() -> None:
    async with port() as admin:
        finish(admin, "before")
        stream, tap = await tapped(admin)
        async with stream:
            for name in ("one", "two"):
                finish(admin, name, path=b"/a?x=1")
                record = await tap.record()
                assert (record["request_id"], record["path"], record["status"]) == (name, "/a?x=***", 200)


async def test_the_filters_of_requests() -> None:
    async with port() as admin:
        stream, tap = await tapped(admin, "?status=5xx&path=/a")
        async with stream:
            finish(admin, "good", path=b"/a")
            finish(admin, "elsewhere", 503, path=b"/b")
            finish(admin, "wanted", 503, path=b"/a")
            assert (await tap.record())["request_id"] == "wanted"


async def test_it_ends_after_as_many_as_were_asked_for() -> None:
    async with port() as admin:
        stream, tap = await tapped(admin, "?limit=2")
        async with stream:
            for name in ("one", "two", "three"):
                finish(admin, name)
            assert [(await tap.record())["request_id"] for _ in range(2)] == ["one", "two"]
            assert b"data:" not in await tap.next()
        assert not admin.process.telemetry.taps


async def test_nobody_is_offered_anything_once_it_has_left() -> None:
    async with port() as admin:
        taps = admin.process.telemetry.taps
        assert not taps
        stream, _ = await tapped(admin)
        assert len(taps) == 1
        await stream.aclose()
        while taps:
            await trio.lowlevel.checkpoint()


async def test_who_reads_too_slowly_is_dropped_told_and_counted() -> None:
    async with port() as admin:
        quick_stream, quick = await tapped(admin)
        slow_stream, slow = await tapped(admin)
        async with quick_stream, slow_stream:
            for number in range(TAP_BUFFER + 1):  # more than fit, before either has its turn
                finish(admin, f"n{number}")
            assert admin.process.telemetry.taps.dropped == 2
            for number in range(TAP_BUFFER):
                assert (await slow.record())["request_id"] == f"n{number}"
            assert b"event: dropped" in await slow.next()
            assert len(admin.process.telemetry.taps) == 0
            assert (await quick.record())["request_id"] == "n0"


async def test_a_drain_is_watched_to_its_end() -> None:
    async with port() as admin:
        stream, tap = await tapped(admin)
        admin.process.quit()
        finish(admin, "last")
        assert (await tap.record())["request_id"] == "last"
    async with stream:
        assert b"data:" not in await tap.next()  # and then the stream is complete


@pytest.mark.parametrize("more", [b"Origin: http://evil.example\r\n", b"Sec-Fetch-Site: cross-site\r\n"])
async def test_ctl_5_no_page_of_another_site_listens(more: bytes) -> None:
    async with port() as admin:
        assert (await admin.ask(get("/tap", more))).status == 403
        assert not admin.process.telemetry.taps
