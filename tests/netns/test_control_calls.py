"""By name, captured, with nothing but the control plane: who is called, who answers, and what can be read on the way.

``web`` of the namespace ``front`` calls ``orders`` and ``stock`` of ``shop``; the one's sidecar came to the control
plane by IPv4 and the other's by IPv6, so that both families are on the wire. Nobody has a file with a mesh in it.
"""

from __future__ import annotations

import functools
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.netns.apps import read_exactly, serving
from tests.netns.conftest import MakePod
from tests.netns.environment import PROXY_ID
from tests.netns.plane import Plane, document, spiffe_id
from tests.netns.pod import Pod
from tests.netns.sniffer import Sniffer, is_tls
from tests.netns.test_no_plaintext import MARKERS, PLAIN, call, seen
from tests.support.upstream import wait_until

FAMILIES = pytest.mark.parametrize("family", ["v4", "v6"])
SERVICES = pytest.mark.parametrize("service", ["orders", "stock"])
APP, OPEN, OFF, ECHO, GREETS = 8080, 8081, 8082, 9000, 9001
HOST, OUTSIDE = "api.outside.test", 8090
WEB, ORDERS, STOCK = spiffe_id("web", "front"), spiffe_id("orders"), spiffe_id("stock")
ENTRY = ["198.51.100.7", "2001:db8:51::7"]
VIRTUAL = {"v4": "240.240.", "v6": "[2001:2::"}


@dataclass(frozen=True, slots=True)
class Mesh:
    """The pods; ``wire`` is the family of the addresses at which the services are registered."""

    plane: Plane
    web: Pod
    orders: Pod
    stock: Pod
    outside: Pod

    def pod(self, service: str) -> Pod:
        return {"orders": self.orders, "stock": self.stock}[service]

    def address(self, service: str) -> str:
        """Where its sidecar is registered."""
        return self.orders.v4 if service == "orders" else self.stock.v6

    def virtual(self, service: str, family: str = "v4") -> str:
        (shown,) = self.plane.seen("services", name=service)
        return next(each for each in shown["virtualAddresses"] if (":" in each) == (family == "v6"))


@pytest.fixture(scope="module")
def mesh(keep_pod: MakePod) -> Iterator[Mesh]:
    made = Mesh(Plane(keep_pod("control")), *(keep_pod(name) for name in ("web", "orders", "stock", "outside")))
    made.outside.web(OUTSIDE)
    made.plane.apply(*_documents(made))
    made.plane.join(made.web, "web", namespace="front")
    for pod, name, family in ((made.orders, "orders", "v4"), (made.stock, "stock", "v6")):
        for port in (APP, OPEN):
            pod.web(port)
        made.plane.join(pod, name, by=family)
    wait_until(lambda: all(len(made.plane.endpoints(name)) == 1 for name in ("orders", "stock")), "both are there")
    made.plane.wait_in_sync(3)
    yield made
    for pod in (made.web, made.orders, made.stock):
        pod.proxy.stop()


def _documents(mesh: Mesh) -> list[dict[str, Any]]:
    ports = [
        {"port": 80, "name": "http", "targetPort": APP},
        {"port": 81, "name": "http-open", "targetPort": OPEN},
        {"port": 82, "name": "tcp-off", "targetPort": OFF},
        {"port": 90, "name": "tcp-echo", "targetPort": ECHO},
        {"port": 91, "name": "tcp-greets", "targetPort": GREETS},
    ]
    return [
        *(
            document("Service", name, {"ports": ports, "serviceAccounts": [name], "exportTo": ["front"]}, app=name)
            for name in ("orders", "stock")
        ),
        document("Service", "web", {"ports": ports[:1], "serviceAccounts": ["web"]}, "front"),
        # Somebody else stands where its documents say that it is.
        document(
            "Service", "ledger",
            {"ports": ports[:1], "serviceAccounts": ["ledger"], "exportTo": ["front"],
             "endpoints": [{"address": mesh.stock.v4}]},
        ),
        document("Service", "unseen", {"ports": ports[:1], "serviceAccounts": ["stock"], "exportTo": ["."]}),
        document(
            "PeerAuthentication", "modes",
            {"mtls": {"mode": "STRICT"}, "selector": {"matchLabels": {"app": "orders"}},
             "portLevelMtls": {str(OPEN): {"mode": "PERMISSIVE"}, str(OFF): {"mode": "DISABLE"}}},
        ),
        document(
            "ServiceEntry", "outside",
            {"hosts": [HOST], "addresses": ENTRY, "resolution": "STATIC", "exportTo": ["front"],
             "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
             "endpoints": [{"address": mesh.outside.v4, "ports": {"http": OUTSIDE}}]},
        ),
        document("Sidecar", "default", {
            "egress": [{"hosts": ["./*", "shop/*"]}], "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
        }, "front"),
    ]  # fmt: skip


@SERVICES
@FAMILIES
@pytest.mark.parametrize("suffix", ["", ".svc.cluster.local"])
def test_a_service_is_called_by_its_name(mesh: Mesh, service: str, family: str, suffix: str) -> None:
    """The name leads to a virtual address, that to the endpoint, and each side knows who the other one is."""
    path = f"/{service}-{family}{suffix}"
    answer = mesh.web.curl(f"-{family[1]}", f"http://{service}.shop{suffix}{path}")
    assert answer.endswith(f" to {mesh.address(service)} {APP} {path}\n"), answer
    outbound, inbound = mesh.web.record(path=path), mesh.pod(service).record(path=path)
    assert outbound["original_destination"].startswith(VIRTUAL[family])
    assert outbound["upstream_peer_uri_san"] == spiffe_id(service)
    assert inbound["downstream_peer_uri_san"] == WEB


@SERVICES
def test_nothing_between_two_pods_can_be_read(mesh: Mesh, service: str) -> None:
    pod = mesh.pod(service)
    with Sniffer(pod, "eth0") as sniffer:
        call(mesh.web, f"http://{service}.shop/")
        data = sniffer.between(APP)
        assert len(data) > 300 and seen(data) == []
        flows = [data for ports, data in sniffer.flows().items() if APP in ports]
        assert flows and all(is_tls(data) for data in flows)


@FAMILIES
def test_a_host_outside_is_called_in_plaintext(mesh: Mesh, family: str) -> None:
    """All that was not seen between the pods is seen here."""
    with Sniffer(mesh.outside, "eth0") as sniffer:
        mesh.web.curl(f"-{family[1]}", f"http://{HOST}/before-{family}")
        call(mesh.web, f"http://{HOST}/")
        assert seen(sniffer.between(OUTSIDE)) == MARKERS
    record = mesh.web.record(path=f"/before-{family}")
    assert record["upstream_cluster"] == f"outbound|80||{HOST}"
    assert record["upstream_host"] == f"{mesh.outside.v4}:{OUTSIDE}"


@SERVICES
def test_opaque_bytes(mesh: Mesh, service: str) -> None:
    def echo(sock: socket.socket) -> None:
        sock.sendall(read_exactly(sock, len(data)))

    pod, data = mesh.pod(service), bytes(range(256)) * 400
    with serving(pod.listen(ECHO, host="0.0.0.0" if service == "orders" else "::"), echo) as raised:
        with mesh.web.connect(mesh.virtual(service), 90, deadline=30) as client:
            sender = threading.Thread(target=client.sendall, args=(data,))
            sender.start()
            assert read_exactly(client, len(data)) == data
            sender.join(30)
        assert raised == []
    wait_until(lambda: any(record["bytes_received"] == len(data) for record in pod.records()), "its record")
    (record,) = (record for record in pod.records() if record["bytes_received"] == len(data))
    assert (record["protocol"], record["downstream_peer_uri_san"]) == ("TCP", WEB)


@SERVICES
def test_a_server_that_speaks_first(mesh: Mesh, service: str) -> None:
    def greet(sock: socket.socket) -> None:
        sock.sendall(b"220 ready\r\n")
        sock.sendall(b"you said " + read_exactly(sock, 6))

    with serving(mesh.pod(service).listen(GREETS, host="0.0.0.0" if service == "orders" else "::"), greet) as raised:
        with mesh.web.connect(mesh.virtual(service, "v6"), 91, deadline=30) as client:
            assert read_exactly(client, 11) == b"220 ready\r\n"
            client.sendall(b"HELO a")
            assert read_exactly(client, 15) == b"you said HELO a"
        assert raised == []


def _refused(mesh: Mesh, reason: str, here: str) -> bool:
    return any(
        record["client"].rpartition(":")[0].strip("[]") == here and record["response_code_details"] == reason
        for record in mesh.orders.records()
    )


@FAMILIES
def test_who_has_no_identity_gets_nowhere(mesh: Mesh, family: str) -> None:
    """Plaintext, and TLS without a certificate; and past the sidecar of who has one."""
    path = f"/stranger-{family}"
    for scheme, reason in (("http", "plaintext_refused"), ("https", "peer_refused")):
        url = mesh.orders.url(APP, path, family).replace("http", scheme, 1)
        assert mesh.outside.curl("--insecure", url, code=None).startswith("curl: (")
        wait_until(functools.partial(_refused, mesh, reason, getattr(mesh.outside, family)), f"a record with {reason}")
    python = mesh.web.environment.inside("web")[0]
    past = mesh.web.run(python, "-c", PLAIN, getattr(mesh.orders, family), str(APP), uid=PROXY_ID)
    assert past == "reset\n"
    assert all(record["path"] != path for record in mesh.orders.records())


@FAMILIES
def test_a_port_that_is_open_takes_both(mesh: Mesh, family: str) -> None:
    mesh.outside.curl(mesh.orders.url(OPEN, f"/nobody-{family}", family))
    assert mesh.orders.record(path=f"/nobody-{family}")["downstream_peer_uri_san"] is None
    mesh.web.curl(f"-{family[1]}", f"http://orders.shop:81/somebody-{family}")
    assert mesh.orders.record(path=f"/somebody-{family}")["downstream_peer_uri_san"] == WEB


def test_a_port_without_mutual_tls_gets_all_as_it_came(mesh: Mesh) -> None:
    """A hello of TLS as well as anything else: its app speaks for itself."""

    def echo(sock: socket.socket) -> None:
        sock.sendall(read_exactly(sock, len(data)))

    data = b"\x16\x03\x01\x00\x05hello"
    with serving(mesh.orders.listen(OFF), echo) as raised:
        with mesh.outside.connect(mesh.orders.v4, OFF, deadline=30) as client:
            client.sendall(data)
            assert read_exactly(client, len(data)) == data
        assert raised == []


def test_another_one_who_answers_for_a_service_is_refused(mesh: Mesh) -> None:
    status = ("--output", "/dev/null", "--write-out", "%{http_code}")
    assert mesh.web.curl(*status, "http://ledger.shop/who") == "503"
    assert mesh.web.record(path="/who")["response_code_details"] == "upstream_identity"
    assert all(record["path"] != "/who" for record in mesh.stock.records())


def test_what_nobody_wrote_down_is_not_called(mesh: Mesh) -> None:
    """By its address, nor by a name that another namespace keeps to itself."""
    assert "black_hole" in mesh.web.curl(mesh.outside.url(OUTSIDE, "/closed"))
    assert mesh.web.record(path="/closed")["upstream_cluster"] == "BlackHoleCluster"
    assert mesh.web.curl("http://unseen.shop/", code=None).startswith("curl: (6)")
    assert mesh.virtual("unseen").startswith(VIRTUAL["v4"])
