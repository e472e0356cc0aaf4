"""The identity that an app is told can't be forged where connections are captured: every attempt of
``tests.hostile.forging``, at ports that a service declares http, auto and tcp, and at ports to which two of them lead.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hostile import forging, tellers
from tests.hostile.forging import FORGED, path_of
from tests.netns.conftest import MakePod
from tests.netns.environment import PROXY_ID
from tests.netns.pod import Pod
from tests.netns.test_no_plaintext import Control
from tests.support.upstream import wait_until

CALLER = "URI=spiffe://cluster.local/ns/default/sa/a"
MODES = {"strict": "STRICT", "permissive": "PERMISSIVE"}
# The app's port: the protocols of the service ports that lead there.
DECLARED = {
    "http": ("http",),
    "auto": ("auto",),
    "tcp": ("tcp",),
    "http+tcp": ("http", "tcp"),
    "auto+tcp": ("auto", "tcp"),
}
NAMES = {"http": "http-{}", "auto": "x{}", "tcp": "tcp-{}"}


@dataclass(frozen=True, slots=True)
class Stand:
    """What an app of one kind has printed, and its port for each name, which is ``MODE/DECLARED``."""

    printed: Path
    ports: dict[str, int]

    def seen(self) -> dict[str, str]:
        return {each["path"]: each["said"] for each in tellers.requests_seen(self.printed.read_text())}


@pytest.fixture(scope="module", params=tellers.KINDS)
def stand(request: pytest.FixtureRequest, keep_pod: MakePod) -> Iterator[Stand]:
    a, b, authority = keep_pod("a"), keep_pod("b"), Control(keep_pod("control"))
    names = [f"{mode}/{name}" for mode in MODES for name in DECLARED]
    ports = {name: 8000 + number for number, name in enumerate(names)}
    directory = b.directory / "app"
    directory.mkdir(mode=0o755)
    argv = tellers.command(str(request.param), directory, [f"0.0.0.0:{port}" for port in ports.values()])
    printed = directory / "printed"
    b.start("app", "sh", "-c", f'exec "$@" >> {printed}', "app", *argv, uid=0)
    mesh = _mesh(b, ports)
    for pod, name in ((a, "a"), (b, "b")):
        pod.init()
        papers = pod.directory / "papers"
        papers.mkdir()
        pod.run("mount", "-t", "tmpfs", "-o", f"mode=0700,uid={PROXY_ID},gid={PROXY_ID}", "tmpfs", str(papers))
        pod.sidecar(*authority.flags(pod, name, mesh), "--identity-dir", str(papers))
    wait_until(lambda: all(_answers(b, port) for port in ports.values()), f"{request.param} listens")
    wait_until(lambda: _kept(a) is not None, "the caller has a certificate")
    sni = {name: f"outbound_.{port}_._.b.default.svc.cluster.local" for name, port in ports.items()}
    lock = threading.Lock()

    def connect(port: int) -> socket.socket:
        with lock:  # one socket is made at a time
            sock = a.make_socket(socket.AF_INET, PROXY_ID)  # past the sidecar of a: its own uid is not captured
        try:
            sock.settimeout(10)
            sock.connect((b.v4, port))
        except OSError:
            sock.close()
            raise
        return sock

    forging.attempt_all(ports, connect, _papers(a, b.directory), sni)
    yield Stand(printed, ports)
    for pod in (a, b):
        pod.proxy.stop()


def _mesh(b: Pod, ports: dict[str, int]) -> str:
    declared, modes = [], {}
    for name, port in ports.items():
        mode, _, declaration = name.partition("/")
        modes[str(port)] = {"mode": MODES[mode]}
        for number, protocol in enumerate(DECLARED[declaration]):
            own = port + 1000 * number
            declared.append({"port": own, "targetPort": port, "name": NAMES[protocol].format(own)})
    service = {"name": "b", "serviceAccounts": ["b"], "ports": declared, "endpoints": [{"address": b.v4}]}
    return json.dumps({"services": [service], "peerAuthentication": {"portLevelMtls": modes}})


def _answers(pod: Pod, port: int) -> bool:
    try:
        pod.connect("127.0.0.1", port).close()
    except OSError:
        return False
    return True


def _kept(pod: Pod) -> dict[str, str] | None:
    """What the sidecar's --identity-dir holds."""
    text = pod.run("cat", str(pod.directory / "papers" / "identity.json"), code=None)
    kept: dict[str, str] | None = json.loads(text) if text.startswith("{") else None
    return kept


def _papers(pod: Pod, directory: Path) -> forging.Papers:
    kept = _kept(pod)
    assert kept is not None
    papers = forging.Papers(directory / "caller.key", directory / "caller.pem", directory / "roots.pem")
    for path, text in ((papers.key, kept["key"]), (papers.chain, kept["chain"]), (papers.roots, kept["bundle"])):
        path.touch(mode=0o600)
        path.write_text(text)
    return papers


def test_no_app_sees_a_forged_caller(stand: Stand) -> None:
    seen = stand.seen()
    assert seen, "no attempt reached the app, so nothing was tried"
    forged = {path: said for path, said in seen.items() if FORGED in said and path.split("/")[2] != "tcp"}
    assert forged == {}


def test_a_good_request_reaches_the_app_with_its_real_caller(stand: Stand) -> None:
    seen = stand.seen()
    for name in stand.ports:
        if not name.endswith("/tcp"):
            assert seen[path_of(name, "istio-http/1.1", "http")].endswith(CALLER)
            assert seen[path_of(name, "istio", "http")].endswith(CALLER)
            announced = seen.get(path_of(name, "sidecar-tcp", "http"))
            # Where a port of the service is tcp, its callers announce opaque bytes, and are served as HTTP.
            assert announced is not None and announced.endswith(CALLER) if name.endswith("+tcp") else announced is None
            assert (path_of(name, "plaintext", "http") in seen) == name.startswith("permissive")


def test_on_a_tcp_port_the_field_means_nothing(stand: Stand) -> None:
    """The attempts would work, were they made where bytes are relayed: this holds the first test to its purpose."""
    seen = stand.seen()
    for mode in MODES:
        assert FORGED in seen[path_of(f"{mode}/tcp", "sidecar-tcp", "http")]
        assert FORGED in seen[path_of(f"{mode}/tcp", "istio", "http")]
