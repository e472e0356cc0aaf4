"""By name, captured, with nothing but documents: virtual addresses from DNS lead to the service over mutual TLS, hosts
of service entries to where they are, and all else is closed; before anything is known, everything is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.netns.apps import read_exactly
from tests.netns.conftest import MakePod
from tests.netns.pod import Pod
from tests.netns.test_no_plaintext import Control

FAMILIES = pytest.mark.parametrize("family", ["v4", "v6"])
APP, OUTSIDE = 8080, 8081
VIRTUAL = {"v4": "240.240.", "v6": "[2001:2::"}
ENTRY = {"v4": "198.51.100.7", "v6": "2001:db8:51::7"}
A, B = (f"spiffe://cluster.local/ns/default/sa/{name}" for name in "ab")
HOST = "api.outside.test"


@dataclass(frozen=True, slots=True)
class Mesh:
    """Two pods with a sidecar, rules and an app each, the second of which is a service; and one that has nothing."""

    a: Pod
    b: Pod
    outside: Pod


@pytest.fixture(scope="module")
def mesh(keep_pod: MakePod) -> Iterator[Mesh]:
    made = Mesh(keep_pod("a"), keep_pod("b"), keep_pod("outside"))
    authority = Control(keep_pod("control"))
    made.outside.web(OUTSIDE)
    for pod, name in ((made.a, "a"), (made.b, "b")):
        pod.resolvers(made.outside.v4)
        pod.init("--redirect-dns")
        pod.web(APP)
        flags = authority.flags(pod, name, _documents(made))
        pod.sidecar("--dns", "15053", *("--config" if flag == "--mesh" else flag for flag in flags))
    yield made
    for pod in (made.a, made.b):
        pod.proxy.stop()


def _documents(mesh: Mesh) -> str:
    service = {
        "ports": [{"port": 80, "name": "http", "targetPort": APP}, {"port": 90, "name": "tcp", "targetPort": APP}],
        "serviceAccounts": ["b"], "endpoints": [{"address": mesh.b.v4}],
    }  # fmt: skip
    entry = {
        "hosts": [HOST], "addresses": list(ENTRY.values()), "resolution": "STATIC",
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
        "endpoints": [{"address": mesh.outside.v4, "ports": {"http": OUTSIDE}}],
    }  # fmt: skip
    policy = {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}
    return "\n---\n".join(
        json.dumps({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec})
        for api, kind, name, spec in (
            ("sidecar/v1", "Service", "b", service),
            ("networking.istio.io/v1", "ServiceEntry", "outside", entry),
            ("networking.istio.io/v1", "Sidecar", "default", policy),
        )
    )


@FAMILIES
@pytest.mark.parametrize("name", ["b", "b.default", "b.default.svc", "b.default.svc.cluster.local"])
def test_a_name_of_a_service_is_answered_with_its_virtual_address_and_leads_there(
    mesh: Mesh, family: str, name: str
) -> None:
    path = f"/{family}/{name}"
    assert path in mesh.a.curl(f"-{family[1]}", f"http://{name}{path}")
    record = mesh.a.record(path=path)
    assert record["upstream_peer_uri_san"] == B
    assert record["original_destination"].startswith(VIRTUAL[family])
    assert mesh.b.record(path=path)["downstream_peer_uri_san"] == A


def test_opaque_bytes_to_a_virtual_address_go_to_the_service(mesh: Mesh) -> None:
    virtual, _ = mesh.a.record(path="/v4/b")["original_destination"].rsplit(":", 1)
    with mesh.a.connect(virtual, 90) as sock:
        sock.sendall(b"GET /opaque HTTP/1.0\r\n\r\n")
        assert read_exactly(sock, 5) == b"HTTP/"
    assert mesh.a.record(protocol="TCP")["original_destination"] == f"{virtual}:90"
    # Port 80 leads to the same app, so HTTP among the bytes is served as HTTP.
    assert mesh.b.record(path="/opaque")["downstream_peer_uri_san"] == A
    with pytest.raises(ConnectionResetError), mesh.a.connect(virtual, 91) as sock:  # by then, or as it is read
        sock.recv(1)
    assert mesh.a.record(original_destination=f"{virtual}:91")["response_code_details"] == "no_route"


@FAMILIES
def test_a_host_of_an_entry_is_answered_with_its_address_and_reached_in_plaintext(mesh: Mesh, family: str) -> None:
    path = f"/{family}/entry"
    assert path in mesh.a.curl(f"-{family[1]}", f"http://{HOST}{path}")
    record = mesh.a.record(path=path)
    assert (record["upstream_cluster"], record["upstream_host"]) == (
        f"outbound|80||{HOST}", f"{mesh.outside.v4}:{OUTSIDE}",
    )  # fmt: skip
    assert ENTRY[family] in record["original_destination"]


def test_the_name_of_an_entry_leads_there_from_wherever_it_is_said(mesh: Mesh) -> None:
    path = "/said-elsewhere"
    assert path in mesh.a.curl("--connect-to", f"{HOST}:80:198.51.100.99:80", f"http://{HOST}{path}")
    assert mesh.a.record(path=path)["upstream_host"] == f"{mesh.outside.v4}:{OUTSIDE}"


def test_nobody_else_is_called(mesh: Mesh) -> None:
    path = "/closed"
    assert "black_hole" in mesh.a.curl(mesh.outside.url(OUTSIDE, path))
    assert mesh.a.record(path=path)["upstream_cluster"] == "BlackHoleCluster"


def test_before_anything_is_known_nobody_is_called(make_pod: MakePod) -> None:
    pod, other = make_pod("a"), make_pod("b")
    other.web(APP)
    pod.init()
    token = pod.directory / "token"
    token.write_text("sct1.none")
    proxy = pod.sidecar("--control", "http://127.0.0.1:9", "--token-file", str(token), ready=False)
    proxy.wait_for("sidecar: ready")
    assert "no_configuration" in pod.curl(other.url(APP, "/early"))
    assert pod.record(path="/early")["response_flags"] == "UH"
    with pod.connect(other.v4, APP) as sock:
        sock.sendall(b"\0opaque")
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert pod.record(protocol="TCP")["response_code_details"] == "no_configuration"
    proxy.stop()
