"""Two pods, each with its rules and its proxy: what the app of one asks the app of the other passes both proxies."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.netns.conftest import MakePod
from tests.netns.pod import Pod

FAMILIES = pytest.mark.parametrize("family", ["v4", "v6"])
INBOUND, OUTBOUND, SCRAPE = 15006, 15001, 15020


@dataclass(frozen=True, slots=True)
class Mesh:
    """Two pods that are captured, each with an app on port 8080, and one that knows of no mesh."""

    a: Pod
    b: Pod
    outsider: Pod


@pytest.fixture(scope="module")
def mesh(keep_pod: MakePod) -> Iterator[Mesh]:
    made = Mesh(keep_pod("a"), keep_pod("b"), keep_pod("outsider"))
    for pod in (made.a, made.b):
        pod.init()
        pod.web(8080)
        pod.sidecar()
    yield made
    for pod in (made.a, made.b):
        pod.proxy.stop()


def _authority(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@FAMILIES
def test_curl_passes_both_proxies(mesh: Mesh, family: str) -> None:
    path = f"/both-{family}"
    here, there = getattr(mesh.a, family), getattr(mesh.b, family)
    us = "127.0.0.6" if family == "v4" else "::6"
    assert mesh.a.curl(mesh.b.url(8080, path, family)) == f"from {us} to {there} 8080 {path}\n"

    outbound, inbound = mesh.a.record(path=path), mesh.b.record(path=path)
    target = _authority(there, 8080)
    assert (outbound["direction"], outbound["response_code"]) == ("outbound", 200)
    assert (inbound["direction"], inbound["response_code"]) == ("inbound", 200)
    assert outbound["original_destination"] == inbound["original_destination"] == target
    assert outbound["authority"] == inbound["authority"] == target
    assert outbound["upstream_host"] == target
    assert inbound["client"].rpartition(":")[0].strip("[]") == here
    assert inbound["request_id"] == outbound["request_id"]


@FAMILIES
def test_an_outsider_passes_inbound_only(mesh: Mesh, family: str) -> None:
    path = f"/outsider-{family}"
    mesh.outsider.curl(mesh.b.url(8080, path, family))
    assert mesh.b.record(path=path)["client"].rpartition(":")[0].strip("[]") == getattr(mesh.outsider, family)


@FAMILIES
def test_to_an_outsider_passes_outbound_only(mesh: Mesh, family: str) -> None:
    path = f"/outside-{family}"
    if not mesh.outsider.processes:
        mesh.outsider.web(8080)
    here, there = getattr(mesh.a, family), getattr(mesh.outsider, family)
    assert mesh.a.curl(mesh.outsider.url(8080, path, family)) == f"from {here} to {there} 8080 {path}\n"
    assert mesh.a.record(path=path)["original_destination"] == _authority(there, 8080)


@FAMILIES
def test_an_app_that_calls_itself_is_left_alone(mesh: Mesh, family: str) -> None:
    here, loopback = getattr(mesh.a, family), "127.0.0.1" if family == "v4" else "::1"
    assert mesh.a.curl(mesh.a.url(8080, "/itself", family)) == f"from {here} to {here} 8080 /itself\n"
    url = f"http://{_authority(loopback, 8080)}/itself"
    assert mesh.a.curl(url) == f"from {loopback} to {loopback} 8080 /itself\n"
    mesh.a.curl(mesh.b.url(8080, f"/after-itself-{family}"))
    mesh.a.record(path=f"/after-itself-{family}")  # records keep their order, so nothing of the above is still to come
    assert [record for record in mesh.a.records() if record["path"] == "/itself"] == []


@FAMILIES
def test_udp_is_left_alone(mesh: Mesh, family: str) -> None:
    kind = socket.AF_INET if family == "v4" else socket.AF_INET6
    there = getattr(mesh.b, family)
    with (
        mesh.a.make_socket(kind, kind=socket.SOCK_DGRAM) as client,
        mesh.b.make_socket(kind, kind=socket.SOCK_DGRAM) as server,
    ):
        for one in (client, server):
            one.settimeout(5)
        server.bind((there, 9999))
        client.sendto(b"question", (there, 9999))
        data, address = server.recvfrom(100)
        assert (data, address[0]) == (b"question", getattr(mesh.a, family))
        server.sendto(b"answer", address)
        answer, sender = client.recvfrom(100)
        assert (answer, sender[0]) == (b"answer", there)


def _said(pod: Pod, host: str, port: int, request: bytes) -> bytes | str:
    """The first of the answer, or "reset", which may come before connect has returned."""
    try:
        with pod.connect(host, port) as client:
            client.sendall(request)
            return client.recv(100)
    except (ConnectionResetError, BrokenPipeError):
        return "reset"


@FAMILIES
@pytest.mark.parametrize("port", [INBOUND, OUTBOUND])
def test_a_listener_of_ours_is_refused_to_others_and_counted(mesh: Mesh, family: str, port: int) -> None:
    def refused() -> float:
        return sum(value for name, value in mesh.b.metrics().items() if name.startswith("sidecar_errors_total"))

    before = refused()
    request = f"GET http://{_authority(mesh.b.v4, 8080)}/stolen HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    assert _said(mesh.outsider, getattr(mesh.b, family), port, request) == "reset"
    assert refused() == before + 1
    assert all(record["path"] != "/stolen" for record in mesh.b.records())


@FAMILIES
def test_the_admin_port_is_not_there_for_others(mesh: Mesh, family: str) -> None:
    with pytest.raises(ConnectionRefusedError):
        mesh.outsider.connect(getattr(mesh.b, family), 15000)


@FAMILIES
def test_the_scrape_port_of_another_pod_can_be_reached(mesh: Mesh, family: str) -> None:
    assert mesh.outsider.curl(mesh.b.url(SCRAPE, "/healthz/ready", family)) == "LIVE\n"
    assert mesh.a.curl(mesh.b.url(SCRAPE, "/healthz/ready", family)) == "LIVE\n"
    record = mesh.a.record(path="/healthz/ready", original_destination=_authority(getattr(mesh.b, family), SCRAPE))
    assert (record["direction"], record["response_code"]) == ("outbound", 200)


def test_the_proxys_own_traffic_never_loops(mesh: Mesh) -> None:
    """So many connections of the app, so many captured, and none of the proxy's own, which may look for its rules."""
    before = mesh.a.counters()
    for number in range(20):
        mesh.a.curl(mesh.b.url(8080, f"/loop-{number}"), "-H", "Connection: close")
    grown = mesh.a.counters() - before
    assert grown["output: to outbound: all networks"] == 20
    assert set(grown) <= {
        "output: to outbound: all networks",
        "output: the sidecar's own",
        "output: the sidecar looks for these rules",
    }
    assert grown["output: the sidecar's own"] <= 20
