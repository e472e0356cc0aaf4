"""Every flag, both families: what is captured and what is left alone, by real connections and the rules' own counters.

Listeners stand in for the sidecar: they tell whom a connection was meant for. ``pod`` has the rules, ``peer`` has none.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.netns.conftest import MakePod
from tests.netns.environment import APP_ID, PROXY_ID
from tests.netns.pod import Pod
from tests.netns.standins import FAMILIES, Doors, address, doors

OTHER_ID = 998
PORTS = (443, 7000, 8080, 8443, 9050, 15000, 15020, 15021)


@dataclass(frozen=True)
class Place:
    """The two pods, and all doors of both."""

    pod: Pod
    peer: Pod
    doors: Doors

    def call(self, caller: Pod, host: str, port: int, uid: int = APP_ID, source: str = "") -> tuple[str, str, int]:
        """Where a connection ends up."""
        with caller.make_socket(socket.AF_INET6 if ":" in host else socket.AF_INET, uid) as client:
            client.settimeout(5)
            if source:
                client.bind((source, 0))
            client.connect((host, port))
            return self.doors.where()


@pytest.fixture(scope="module")
def place(keep_pod: MakePod) -> Iterator[Place]:
    pod, peer = keep_pod("pod"), keep_pod("peer")
    with doors() as opened:
        opened.sidecar(pod)
        opened.open("outbound 15101", pod, 15101, uid=PROXY_ID)
        opened.open("inbound 15106", pod, 15106, uid=PROXY_ID)
        for port in PORTS:
            opened.open("app", pod, port)
            opened.open("peer", peer, port)
        yield Place(pod, peer, opened)


# flags ("{4}" and "{6}" are the peer's addresses), then what the app's connections to the peer meet, by port
OUTBOUND = [
    ("", {8080: "outbound", 443: "outbound", 15020: "outbound"}),
    ("-p 15101", {8080: "outbound 15101"}),
    ("-q 443 -i none", {443: "outbound", 8080: "peer"}),
    ("-q 443,9000-9100 -i none", {443: "outbound", 9050: "outbound", 8080: "peer"}),
    ("-q 443 -x {4},{6}", {443: "outbound", 8080: "peer"}),
    ("-o 443", {443: "peer", 8080: "outbound"}),
    ("-o 443,8000-8100", {443: "peer", 8080: "peer", 8443: "outbound"}),
    ("-o 8080 -q 8080", {8080: "peer", 443: "outbound"}),
    ("-x {4},{6}", {8080: "peer"}),
    ("-x 10.64.0.0/10,fd00::/9", {8080: "peer"}),
    ("-x 10.128.0.0/9,fe00::/9", {8080: "outbound"}),
    ("-i {4},{6}", {8080: "outbound"}),
    ("-i 10.0.0.0/8,fc00::/7 -x {4},{6}", {8080: "peer"}),
    ("-i 192.0.2.0/24,2001:db8::/32", {8080: "peer"}),
    ("-i none", {8080: "peer"}),
    (f"--exclude-uid-ports {APP_ID}:8080", {8080: "peer", 443: "outbound"}),
    (f"--exclude-uid-ports {APP_ID}:443,8000-8100;{OTHER_ID}:9050", {8080: "peer", 443: "peer", 9050: "outbound"}),
    (f"--exclude-uid-ports {OTHER_ID}:8080", {8080: "outbound"}),
    ("-c eth0", {8080: "peer"}),
    ("-c eth1,eth0", {8080: "peer"}),
    ("-c eth1", {8080: "outbound"}),
    (f"-u {APP_ID} -g none", {8080: "peer"}),
    (f"-u {OTHER_ID},{APP_ID} -g none", {8080: "peer"}),
    (f"-u 4242 -g {APP_ID}", {8080: "peer"}),
    (f"-u 4242 -g {OTHER_ID},{APP_ID}", {8080: "peer"}),
    (f"-u {OTHER_ID} -g {OTHER_ID}", {8080: "outbound"}),
]

# flags, then what the peer's connections to the pod meet, by port
INBOUND = [
    ("", {8080: "inbound", 443: "inbound", 15000: "app", 15020: "app", 15021: "app", 15001: "inbound"}),
    ("-z 15106", {8080: "inbound 15106"}),
    ("-b 8080", {8080: "inbound", 443: "app"}),
    ("-b 443,9000-9100", {443: "inbound", 9050: "inbound", 8080: "app"}),
    ("-b none", {8080: "app"}),
    ("-d 443", {443: "app", 8080: "inbound"}),
    ("-d 443,8000-8100", {443: "app", 8080: "app", 8443: "inbound", 15020: "app"}),
    ("-b 8000-8100 -d 8080", {8080: "app"}),
    ("-c eth0", {8080: "app"}),
    ("-c eth0,eth1", {8080: "app"}),
    ("-c eth1", {8080: "inbound"}),
]


@pytest.mark.parametrize(("flags", "met"), OUTBOUND, ids=[flags for flags, _ in OUTBOUND])
def test_what_the_app_sends(place: Place, flags: str, met: dict[int, str]) -> None:
    place.pod.init(*flags.replace("{4}", place.peer.v4).replace("{6}", place.peer.v6).split())
    for family in FAMILIES:
        for port, door in met.items():
            host = address(place.peer, family)
            assert place.call(place.pod, host, port) == (door, host, port)


@pytest.mark.parametrize(("flags", "met"), INBOUND, ids=[flags for flags, _ in INBOUND])
def test_what_is_sent_to_the_pod(place: Place, flags: str, met: dict[int, str]) -> None:
    place.pod.init(*flags.split())
    for family in FAMILIES:
        for port, door in met.items():
            host = address(place.pod, family)
            assert place.call(place.peer, host, port) == (door, host, port)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sidecar_never_meets_itself_by_its_own_calls(place: Place, family: str) -> None:
    place.pod.init()
    host = address(place.peer, family)
    before = place.pod.counters()
    assert place.call(place.pod, host, 8080, PROXY_ID) == ("peer", host, 8080)
    assert (place.pod.counters() - before)["output: the sidecar's own"] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_app_reaches_itself(place: Place, family: str) -> None:
    place.pod.init()
    before = place.pod.counters()
    for host in (address(place.pod, family), {"v4": "127.0.0.1", "v6": "::1"}[family]):
        assert place.call(place.pod, host, 8080) == ("app", host, 8080)
    assert place.pod.counters() - before == {"output: the app to this pod": 2}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_app_by_its_service_meets_inbound(place: Place, family: str) -> None:
    place.pod.init("-d", "443")
    host = address(place.pod, family)
    assert place.call(place.pod, host, 8080, PROXY_ID) == ("inbound", host, 8080)
    assert place.call(place.pod, host, 443, PROXY_ID) == ("app", host, 443)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sidecar_to_loopback_is_left_alone(place: Place, family: str) -> None:
    place.pod.init()
    host = {"v4": "127.0.0.1", "v6": "::1"}[family]
    assert place.call(place.pod, host, 8080, PROXY_ID) == ("app", host, 8080)


@pytest.mark.parametrize("family", FAMILIES)
def test_inbound_reaches_the_app_from_its_own_address(place: Place, family: str) -> None:
    place.pod.init()
    host, source = address(place.pod, family), {"v4": "127.0.0.6", "v6": "::6"}[family]
    before = place.pod.counters()
    assert place.call(place.pod, host, 8080, PROXY_ID, source) == ("app", host, 8080)
    assert place.pod.counters() - before == {"output: inbound to the app": 1}


@pytest.mark.parametrize("uid", [PROXY_ID, APP_ID])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_reserved_port_leads_to_outbound(place: Place, family: str, uid: int) -> None:
    place.pod.init()
    host = address(place.pod, family)
    assert place.call(place.pod, host, 15005, uid) == ("outbound", host, 15005)


@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams_are_left_alone(place: Place, family: str) -> None:
    place.pod.init()
    kind = socket.AF_INET if family == "v4" else socket.AF_INET6
    here, there = address(place.pod, family), address(place.peer, family)
    for sender, receiver, host in ((place.pod, place.peer, there), (place.peer, place.pod, here)):
        with (
            receiver.make_socket(kind, kind=socket.SOCK_DGRAM) as listener,
            sender.make_socket(kind, kind=socket.SOCK_DGRAM) as client,
        ):
            listener.bind((host, 8080))
            listener.settimeout(5)
            client.sendto(b"as it was", (host, 8080))
            assert listener.recv(100) == b"as it was"


def test_ipv6_that_is_off_is_dropped_where_it_would_be_captured(place: Place) -> None:
    place.pod.init("--ipv6", "off", "-o", "443", "-d", "443")
    for caller, called in ((place.pod, place.peer), (place.peer, place.pod)):
        with pytest.raises(TimeoutError):
            caller.connect(called.v6, 8080, deadline=0.3)
    counted = place.pod.counters()
    assert counted["refused_output: to outbound: all networks"] >= 1
    assert counted["refused_prerouting: to inbound: all ports"] >= 1
    assert place.call(place.pod, place.peer.v6, 443) == ("peer", place.peer.v6, 443)
    assert place.call(place.peer, place.pod.v6, 443) == ("app", place.pod.v6, 443)
    assert place.call(place.pod, place.pod.v6, 8080) == ("app", place.pod.v6, 8080)
    assert place.call(place.pod, place.pod.v6, 15005) == ("outbound", place.pod.v6, 15005)
    assert place.call(place.pod, place.peer.v4, 8080) == ("outbound", place.peer.v4, 8080)
    assert place.call(place.peer, place.pod.v4, 8080) == ("inbound", place.pod.v4, 8080)


def test_packets_of_no_connection_are_dropped_where_that_is_asked_for(place: Place) -> None:
    place.pod.init("--drop-invalid")
    source, target = socket.inet_aton(place.peer.v4), socket.inet_aton(place.pod.v4)
    with place.peer.make_socket(socket.AF_INET, 0, socket.SOCK_DGRAM) as client:
        client.bind((place.peer.v4, 0))
    place.peer.run("python3", "-c", _RESET.format(source=source, target=target, host=place.pod.v4))
    assert place.pod.counters()["invalid: of no connection"] == 1
    assert place.call(place.peer, place.pod.v4, 8080) == ("inbound", place.pod.v4, 8080)


_RESET = """
import socket, struct
segment = struct.pack("!HHIIBBHHH", 40000, 8080, 1, 1, 5 << 4, 0x14, 1024, 0, 0)
pseudo = {source!r} + {target!r} + struct.pack("!BBH", 0, 6, len(segment))
total = sum(struct.unpack("!%dH" % (len(pseudo + segment) // 2), pseudo + segment))
total = (total & 0xFFFF) + (total >> 16)
total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
segment = segment[:16] + struct.pack("!H", total) + segment[18:]
socket.socket(socket.AF_INET, socket.SOCK_RAW, 6).sendto(segment, ("{host}", 0))
"""
