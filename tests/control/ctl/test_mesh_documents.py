"""Who serves what and how well, which proxies hold what there is, and a copy of the store."""

from __future__ import annotations

import http.client
import json
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.control.ctl.running import Ctl
from tests.support.control_process import ControlProcess
from tests.support.process import SidecarProcess
from tests.support.upstream import RecordingUpstream, wait_until

DOCUMENT = """\
apiVersion: sidecar/v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  serviceAccounts: [web]
  ports: [{port: 80, name: http}]
"""


class Workload:
    """What a sidecar asks, on loopback, with a token of ``account``."""

    def __init__(self, control: ControlProcess, account: str) -> None:
        self._port = control._port
        self._token = control.token(account)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"authorization": f"Bearer {self._token}"})
            reply = connection.getresponse()
            told = reply.read()
            assert reply.status < 300, (method, path, reply.status, told)
            return (json.loads(told) if told else None), reply.headers.get("etag", "").strip('"')
        finally:
            connection.close()

    def register(self, name: str, **more: object) -> None:
        body = {"port": 15006, "mode": "direct", "ttl": "300s", **more}
        self.ask("PUT", f"/v1/services/shop/web/endpoints/{name}", body)


@pytest.fixture
def web(ctl: Ctl, control: ControlProcess) -> Workload:
    """The service account ``web``, and its service."""
    ctl.ok("apply", "-f", "-", text=DOCUMENT)
    return Workload(control, "web")


def test_services_and_how_well_they_are(ctl: Ctl, web: Workload) -> None:
    web.register("one", healthy=True)
    web.register("two", healthy=False, detail="GET /healthz: 500")
    (row,) = (line.split() for line in ctl.ok("services", "-n", "shop", "--no-headers").splitlines())
    assert row == ["shop", "web", "80/http", "web", "1/2"]
    said = ctl.ok("describe", "svc", "web", "-n", "shop")
    sick = next(line for line in said.splitlines() if "unhealthy" in line)
    assert sick.split()[:3] == ["127.0.0.1:15006", "direct", "unhealthy"] and sick.endswith("GET /healthz: 500")
    assert "spiffe://cluster.local/ns/shop/sa/web" in sick
    (whole,) = ctl("services", "-A", "-o", "json").json["items"]
    assert {each["id"]: each["health"] for each in whole["endpoints"]} == {"one": "healthy", "two": "unhealthy"}
    assert ctl("services", "-n", "nobody").err == "there is no service; apply a document of kind Service\n"


def test_proxies_who_is_in_sync_and_who_refused_and_why(ctl: Ctl, web: Workload) -> None:
    for instance in ("good", "bad"):
        _, version = web.ask("GET", f"/v1/snapshot?instance={instance}")
        said = {"version": version, "accepted": instance == "good", "software": "0.1.0"}
        if instance == "bad":
            said["problems"] = ["services[0].ports: is not known here"]
        else:
            said["held"] = version
        web.ask("POST", f"/v1/snapshot/status?instance={instance}", said)
    rows = {line.split()[1]: line for line in ctl.ok("proxies", "--no-headers").splitlines()}
    assert " in sync " in rows["good"]
    assert " refused " in rows["bad"] and rows["bad"].endswith("services[0].ports: is not known here")
    listed = ctl("proxies", "-n", "shop", "-o", "json").json["proxies"]
    assert {each["instance"]: each["state"] for each in listed} == {"good": "in sync", "bad": "refused"}
    assert "is not known here" in ctl.ok("describe", "proxy", "bad")
    assert ctl.ok("describe", "proxy", "web").count("instance:") == 2
    assert ctl("describe", "proxy", "nobody").code == 1


def test_a_real_sidecar_is_in_sync_and_its_endpoint_well(ctl: Ctl, control: ControlProcess, tmp_path: Path) -> None:
    named = DOCUMENT.replace("web", "real")
    ctl.ok("apply", "-f", "-", text=named)
    token = tmp_path / "real.token"
    ctl.ok("token", "create", "-n", "shop", "--service-account", "real", "--out", str(token))
    joins = ["--control", control.url, "--token-file", str(token), "--namespace", "shop"]
    with (
        RecordingUpstream() as app,
        SidecarProcess(
            app.port, *joins, "--service", "real", "--service-account", "real", "--health", "tcp"
        ) as sidecar,
    ):

        def seen() -> bool:
            rows = ctl("proxies", "-n", "shop", "-o", "json").json["proxies"]
            return any(row["proxy"].endswith("/sa/real") and row["state"] == "in sync" for row in rows)

        wait_until(seen, "the proxy in sync", 60.0)
        wait_until(lambda: " real " in ctl.ok("services", "-n", "shop") and "1/1" in serving(ctl), "its endpoint", 60.0)
        assert sidecar.ready
        assert "127.0.0.1" in ctl.ok("describe", "svc", "real", "-n", "shop")
        assert "software:" in ctl.ok("describe", "proxy", "real")


def serving(ctl: Ctl) -> str:
    return next(line for line in ctl.ok("services", "-n", "shop").splitlines() if " real " in line)


def test_a_copy_of_the_store_while_it_runs(ctl: Ctl, tmp_path: Path) -> None:
    ctl.ok("apply", "-f", "-", text=DOCUMENT)
    path = tmp_path / "copy.db"
    ctl.ok("backup", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copy.close()
    assert b"sidecar/v1" in path.read_bytes()
    done = ctl("backup", str(path))
    assert done.code == 5 and "--force" in done.err
    ctl.ok("backup", str(path), "--force")
