"""Long bodies in either direction: the slower side sets the pace, and the proxy's memory does not grow with them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.proxy.front import Front
from tests.support.raw import Client
from tests.support.upstream import Connection, Step, ok, send, wait_until

BLOCK = bytes(65_536)
LONG = 2048 * len(BLOCK)  # 128 MiB
GROWTH = 6 << 20  # bytes of resident memory that a transfer may cost; kernel buffers are not counted in it
IN_FLIGHT = 24 << 20  # what the kernel's buffers of two connections may hold, and ours with them
GO = threading.Event()


def _stream(connection: Connection) -> bool:
    for _ in range(LONG // len(BLOCK)):
        connection.write(BLOCK)
    return True


def _stream_chunked(connection: Connection) -> bool:
    for _ in range(LONG // len(BLOCK)):
        connection.write(b"10000\r\n" + BLOCK + b"\r\n")
    connection.write(b"0\r\n\r\n")
    return True


def _swallow(connection: Connection) -> bool:
    """Reads a body of LONG bytes, whose beginning has been read already, without keeping it."""
    at = connection.raw.rindex(b"\r\n\r\n") + 4
    count = len(connection.raw) - at
    while count < LONG:
        data = connection.sock.recv(1 << 18)
        if not data:
            return False
        count += len(data)
    connection.write(ok(b"%d" % count))
    return False


def _wait(connection: Connection) -> bool:
    return GO.wait(30)


SCRIPTS: dict[str, tuple[Step, ...]] = {
    "down": (send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG), _stream),
    "down-chunked": (send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), _stream_chunked),
    "up": (_swallow,),
    "up-late": (_wait, _swallow),
}


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with Front(SCRIPTS) as running:
        yield running


def _resident(front: Front) -> int:
    found = front.sidecar.memory()["rss_bytes"]
    assert isinstance(found, int)
    return found


def _count(client: Client) -> int:
    """Reads to the end of the reply's body of zeros and says how many there were."""
    count = 0
    client.read_until(lambda raw: b"\r\n\r\n" in raw)
    count += client.heard.raw.count(0)
    while count < LONG:
        client.heard.raw.clear()
        if not client.read():
            break
        count += client.heard.raw.count(0)
    return count


@pytest.mark.parametrize("script", ["down", "down-chunked"])
def test_download(front: Front, script: str) -> None:
    """A client that reads nothing at first holds the app back; then all of it comes."""
    before = _resident(front)
    sent_before = sum(connection.sent for connection in front.app.connections)
    target = b"/script/" + script.encode()
    with front.client(deadline=30, receive_buffer=65_536) as client:
        client.send(b"GET %b HTTP/1.1\r\nHost: app\r\n\r\n" % target)

        def sent() -> int:
            return sum(connection.sent for connection in front.app.connections) - sent_before

        _wait_steady(sent)
        assert 0 < sent() < IN_FLIGHT
        assert _resident(front) - before < GROWTH
        assert _count(client) == LONG
    assert _resident(front) - before < GROWTH
    record = front.record(target)
    assert (record["bytes_sent"], record["response_flags"]) == (LONG, "-")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_upload(front: Front, framing: str) -> None:
    """An app that reads nothing at first holds the client back; then all of it comes."""
    GO.clear()
    before = _resident(front)
    sent = [0]
    with front.client(deadline=30) as client:
        if framing == "length":
            client.send(b"POST /early/up-late HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n" % LONG)
            sender = threading.Thread(target=_send_blocks, args=(client, sent))
            sender.start()
            _wait_steady(lambda: sent[0])
            assert 0 < sent[0] < IN_FLIGHT
            assert _resident(front) - before < GROWTH
            GO.set()
            sender.join(30)
            (reply,) = client.replies((b"POST",), 1)
            assert (reply.status, reply.body) == (200, b"%d" % LONG)
        else:
            client.send(b"POST /chunks HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(256):
                client.send(b"10000\r\n" + BLOCK + b"\r\n")
            client.send(b"0\r\n\r\n")
            (reply,) = client.replies((b"POST",), 1)
            assert reply.body == b"POST /chunks %d" % (256 * len(BLOCK))
    assert _resident(front) - before < GROWTH


@pytest.mark.alone
def test_others_are_served_during_an_upload_at_full_speed(front: Front) -> None:
    """However fast bytes come, small requests get their turn."""
    with front.client(deadline=30) as client:
        client.send(b"POST /early/up HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n" % LONG)
        sender = threading.Thread(target=_send_blocks, args=(client, [0]))
        upload_began = time.monotonic()
        sender.start()
        slowest = 0.0
        with front.client() as other:
            count = 0
            while sender.is_alive():
                began = time.monotonic()
                count += 1
                other.send(b"GET /small HTTP/1.1\r\nHost: app\r\n\r\n")
                assert len(other.replies((b"GET",) * count, count)) == count
                slowest = max(slowest, time.monotonic() - began)
        sender.join()
        assert client.replies((b"POST",), 1)[0].status == 200
    assert count > 3
    # Of 128 MiB that are sent in one go; a slow machine is slow at that too.
    longest = max(0.25, (time.monotonic() - upload_began) / 4)
    assert slowest < longest
    assert front.sidecar.memory()["loop_lag_seconds"]["max"] < longest


def _send_blocks(client: Client, sent: list[int]) -> None:
    for _ in range(LONG // len(BLOCK)):
        client.sock.sendall(BLOCK)
        sent[0] += len(BLOCK)


def _wait_steady(count: Callable[[], int]) -> None:
    """Until a number has stood still for a fifth of a second, after it moved."""
    last, since = count(), time.monotonic()

    def steady() -> bool:
        nonlocal last, since
        now = count()
        if now != last:
            last, since = now, time.monotonic()
        return now > 0 and time.monotonic() - since > 0.2

    wait_until(steady, "the transfer comes to a halt")
