"""What applying large Snapshots does to requests: ``python -m bench.applying [SECONDS [ROUNDS]]``.

A call goes from one sidecar to another by mutual TLS, on one core, as in `mesh`; the control plane that both follow
stands in this process, on the load's core. A round is a run without a change, then one in which both sidecars
apply a Snapshot with 10,000 endpoints once, then one in which they do so once a second. Told are the 99th percentiles
of each, their ratios, and what the slices say.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench import load
from bench.app import nginx
from tests.proxy.fickle import EPOCH
from tests.proxy.following import mesh
from tests.support.planethread import PlaneThread
from tests.support.process import SidecarProcess
from tests.support.upstream import wait_until

PROXY_CORE, LOAD_CORE = 0, 1
CONNECTIONS = 16
SERVICE = "web.shop.svc.cluster.local"
SERVICES, ENDPOINTS = 1000, 10


class Caller:
    """The caller's sidecar, which is sent Snapshots."""

    def __init__(self, control: PlaneThread, sidecar: SidecarProcess, callee: int) -> None:
        self._control = control
        self.sidecar = sidecar
        self._n = 0
        large = msgspec.json.decode(mesh(0, *(f"s{i}" for i in range(SERVICES)), endpoints=ENDPOINTS))
        callee_spec = {
            "name": "web", "namespace": "shop", "serviceAccounts": ["billing"],
            "ports": [{"port": 80, "name": "http", "appProtocol": "http"}],
            "endpoints": [{"address": "127.0.0.1", "port": callee, "mode": "direct"}],
        }  # fmt: skip
        self._large = large | {"services": [*large["services"], callee_spec]}

    def apply(self) -> None:
        self._n += 1
        version = f"{EPOCH}.{self._n}"
        self._control.send(version, msgspec.json.encode(self._large | {"version": version}))

    @property
    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.sidecar.admin_get("/config_dump")[1])["mesh"]
        return found

    def wait_applied(self) -> None:
        wait_until(lambda: bool(self.told["version"] == f"{EPOCH}.{self._n}"), "it is applied")


def asked(caller: Caller, run: Path, seconds: int, every: Sequence[float]) -> load.Outcome:
    """A run of the load, with a Snapshot applied at each of these seconds."""

    def change() -> None:
        began = time.monotonic()
        for at in every:
            time.sleep(max(0.0, began + at - time.monotonic()))
            caller.apply()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        return load.run_wrk(
            "small.lua", f"http://127.0.0.1:{caller.sidecar.outbound}/", [f"proxied={SERVICE}"],
            connections=CONNECTIONS, seconds=seconds, core=LOAD_CORE, run=run,
        )  # fmt: skip
    finally:
        thread.join()


def main(words: Sequence[str]) -> None:
    seconds, rounds = (int(word) for word in (*words, "10", "5")[:2]) if len(words) != 1 else (int(words[0]), 5)
    os.sched_setaffinity(0, {LOAD_CORE})
    found: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory(prefix="applying-") as directory, PlaneThread() as control:
        run = Path(directory)
        with nginx(run, LOAD_CORE) as app:
            web = SidecarProcess(app, *control.flags, access_log="text")
            outer = SidecarProcess(app, *control.flags, access_log="text")
            with web, outer:
                for each in (web, outer):
                    for task in Path(f"/proc/{each.process.pid}/task").iterdir():
                        os.sched_setaffinity(int(task.name), {PROXY_CORE})
                caller = Caller(control, outer, web.inbound)
                caller.apply()
                caller.wait_applied()
                wait_until(lambda: web.admin_get("/ready")[0] == 200, "the callee is ready")
                asked(caller, run, 2, ())
                for _ in range(rounds):
                    runs = [asked(caller, run, seconds, every) for every in ((), (1.0,), range(1, seconds))]
                    caller.wait_applied()
                    found.append((runs[0].p99, runs[1].p99, runs[2].p99))
                    print("p99 ms: none {:.2f}, one {:.2f}, one a second {:.2f}".format(*found[-1]), flush=True)
                slices = caller.told["slices"]
    none, one, many = (statistics.median(each) for each in zip(*found, strict=True))
    print(
        f"median p99: none {none:.2f} ms, one {one:.2f} ({one / none:.3f}), one a second {many:.2f} ({many / none:.3f})"
    )
    print(f"slices: {slices}")


if __name__ == "__main__":
    main(sys.argv[1:])
