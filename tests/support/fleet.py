"""Services of two endpoints each, all of whose sidecars have everything from one control plane, by one of two valves.

Half of them come by TLS with their certificates, and half by plain HTTP on loopback with their tokens, where what
stands in between can answer in the control plane's name. Everybody's app calls all the others, all the time.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.soak import App, Failed, connect, send_one, take_one
from tests.support.control_process import ControlProcess
from tests.support.process import SidecarProcess
from tests.support.upstream import wait_until
from tests.support.valve import Valve

THINKS = 0.1  # seconds between two requests of a client
HOST = "{}.shop.svc.cluster.local"
_SHORT = ("-m", "tests.support.short_ttl")
_WHOLE = ("-m", "sidecar")
Endpoints = dict[str, str]  # instance: when it was registered


def service(name: str, *more: int) -> dict[str, Any]:
    """Its document; with these ports beside 80."""
    ports = [{"port": 80, "name": "http"}, *({"port": port, "name": f"tcp-{port}"} for port in more)]
    return {
        "apiVersion": "sidecar/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"serviceAccounts": [name], "ports": ports},
    }


class Load:
    """A client that calls one service after the other through the proxy at ``port``, on a connection each."""

    def __init__(self, name: str, port: int, services: Sequence[str]) -> None:
        self.name = name
        self._port, self._services = port, services
        self._over = threading.Event()
        self.done = 0
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "a client waits for ever"

    def _run(self) -> None:
        number = 0
        while not self._over.wait(THINKS):
            number += 1
            host = HOST.format(self._services[number % len(self._services)]).encode()
            try:
                with connect(self._port) as sock:
                    send_one(sock, number, base=b"http://" + host, host=host, close=True)
                    take_one(sock, number)
            except (OSError, Failed) as error:
                self.failures.append(f"{self.name}, request {number}: {error!r}")
            else:
                self.done += 1


class Fleet:
    """See the module. ``short``: heartbeats come every second. A context manager; all serve when it begins."""

    def __init__(self, services: Sequence[str], *, short: bool) -> None:
        self.services = services
        self._entry = _SHORT if short else _WHOLE
        self.ttl = 3.0 if short else 15.0
        self._ports = iter(range(1000, 2000))
        self.sidecars: dict[str, SidecarProcess] = {}
        self.loads: list[Load] = []
        with contextlib.ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
            self.memory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-", dir="/dev/shm")))
            self._app = stack.enter_context(App())
            self.control = stack.enter_context(ControlProcess(86400.0))
            secure = int(self.control.url.rpartition(":")[2])
            self.valves = [stack.enter_context(Valve(port)) for port in (secure, self.control.port)]
            self.apply(*(service(name) for name in (*services, "late")))
            for name in services:
                for number in range(len(self.valves)):
                    self.sidecars[f"{name}-{number}"] = stack.enter_context(self.sidecar(name, number))
            self.wait_in_sync(30.0)
            self._wait_callable()
            for instance, sidecar in self.sidecars.items():
                self.loads.append(Load(instance, sidecar.outbound, services))
                stack.callback(self.loads[-1].stop)
            self._stack = stack.pop_all()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for load in self.loads:
            load.stop()
        self._stack.__exit__(kind, error, trace)

    def sidecar(self, name: str, number: int) -> SidecarProcess:
        """The process of ``NAME-NUMBER``, which goes by that valve."""
        instance = f"{name}-{number}"
        token = self.directory / f"{name}.token"
        if not token.exists():
            token.write_text(self.control.token(name))
        url = f"{'http' if number else 'https'}://127.0.0.1:{self.valves[number].port}"
        (self.directory / instance).mkdir(exist_ok=True)
        return SidecarProcess(
            self._app.port, "--control", url, "--token-file", str(token), "--namespace", "shop", "--service", name,
            "--service-account", name, "--instance", instance, "--state-dir", str(self.directory / instance),
            "--identity-dir", str(self.memory / instance), "--drain-seconds", "5s", entry=self._entry,
        )  # fmt: skip

    # -- what is asked of it -----------------------------------------------------------------------------------------

    def apply(self, *documents: dict[str, Any]) -> None:
        """As the operator, whom no valve is in the way of."""
        self.control.ask("POST", "/v1/resources:apply", list(documents))

    def change(self) -> None:
        """Something that every sidecar is to be told."""
        port = next(self._ports)
        self.apply(*(service(name, port) for name in self.services))

    def endpoints(self) -> dict[str, Endpoints]:
        """By service, those registered."""
        return {
            each["name"]: {one["id"]: one["registered"] for one in each["endpoints"]}
            for each in self.control.ask("GET", "/v1/services")["items"]
            if each["name"] in self.services
        }

    def stale(self) -> set[str]:
        """Those that are silent, and stay."""
        items = self.control.ask("GET", "/v1/services")["items"]
        return {one["id"] for each in items for one in each["endpoints"] if one.get("stale")}

    def held(self) -> dict[str, tuple[str, str]]:
        """By instance, of those that run: in which state it is, and which version it holds."""
        shown = self.control.ask("GET", "/v1/proxies")["proxies"]
        return {
            each["instance"]: (each["state"], each.get("held", ""))
            for each in shown
            if each["instance"] in self.sidecars
        }

    def wait_in_sync(self, deadline: float, than: dict[str, tuple[str, str]] | None = None) -> None:
        """Until all are here and hold the newest, which is another one ``than`` they held before, where that is given;
        AssertionError with what they hold after so many seconds."""
        before = than or {}
        ends = time.monotonic() + deadline
        while True:
            held = self.held()
            behind = {
                name: held.get(name)
                for name in self.sidecars
                if name not in held or held[name][0] != "in sync" or held[name][1] == before.get(name, ("", ""))[1]
            }
            if not behind:
                return
            assert time.monotonic() < ends, f"{deadline:g} s later: {behind}, of {held}"
            time.sleep(0.1)  # who asks more than 50 times a second is sent away

    @staticmethod
    def source(sidecar: SidecarProcess) -> str:
        """Where its configuration is from, as its /config_dump says."""
        return str(json.loads(sidecar.admin_get("/config_dump")[1])["mesh"]["source"])

    def call(self, sidecar: SidecarProcess) -> None:
        """Its app calls every service. Raises Failed."""
        for name in self.services:
            host = HOST.format(name).encode()
            with connect(sidecar.outbound) as sock:
                send_one(sock, 1, base=b"http://" + host, host=host, close=True)
                take_one(sock, 1)

    def _wait_callable(self) -> None:
        """Until every app reaches every service."""

        def reached() -> bool:
            try:
                for sidecar in self.sidecars.values():
                    self.call(sidecar)
            except Failed:
                return False
            return all(len(each) == len(self.valves) for each in self.endpoints().values())

        wait_until(reached, "every app reaches every service", 60)

    def drain(self, instance: str) -> None:
        """Ends one in order, while the others call it; its own app's calls have ended before."""
        load = next(each for each in self.loads if each.name == instance)
        load.stop()
        self.check()
        self.loads.remove(load)
        self.sidecars.pop(instance).stop()

    # -- the load ----------------------------------------------------------------------------------------------------

    @property
    def done(self) -> int:
        """Requests that were answered as they should."""
        return sum(load.done for load in self.loads)

    def check(self) -> None:
        """None has failed."""
        failures = [failure for load in self.loads for failure in load.failures]
        assert not failures, f"{len(failures)} failed, after {self.done}: {failures[:5]}"

    def goes_on(self, seconds: float) -> None:
        """So much longer, and everybody's requests with it."""
        ends = time.monotonic() + seconds
        before = [load.done for load in self.loads]
        while time.monotonic() < ends:
            time.sleep(0.1)
            self.check()
        assert all(load.done > done for load, done in zip(self.loads, before, strict=True)), "somebody got no answer"
