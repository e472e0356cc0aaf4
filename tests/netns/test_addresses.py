"""A pod has an address of each family, and its sidecar registers both: a call to either is one of its service, over
mutual TLS, whichever was registered first, and whether the pod would take plaintext or not.

``first4`` and ``first6`` reach the control plane by a name with both families, and prove both addresses by calls;
``only4`` and ``only6`` reach it by one family, and ``--workload-networks`` has the address of the other one. ``alone``
has one family and no network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.netns.conftest import MakePod
from tests.netns.environment import PROXY_ID
from tests.netns.plane import Plane, document, spiffe_id
from tests.netns.pod import Pod
from tests.netns.sniffer import Sniffer, is_tls
from tests.netns.test_no_plaintext import MARKERS, PLAIN, call, seen
from tests.support.upstream import wait_until

STRICT, PERMISSIVE, SICK = 8080, 8081, 9
CONTROL = "control.test"
DUAL = ["first4", "first6", "only4", "only6"]
NAMES = [*DUAL, "alone", "sick"]
WEB = spiffe_id("web")
FAMILIES = pytest.mark.parametrize("family", ["v4", "v6"])
SERVICES = pytest.mark.parametrize("service", DUAL)
MODES = pytest.mark.parametrize("port", [STRICT, PERMISSIVE], ids=["STRICT", "PERMISSIVE"])


@dataclass(frozen=True, slots=True)
class Mesh:
    """The pods, by the names of their services; ``web`` calls them, ``stranger`` is of no mesh."""

    plane: Plane
    web: Pod
    stranger: Pod
    pods: dict[str, Pod]

    def registration(self, service: str) -> dict[str, Any]:
        """As its sidecar shows it."""
        status, text = self.pods[service].get("/config_dump")
        assert status == 200
        found: dict[str, Any] = json.loads(text)["mesh"]["registration"]
        return found


@pytest.fixture(scope="module")
def mesh(keep_pod: MakePod) -> Iterator[Mesh]:
    control, web, stranger = keep_pod("control"), keep_pod("web"), keep_pod("stranger")
    pods = {name: keep_pod(name) for name in NAMES}
    networks = f"{pods['only4'].v6}/128,{pods['only6'].v4}/32"
    made = Mesh(Plane(control, "24h", "--workload-networks", networks), web, stranger, pods)
    made.plane.apply(*(each for name in NAMES for each in _documents(name)))
    orders = {"first4": (control.v4, control.v6), "sick": (control.v4, control.v6), "first6": (control.v6, control.v4)}
    for name, order in orders.items():
        pods[name].hosts(CONTROL, *order)
    by = {"only6": "v6", **dict.fromkeys(orders, CONTROL)}
    made.plane.join(web, "web")
    for name, pod in pods.items():
        for port in (STRICT, PERMISSIVE):
            pod.web(port)
        health = ["--health", f"tcp:{SICK}"] if name == "sick" else []
        made.plane.join(pod, name, *health, by=by.get(name, "v4"))

    def all_are_there() -> bool:
        return all(len(_registered(made, name)) == 2 for name in (*DUAL, "sick"))

    wait_until(all_are_there, "all are registered at both addresses")
    wait_until(lambda: made.registration("alone")["refused_addresses"], "the sidecar has been refused")
    made.plane.wait_in_sync(1 + len(NAMES))
    yield made
    for pod in (web, *pods.values()):
        pod.proxy.stop()


def _documents(name: str) -> list[dict[str, Any]]:
    ports = [
        {"port": 80, "name": "http", "targetPort": STRICT},
        {"port": 81, "name": "http-open", "targetPort": PERMISSIVE},
    ]
    selector = {"matchLabels": {"app": name}}
    open_ports = {str(PERMISSIVE): {"mode": "PERMISSIVE"}}
    return [
        document("Service", name, {"ports": ports, "serviceAccounts": [name]}, app=name),
        document(
            "PeerAuthentication", name,
            {"mtls": {"mode": "STRICT"}, "selector": selector, "portLevelMtls": open_ports},
        ),
    ]  # fmt: skip


def _registered(mesh: Mesh, name: str) -> set[str]:
    """The addresses at which callers are told that it is."""
    return {address for each in mesh.plane.endpoints(name) for address in each.get("addresses", [each["address"]])}


@SERVICES
def test_both_addresses_are_registered_as_one_endpoint(mesh: Mesh, service: str) -> None:
    (endpoint,) = mesh.plane.endpoints(service)
    assert endpoint["addresses"] == list(mesh.pods[service].addresses)
    shown = mesh.registration(service)
    assert (shown["addresses"], shown["refused_addresses"]) == (endpoint["addresses"], {})


@FAMILIES
@SERVICES
@MODES
def test_a_call_to_either_address_is_one_of_the_service_and_can_not_be_read(
    mesh: Mesh, service: str, family: str, port: int
) -> None:
    pod = mesh.pods[service]
    with Sniffer(pod, "eth0") as sniffer:
        answer = call(mesh.web, pod.url(port, "/", family))
        assert answer.startswith("from "), answer
        data = sniffer.between(port)
        assert len(data) > 300 and seen(data) == []
        flows = [data for ports, data in sniffer.flows().items() if port in ports]
        assert flows and all(is_tls(data) for data in flows)
    wait_until(lambda: _last(pod, port)["downstream_peer_uri_san"] == WEB, "its record")
    assert _last(pod, port)["response_code"] == 200


def _last(pod: Pod, port: int) -> dict[str, Any]:
    """Of what came in at this port."""
    found = [each for each in pod.records() if str(each["original_destination"]).endswith(f":{port}")]
    return found[-1] if found else {"downstream_peer_uri_san": None, "response_code": 0}


@FAMILIES
def test_the_open_port_does_take_plaintext_so_the_caller_has_not_sent_any(mesh: Mesh, family: str) -> None:
    pod = mesh.pods["first4"]
    with Sniffer(pod, "eth0") as sniffer:
        assert call(mesh.stranger, pod.url(PERMISSIVE, "/", family)).startswith("from ")
        assert seen(sniffer.between(PERMISSIVE)) == MARKERS


def test_what_could_not_be_proven_is_told_with_what_to_do_and_the_rest_is_registered(mesh: Mesh) -> None:
    pod, shown = mesh.pods["alone"], mesh.registration("alone")
    assert (shown["state"], shown["addresses"]) == ("registered", [pod.v4])
    assert list(shown["refused_addresses"]) == [pod.v6]
    told = [line for line in pod.proxy.errors.splitlines() if f"not registered at {pod.v6}, " in line]
    assert len(told) == 1 and "the control plane has no IPv6 address" in told[0] and "--workload-networks" in told[0]
    assert call(mesh.web, pod.url(STRICT, "/", "v4")).startswith("from ")
    past = pod.environment.inside("web")[0]
    assert mesh.web.run(past, "-c", PLAIN, pod.v6, str(STRICT), uid=PROXY_ID) == "reset\n"


@FAMILIES
def test_nothing_is_sent_in_plaintext_to_an_endpoint_that_is_unwell(mesh: Mesh, family: str) -> None:
    """Its pod would take it. Its app is not called, and its address is the service's all the same."""
    pod = mesh.pods["sick"]
    with Sniffer(pod, "eth0") as sniffer:
        assert "no_endpoint" in call(mesh.web, pod.url(PERMISSIVE, "/", family))
        assert sniffer.between(PERMISSIVE) == b""
