"""A control plane that is away, that sends what nobody can use, and that sends without end (CTL-2, 3, 4)."""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.coverage import covers
from tests.proxy.fickle import EPOCH
from tests.proxy.following import mesh
from tests.support.control_process import ControlProcess
from tests.support.planethread import PlaneThread
from tests.support.ports import held_port
from tests.support.process import SidecarProcess
from tests.support.raw import ask
from tests.support.upstream import RecordingUpstream, wait_until
from tests.support.yardstick import slowness

CALL = b"GET http://web.shop/ HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n"
PLAIN = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
SLICE = 0.005  # s of the loop's CPU that applying a Snapshot may take at a time


def called(sidecar: SidecarProcess, count: int = 1) -> list[int]:
    """The statuses of so many calls of ``web``."""
    return [reply.status for _ in range(count) for reply in ask(sidecar.outbound, CALL)]


def told(sidecar: SidecarProcess) -> dict[str, Any]:
    """What it was told of its mesh, as /config_dump has it."""
    found: dict[str, Any] = json.loads(sidecar.admin_get("/config_dump")[1])["mesh"]
    return found


class Shop:
    """A control plane, ``web``'s sidecar before its app, and a ``caller``'s: what they know comes from there alone."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm", prefix="shop-")))
        self.control = stack.enter_context(ControlProcess(600.0))
        service = {"ports": [{"port": 80, "name": "http"}], "serviceAccounts": ["web"]}
        self.control.ask("PUT", "/v1/services/shop/web", service)
        self._app = stack.enter_context(RecordingUpstream(mesh=True))
        self.web = self.start("web", "--service", "web", "--health", "tcp")
        self.caller = self.start("caller")
        wait_until(lambda: called(self.caller) == [200], "the caller reaches web")

    def start(self, name: str, *flags: str, identity: bool = True) -> SidecarProcess:
        token = self._directory / f"{name}.token"
        if not token.exists():
            token.write_text(self.control.token(name))
        kept = ["--identity-dir", str(self._directory / f"{name}.identity")] if identity else []
        return self._stack.enter_context(
            SidecarProcess(
                self._app.port, "--control", self.control.url, "--token-file", str(token), "--namespace", "shop",
                "--service-account", name, "--state-dir", str(self._directory / f"{name}.state"), *kept, *flags,
            )
        )  # fmt: skip


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with ExitStack() as stack:
        yield Shop(stack)


@covers("CTL-2")
def test_without_a_control_plane_at_first_it_is_not_ready() -> None:
    with held_port() as nobody, tempfile.TemporaryDirectory() as directory, RecordingUpstream() as app:
        token = Path(directory, "token")
        token.write_text("a.b.c")
        flags = ("--control", f"http://127.0.0.1:{nobody}", "--token-file", str(token), "--state-dir", directory)
        with SidecarProcess(app.port, *flags) as sidecar:
            status, text = sidecar.admin_get("/ready")
            assert status == 503 and "no certificate" in text
            assert ask(sidecar.inbound, PLAIN) == []
            assert all(status >= 500 for status in called(sidecar)), "what may be a service was called in plaintext"
        assert not app.take().requests


@covers("CTL-2")
def test_with_a_certificate_and_no_configuration_it_is_not_ready() -> None:
    with (
        PlaneThread() as control,
        RecordingUpstream() as app,
        SidecarProcess(app.port, *control.flags) as sidecar,
    ):
        wait_until(lambda: "no configuration" in sidecar.admin_get("/ready")[1], "a certificate")
        assert sidecar.admin_get("/ready")[0] == 503
        assert all(status >= 500 for status in called(sidecar))
        control.send(f"{EPOCH}.1", mesh(1, "web"))
        wait_until(lambda: sidecar.admin_get("/ready")[0] == 200, "a configuration")


@covers("CTL-2")
def test_when_it_goes_serving_goes_on_and_a_restart_begins_with_what_was_last_good(shop: Shop) -> None:
    shop.control.kill()
    assert called(shop.caller, 20) == [200] * 20
    assert shop.caller.admin_get("/ready")[0] == 200
    again = shop.start("caller")
    assert called(again, 3) == [200] * 3
    assert told(again)["source"] == "last good"
    nobody = shop.start("caller", identity=False)
    status, text = nobody.admin_get("/ready")
    assert status == 503 and "no certificate" in text
    assert told(nobody)["source"] == "last good"
    assert called(nobody) == [503]
    assert ask(nobody.inbound, PLAIN) == []
    shop.control.start()
    wait_until(lambda: called(nobody) == [200], "all is well when it is back", 60)
    wait_until(lambda: told(again)["source"] == "control", "and is followed again", 60)
    assert called(shop.caller, 3) == [200] * 3


WRONG: dict[str, bytes] = {
    "malformed": mesh(2, "db")[:-7],
    "unknown field": mesh(2, "db", limits={}),
    "unknown type": mesh(2, "db", peerAuthentication="STRICT"),
    "half valid": mesh(2, "db", "x" * 64),
    "deep": b'{"version":"%d.2","proxy":' % EPOCH + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


def _heard(control: PlaneThread, version: str) -> bool:
    return control.plane.told[-1:] != [] and control.plane.told[-1]["version"] == version


@covers("CTL-3")
def test_what_cant_be_taken_whole_is_refused_whole_and_told() -> None:
    with (
        PlaneThread() as control,
        RecordingUpstream() as app,
        SidecarProcess(app.port, *control.flags) as sidecar,
    ):
        control.plane.etag = f'"{EPOCH}.1"'
        control.send(f"{EPOCH}.1", mesh(1, "web"))
        wait_until(lambda: told(sidecar)["source"] == "control", "a first one")
        before = told(sidecar)["snapshot"]
        for n, (name, body) in enumerate(WRONG.items(), 2):
            version = f"{EPOCH}.{n}"
            control.plane.etag = f'"{version}"'
            control.send(version, body.replace(b"%d.2" % EPOCH, version.encode()))
            wait_until(partial(_heard, control, version), name)
            status = control.plane.told[-1]
            assert status["accepted"] is False and status["held"] == f"{EPOCH}.1" and status["problems"], name
            now = told(sidecar)
            assert now["snapshot"] == before and now["refused"] == n - 1, name
            assert now["last_refusal"]["problems"], name
        asked = control.plane.asked.count("/v1/snapshot")
        control.send(f"{EPOCH}.99", mesh(99, "db"))
        wait_until(lambda: told(sidecar)["version"] == f"{EPOCH}.99", "a good one")
        assert told(sidecar)["last_refusal"] is None
        assert control.plane.asked.count("/v1/snapshot") <= asked + 2, "what was refused was not asked for again"


@contextmanager
def _flooded() -> Iterator[tuple[PlaneThread, SidecarProcess]]:
    with PlaneThread() as control, RecordingUpstream() as app:
        with SidecarProcess(app.port, *control.flags, "--mtls", "permissive") as sidecar:
            control.send(f"{EPOCH}.1", mesh(1, "web"))
            wait_until(lambda: sidecar.admin_get("/ready")[0] == 200, "a first one")
            yield control, sidecar


def _served(sidecar: SidecarProcess, until: float) -> None:
    """Requests, one after the other, until that instant; each is answered."""
    while time.monotonic() < until:
        assert [reply.status for reply in ask(sidecar.inbound, PLAIN)] == [200]


@covers("CTL-4")
@pytest.mark.alone
@pytest.mark.parametrize("same", [False, True], ids=["each newer", "the same again"])
def test_updates_without_end_cost_memory_and_lag_of_one(same: bool) -> None:
    numbers = itertools.count(2)
    services = [f"s{i}" for i in range(300)]

    def flood(_: bytes) -> tuple[int, bytes]:
        return 200, mesh(1 if same else next(numbers), *services, endpoints=10)

    with _flooded() as (control, sidecar):
        began = time.monotonic()
        control.answer({"/v1/snapshot": flood})
        wait_until(lambda: told(sidecar)["accepted"] >= (1 if same else 2), "it is followed")
        before = sidecar.rss()
        _served(sidecar, time.monotonic() + 6.0)
        now, seconds = told(sidecar), time.monotonic() - began
        assert now["accepted"] <= 2 * seconds + 3, "two a second, whatever is offered"
        assert control.plane.asked.count("/v1/snapshot") <= 2 * seconds + 4
        assert now["slices"]["longest_seconds"] <= SLICE * slowness()
        assert sidecar.rss() < before + 32e6


@covers("CTL-4")
def test_a_control_plane_that_never_reads_or_never_ends_is_not_felt() -> None:
    endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + (b"10000\r\n" + b" " * 65_536 + b"\r\n") * 320
    with _flooded() as (control, sidecar):
        before = sidecar.rss()
        silent = dict.fromkeys(("/v1/snapshot/status", "/v1/bundle", "/v1/crl"), lambda _: None)
        wrong = {"/v1/snapshot": lambda _: endless} | silent
        control.answer(wrong)
        errors = "sidecar_control_plane_errors_total"

        def refused() -> bool:
            text = sidecar.admin_get("/metrics")[1]
            return any(line.startswith(errors) and "too_large" in line for line in text.splitlines())

        until = time.monotonic() + 4.0
        wait_until(refused, "20 MiB are too much")
        _served(sidecar, until)
        assert sidecar.rss() < before + 64e6
        assert sidecar.admin_get("/ready")[0] == 200
