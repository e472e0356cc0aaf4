"""The explicit proxy for the app's own calls: absolute form and CONNECT, and whom it refuses."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from sidecar.http.timeouts import Timeouts
from sidecar.net.connection import Connection
from sidecar.net.resolve import Resolver
from sidecar.net.splice_pipes import Pipes
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.outbound import Outbound
from sidecar.telemetry.memory import MemoryGuard
from sidecar.telemetry.telemetry import Telemetry
from tests.proxy.front import Front
from tests.proxy.tlspeer import TlsEcho, tls_over
from tests.support.ports import held_port
from tests.support.raw import DEADLINE, Client, Reply, ask, parse_replies
from tests.support.upstream import RecordingUpstream, ok, send


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with Front({"plain": (send(ok()),)}) as running:
        yield running


@pytest.fixture(scope="module")
def other() -> Iterator[RecordingUpstream]:
    """Somebody else than the app, whom the app calls."""
    with RecordingUpstream({"greets": ()}) as running:
        yield running


def _get(front: Front, url: bytes, *, host: bytes = b"", deadline: float = DEADLINE) -> Reply:
    authority = host or url.split(b"/")[2]
    head = b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (url, authority)
    (reply,) = ask(front.sidecar.outbound, head, deadline=deadline)
    return reply


def _connect(client: Client, authority: bytes) -> Reply:
    client.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority))
    (reply,) = client.replies((b"CONNECT",), 1)
    client.heard.raw.clear()
    return reply


# -- absolute form -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"127.0.0.1", b"localhost", b"LOCALHOST"])
def test_absolute_form(front: Front, other: RecordingUpstream, name: bytes) -> None:
    path = b"/absolute/" + name
    reply = _get(front, b"http://%b:%d%b" % (name, other.port, path))
    assert (reply.status, reply.body) == (200, b"GET %b 0" % path)
    (request,) = [r for c in other.connections for r in c.requests if r.target == path]
    assert request.host == b"%b:%d" % (name, other.port)
    assert not request.get(b"x-forwarded-for")
    record = front.record(path)
    assert (record["direction"], record["upstream_host"]) == ("outbound", f"127.0.0.1:{other.port}")


def test_one_connection_to_several_destinations(front: Front, other: RecordingUpstream) -> None:
    with Client(front.sidecar.outbound) as client:
        for number, port in enumerate((other.port, front.app.port, other.port)):
            client.send(
                b"GET http://127.0.0.1:%d/several/%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (port, number, port)
            )
            client.replies((b"GET",) * 3, number + 1)
        replies = client.replies((b"GET",) * 3, 3)
    assert [reply.status for reply in replies] == [200] * 3
    assert front.times_seen(b"/several/1") == 1
    found = [r for c in other.connections for r in c.requests if r.target.startswith(b"/several/")]
    assert [request.target for request in found] == [b"/several/0", b"/several/2"]
    assert found[0].connection == found[1].connection


def test_ipv6_literal(front: Front) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener, Client(front.sidecar.outbound) as client:
        port = listener.getsockname()[1]
        client.send(b"GET http://[::1]:%d/v6 HTTP/1.1\r\nHost: [::1]:%d\r\n\r\n" % (port, port))
        connection, _ = listener.accept()
        with connection:
            assert b"\r\nhost: [::1]:%d\r\n" % port in connection.recv(4096)
            connection.sendall(ok())
            assert client.replies((b"GET",), 1)[0].status == 200
    assert front.record(b"/v6")["upstream_host"] == f"[::1]:{port}"


def test_origin_form_has_no_route(front: Front) -> None:
    (reply,) = ask(front.sidecar.outbound, b"GET /origin-form HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
    problem = json.loads(reply.body)
    assert (reply.status, problem["flag"]) == (404, "NR")
    assert "proxy" in problem["detail"]
    assert front.record(b"/origin-form")["response_flags"] == "NR"


def test_destination_that_is_not_there(front: Front) -> None:
    with held_port() as gone:
        reply = _get(front, b"http://127.0.0.1:%d/not-there" % gone)
    assert (reply.status, json.loads(reply.body)["flag"]) == (503, "UF")


@pytest.mark.parametrize("url", [b"https://127.0.0.1/x", b"ftp://127.0.0.1/x", b"http:///x", b"http://a b/x"])
def test_urls_that_are_none(front: Front, url: bytes) -> None:
    assert _get(front, url, host=b"127.0.0.1").status == 400


# -- CONNECT -----------------------------------------------------------------------------------------------------------


def test_http_within_connect_is_seen_request_by_request(front: Front, other: RecordingUpstream) -> None:
    with Client(front.sidecar.outbound) as client:
        assert _connect(client, b"127.0.0.1:%d" % other.port).status == 200
        for number in (1, 2):
            client.send(b"GET /within/%d HTTP/1.1\r\nHost: named\r\n\r\n" % number)
            assert client.replies((b"GET",) * 2, number)[-1].body == b"GET /within/%d 0" % number
    for number in (1, 2):
        record = front.record(b"/within/%d" % number)
        assert (record["direction"], record["authority"], record["response_code"]) == ("outbound", "named", 200)
        assert record["upstream_host"] == f"127.0.0.1:{other.port}"


def test_bytes_behind_connect_are_the_tunnels(front: Front, other: RecordingUpstream) -> None:
    """A client in a hurry need not wait for the 200."""
    authority = b"127.0.0.1:%d" % other.port
    with Client(front.sidecar.outbound) as client:
        client.send(
            b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\nGET /hurry HTTP/1.1\r\nHost: x\r\n\r\n" % (authority, authority)
        )
        client.read_until(lambda raw: raw.endswith(b"GET /hurry 0"))
        assert client.heard.raw.startswith(b"HTTP/1.1 200 ")
    assert front.record(b"/hurry")["response_code"] == 200


def test_tls_within_connect(front: Front) -> None:
    with TlsEcho() as echo, Client(front.sidecar.outbound) as client:
        authority = b"localhost:%d" % echo.port
        assert _connect(client, authority).status == 200
        with tls_over(client.sock, "shop.example") as secure:
            secure.sendall(b"hello")
            assert secure.recv(100) == b"HELLO"
    record = front.record(authority)
    assert (record["method"], record["response_code"]) == ("CONNECT", 200)
    assert record["requested_server_name"] == "shop.example"
    assert record["bytes_received"] > 5
    assert record["bytes_sent"] > 5


def test_server_that_speaks_first_within_connect(front: Front) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Client(front.sidecar.outbound) as client:
        assert _connect(client, b"127.0.0.1:%d" % listener.getsockname()[1]).status == 200
        server, _ = listener.accept()
        with server:
            server.sendall(b"220 ready\r\n")
            client.read_until(lambda raw: raw.endswith(b"\r\n"))
            assert client.heard.raw == b"220 ready\r\n"
            client.send(b"QUIT\r\n")
            assert server.recv(100) == b"QUIT\r\n"
            server.shutdown(socket.SHUT_WR)
            client.read_to_end()
            assert client.heard.end == "eof"
            client.send(b"still here")
            assert server.recv(100) == b"still here"
            client.finish()
            assert server.recv(100) == b""


@pytest.mark.parametrize("authority", [b"127.0.0.1", b"127.0.0.1:0", b"127.0.0.1:99999", b"/path", b"u@127.0.0.1:80"])
def test_connect_to_what_is_no_destination(front: Front, authority: bytes) -> None:
    with Client(front.sidecar.outbound) as client:
        assert _connect(client, authority).status == 400


def test_connect_to_what_is_not_there(front: Front) -> None:
    with held_port() as gone, Client(front.sidecar.outbound) as client:
        assert _connect(client, b"127.0.0.1:%d" % gone).status == 503


def test_no_proxy_request_within_a_tunnel(front: Front, other: RecordingUpstream) -> None:
    with Client(front.sidecar.outbound) as client:
        _connect(client, b"127.0.0.1:%d" % other.port)
        client.send(b"GET http://127.0.0.1:%d/nested HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (other.port, other.port))
        assert client.replies((b"GET",), 1)[0].status == 405


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", [b"127.0.0.1", b"localhost", b"[::1]", b"0.0.0.0", b"127.9.9.9", b"[::ffff:127.0.0.1]"]
)
@pytest.mark.parametrize("listener", ["inbound", "outbound", "admin"])
def test_own_listeners_are_refused(front: Front, listener: str, host: bytes) -> None:
    authority = b"%b:%d" % (host, front.sidecar.ports[listener])
    reply = _get(front, b"http://%b/own" % authority)
    assert (reply.status, json.loads(reply.body)["reason"]) == (403, "own_listener")
    with Client(front.sidecar.outbound) as client:
        assert _connect(client, authority).status == 403


@pytest.mark.parametrize("peer", ["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", "fe80::1%eth0"])
@pytest.mark.parametrize(
    "method", [b"GET http://127.0.0.1:%d/stranger", b"CONNECT 127.0.0.1:%d"], ids=["get", "connect"]
)
async def test_only_loopback_clients_are_served(
    other: RecordingUpstream, tmp_path: Path, method: bytes, peer: str
) -> None:
    """The command binds this port to loopback only; were it ever bound elsewhere, strangers would be refused still."""
    log = tmp_path / "log"
    context = _context(log)
    theirs, ours = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        theirs.settimeout(5)
        theirs.sendall(method % other.port + b" HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % other.port)
        theirs.shutdown(socket.SHUT_WR)
        with trio.fail_after(5):
            await Outbound(context).serve(Connection(ours, peer, context.connections), peer)
        (reply,) = parse_replies(theirs.recv(65536), (b"GET",), ended=True)
    assert (reply.status, reply.closes) == (403, True)
    assert not any(request.target == b"/stranger" for c in other.connections for request in c.requests)
    assert context.telemetry.close(5)
    assert json.loads(log.read_text())["response_flags"] == "UAEX"


def _context(log: Path) -> ProxyContext:
    return ProxyContext(
        timeouts=Timeouts(request_head=5, idle=5, stream_idle=5, body_min_rate=240, body_min_window=30, max_body=0),
        connect_timeout=5.0,
        pool_idle=5.0,
        max_pool=8,
        max_waiting=8,
        trusted_proxies=(),
        via=False,
        telemetry=Telemetry("json", str(log)),
        overload=MemoryGuard(0),
        resolver=Resolver(),
        pipes=Pipes(),
    )
