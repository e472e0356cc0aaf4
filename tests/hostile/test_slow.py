"""Peers that are slow, or silent, or stop in the middle: every phase has an end, and others are not delayed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.hostile.conftest import PROTOCOLS
from tests.hostile.coverage import covers
from tests.hostile.rig import Rig, head_close
from tests.support.raw import Client, ask, parse_replies
from tests.support.tls import client_hello
from tests.support.upstream import Connection, Step, hold, ok, wait_until

_SECOND = (
    "--request-head-timeout",
    "1s",
    "--stream-idle-timeout",
    "1s",
    "--idle-timeout",
    "3s",
    "--body-min-rate",
    "240/1",
)
_LARGE = 64 << 20


def _large(connection: Connection) -> bool:
    """64 MiB, as fast as the proxy takes it."""
    connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % _LARGE)
    for _ in range(_LARGE >> 16):
        connection.write(bytes(65536))
    return True


def _medium(connection: Connection) -> bool:
    connection.write(ok(bytes(65536)))
    return True


_SCRIPTS: dict[str, tuple[Step, ...]] = {"large": (_large,), "medium": (_medium,), "hung": (hold,)}


@pytest.fixture(scope="module", params=PROTOCOLS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with Rig("main", str(request.param), *_SECOND, scripts=_SCRIPTS) as rig:
        yield rig


@pytest.fixture(scope="module", params=PROTOCOLS)
def patient(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with Rig("main", str(request.param), scripts=_SCRIPTS) as rig:
        yield rig


def _trickle(client: Client, data: bytes, pause: float) -> None:
    """Write one byte per pause until the other end has spoken or the data is out."""
    client.sock.settimeout(pause)
    for index in range(len(data)):
        try:
            client.sock.sendall(data[index : index + 1])
            got = client.sock.recv(65536)
        except TimeoutError:
            continue
        except ConnectionError:
            client.heard.end = "reset"
            return
        client.heard.raw += got
        if not got:
            client.heard.end = "eof"
            return


def _is_408_or_close(client: Client) -> None:
    client.read_to_end()
    assert client.heard.end == "eof", f"{bytes(client.heard.raw)!r} then {client.heard.end}"
    replies = parse_replies(client.heard.raw, (b"GET",), ended=True)
    assert [reply.status for reply in replies] in ([], [408])
    assert all(reply.closes for reply in replies)


@covers("LIM-3")
@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: app\r\n", b"", b"GE"])
def test_a_slow_head_meets_an_absolute_deadline(rig: Rig, start: bytes) -> None:
    rig.take()
    with Client(rig.sidecar.inbound, deadline=12) as client:
        client.send(start)
        _trickle(client, (b"GET / HTTP/1.1\r\nHost: app\r\n" + b"X: " + b"a" * 200)[len(start) :], 0.05)
        if client.heard.end == "open":
            _is_408_or_close(client)
    seen = rig.take()
    assert not seen.requests and not seen.partial and not seen.strays


@covers("LIM-3")
def test_a_slow_second_head_too(rig: Rig) -> None:
    rig.take()
    with Client(rig.sidecar.inbound, deadline=12) as client:
        client.send(b"GET /one HTTP/1.1\r\nHost: app\r\n\r\n")
        assert [reply.status for reply in client.replies((b"GET",), 1)] == [200]
        client.heard.raw.clear()
        client.send(b"GET /two HTTP/1.1\r\n")
        _trickle(client, b"X: " + b"a" * 200, 0.05)
        if client.heard.end == "open":
            _is_408_or_close(client)
    assert [request.target for request in rig.take().requests] == [b"/one"]


_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n"


@covers("REQ-22")
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_half_a_body_and_a_pause(rig: Rig, coding: str) -> None:
    """The rest of the body, sent after the verdict, is never a request."""
    rig.take()
    start = b"POST /half HTTP/1.1\r\nHost: app\r\n"
    start += (
        b"Content-Length: 1000\r\n\r\n" if coding == "length" else b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n"
    ) + b"a" * 400
    with Client(rig.sidecar.inbound, deadline=12) as client:
        client.send(start)
        client.read()
        client.send(_SMUGGLED * 5)
        _is_408_or_close(client)
    seen = rig.take()
    assert not seen.requests and not seen.strays
    rig.wait_no_partial()


@covers("LIM-4")
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_a_slow_body(rig: Rig, coding: str) -> None:
    rig.take()
    with Client(rig.sidecar.inbound, deadline=12) as client:
        client.send(b"POST /slow HTTP/1.1\r\nHost: app\r\n")
        if coding == "length":
            client.send(b"Content-Length: 1000\r\n\r\n")
            _trickle(client, b"a" * 200, 0.05)
        else:
            client.send(b"Transfer-Encoding: chunked\r\n\r\n")
            _trickle(client, b"1\r\na\r\n" * 40, 0.05)
        if client.heard.end == "open":
            _is_408_or_close(client)
    seen = rig.take()
    assert not seen.requests and not seen.strays
    rig.wait_no_partial()


@covers("LIM-4")
def test_a_reader_that_never_reads_pauses_the_app_and_is_cut(rig: Rig) -> None:
    rig.take()
    with Client(rig.sidecar.inbound, deadline=20, receive_buffer=4096) as client:
        client.send(b"GET /script/large HTTP/1.1\r\nHost: app\r\n\r\n")
        wait_until(lambda: any(c.sent for c in rig.upstream.live()), "the app has begun to answer")
        connections = [c for c in rig.upstream.live() if c.sent]
        wait_until(lambda: not any(c.finished is False for c in connections), "the app's connection is cut", 15)
        assert all(connection.sent < 24 << 20 for connection in connections), "the app was not paused"
    rig.sentinel()


@covers("LIM-5")
def test_silence_ends_and_delays_nobody(rig: Rig) -> None:
    """--protocol http closes at the head's deadline; auto keeps waiting for the idle time."""
    rig.take()
    clients = [Client(rig.sidecar.inbound, deadline=12) for _ in range(20)]
    for _ in range(20):
        rig.sentinel()
    for client in clients:
        client.read_to_end()
        assert client.heard.end == "eof"
        assert [r.status for r in parse_replies(client.heard.raw, (b"GET",), ended=True)] in ([], [408])
        client.sock.close()
    seen = rig.take()
    assert not seen.requests and not seen.partial and not seen.strays


@covers("LIM-6")
@pytest.mark.parametrize("way", ["half", "slow", "half-fin", "length-lie"])
def test_half_a_client_hello(rig: Rig, way: str) -> None:
    """Closed in the end, and until then no busy waiting."""
    rig.take()
    hello = client_hello("app.example")
    before, began = rig.sidecar.cpu_seconds(), time.monotonic()
    with Client(rig.sidecar.inbound, deadline=18) as client:
        if way == "slow":
            _trickle(client, hello[:-1], 0.01)
        elif way == "length-lie":
            client.send(b"\x16\x03\x01\x3f\xff" + hello[5:])
        else:
            client.send(hello[: len(hello) // 2])
        if way == "half-fin":
            client.finish()
        if client.heard.end == "open":
            client.read_to_end()
        assert client.heard.end in ("eof", "reset")
    elapsed = max(time.monotonic() - began, 0.5)
    assert rig.sidecar.cpu_seconds() - before < 0.5 * elapsed, "spinning"
    rig.sentinel()


@covers("LIM-6", "HDR-6")
def test_a_server_name_can_not_break_the_log() -> None:
    with Rig("main", "auto") as rig:
        for name in (b'a"b', b"a\r\nb", b"a\\b", b"a\x00b", b"\xff\xfe", b"a" * 300):
            with Client(rig.sidecar.inbound) as client:
                client.send(client_hello(name))
                client.finish()
                client.read_to_end()
        rig.sentinel()
        wait_until(lambda: len(rig.sidecar.log_records()) >= 7, "a line for each connection")
    assert rig.upstream is not None


@covers("REQ-23")
def test_pipelining_without_reading_stops(patient: Rig) -> None:
    """A thousand requests whose replies nobody reads: the proxy stops asking the app, and its memory stays flat."""
    patient.take()
    before = patient.sidecar.rss()
    with Client(patient.sidecar.inbound, deadline=20, receive_buffer=4096) as client:
        client.send(b"GET /script/medium HTTP/1.1\r\nHost: app\r\n\r\n" * 1000)
        served = _settled(lambda: sum(len(c.requests) for c in patient.upstream.live()))
        assert 1 <= served < 500, f"{served} of 1000 requests went to the app"
        assert patient.sidecar.rss() - before < 4 << 20
    patient.sentinel()


def _settled(read: object) -> int:
    """A figure once it has not changed for half a second."""
    assert callable(read)
    value, since = int(read()), time.monotonic()
    end = since + 15
    while time.monotonic() < end:
        time.sleep(0.02)
        now = int(read())
        if now != value:
            value, since = now, time.monotonic()
        elif value and time.monotonic() - since > 0.5:
            return value
    raise AssertionError(f"still changing: {value}")


@covers("CHK-7")
@pytest.mark.parametrize("end", ["fin", "reset"])
def test_a_client_that_goes_away_in_a_body_leaves_nothing(patient: Rig, end: str) -> None:
    """The request to the app is cut and its connection not pooled; no task and no descriptor stays."""
    patient.sentinel()
    patient.take()
    tasks = patient.sidecar.memory()["tasks"]
    for head in (b"Content-Length: 100\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n64\r\nhello"):
        for _ in range(10):
            with Client(patient.sidecar.inbound) as client:
                client.send(b"POST /cut HTTP/1.1\r\nHost: app\r\n" + head)
                wait_until(
                    lambda: any(c.mid_request for c in patient.upstream.live()), "the beginning has reached the app"
                )
                if end == "reset":
                    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                    client.sock.close()
                else:
                    client.finish()
                    client.read_to_end()
            patient.wait_no_partial()
    assert not [request for request in patient.take().requests if request.target == b"/cut"]
    wait_until(lambda: patient.sidecar.memory()["tasks"] <= tasks, "the tasks are as before")


@covers("CHK-7")
def test_a_client_that_goes_away_while_the_app_works(patient: Rig) -> None:
    """The app's connection ends within a second or so, though the app says nothing."""
    patient.take()
    with Client(patient.sidecar.inbound) as client:
        client.send(b"GET /script/hung HTTP/1.1\r\nHost: app\r\n\r\n")
        wait_until(lambda: any(c.requests for c in patient.upstream.live()), "the app has it")
    wait_until(
        lambda: not any(c.requests and c.requests[-1].target == b"/script/hung" for c in patient.upstream.live()),
        "the app is told",
        5,
    )


@covers("LIM-5")
def test_slow_ones_do_not_delay_others(patient: Rig) -> None:
    """A hundred connections that have said half of something; a plain request passes all the same."""
    clients = [Client(patient.sidecar.inbound) for _ in range(100)]
    for index, client in enumerate(clients):
        client.send(
            (b"G", b"GET / HTTP/1.1\r\n", b"\x16\x03", b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nh")[
                index % 4
            ]
        )
    threads = [threading.Thread(target=patient.sentinel) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert [r.status for r in ask(patient.sidecar.inbound, head_close(b"/plain"))] == [200]
    for client in clients:
        client.sock.close()
