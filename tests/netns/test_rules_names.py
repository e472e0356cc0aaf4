"""DNS flags: whose queries are led to port 15053, and that the two legs of a query are never taken for one."""

from __future__ import annotations

import socket

import pytest

from tests.netns.conftest import MakePod
from tests.netns.environment import APP_ID, PROXY_ID
from tests.netns.pod import Pod
from tests.netns.standins import FAMILIES, address

LOOPBACK = {"v4": "127.0.0.1", "v6": "::1"}


def udp(pod: Pod, host: str, port: int, uid: int = APP_ID) -> socket.socket:
    """A datagram socket bound to an address."""
    sock = pod.make_socket(socket.AF_INET6 if ":" in host else socket.AF_INET, uid, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.settimeout(5)
    sock.bind((host, port))
    return sock


def answer(server: socket.socket, name: bytes) -> None:
    """Answers one query with the server's name."""
    _, client = server.recvfrom(100)
    server.sendto(name, client)


@pytest.fixture
def pods(make_pod: MakePod) -> tuple[Pod, Pod]:
    pod, resolver = make_pod("pod"), make_pod("resolver")
    pod.resolvers(resolver.v4, resolver.v6)
    return pod, resolver


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flag", ["--redirect-dns", "--capture-all-dns"])
def test_the_two_legs_of_a_query_from_one_port(pods: tuple[Pod, Pod], flag: str, family: str) -> None:
    pod, resolver = pods
    pod.init(flag)
    here, there = address(pod, family), (address(resolver, family), 53)
    with (
        udp(resolver, there[0], 53, 0) as real,
        udp(pod, LOOPBACK[family], 15053, PROXY_ID) as ours,
    ):
        with udp(pod, here, 33333) as app:
            app.connect(there)
            app.send(b"?")
            answer(ours, b"sidecar")
            assert app.recv(100) == b"sidecar"
        with udp(pod, here, 33333, PROXY_ID) as upstream:
            upstream.connect(there)
            upstream.send(b"?")
            answer(real, b"resolver")
            assert upstream.recv(100) == b"resolver"
    counted = pod.counters()
    assert counted["zones: the app's queries"] == 1
    assert counted["zones: answers"] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_resolvers_unless_all_are_asked_for(pods: tuple[Pod, Pod], make_pod: MakePod, family: str) -> None:
    pod, _ = pods
    other = make_pod("other")
    there = (address(other, family), 53)
    with (
        udp(other, there[0], 53, 0) as real,
        udp(pod, LOOPBACK[family], 15053, PROXY_ID) as ours,
        udp(pod, address(pod, family), 0) as first,
        udp(pod, address(pod, family), 0) as second,
    ):
        pod.init("--redirect-dns")
        first.sendto(b"?", there)
        answer(real, b"other")
        assert first.recv(100) == b"other"
        pod.init("--capture-all-dns")
        second.sendto(b"?", there)
        answer(ours, b"sidecar")
        assert second.recvfrom(100)[0] == b"sidecar"


@pytest.mark.parametrize("family", FAMILIES)
def test_queries_over_tcp(pods: tuple[Pod, Pod], family: str) -> None:
    pod, resolver = pods
    pod.init("--redirect-dns")
    there = address(resolver, family)
    kind = socket.AF_INET6 if family == "v6" else socket.AF_INET
    with pod.make_socket(kind, PROXY_ID) as listener:
        listener.settimeout(5)
        listener.bind((LOOPBACK[family], 15053))
        listener.listen()
        for host, port in ((there, 53), (LOOPBACK[family], 15053)):
            with pod.connect(host, port) as client:
                accepted, _ = listener.accept()
                with accepted:
                    accepted.sendall(b"sidecar")
                assert client.recv(100) == b"sidecar"
                assert client.recv(100) == b""


def test_a_user_whose_queries_are_left_alone(pods: tuple[Pod, Pod]) -> None:
    pod, resolver = pods
    pod.init("--redirect-dns", "--exclude-uid-ports", f"{APP_ID}:53")
    with udp(resolver, resolver.v4, 53, 0) as real, udp(pod, pod.v4, 0) as app:
        app.sendto(b"?", (resolver.v4, 53))
        answer(real, b"resolver")
        assert app.recv(100) == b"resolver"


def test_without_a_resolver_nothing_is_installed(make_pod: MakePod) -> None:
    pod = make_pod("pod")
    assert "/etc/resolv.conf names no resolver" in pod.init("--redirect-dns", code=2)
    assert pod.run("nft", "list", "ruleset") == ""
