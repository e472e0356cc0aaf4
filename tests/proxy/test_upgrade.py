"""Upgrade: after a 101 the connection is a tunnel in both directions; without one it stays HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.proxy.front import Front
from tests.support.raw import Client
from tests.support.upstream import Connection, Step, close, ok, send, wait_until

_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-App: 1\r\n\r\n"
_ASK = b"GET /script/%b HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


def _echo(connection: Connection) -> bool:
    """What comes goes back, until the other end has no more to say; then `bye`, and FIN."""
    while data := connection.sock.recv(65536):
        connection.write(data.upper())
    connection.write(b"bye")
    return False


SCRIPTS: dict[str, tuple[Step, ...]] = {
    "echo": (send(_SWITCH), _echo),
    "greets": (send(_SWITCH + b"welcome"), _echo),
    "leaves": (send(_SWITCH + b"only this"), close),
    "declines": (send(ok(b"no")),),
    "hints": (send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + _SWITCH), _echo),
}


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with Front(SCRIPTS) as running:
        yield running


def test_tunnel_and_its_half_close(front: Front) -> None:
    with front.client() as client:
        client.send(_ASK % b"echo")
        client.read_until(lambda raw: raw.endswith(b"\r\n\r\n"))
        head = bytes(client.heard.raw)
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert b"\r\nconnection: upgrade\r\nupgrade: echo\r\n" in head
        assert b"X-App: 1\r\n" in head
        for word in (b"one", b"two", b"x" * 100_000):
            assert _said_back(client, word) == word.upper()
        client.heard.raw.clear()
        client.finish()
        client.read_to_end()
        assert (bytes(client.heard.raw), client.heard.end) == (b"bye", "eof")
    record = front.record(b"/script/echo")
    assert (record["response_code"], record["response_flags"]) == (101, "-")
    assert (record["bytes_received"], record["bytes_sent"]) == (100_006, 100_009)
    request = front.seen(b"/script/echo")
    assert (request.get(b"connection"), request.get(b"upgrade")) == ([b"upgrade"], [b"echo"])


def _said_back(client: Client, word: bytes) -> bytes:
    client.heard.raw.clear()
    client.send(word)
    client.read_until(lambda raw: len(raw) >= len(word))
    return bytes(client.heard.raw)


def test_bytes_behind_the_heads_are_the_tunnels(front: Front) -> None:
    """Neither what the client sent behind its request nor what the app sent behind its 101 is lost."""
    with front.client() as client:
        client.send(_ASK % b"greets" + b"hello")
        client.finish()
        client.read_to_end()
        _, _, tunnelled = bytes(client.heard.raw).partition(b"\r\n\r\n")
    assert tunnelled == b"welcomeHELLObye"


def test_app_that_leaves(front: Front) -> None:
    with front.client() as client:
        client.send(_ASK % b"leaves")
        client.read_until(lambda raw: raw.endswith(b"only this"))
        client.finish()
        client.read_to_end()
        assert client.heard.end == "eof"
    assert front.record(b"/script/leaves")["response_code"] == 101


def test_interim_answers_before_the_switch(front: Front) -> None:
    with front.client() as client:
        client.send(_ASK % b"hints")
        client.read_until(lambda raw: b" 101 " in raw and raw.endswith(b"\r\n\r\n"))
        assert client.heard.raw.startswith(b"HTTP/1.1 103 ")


def test_declined(front: Front) -> None:
    """What follows is a request, at both ends on the same connections."""
    with front.client() as client:
        client.send(_ASK % b"declines" + b"GET /after-declined HTTP/1.1\r\nHost: app\r\n\r\n")
        replies = client.replies((b"GET", b"GET"), 2)
    assert [reply.body for reply in replies] == [b"no", b"GET /after-declined 0"]
    assert front.seen(b"/after-declined").connection == front.seen(b"/script/declines").connection


@pytest.mark.parametrize("protocol", [b"h2c", b"H2C, h2c"])
def test_http2_is_never_offered(front: Front, protocol: bytes) -> None:
    path = b"/h2c/%d" % len(protocol)
    front.ask(
        path, b"Connection: upgrade, http2-settings", b"Upgrade: " + protocol, b"HTTP2-Settings: AAMAAABkAAQAAP__"
    )
    request = front.seen(path)
    assert not request.get(b"upgrade")
    assert not request.get(b"http2-settings")


def test_an_old_client_cannot_upgrade(front: Front) -> None:
    front.ask(b"/old-upgrade", b"Connection: upgrade", b"Upgrade: echo", version=b"HTTP/1.0")
    assert not front.seen(b"/old-upgrade").get(b"upgrade")


def test_client_that_is_gone_ends_the_tunnel(front: Front) -> None:
    with front.client() as client:
        client.send(_ASK.replace(b"GET", b"OPTIONS") % b"echo")
        client.read_until(lambda raw: raw.endswith(b"\r\n\r\n"))
    wait_until(
        lambda: not any(c.requests[-1].method == b"OPTIONS" for c in front.app.live() if c.requests), "the end", 1
    )
