"""A mesh from the control plane alone while it changes, under requests that are made all the time: endpoints that come
and go, roots that are replaced, identities that are taken back, a control plane that is started again or out of reach.

``web`` calls ``orders`` at the address that its name leads to, and no request may fail but who is taken back.
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.netns.apps import read_exactly, serving
from tests.netns.bed import Bed
from tests.netns.conftest import MakePod
from tests.netns.plane import Plane, Traffic, document, spiffe_id
from tests.netns.pod import Pod
from tests.support.upstream import wait_until

APP, ECHO = 8080, 9000
WEB = spiffe_id("web")
LEAVES = ("--drain-delay", "3s", "--drain-seconds", "60s")  # a few seconds for all callers to hear of it


@dataclass(frozen=True, slots=True)
class Mesh:
    plane: Plane
    web: Pod
    one: Pod
    other: Pod

    def traffic(self) -> Traffic:
        """``web``'s app calls ``orders``, at the address that its name leads to."""
        (shown,) = self.plane.seen("services", name="orders")
        return Traffic(self.web, shown["virtualAddresses"][0], "orders.shop")

    def issuer(self, pod: Pod) -> str:
        """Of its certificate: the serial number of the authority's own."""
        (ours,) = json.loads(pod.get("/certs")[1])["certificates"]
        return str(ours["cert_chain"][1]["serial_number"])

    def wait_endpoints(self, *pods: Pod) -> None:
        """Until these serve ``orders``, and no others."""
        wanted = {pod.v4 for pod in pods}
        wait_until(lambda: {each["address"] for each in self.plane.endpoints("orders")} == wanted, f"{wanted} serve")


@pytest.fixture(scope="module")
def mesh(keep_pod: MakePod) -> Iterator[Mesh]:
    made = Mesh(Plane(keep_pod("control")), *(keep_pod(name) for name in ("web", "one", "other")))
    ports = [
        {"port": 80, "name": "http", "targetPort": APP},
        {"port": 90, "name": "tcp-app", "targetPort": APP},
        {"port": 91, "name": "tcp-echo", "targetPort": ECHO},
    ]
    made.plane.apply(
        *(document("Service", name, {"ports": ports, "serviceAccounts": [name]}) for name in ("web", "orders")),
        document("PeerAuthentication", "strict", {"mtls": {"mode": "STRICT"}}, "sidecar-system"),
        document("Sidecar", "closed", {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}),
    )
    made.plane.join(made.web, "web")
    app = made.one.web(APP)
    made.plane.join(made.one, "orders", *LEAVES)
    made.wait_endpoints(made.one)
    made.plane.wait_in_sync(2)
    wait_until(lambda: _status(made) == "200", "web knows where orders is")
    yield made
    app.kill()  # its sidecar waits for it
    for pod in (made.web, made.one):
        pod.proxy.stop()


@pytest.mark.parametrize("flags", [LEAVES, ()], ids=["with a delay", "at once"])
def test_to_two_endpoints_and_back(mesh: Mesh, flags: tuple[str, ...]) -> None:
    """The second one comes, and shares the work; it drains, and whoever calls it before all know goes to the other."""
    app = mesh.other.web(APP)
    with mesh.traffic().running() as traffic:
        traffic.wait_from({mesh.one.v4})
        proxy = mesh.plane.join(mesh.other, "orders", *(flags or ("--drain-seconds", "60s")))
        traffic.wait_from({mesh.one.v4, mesh.other.v4})
        proxy.signal(signal.SIGTERM)
        mesh.wait_endpoints(mesh.one)
        traffic.wait_from({mesh.one.v4})
        app.kill()  # as a pod's containers go together; its sidecar would wait for it
        assert proxy.wait(90) == 0
        proxy.check_errors()
        traffic.more(20)
    assert "registration: taken out of orders" in proxy.errors


def test_the_control_plane_is_started_again(mesh: Mesh) -> None:
    """Killed; nobody notices, and what it knew it knows again."""
    before = mesh.plane.endpoints("orders")
    with mesh.traffic().running() as traffic:
        traffic.more(20)
        mesh.plane.process.kill()
        traffic.more(50)
        mesh.plane.start()
        mesh.plane.wait_in_sync(2)
        traffic.more(20)
    after = mesh.plane.endpoints("orders")
    assert [each["id"] for each in after] == [each["id"] for each in before]
    assert not any(each.get("stale") for each in after)


def test_the_control_plane_is_not_reached(mesh: Mesh, bed: Bed) -> None:
    """Its cable is out for longer than three heartbeats: nobody notices but it, and nobody is dropped."""
    before = mesh.plane.endpoints("orders")
    with mesh.traffic().running() as traffic:
        with bed.unplugged(mesh.plane.pod):
            wait_until(lambda: any(each.get("stale") for each in mesh.plane.endpoints("orders")), "it is missed", 60)
            traffic.more(20)
            assert mesh.plane.endpoints("orders")[0]["id"] == before[0]["id"]
        wait_until(lambda: not any(each.get("stale") for each in mesh.plane.endpoints("orders")), "it is heard", 60)
        mesh.plane.wait_in_sync(2)
        traffic.more(20)
    after = mesh.plane.endpoints("orders")
    assert [each["registered"] for each in after] == [each["registered"] for each in before]


def test_a_root_is_replaced(mesh: Mesh) -> None:
    """When all have said that they know the new one, certificates are issued from it, and both are as good."""
    issuers = {mesh.issuer(mesh.web), mesh.issuer(mesh.one)}
    assert len(issuers) == 1
    with mesh.traffic().running() as traffic:
        traffic.more(20)
        mesh.plane.ctl("ca", "rotate", "--yes", "--wait", "issuing", deadline=150)
        app = mesh.other.web(APP)
        mesh.plane.sidecar(mesh.other, "orders")
        assert mesh.issuer(mesh.other) not in issuers
        traffic.wait_from({mesh.one.v4, mesh.other.v4})
    app.kill()
    mesh.other.proxy.stop()


def test_who_is_taken_back_is_cut_off(mesh: Mesh) -> None:
    """What is open ends, what is new is refused; and all is well when that is lifted and its token is good."""

    def echo(sock: socket.socket) -> None:
        while data := sock.recv(1000):
            sock.sendall(data)

    traffic = mesh.traffic()
    with serving(mesh.one.listen(ECHO), echo), mesh.web.connect(traffic.address, 91, deadline=60) as client:
        client.sendall(b"\0opaque")
        assert read_exactly(client, 7) == b"\0opaque"
        mesh.plane.ctl("revoke", WEB)
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass  # its end as well
    wait_until(lambda: _status(mesh) == "503", "web is refused")
    mesh.plane.ctl("revoke", "--lift", WEB)
    mesh.plane.token(mesh.web, "web")
    wait_until(lambda: _status(mesh) == "200", "web has another certificate", 60)
    assert any(record["response_code_details"] == "revoked" for record in mesh.one.records())


def _status(mesh: Mesh) -> str:
    return mesh.web.curl("--output", "/dev/null", "--write-out", "%{http_code}", "http://orders.shop/")
