"""Ten thousand endpoints are applied while requests are served: what that costs, and for how long it holds the loop."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from tests.proxy.fickle import EPOCH
from tests.proxy.following import mesh
from tests.support.planethread import PlaneThread
from tests.support.process import SidecarProcess
from tests.support.upstream import RecordingUpstream, wait_until
from tests.support.yardstick import slowness

ALL = 0.5  # s of the loop's CPU, in all ...
SLICE = 0.005  # ... and at a time


class Load:
    """Clients that ask again and again, each on a connection of its own; ``answered`` are their replies, by status."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self.answered: list[int] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(port,), daemon=True) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def is_beyond(self, count: int) -> bool:
        """Whether there are more replies than that."""
        return len(self.answered) > count

    def _run(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while not self._over.is_set():
            connection.request("GET", "/")
            reply = connection.getresponse()
            reply.read()
            self.answered.append(reply.status)
        connection.close()


def held(sidecar: SidecarProcess) -> dict[str, Any]:
    """What it was told of its mesh."""
    found: dict[str, Any] = json.loads(sidecar.admin_get("/config_dump")[1])["mesh"]
    return found


def is_held(sidecar: SidecarProcess, version: str) -> bool:
    return bool(held(sidecar)["version"] == version)


@pytest.mark.alone
@pytest.mark.parametrize(("services", "endpoints"), [(1000, 10), (1, 10_000)], ids=["1,000 of 10", "1 of 10,000"])
def test_ten_thousand_endpoints_under_load(services: int, endpoints: int, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"s{i}" for i in range(services)]
    factor = slowness()
    with (
        PlaneThread() as control,
        RecordingUpstream(mesh=True) as app,
        SidecarProcess(app.port, *control.flags, "--mtls", "permissive") as sidecar,
        ExitStack() as stack,
    ):
        control.send(f"{EPOCH}.1", mesh(1, "s0", endpoints=1))  # before the first one nothing is served
        wait_until(partial(is_held, sidecar, f"{EPOCH}.1"), "the first version is in force", 60)
        load = stack.enter_context(Load(sidecar.inbound))
        figures = []
        for n in range(2, 7):
            control.send(f"{EPOCH}.{n}", mesh(n, *names, endpoints=endpoints))

            wait_until(partial(is_held, sidecar, f"{EPOCH}.{n}"), f"version {n} is in force", 60)
            slices = held(sidecar)["slices"]
            figures.append((slices["last_snapshot_seconds"], slices["longest_seconds"]))
            wait_until(partial(load.is_beyond, len(load.answered)), "requests are served")
    with capsys.disabled():
        shown = ", ".join(f"{total * 1e3:.0f} ms in all" for total, _ in figures)
        print(f"\n{services} x {endpoints}: {shown}; at most {figures[-1][1] * 1e3:.2f} ms at a time ({factor:.2g})")
    assert all(total <= ALL * factor for total, _ in figures)
    assert figures[-1][1] <= SLICE * factor
    assert set(load.answered) == {200}
