"""Answers that come while the request's body still does: they arrive, whole, whatever becomes of the body."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.proxy.front import Front
from tests.support.raw import parse_replies
from tests.support.upstream import Connection, close, send

LONG = 24 << 20
BODY = bytes(8 << 20)
WINDOW = 1.0  # seconds of --body-min-rate


def _stream(connection: Connection) -> bool:
    """A long answer, in the middle of which the body comes to its end."""
    connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG)
    connection.write(bytes(LONG))
    connection.drain()
    return False


SCRIPTS = {
    "refuse": (send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"), close),
    "stream": (_stream,),
}


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with Front(SCRIPTS, "--body-min-rate", f"1/{WINDOW:g}") as running:
        yield running


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_the_answer_of_an_app_that_reads_no_further_is_passed_on(front: Front, framing: str) -> None:
    """It closes with bytes unread, so the proxy's writes fail before it has looked for the answer."""
    for _ in range(10):
        with front.client() as client:
            if framing == "length":
                head, body = b"Content-Length: %d" % len(BODY), BODY
            else:
                head, body = b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
            with contextlib.suppress(OSError):  # the proxy, too, reads no further
                client.sock.sendall(
                    b"POST /early/refuse HTTP/1.1\r\nHost: app\r\nConnection: close\r\n%b\r\n\r\n" % head
                )
                client.sock.sendall(body)
            client.read_to_end()
            (reply,) = parse_replies(client.heard.raw, (b"POST",), ended=True)
            assert (reply.status, reply.body) == (413, b"big")


def test_a_body_that_ended_leaves_no_deadline_to_the_answer(front: Front) -> None:
    """Reading the body and writing the answer share the connection; a slow reader of a long answer is not cut off."""
    with front.client(deadline=20.0, receive_buffer=32_768) as client:
        client.sock.sendall(b"POST /early/stream HTTP/1.1\r\nHost: app\r\nContent-Length: 6\r\n\r\nabc")
        time.sleep(WINDOW / 3)  # the answer fills the socket, while the body's rest is waited for
        client.sock.sendall(b"def")
        received, began = 0, time.monotonic()
        while received < LONG:
            data = client.sock.recv(65_536)
            assert data, f"cut off after {received} bytes"
            received += len(data)
            if time.monotonic() - began < WINDOW * 2:
                time.sleep(0.01)
    assert front.record(b"/early/stream")["response_flags"] == "-"
