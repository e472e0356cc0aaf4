"""What the proxy does with captured connections beyond passing them on: what it refuses, where it dials, when it ends.

Self-loops are CTL-6: those that need no rules are in tests/hostile/test_self_loops.py.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns.conftest import MakePod
from tests.netns.environment import APP_ID, PROXY_ID
from tests.netns.pod import Pod
from tests.support.upstream import wait_until

FAMILIES = pytest.mark.parametrize("family", ["v4", "v6"])


def authority(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


EXPLICIT = ("--noproxy", "", "-x", "http://127.0.0.1:15001")


def told_of(pod: Pod, client: socket.socket) -> dict[str, Any]:
    """The record of this connection."""
    return pod.record(client=authority(*client.getsockname()[:2]))


def told_of_reset(pod: Pod, host: str, port: int, uid: int = APP_ID) -> dict[str, Any]:
    """The record of a connection from the pod to itself that has to be reset: at once, or at its first bytes."""
    with pod.make_socket(socket.AF_INET6 if ":" in host else socket.AF_INET, uid) as client:
        client.settimeout(10)
        client.bind((host, 0))
        ours = authority(*client.getsockname()[:2])
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.connect((host, port))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(1000) == b"never"
    return pod.record(client=ours)


def exchanged(client: socket.socket, data: bytes) -> bytes | str:
    """The first of what comes back, or "reset"."""
    try:
        client.sendall(data)
        return client.recv(1000)
    except (ConnectionResetError, BrokenPipeError):
        return "reset"


@pytest.fixture(scope="module")
def pods(keep_pod: MakePod) -> Iterator[tuple[Pod, Pod]]:
    """One that is captured, and one that knows of no mesh; an app on 8080 in both."""
    a, other = keep_pod("a"), keep_pod("other")
    a.init()
    for pod in (a, other):
        pod.web(8080)
    a.sidecar()
    yield a, other
    a.proxy.kill()


# -- CTL-6: nothing goes round -----------------------------------------------------------------------------------------


@FAMILIES
@pytest.mark.parametrize("port", [15005, 15001, 15020])
def test_ctl_6_an_app_that_calls_a_listener_of_ours_by_the_pods_address(
    pods: tuple[Pod, Pod], family: str, port: int
) -> None:
    """Only the reserved port is led here; and the explicit proxy, which would be asked in vain, refuses all three."""
    a, _ = pods
    here = getattr(a, family)
    if port == 15005:
        record = told_of_reset(a, here, port)
    else:
        path = f"/loop-{family}-{port}"
        assert status(a, *EXPLICIT, f"http://{authority(here, port)}{path}") == "403"
        record = a.record(path=path)
    assert (record["response_code_details"], record["direction"]) == ("own_listener", "outbound")


@FAMILIES
def test_ctl_6_what_the_proxy_itself_would_send_to_its_inbound_port(pods: tuple[Pod, Pod], family: str) -> None:
    a, _ = pods
    record = told_of_reset(a, getattr(a, family), 15006, PROXY_ID)
    assert (record["response_code_details"], record["direction"]) == ("not_redirected", "inbound")


@pytest.mark.parametrize("loopback", ["127.0.0.1", "::1"])
def test_a_connection_made_to_the_inbound_port_itself(pods: tuple[Pod, Pod], loopback: str) -> None:
    a, _ = pods
    assert told_of_reset(a, loopback, 15006)["response_code_details"] == "not_redirected"
    counted = {name: value for name, value in a.metrics().items() if 'reason="not_redirected"' in name}
    assert sum(counted.values()) >= 1, counted


@pytest.mark.parametrize(("family", "foreign"), [("v4", "198.51.100.7/32"), ("v6", "2001:db8::7/128")])
def test_what_was_addressed_to_another_host_is_refused(pods: tuple[Pod, Pod], family: str, foreign: str) -> None:
    """A neighbour may send what it likes to this pod's door: it does not become a way to others."""
    a, other = pods
    other.run("ip", "route", "replace", foreign, "via", getattr(a, family))
    with other.make_socket(socket.AF_INET6 if family == "v6" else socket.AF_INET) as client:
        client.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            client.connect((foreign.partition("/")[0], 8080))
            assert exchanged(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") in ("reset", b"")
        record = told_of(a, client)
    assert (record["response_code_details"], record["direction"]) == ("not_this_pod", "inbound")
    other.run("ip", "route", "del", foreign)


# -- where it dials ----------------------------------------------------------------------------------------------------


@FAMILIES
def test_a_port_that_is_bound_to_loopback_stays_private(pods: tuple[Pod, Pod], family: str) -> None:
    a, other = pods
    with a.listen(9000, host="127.0.0.1"), a.listen(9000, host="::1"):
        url = a.url(9000, f"/private-{family}", family)
        assert other.curl("-o", "/dev/null", "-w", "%{http_code}", url) == "503"
    record = a.record(path=f"/private-{family}")
    assert (record["response_flags"], record["upstream_host"]) == ("UF", authority(getattr(a, family), 9000))


def test_a_request_that_names_another_place_goes_where_its_connection_went(pods: tuple[Pod, Pod]) -> None:
    a, other = pods
    a.curl("-H", "Host: 192.0.2.1", other.url(8080, "/elsewhere"))
    record = a.record(path="/elsewhere")
    assert record["authority"] == "192.0.2.1" and record["authority_differs"] is True
    assert record["original_destination"] == record["upstream_host"] == f"{other.v4}:8080"
    assert record["upstream_cluster"] == "PassthroughCluster"
    story = a.get(f"/explain/{record['request_id']}")[1]
    assert "another address" in story


def test_captured_connections_are_counted_and_inbound_says_when_it_saw_one(pods: tuple[Pod, Pod]) -> None:
    a, other = pods
    before = a.metrics()
    other.curl(a.url(8080, "/in"))
    a.curl(other.url(8080, "/out"))
    after = a.metrics()
    for direction in ("inbound", "outbound"):
        name = f'sidecar_captured_connections_total{{direction="{direction}"}}'
        assert after[name] == before[name] + 1
    seen = "sidecar_interception_inbound_last_seen_timestamp_seconds"
    assert after[seen] > before[seen]


# -- REGISTRY_ONLY -----------------------------------------------------------------------------------------------------


def hello(name: str) -> bytes:
    """A ClientHello with this server name (RFC 6066 section 3)."""
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(into, out, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


@pytest.fixture(scope="module")
def closed(keep_pod: MakePod) -> Iterator[tuple[Pod, Pod, Pod]]:
    """One that may call the second at 8080 by name and by its IPv4 address at 9090; and a third, which it may not."""
    a, allowed, barred = keep_pod("closed"), keep_pod("allowed"), keep_pod("barred")
    hosts = a.directory / "hosts"
    hosts.write_text(f"{allowed.v4} friend.test\n{allowed.v6} friend.test\n")
    hosts.chmod(0o644)
    a.run("mount", "--bind", str(hosts), "/etc/hosts")
    for pod in (allowed, barred):
        pod.web(8080)
    a.init()
    by_address = f"{allowed.v4}:9090"
    a.sidecar("--outbound-policy", "REGISTRY_ONLY", "--allow-host", "friend.test:8080", "--allow-host", by_address)
    yield a, allowed, barred
    a.proxy.kill()


def status(pod: Pod, *arguments: str) -> str:
    return pod.curl("-o", "/dev/null", "-w", "%{http_code}", *arguments)


@FAMILIES
def test_http_needs_an_allowed_name_that_leads_there(closed: tuple[Pod, Pod, Pod], family: str) -> None:
    a, allowed, barred = closed
    host = ("-H", "Host: friend.test:8080")
    assert status(a, *host, allowed.url(8080, "/good", family)) == "200"
    assert status(a, *host, barred.url(8080, f"/lying-{family}", family)) == "502"
    assert status(a, allowed.url(8080, "/unnamed", family)) == "502"
    record = a.record(path=f"/lying-{family}")
    assert (record["response_flags"], record["response_code_details"]) == ("NR", "black_hole")
    assert (record["upstream_cluster"], record["attempts"]) == ("BlackHoleCluster", 0)
    assert record["upstream_host"] is None


def test_the_explicit_proxy_obeys_as_well(closed: tuple[Pod, Pod, Pod]) -> None:
    a, allowed, barred = closed
    assert status(a, *EXPLICIT, "http://friend.test:8080/") == "200"
    assert status(a, *EXPLICIT, barred.url(8080)) == "502"
    assert status(a, *EXPLICIT, allowed.url(8080)) == "502"  # the name is allowed, and nobody said it
    refused = a.curl(*EXPLICIT, "-p", "-o", "/dev/null", "-w", "%{http_connect}", barred.url(8080), code=None)
    assert refused.startswith("502"), refused


def test_bytes_without_a_name_are_allowed_by_address_alone(closed: tuple[Pod, Pod, Pod]) -> None:
    a, allowed, barred = closed
    with allowed.listen(9090) as listener, a.connect(allowed.v4, 9090) as client:
        client.sendall(b"\x00\x01\x02\x03 opaque")
        listener.settimeout(10)
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(10)
            assert accepted.recv(100).startswith(b"\x00\x01")
    for pod, port in ((allowed, 8080), (barred, 9090)):
        with a.connect(pod.v4, port) as client:
            assert exchanged(client, b"\x00\x01\x02\x03 opaque") == "reset"


def test_tls_needs_an_allowed_name_that_leads_there(closed: tuple[Pod, Pod, Pod]) -> None:
    a, allowed, barred = closed
    for pod, name in ((barred, "friend.test"), (allowed, "other.test")):
        with a.connect(pod.v4, 8080) as client:
            assert exchanged(client, hello(name)) == "reset"
    with a.connect(allowed.v4, 8080) as client:
        client.sendall(hello("friend.test"))
        client.shutdown(socket.SHUT_WR)
        record = told_of(a, client)
    assert (record["requested_server_name"], record["attempts"]) == ("friend.test", 1)
    assert record["original_destination"] == f"{allowed.v4}:8080"


# -- the end -----------------------------------------------------------------------------------------------------------


def test_outbound_serves_until_the_app_is_gone(make_pod: MakePod) -> None:
    a, other = make_pod("a"), make_pod("other")
    other.web(8080)
    a.init()
    app = a.web(8080)
    proxy = a.sidecar("--drain-seconds", "30s")
    other.curl(a.url(8080))
    proxy.signal(signal.SIGTERM)
    wait_until(lambda: a.get("/ready")[0] == 503, "it drains")
    wait_until(lambda: "(drained)" in a.get("/listeners")[1], "inbound has closed")
    other.curl(a.url(8080), code=7)
    assert status(a, other.url(8080)) == "200"  # its last words
    app.kill()
    assert proxy.wait(10) == 0
    proxy.check_errors()


def test_an_app_that_was_never_seen_to_listen_is_waited_for_by_what_it_sends(make_pod: MakePod) -> None:
    """And what somebody outside tries at the reserved port is no app."""
    a, other = make_pod("a"), make_pod("other")
    other.web(8080)
    a.init()
    proxy = a.sidecar("--drain-seconds", "60s")
    for host in a.addresses:
        with contextlib.suppress(ConnectionResetError):
            other.connect(host, 15005).close()
        refused = a.record(original_destination=authority(host, 15005))
        assert (refused["response_code_details"], refused["direction"]) == ("own_listener", "inbound")
    with other.listen(9090) as listener, a.connect(other.v4, 9090) as client:
        client.sendall(b"\x00\x01 a batch")
        listener.settimeout(10)
        accepted, _ = listener.accept()
        with accepted:
            proxy.signal(signal.SIGTERM)
            wait_until(lambda: "(drained)" in a.get("/listeners")[1], "inbound has closed")
            assert status(a, other.url(8080)) == "200"  # while it sends anything it may begin more
            client.close()
    assert proxy.wait(10) == 0
    proxy.check_errors()
