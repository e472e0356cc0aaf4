"""A sidecar that obeys VirtualServices by ``--config`` alone, and apps that record what they get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.process import SidecarProcess
from tests.support.raw import Client, Reply
from tests.support.strict import Request
from tests.support.upstream import RecordingUpstream, wait_until

HOST = "shop.example"


def document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A document of Istio's networking API."""
    return {
        "apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    }  # fmt: skip


def to(subset: str = "", host: str = HOST, **more: Any) -> dict[str, Any]:
    """A destination of a route."""
    return {"destination": {"host": host, **({"subset": subset} if subset else {})}, **more}


class Routed:
    """A sidecar with routes to three apps: the subsets v1 and v2 of HOST, and ``other.example``.

    The apps record their requests; a target /script/NAME is answered by the script of that name."""

    def __init__(self, tmp_path: Path, *http: dict[str, Any], words: tuple[str, ...] = (), scripts: Any = None) -> None:
        self._file = tmp_path / "routes.json"
        self._words = words
        self.apps = {
            name: RecordingUpstream({} if scripts is None else scripts.get(name, {}), strict=False)
            for name in ("v1", "v2", "other")
        }
        self._http = http

    def __enter__(self) -> Routed:
        for app in self.apps.values():
            app.__enter__()
        self.obey(*self._http, started=False)
        self.sidecar = SidecarProcess(self.apps["v1"].port, "--config", str(self._file), *self._words).__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.sidecar.__exit__(*error)
        for app in self.apps.values():
            app.__exit__(*error)

    def documents(self, *http: dict[str, Any]) -> list[dict[str, Any]]:
        """The entries, the subsets, and a VirtualService with these rules."""

        def entry(name: str, host: str, *apps: str) -> dict[str, Any]:
            endpoints = [
                {"address": "127.0.0.1", "ports": {"http": self.apps[app].port}, "labels": {"version": app}}
                for app in apps
            ]
            ports = [{"number": 80, "name": "http"}]
            return document(
                "ServiceEntry", name, {"hosts": [host], "ports": ports, "resolution": "STATIC", "endpoints": endpoints}
            )

        subsets = [{"name": each, "labels": {"version": each}} for each in ("v1", "v2", "none")]
        return [
            entry("shop", HOST, "v1", "v2"),
            entry("other", "other.example", "other"),
            document("DestinationRule", "shop", {"host": HOST, "subsets": subsets}),
            document("VirtualService", "shop", {"hosts": [HOST], "http": list(http)}),
        ]

    def obey(self, *http: dict[str, Any], more: tuple[dict[str, Any], ...] = (), started: bool = True) -> None:
        """Follow these rules from now on."""
        documents = [*self.documents(*http), *more]
        new = self._file.with_suffix(".new")
        new.write_text("\n---\n".join(map(json.dumps, documents)))
        taken = self._taken() if started else 0
        new.rename(self._file)
        if started:
            wait_until(lambda: self._taken() > taken, "the new routes")

    def _taken(self) -> int:
        text = self.sidecar.admin_get("/metrics")[1]
        (line,) = [each for each in text.splitlines() if each.startswith('sidecar_snapshots_total{outcome="accepted"}')]
        return int(float(line.split()[-1]))

    def ask(
        self,
        target: str = "/",
        *fields: str,
        method: str = "GET",
        host: str = HOST,
        body: bytes = b"",
        close: bool = True,
    ) -> Reply:
        """Send one request through the outbound proxy, in absolute form."""
        lines = [f"{method} http://{host}{target} HTTP/1.1", f"Host: {host}", *fields]
        lines += [f"Content-Length: {len(body)}"] if body else []
        lines += ["Connection: close"] if close else []
        with Client(self.sidecar.outbound) as client:
            client.send("\r\n".join([*lines, "", ""]).encode() + body)
            (reply,) = client.replies((method.encode(),), 1)
            return reply

    def seen(self) -> list[tuple[str, Request]]:
        """The requests that came since the last call, each with the name of its app; app by app."""
        return [(name, request) for name, app in self.apps.items() for request in app.take().requests]

    def record(self) -> dict[str, Any]:
        """The last request."""
        found: list[dict[str, Any]] = json.loads(self.sidecar.admin_get("/requests?format=json&limit=1")[1])
        return found[0]

    def figures(self, name: str) -> dict[str, float]:
        """The series of a metric, by their labels as text."""
        text = self.sidecar.admin_get("/metrics")[1]
        rows = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name + "{")]
        return {labels.removeprefix(name): float(value) for labels, value in rows}
