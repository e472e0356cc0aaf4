"""What somebody who reads the network between two sidecars sees: nothing of what goes through, as long as it is mTLS.

The same search over the same traffic without mTLS has to find everything, or it would prove nothing.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from pathlib import Path

import pytest

from tests.netns.conftest import MakePod
from tests.netns.environment import PROXY_ID, ROOT
from tests.netns.pod import Pod
from tests.netns.sniffer import Sniffer, is_tls

APP = 8080
CONTROL, CONTROL_TLS = 15010, 15012
PATH, FIELD, BODY = b"in-the-path-7f3a", b"in-a-field-c41d", b"in-the-body-90be"
MARKERS = [PATH, FIELD, BODY]


def call(caller: Pod, url: str) -> str:
    """A request with a marker in each of its parts."""
    return caller.curl("--header", f"x-marker: {FIELD.decode()}", "--data", BODY.decode(), f"{url}{PATH.decode()}")


def seen(data: bytes) -> list[bytes]:
    return [marker for marker in MARKERS if marker in data]


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_without_mutual_tls_everything_can_be_read(make_pod: MakePod, family: str) -> None:
    a, b = make_pod("a"), make_pod("b")
    for pod in (a, b):
        pod.init()
        pod.web(APP)
        pod.sidecar()
    with Sniffer(b, "eth0") as sniffer:
        assert PATH.decode() in call(a, b.url(APP, family=family))
        assert seen(sniffer.between(APP)) == MARKERS


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_with_mutual_tls_nothing_can_be_read(make_pod: MakePod, family: str) -> None:
    a, b, authority = make_pod("a"), make_pod("b"), Control(make_pod("control"))
    mesh = mesh_file(a, b)
    for pod, name in ((a, "a"), (b, "b")):
        pod.init()
        pod.web(APP)
        pod.sidecar(*authority.flags(pod, name, mesh))
    with Sniffer(b, "eth0") as sniffer:
        assert PATH.decode() in call(a, b.url(APP, family=family))
        data = sniffer.between(APP)
        assert len(data) > 1000 and seen(data) == []
        flows = {ports: data for ports, data in sniffer.flows().items() if APP in ports}
        assert len(flows) == 2 and all(is_tls(data) for data in flows.values())
    record = b.record(path=f"/{PATH.decode()}")
    assert record["response_code"] == 200
    refused = a.run(
        *b.environment.inside("web")[:1], "-c", PLAIN, getattr(b, family), str(APP), uid=PROXY_ID, code=0
    )  # past the sidecar of a: its own uid is not captured
    assert refused == "reset\n"


PLAIN = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
sock.sendall(b"GET / HTTP/1.1\\r\\nhost: b\\r\\n\\r\\n")
try:
    print(sock.recv(100))
except ConnectionResetError:
    print("reset")
"""


class Control:
    """The control plane in a pod of its own, as root: its checkout may be for its owner alone."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._directory = pod.directory / "control"
        words = [
            sys.executable, "-m", "control", "--ca", "memory", "--store", "memory", "--ca-dir", str(self._directory),
            "--tls-listen", str(CONTROL_TLS),
        ]  # fmt: skip
        process = pod.start("control", "env", f"PYTHONPATH={ROOT}", "PYTHONDONTWRITEBYTECODE=1", *words, uid=0)
        process.wait_for("sidecar-control: ready")

    def flags(self, pod: Pod, name: str, mesh: str) -> list[str]:
        """With which a sidecar joins as service account ``name``."""
        token, file = pod.directory / "token", pod.directory / "mesh.json"
        token.touch(mode=0o600)
        os.chown(token, PROXY_ID, PROXY_ID)
        token.write_text(self._token(name))
        file.write_text(mesh)
        file.chmod(0o644)
        return [
            "--control", f"https://{self._pod.v4}:{CONTROL_TLS}", "--token-file", str(token), "--mesh", str(file),
            "--service", name, "--service-account", name,
        ]  # fmt: skip

    def _token(self, account: str) -> str:
        operator = Path(self._directory, "operator-token").read_text().strip()
        connection = http.client.HTTPConnection("127.0.0.1", CONTROL, timeout=10)
        connection.sock = self._pod.connect("127.0.0.1", CONTROL)
        wanted = {"namespace": "default", "serviceAccount": account}
        try:
            connection.request("POST", "/v1/tokens", json.dumps(wanted), {"authorization": f"Bearer {operator}"})
            return str(json.load(connection.getresponse())["token"])
        finally:
            connection.close()


def mesh_file(*pods: Pod) -> str:
    """A service for each: a, b, and so on, where its app is."""
    services = [
        {
            "name": name,
            "serviceAccounts": [name],
            "ports": [{"port": APP, "name": "http"}],
            "endpoints": [{"address": pod.v4}, {"address": pod.v6}],
        }
        for name, pod in zip("ab", pods, strict=True)
    ]
    return json.dumps({"services": services})
