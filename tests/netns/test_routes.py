"""Routes of captured traffic: by the Host and by the service's address; an endpoint's own address, which no rule leads
away from; bytes by their port, TLS by its server name; and the explicit proxy."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.netns.apps import read_exactly, serving
from tests.netns.conftest import MakePod
from tests.netns.pod import Pod
from tests.netns.test_no_plaintext import Control
from tests.support.papers import web_certificate

APP, GREETER, SECURE = 8080, 3306, 8443
VIRTUAL = "10.96.0.7"
B = "spiffe://cluster.local/ns/default/sa/b"
HOST = "b.default.svc.cluster.local"


@dataclass(frozen=True, slots=True)
class Mesh:
    """The caller, and the two endpoints of the service b, which are of the versions one and two."""

    a: Pod
    one: Pod
    two: Pod

    def get(self, path: str, *words: str) -> str:
        """The version that answers a request."""
        answer = self.a.curl(*words)
        (version,) = (name for name, pod in (("one", self.one), ("two", self.two)) if f" to {pod.v4} " in answer)
        assert answer.endswith(f"{path}\n")
        record = self.a.record(path=path)
        assert record["upstream_peer_uri_san"] == B
        callee = getattr(self, version).record(path=path)
        assert callee["downstream_peer_uri_san"] == B.replace("sa/b", "sa/a")
        return str(version)


@pytest.fixture(scope="module")
def mesh(keep_pod: MakePod) -> Iterator[Mesh]:
    made = Mesh(keep_pod("a"), keep_pod("one"), keep_pod("two"))
    authority = Control(keep_pod("control"))
    for pod, account in ((made.a, "a"), (made.one, "b"), (made.two, "b")):
        pod.init()
        pod.web(APP)
        flags = authority.flags(pod, account, _documents(made))
        pod.sidecar(*("--config" if flag == "--mesh" else flag for flag in flags))
    yield made
    for pod in (made.a, made.one, made.two):
        pod.proxy.stop()


def _documents(mesh: Mesh) -> str:
    def to(version: str, port: int, **more: object) -> dict[str, object]:
        return {"destination": {"host": "b", "subset": version, "port": {"number": port}}, **more}

    service = {
        "ports": [
            {"port": 80, "name": "http", "targetPort": APP}, {"port": 90, "name": "tcp", "targetPort": GREETER},
            {"port": 443, "name": "tls", "targetPort": SECURE},
        ],
        "addresses": [VIRTUAL], "serviceAccounts": ["b"],
        "endpoints": [
            {"address": pod.v4, "labels": {"version": name}} for name, pod in (("one", mesh.one), ("two", mesh.two))
        ],
    }  # fmt: skip
    rule = {
        "host": "b", "subsets": [{"name": name, "labels": {"version": name}} for name in ("one", "two")],
        "trafficPolicy": {"retryBudget": {"percent": 44}},
    }  # fmt: skip
    routes = {
        "hosts": ["b", "one.example", "two.example"],
        "http": [
            {"match": [{"headers": {"x-version": {"exact": "two"}}}], "route": [to("two", 80)], "name": "asked"},
            {"route": [to("one", 80)], "name": "rest", "headers": {"response": {"set": {"x-routed": "yes"}}}},
        ],
        "tcp": [{"match": [{"port": 90}], "route": [to("one", 90, weight=50), to("two", 90, weight=50)]}],
        "tls": [
            {"match": [{"port": 443, "sniHosts": [f"{name}.example"]}], "route": [to(name, 443)]}
            for name in ("one", "two")
        ],
    }  # fmt: skip
    return "\n---\n".join(
        json.dumps({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec})
        for api, kind, name, spec in (
            ("sidecar/v1", "Service", "b", service),
            ("networking.istio.io/v1", "DestinationRule", "b", rule),
            ("networking.istio.io/v1", "VirtualService", "b", routes),
        )
    )


# -- requests ---------------------------------------------------------------------------------------------------------


def test_the_services_address_is_routed_by_the_host_and_without_one_by_the_address(mesh: Mesh) -> None:
    for number, host in enumerate(("b", HOST, "B.default:80", "unknown.test", VIRTUAL)):
        for version, words in (("one", ()), ("two", ("--header", "x-version: two"))):
            path = f"/virtual/{number}/{version}"
            assert mesh.get(path, "--header", f"Host: {host}", *words, f"http://{VIRTUAL}{path}") == version, host
            assert mesh.a.record(path=path)["route_name"] == f"default/b/{'asked' if words else 'rest'}"


def test_the_host_is_routed_from_wherever_it_is_called(mesh: Mesh) -> None:
    path = "/elsewhere"
    words = ("--header", f"Host: {HOST}", "--header", "x-version: two")
    assert mesh.get(path, *words, f"http://198.51.100.9{path}") == "two"


def test_an_endpoint_at_its_own_address_has_its_requests_itself(mesh: Mesh) -> None:
    """Whatever a VirtualService says: both are dialed, and the rule leads to one of them alone."""
    for version, pod in (("one", mesh.one), ("two", mesh.two)):
        for number, host in enumerate((f"{pod.v4}:{APP}", "unknown.test")):
            for other in ("one", "two"):
                path = f"/own/{version}/{number}/{other}"
                words = ("--header", f"Host: {host}", "--header", f"x-version: {other}")
                assert mesh.get(path, *words, pod.url(APP, path)) == version
                record = mesh.a.record(path=path)
                assert (record["route_name"], record["upstream_cluster"]) == (None, f"outbound|80||{HOST}")
    told = json.loads(mesh.a.run("curl", "-qsS", "-XPOST", _explain(f"{mesh.one.v4}:{APP}")))
    assert "44" in told["budget"], "the DestinationRule counts"


def _explain(host: str) -> str:
    return f"http://127.0.0.1:15000/explain?direction=outbound&host={host}"


def test_the_explicit_proxy_is_routed_alike(mesh: Mesh) -> None:
    """Also within CONNECT, and an endpoint there is itself as well."""
    proxy = ("--proxy", "http://127.0.0.1:15001", "--noproxy", "none.test")
    for number, words in enumerate((proxy, (*proxy, "--proxytunnel"))):
        for version in ("one", "two"):
            path = f"/explicit/{number}/{version}"
            assert mesh.get(path, *words, "--header", f"x-version: {version}", f"http://b{path}") == version
        path = f"/explicit/{number}/own"
        assert mesh.get(path, *words, mesh.two.url(APP, path)) == "two"


# -- bytes ------------------------------------------------------------------------------------------------------------


def test_bytes_are_routed_by_their_port_and_weight_and_a_server_may_speak_first(mesh: Mesh) -> None:
    def greet(sock: socket.socket, name: bytes) -> None:
        sock.sendall(name)
        sock.recv(100)

    with (
        serving(mesh.one.listen(GREETER), lambda sock: greet(sock, b"one")) as first,
        serving(mesh.two.listen(GREETER), lambda sock: greet(sock, b"two")) as second,
    ):
        heard: list[tuple[str, str]] = []
        while len(heard) < 8 or len(set(heard)) < 2:  # each is one of two: not both after 40 happens to nobody
            assert len(heard) < 40
            with mesh.a.connect(VIRTUAL, 90) as sock:
                client = "{}:{}".format(*sock.getsockname())
                version = read_exactly(sock, 3).decode()
            record = mesh.a.record(client=client)
            assert record["upstream_cluster"] == f"outbound|90|{version}|{HOST}"
            assert record["upstream_host"] == f"{getattr(mesh, version).v4}:{GREETER}"
            heard.append((version, record["upstream_host"]))
        for version in ("one", "two"):  # dialed by its own address, each is itself
            for _ in range(3):
                with mesh.a.connect(getattr(mesh, version).v4, GREETER) as sock:
                    assert read_exactly(sock, 3).decode() == version
        with mesh.a.connect("127.0.0.1", 15001) as sock:
            sock.sendall(f"CONNECT {HOST}:90 HTTP/1.1\r\nHost: {HOST}:90\r\n\r\n".encode())
            data = b""
            while not data.endswith((b"one", b"two")):
                more = sock.recv(1000)
                assert more, data
                data += more
            assert data.startswith(b"HTTP/1.1 200 ")
    assert first == [] and second == []


def test_tls_of_the_app_is_routed_by_its_server_name_and_passes_through(mesh: Mesh) -> None:
    contexts = {}
    for name in ("one", "two"):
        key, certificate = web_certificate(mesh.a.directory, f"{name}.example")
        certificate.chmod(0o644)
        contexts[name] = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        contexts[name].load_cert_chain(certificate, key)

    def answer(sock: socket.socket, name: str) -> None:
        try:
            secured = contexts[name].wrap_socket(sock, server_side=True)
        except (ssl.SSLError, OSError):
            return  # a client that does not trust it
        with secured:
            if secured.recv(1000):
                body = name.encode()
                secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n" + body)

    with (
        serving(mesh.one.listen(SECURE), lambda sock: answer(sock, "one")) as first,
        serving(mesh.two.listen(SECURE), lambda sock: answer(sock, "two")) as second,
    ):
        for name in ("one", "two"):
            roots = str(mesh.a.directory / f"{name}.example.pem")
            for _ in range(3):
                words = ("--cacert", roots, "--resolve", f"{name}.example:443:{VIRTUAL}")
                assert mesh.a.curl(*words, f"https://{name}.example/") == name
            record = [each for each in mesh.a.records() if each["requested_server_name"] == f"{name}.example"][-1]
            assert record["upstream_cluster"] == f"outbound|443|{name}|{HOST}"
            assert record["upstream_peer_uri_san"] == B
    assert first == [] and second == []
