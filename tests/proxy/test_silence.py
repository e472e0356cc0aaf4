"""Clients that are silent at first: what they may turn out to be, and what an app that hangs up on them is not."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.process import SidecarProcess
from tests.support.raw import Client, parse_replies
from tests.support.upstream import ok


@pytest.fixture
def app() -> Iterator[socket.socket]:
    """A listening app; the test takes its connections itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        yield listener


def test_a_word_after_a_silence_goes_on_as_it_is(app: socket.socket) -> None:
    """It could become the method of a request, but nobody who speaks HTTP stops there."""
    with SidecarProcess(app.getsockname()[1]) as sidecar, Client(sidecar.inbound) as client:
        with app.accept()[0] as server:  # it is dialed since nothing is said
            server.settimeout(30)
            client.send(b"hello")
            assert server.recv(100) == b"hello"
            server.sendall(b"world")
        client.read_to_end()
        assert client.heard.raw == b"world"


@pytest.mark.parametrize("farewell", [b"", b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"])
def test_an_app_that_hangs_up_on_silence_is_not_server_first(app: socket.socket, farewell: bytes) -> None:
    """Else every connection after it would cost the app a second one."""
    with SidecarProcess(app.getsockname()[1]) as sidecar:
        with Client(sidecar.inbound) as client:
            with app.accept()[0] as server:
                server.sendall(farewell)
            client.read_to_end()
            assert client.heard.raw == farewell and client.heard.end == "eof"
        with Client(sidecar.inbound) as client:
            time.sleep(0.02)
            client.send(b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
            with app.accept()[0] as server:
                server.settimeout(30)
                assert server.recv(65_536).startswith(b"GET / HTTP/1.1\r\n")
                server.sendall(ok())
                client.read_to_end()
            (reply,) = parse_replies(client.heard.raw, (b"GET",), ended=True)
            assert reply.status == 200
        app.settimeout(0.3)
        with pytest.raises(TimeoutError):
            app.accept()


def test_a_request_in_slow_pieces_does_not_slip_by_as_opaque(app: socket.socket) -> None:
    """By an unknown method, its first word is sent on, for it may be opaque; what makes it a request ends it."""
    with SidecarProcess(app.getsockname()[1]) as sidecar, Client(sidecar.inbound) as client:
        client.send(b"FOO")
        with app.accept()[0] as server:
            server.settimeout(30)
            assert server.recv(100) == b"FOO"
            client.send(b" / HTTP/1.1\r\nHost: app\r\nX-Forwarded-Client-Cert: forged\r\n\r\n")
            client.read_to_end()
            with suppress(ConnectionResetError):
                assert server.recv(100) == b""
        assert client.heard.raw == b""


def test_a_port_that_is_declared_http_waits_for_a_first_request_only_so_long(app: socket.socket) -> None:
    """Not for the hour that a connection may be idle between requests."""
    flags = ("--protocol", "http", "--request-head-timeout", "300ms")
    with SidecarProcess(app.getsockname()[1], *flags) as sidecar, Client(sidecar.inbound) as client:
        client.read_to_end()
        assert client.heard.raw == b"" and client.heard.end in ("eof", "reset")
