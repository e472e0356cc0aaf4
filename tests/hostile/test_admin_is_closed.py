"""CTL-5: who may talk to the admin listener, and how."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.hostile.coverage import covers
from tests.support.process import SidecarProcess
from tests.support.raw import Client, ask, parse_replies
from tests.support.upstream import RecordingUpstream


@pytest.fixture(scope="module")
def sidecar() -> Iterator[SidecarProcess]:
    addresses = ("--inbound", "127.0.0.1:0", "--outbound", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--scrape", "off")
    with RecordingUpstream() as upstream, SidecarProcess(upstream.port, addresses=addresses) as sidecar:
        yield sidecar


def _own_address() -> str:
    """An address of this machine that is not loopback. Connecting a UDP socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))
        return str(sock.getsockname()[0])


def _status(port: int, data: bytes, host: str = "127.0.0.1") -> int | None:
    """The reply's status, or None for a close without one."""
    with Client(port, host=host) as client:
        client.send(data)
        client.read_to_end()
        replies = parse_replies(client.heard.raw, (b"GET",), ended=True)
        return replies[0].status if replies else None


def _request(method: bytes, path: bytes, *lines: bytes, host: bytes = b"127.0.0.1") -> bytes:
    fields = b"".join(line + b"\r\n" for line in (*((b"Host: " + host,) if host else ()), *lines))
    return method + b" " + path + b" HTTP/1.1\r\n" + fields + b"Connection: close\r\n\r\n"


@covers("CTL-5")
@pytest.mark.parametrize("host", [b"127.0.0.1", b"localhost", b"[::1]", b"LOCALHOST:15000", b"127.0.0.1:15000"])
def test_a_loopback_name_is_let_in(sidecar: SidecarProcess, host: bytes) -> None:
    assert _status(sidecar.admin, _request(b"GET", b"/ready", host=host)) == 200


@covers("CTL-5")
@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "10.0.0.1:0"])
def test_it_can_not_be_put_on_another_address(address: str) -> None:
    """No flag opens it to other machines: such a start is refused, in words."""
    addresses = ("--inbound", "127.0.0.1:0", "--outbound", "127.0.0.1:0", "--admin", address, "--scrape", "off")
    with SidecarProcess(9, addresses=addresses, wait_ready=False) as sidecar:
        assert sidecar.wait_exit(10) == 2
        assert any(line.startswith("sidecar: error: --admin") for line in sidecar.errors), sidecar.errors


@covers("CTL-5")
@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"evil.example:15000",
        b"127.0.0.1.evil.example",
        b"localhost.evil.example",
        b"10.0.0.1",
        b"",
        b"0.0.0.0",
        b"127.0.0.1@evil.example",
        b"evil.example#127.0.0.1",
        b"[::ffff:10.0.0.1]",
        b"localhosts",
        b"2130706433",
    ],
)
def test_a_foreign_host_is_refused(sidecar: SidecarProcess, host: bytes) -> None:
    assert _status(sidecar.admin, _request(b"GET", b"/memory", host=host)) in (400, 403, 421)


@covers("CTL-5")
def test_two_hosts_are_refused(sidecar: SidecarProcess) -> None:
    assert _status(sidecar.admin, _request(b"GET", b"/memory", b"Host: evil.example")) in (400, 403, 421)


@covers("CTL-5")
@pytest.mark.parametrize(
    "line",
    [
        b"Origin: https://evil.example",
        b"Origin: null",
        b"Sec-Fetch-Site: cross-site",
        b"Sec-Fetch-Site: same-site",
        b"Origin: http://127.0.0.1.evil.example",
        b"Origin: http://localhost@evil.example",
        b"Origin: file://",
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_foreign_page_is_refused(sidecar: SidecarProcess, line: bytes, method: bytes) -> None:
    assert _status(sidecar.admin, _request(method, b"/quitquitquit", line)) == 403
    assert _status(sidecar.admin, _request(method, b"/memory", line)) == 403


@covers("CTL-5")
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"])
def test_a_mutation_by_another_method_is_refused(sidecar: SidecarProcess, method: bytes) -> None:
    with Client(sidecar.admin) as client:
        client.send(_request(method, b"/quitquitquit"))
        client.read_to_end()
        replies = parse_replies(client.heard.raw, (method,), ended=True)
    assert [reply.status for reply in replies] in ([405], [400], [501])
    assert sidecar.process.poll() is None


@covers("CTL-5")
@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET /ready\r\n\r\n",
        b"GET /ready HTTP/1.1\r\n\r\n",
        b"\x00" * 4096,
        b"A" * 100000,
        b"GET /ready HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100000 + b"\r\n\r\n",
        b"POST /quitquitquit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"
        b"Origin: null\r\n\r\n",
    ],
)
def test_garbage_is_refused_and_survived(sidecar: SidecarProcess, data: bytes) -> None:
    with Client(sidecar.admin) as client:
        client.send(data)
        client.finish()
        client.read_to_end()
        assert client.heard.end in ("eof", "reset")
        assert not client.heard.raw or client.heard.raw.startswith(b"HTTP/1.1 4")
    assert _status(sidecar.admin, _request(b"GET", b"/ready")) == 200


@covers("CTL-5")
def test_by_default_it_is_on_loopback_alone() -> None:
    with (
        RecordingUpstream() as upstream,
        SidecarProcess(
            upstream.port, addresses=("--inbound", "127.0.0.1:0", "--outbound", "0", "--admin", "0", "--scrape", "off")
        ) as sidecar,
    ):
        own = _own_address()
        for port in (sidecar.admin, sidecar.outbound):
            with pytest.raises(OSError):
                socket.create_connection((own, port), timeout=5).close()
        assert ask(sidecar.admin, _request(b"GET", b"/live"))[0].status == 200
