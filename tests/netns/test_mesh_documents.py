"""A mesh of captured pods: what the app of one asks the app of the other goes by mutual TLS between their sidecars, and
whoever has no identity gets nowhere. What can be read on the way is in ``test_no_plaintext.py``.
"""

from __future__ import annotations

import functools
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.netns.apps import read_exactly, serving
from tests.netns.conftest import MakePod
from tests.netns.pod import Pod
from tests.netns.test_no_plaintext import Control
from tests.support.upstream import wait_until

FAMILIES = pytest.mark.parametrize("family", ["v4", "v6"])
APP, ECHO, PRIVATE, OPEN = 8080, 9000, 7777, 7778
VIRTUAL = {"v4": "10.96.0.7", "v6": "fd96::7"}
A, B = (f"spiffe://cluster.local/ns/default/sa/{name}" for name in "ab")


@dataclass(frozen=True, slots=True)
class Mesh:
    """Two pods with a sidecar, rules and an app each, the second of which is a service; and one that has nothing."""

    a: Pod
    b: Pod
    stranger: Pod


@pytest.fixture(scope="module")
def mesh(keep_pod: MakePod) -> Iterator[Mesh]:
    made = Mesh(keep_pod("a"), keep_pod("b"), keep_pod("stranger"))
    authority = Control(keep_pod("control"))
    for pod, name in ((made.a, "a"), (made.b, "b")):
        pod.init()
        pod.web(APP)
        pod.sidecar(*authority.flags(pod, name, _services(made.b)))
    yield made
    for pod in (made.a, made.b):
        pod.proxy.stop()


def _services(b: Pod) -> str:
    ports = [
        {"port": 80, "name": "http", "targetPort": APP},
        {"port": ECHO, "name": "tcp-echo"},
        {"port": PRIVATE, "name": "http-private"},
        {"port": OPEN, "name": "http-open"},
    ]
    service = {
        "name": "b",
        "serviceAccounts": ["b"],
        "addresses": list(VIRTUAL.values()),
        "ports": ports,
        "endpoints": [{"address": b.v4}],
    }
    by_v6 = {"name": "b6", "serviceAccounts": ["b"], "ports": ports[:1], "endpoints": [{"address": b.v6}]}
    return json.dumps({"services": [service, by_v6]})


def _authority(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _check_principals(mesh: Mesh, path: str) -> None:
    """Each side has recorded who the other one is."""
    outbound, inbound = mesh.a.record(path=path), mesh.b.record(path=path)
    assert (outbound["response_code"], inbound["response_code"]) == (200, 200)
    assert outbound["upstream_peer_uri_san"] == B
    assert inbound["downstream_peer_uri_san"] == A


@FAMILIES
def test_by_the_pods_address(mesh: Mesh, family: str) -> None:
    path = f"/address-{family}"
    us, there = "127.0.0.6" if family == "v4" else "::6", getattr(mesh.b, family)
    assert mesh.a.curl(mesh.b.url(APP, path, family)) == f"from {us} to {there} {APP} {path}\n"
    _check_principals(mesh, path)


@FAMILIES
def test_by_the_services_address(mesh: Mesh, family: str) -> None:
    path = f"/virtual-{family}"
    answer = mesh.a.curl(f"http://{_authority(VIRTUAL[family], 80)}{path}")
    assert answer == f"from 127.0.0.6 to {mesh.b.v4} {APP} {path}\n"
    _check_principals(mesh, path)
    assert mesh.a.record(path=path)["original_destination"] == _authority(VIRTUAL[family], 80)


@pytest.mark.parametrize("name", ["b", "b.default", "b.default.svc.cluster.local"])
def test_by_the_services_name(mesh: Mesh, name: str) -> None:
    path = f"/name-{name}"
    mesh.a.curl("--resolve", f"{name}:80:{VIRTUAL['v4']}", f"http://{name}{path}")
    _check_principals(mesh, path)


def test_a_body_of_every_size(mesh: Mesh) -> None:
    for size in (1, 16_384, 100_000):
        mesh.a.curl("--data", "x" * size, mesh.b.url(APP, f"/body-{size}"))
        _check_principals(mesh, f"/body-{size}")


def test_opaque_bytes(mesh: Mesh) -> None:
    def echo(sock: socket.socket) -> None:
        sock.sendall(read_exactly(sock, 100_000))

    data = b"\0opaque" * 20_000
    with serving(mesh.b.listen(ECHO), echo) as raised:
        with mesh.a.connect(mesh.b.v4, ECHO) as client:
            sender = threading.Thread(target=client.sendall, args=(data[:100_000],))
            sender.start()
            assert read_exactly(client, 100_000) == data[:100_000]
            sender.join(10)
        assert raised == []
    record = mesh.b.record(original_destination=_authority(mesh.b.v4, ECHO))
    assert record["downstream_peer_uri_san"] == A and record["bytes_received"] == 100_000
    for pod in (mesh.a, mesh.b):
        page = pod.get("/metrics")[1].splitlines()
        opened = [line for line in page if line.startswith("istio_tcp_connections_opened_total{")]
        (met,) = (line for line in opened if f'"{A}"' in line and f'"{B}"' in line)
        assert f'source_principal="{A}"' in met and f'destination_principal="{B}"' in met and met.endswith(" 1.0")


@FAMILIES
def test_who_has_no_identity_is_refused(mesh: Mesh, family: str) -> None:
    """Plaintext, and TLS without a certificate."""
    path, here = f"/stranger-{family}", getattr(mesh.stranger, family)

    def refused(reason: str) -> bool:
        return any(
            record["client"].rpartition(":")[0].strip("[]") == here and record["response_code_details"] == reason
            for record in mesh.b.records()
        )

    for scheme, reason in (("http", "plaintext_refused"), ("https", "peer_refused")):
        answer = mesh.stranger.curl("--insecure", mesh.b.url(APP, path, family).replace("http", scheme, 1), code=None)
        assert answer.startswith("curl: (")
        wait_until(functools.partial(refused, reason), f"a record with {reason}")
    mesh.a.curl(mesh.b.url(APP, f"/friend-{family}", family))
    mesh.b.record(path=f"/friend-{family}")  # records keep their order, so nothing of the above is still to come
    assert all(record["path"] != path for record in mesh.b.records())


def test_what_listens_on_loopback_stays_private(mesh: Mesh) -> None:
    """The service has the port, the caller an identity: still only what others may reach is reached."""
    reached = []

    def answer(sock: socket.socket) -> None:
        reached.append(sock.getsockname()[:2])
        sock.recv(1000)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    url = [f"http://{_authority(VIRTUAL['v4'], port)}/" for port in (PRIVATE, OPEN)]
    status = ("--output", "/dev/null", "--write-out", "%{http_code}")
    with serving(mesh.b.listen(PRIVATE, host="127.0.0.1"), answer):
        with serving(mesh.b.listen(OPEN, host=mesh.b.v4), answer):
            assert mesh.a.curl(*status, url[0]) == "503"
            assert mesh.a.curl(*status, url[1]) == "200"
            assert mesh.stranger.curl(mesh.b.url(PRIVATE), code=None).startswith("curl: (")
    assert reached == [(mesh.b.v4, OPEN)]
