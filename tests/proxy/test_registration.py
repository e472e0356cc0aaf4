"""A sidecar as an endpoint of its service: registered, heard of again and again, with its app's health, and gone."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from sidecar.feed.app_health import HealthState, judged
from sidecar.feed.registration import BEATS, LEAVE_SECONDS, SHORTEST, Registration
from sidecar.feed.wiring import control_caller, identity_feed, registration_of
from sidecar.health_check import look_by_command
from sidecar.identity import Identity
from sidecar.net.connection import Connection
from sidecar.settings import load
from tests.proxy.fickle import WITHIN, Fickle, plane_at
from tests.support.ports import held_port

PATH = "/v1/services/shop/web/endpoints/web-1"


class Registered:
    """A registration that runs; ``taken_out`` is why new work is not welcome there."""

    def __init__(self, plane: Fickle) -> None:
        self.plane = plane
        self.taken_out = ""
        self.registration: Registration
        self.errors: dict[tuple[str, str], int]

    @property
    def entry(self) -> dict[str, object]:
        return self.plane.endpoints.get(PATH, {})

    @property
    def beats(self) -> int:
        return int(str(self.entry.get("beats", 0)))

    async def until(self, condition: Callable[[], object]) -> None:
        with trio.fail_after(3 * WITHIN):
            while not condition():  # noqa: ASYNC110  # it has no events for tests
                await trio.sleep(0.005)


@asynccontextmanager
async def registered(plane: Fickle, **flags: str) -> AsyncIterator[Registered]:
    """A sidecar of ``web`` with a certificate, whose listeners are open."""
    told = {
        "control": f"http://127.0.0.1:{plane.port}", "token_file": str(plane.token_file), "namespace": "shop",
        "service": "web", "service_account": "billing", "instance": "web-1", "health_interval": "20ms", **flags,
    }  # fmt: skip
    if "interception" not in flags:
        told.setdefault("upstream", "127.0.0.1:1")
    connections: set[Connection] = set()
    settings = load(told, {})
    identity = Identity(connections)
    caller = control_caller(settings, identity, connections, chance=lambda: 0.0)
    web = Registered(plane)
    web.errors = caller.errors
    made = registration_of(settings, caller, settings.instance, connections, lambda: web.taken_out)
    assert made is not None
    web.registration = made
    made.open(15006)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(identity_feed(settings, identity, caller).run)
        nursery.start_soon(made.run)
        if made.health is not None:
            nursery.start_soon(made.health.run)
        yield web
        nursery.cancel_scope.cancel()
    caller.close()
    assert not connections, "a connection is left behind"


async def test_it_registers_is_heard_of_and_leaves(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, registered(plane, labels="version=v2,track=canary") as web:
        await web.until(lambda: web.entry)
        process = web.entry["process"]
        assert isinstance(process, str) and len(process) == 32
        assert web.entry == {
            "address": "", "addresses": [], "port": 15006, "mode": "direct",
            "labels": {"version": "v2", "track": "canary"},
            "ttl": "15s", "healthy": None, "detail": "", "process": process, "beats": 0,
        }  # fmt: skip
        await web.until(lambda: web.beats >= 2)
        assert web.entry["process"] == process, "heartbeats say the same"
        assert web.registration.addresses == ("127.0.0.1",)
        assert plane.lines <= 4, "a heartbeat takes the line of the one before"
        await web.registration.leave()
        assert not web.entry
        assert web.registration.state == "left"
        asked = len(plane.asked)
        await web.registration.leave()
        assert len(plane.asked) == asked


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ({"advertise": "10.0.0.7:99"}, ("10.0.0.7", 99, "direct")),
        ({"advertise": ":99"}, ("", 99, "direct")),
        ({"interception": "redirect", "advertise": "10.0.0.7"}, ("10.0.0.7", None, "captured")),
        ({"interception": "redirect"}, ("", None, "captured")),
    ],
)
async def test_where_it_is_reached(tmp_path: Path, flags: dict[str, str], wanted: tuple[object, ...]) -> None:
    async with plane_at(tmp_path) as plane, registered(plane, **flags) as web:
        await web.until(lambda: web.entry)
        assert (web.entry["address"], web.entry["port"], web.entry["mode"]) == wanted


async def test_nothing_is_registered_without_a_service_or_where_nobody_shall_come(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane:
        told = {"control": f"http://127.0.0.1:{plane.port}", "token_file": "t", "upstream": "127.0.0.1:1"}
        identity = Identity(set())
        for flags in ({}, {"service": "web", "advertise": "none"}, {"service": "web", "mesh": "mesh.yaml"}):
            settings = load(told | flags, {})
            caller = control_caller(settings, identity, set())
            assert registration_of(settings, caller, "x", set(), str) is None


async def test_whom_the_control_plane_has_forgotten_registers_again(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, registered(plane) as web:
        await web.until(lambda: web.beats)
        plane.endpoints.clear()
        await web.until(lambda: web.entry)
        assert not web.errors


async def test_a_control_plane_that_wants_heartbeats_without_end_gets_no_more_than_others(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane:
        plane.ttl_told = "1ms"
        async with registered(plane) as web:
            await web.until(lambda: web.beats)
            began = trio.current_time()
            beats = web.beats
            await web.until(lambda: web.beats >= beats + 2)
            assert trio.current_time() - began > SHORTEST / BEATS


async def test_a_service_that_nobody_has_made_is_told_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with plane_at(tmp_path) as plane:
        plane.unknown_service = True
        async with registered(plane) as web:
            await web.until(lambda: ("registration", "status_404") in web.errors)
            assert any("there is no service shop/web; make it" in each for each in caplog.messages)
            plane.unknown_service = False
            await web.until(lambda: web.entry)


async def test_a_control_plane_that_comes_back_has_it_again(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, registered(plane) as web:
        await web.until(lambda: web.beats)
        plane.wrong[f"{PATH}/heartbeat"] = lambda _: (503, b"")
        await web.until(lambda: ("registration", "status_503") in web.errors)
        assert web.registration.state == "registered"
        del plane.wrong[f"{PATH}/heartbeat"]
        before = web.beats
        await web.until(lambda: web.beats > before)


async def test_a_control_plane_that_is_silent_does_not_hold_the_end(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, registered(plane) as web:
        await web.until(lambda: web.entry)
        plane.wrong[PATH] = lambda _: None
        began = time.monotonic()
        await web.registration.leave()
        assert time.monotonic() - began >= LEAVE_SECONDS * 0.9  # it has waited, and no longer: this line is reached
        assert ("registration", "timeout") in web.errors


# -- health ----------------------------------------------------------------------------------------------------------


def test_the_first_look_counts_and_then_so_many_in_a_row() -> None:
    now = judged(HealthState(), "connect_failed", 2, 3)
    assert now == HealthState(False, "connect_failed")
    now = judged(now, "", 2, 3)
    assert now.healthy is False
    now = judged(now, "", 2, 3)
    assert now == HealthState(True)
    for problem in ("a", "b", "", "a", "b"):  # never three in a row
        now = judged(now, problem, 2, 3)
    assert now.healthy is True
    assert judged(now, "c", 2, 3) == HealthState(False, "c")


async def test_a_change_of_health_is_told_at_once_and_so_is_who_takes_it_out(tmp_path: Path) -> None:
    """Told by heartbeats that come long before they are due."""
    async with plane_at(tmp_path) as plane:
        plane.ttl_told = "300s"
        with held_port() as port:
            async with registered(plane, health=f"tcp:{port}", health_unhealthy="2") as web:
                await web.until(lambda: web.entry)
                assert web.entry["healthy"] is False and web.entry["detail"] == "connect_failed"
                async with trio.open_nursery() as app:
                    await app.start(trio.serve_tcp, lambda stream: stream.aclose(), port)
                    await web.until(lambda: web.entry["healthy"] is True)
                    web.taken_out = "healthcheck_failed"
                    web.registration.change()
                    await web.until(lambda: web.entry["detail"] == "healthcheck_failed")
                    assert web.entry["healthy"] is False
                    web.taken_out = ""
                    web.registration.change()
                    await web.until(lambda: web.entry["healthy"] is True)
                    app.cancel_scope.cancel()
                await web.until(lambda: web.entry["healthy"] is False)


@pytest.mark.parametrize(("status", "healthy"), [(204, True), (302, True), (404, False), (503, False)])
async def test_a_look_over_http(tmp_path: Path, status: int, healthy: bool) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            assert (await stream.receive_some()).startswith(b"GET /healthz HTTP/1.1\r\n")
            await stream.send_all(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)

    async with plane_at(tmp_path) as plane, trio.open_nursery() as app:
        (listener,) = await app.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        target = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        async with registered(plane, health="http:/healthz", upstream=target) as web:
            await web.until(lambda: web.entry)
            assert web.entry["healthy"] is healthy
            assert web.entry["detail"] == ("" if healthy else f"status_{status}")
        app.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("true",), ""),
        ((sys.executable, "-c", "raise SystemExit(3)"), "exit code 3"),
        (("/nonexistent/command",), "it can't be run: no such file or directory"),
        ((sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"), "signal 9"),
        ((sys.executable, "-c", "import sys\nfor _ in range(100): sys.stdout.write('x' * 100000)"), ""),
        (("echo", "$HOME;", "false"), ""),
    ],
    ids=["well", "not well", "not there", "killed", "talkative", "no shell"],
)
async def test_a_look_by_a_command(words: tuple[str, ...], problem: str) -> None:
    assert await look_by_command(words, seconds=30.0) == problem


async def test_a_command_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    script = f"sleep 300 & echo $! $$ > {note}.new; mv {note}.new {note}; wait"
    found: list[str] = []

    async def look() -> None:
        found.append(await look_by_command(("sh", "-c", script), seconds=3.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
    assert found == ["timeout"]
    child, leader = map(int, note.read_text().split())
    with trio.fail_after(WITHIN):
        while any(is_running(pid) for pid in (child, leader)):  # noqa: ASYNC110  # whoever reaps orphans says nothing
            await trio.sleep(0.01)


async def test_a_command_leaves_nobody_behind_when_it_ends(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    assert await look_by_command(("sh", "-c", f"sleep 300 & echo $! > {note}"), seconds=60) == ""
    child = int(note.read_text())
    with trio.fail_after(WITHIN):
        while is_running(child):  # noqa: ASYNC110  # whoever reaps orphans says nothing
            await trio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
