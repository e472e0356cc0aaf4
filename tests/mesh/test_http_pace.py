"""Slow readers behind both sidecars: the slowest sets the pace, and neither sidecar's memory holds what waits."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.mesh.stage import End, Stage, asked, at_rest, request, switched
from tests.support.upstream import wait_until

LONG = 64 << 20
GROWTH = 4 << 20  # bytes of resident memory that it may cost each sidecar; what the kernel holds is not counted in it
IN_FLIGHT = 48 << 20  # what the kernel's buffers of three connections may hold, and ours with them
SMALL = 65_536  # of the one who does not read
FRAMING = {"length": b"Content-Length: %d" % LONG, "chunked": b"Transfer-Encoding: chunked"}
_PIECE = bytes(1 << 20)
_LAST = b"\r\n0\r\n\r\n"  # behind the last zero of a chunked body


def _framed(framing: str) -> Iterator[bytes]:
    """LONG zeros, in pieces of a megabyte, as a body of that framing."""
    for _ in range(LONG // len(_PIECE)):
        yield _PIECE if framing != "chunked" else b"%x\r\n%b\r\n" % (len(_PIECE), _PIECE)
    if framing == "chunked":
        yield b"0\r\n\r\n"


@contextmanager
def bounded(stage: Stage) -> Iterator[None]:
    """Neither sidecar grows by more than GROWTH, in the middle of it or at the end."""
    members = (stage.shop.caller, stage.shop.web)
    before = [each.rss() for each in members]
    yield
    grown = [each.rss() - was for each, was in zip(members, before, strict=True)]
    assert all(each < GROWTH for each in grown), grown


def held_back(stage: Stage, speaker: End, framing: str, listener: End) -> None:
    """The speaker says LONG bytes to a listener who reads nothing until it is stuck; then all of it comes."""
    said = [0]

    def say() -> Iterator[bytes]:
        for piece in _framed(framing):
            yield piece
            said[0] += len(piece)

    with speaker.saying(say()):
        with bounded(stage):
            _wait_steady(said)
            assert 0 < said[0] < IN_FLIGHT
        with bounded(stage):
            zeros, tail = 0, b""
            while zeros < LONG or (framing == "chunked" and not tail.endswith(_LAST)):
                data = listener.take_some()
                assert data, f"an end after {zeros} bytes"
                zeros += data.count(0)
                tail = (tail + data)[-len(_LAST) :] if len(data) < len(_LAST) else data[-len(_LAST) :]
            assert zeros == LONG


def _wait_steady(count: list[int]) -> None:
    """Until the number has stood still for a while, after it moved."""
    last, since = 0, time.monotonic()

    def steady() -> bool:
        nonlocal last, since
        if count[0] != last:
            last, since = count[0], time.monotonic()
        return last > 0 and time.monotonic() - since > 0.2

    wait_until(steady, "the transfer comes to a halt")


@pytest.mark.parametrize("framing", FRAMING)
def test_a_client_that_does_not_read_holds_the_app_back(stage: Stage, framing: str) -> None:
    path = b"/pace/down/" + framing.encode()
    with stage.client(receive_buffer=SMALL) as client, asked(stage, client, path) as app:
        app.say(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % FRAMING[framing])
        held_back(stage, app, framing, client)
        # the next one on this connection is served as if nothing had been
        client.say(request(path + b"/next"))
        app.hears_request()
        app.say(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert client.hears_reply().status == 204
    assert stage.said(path) == [(200, "-", 0, LONG)] * 2


@pytest.mark.parametrize("framing", FRAMING)
def test_an_app_that_does_not_read_holds_the_client_back(stage: Stage, framing: str) -> None:
    path = b"/pace/up/" + framing.encode()
    with stage.client() as client:
        client.say(request(path, FRAMING[framing], method=b"POST"))
        with stage.app() as app:
            app.hears_head()
            held_back(stage, client, framing, app)
            app.say(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert client.hears_reply(b"POST").status == 204
    assert stage.said(path) == [(204, "-", LONG, 0)] * 2


@pytest.mark.parametrize("speaker", ["client", "app"])
def test_a_tunnel_has_the_pace_of_who_does_not_read(stage: Stage, speaker: str) -> None:
    """And the other direction, in which next to nothing goes, does not wait for it."""
    path = b"/pace/tunnel/" + speaker.encode()
    with switched(stage, path) as ends:
        speaks, reads = ends if speaker == "client" else ends[::-1]
        held_back(stage, speaks, "tunnel", reads)
        reads.say(b"thanks")
        speaks.hears(b"thanks")


def test_replies_that_nobody_reads_stop_the_requests(stage: Stage) -> None:
    """A client that pipelines and never reads is read from no more; the app gets no further request."""
    body = bytes(1 << 20)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    answered = [0]
    with stage.client(receive_buffer=SMALL) as client:
        client.say(b"".join(request(b"/pace/many/%d" % number) for number in range(200)))
        with stage.app() as app:

            def serve() -> Iterator[bytes]:
                while app.take_some():  # one request: the next one does not come before the answer has gone
                    yield answer
                    answered[0] += 1

            with app.saying(serve()):
                with bounded(stage):
                    _wait_steady(answered)
                    assert answered[0] * len(body) < IN_FLIGHT
                client.sock.close()
                wait_until(lambda: at_rest(stage.shop.web), "nothing is left of it")
                app.sock.shutdown(socket.SHUT_RDWR)
