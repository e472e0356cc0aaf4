"""However an exchange ends, nothing of it is left behind: no task, no descriptor, no count of what is active."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.proxy.front import Front
from tests.support.raw import Client
from tests.support.tls import client_hello
from tests.support.upstream import Connection, Step, close, hold, ok, reset, send, wait_until

TIMES = 25
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


def _echo(connection: Connection) -> bool:
    while data := connection.sock.recv(65536):
        connection.write(data)
    return False


SCRIPTS: dict[str, tuple[Step, ...]] = {
    "hold": (hold,),
    "half": (send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), hold),
    "cut": (send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), close),
    "reset": (reset,),
    "broken": (send(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), close),
    "late": (send(ok() + b"HTTP/1.1 200 OK\r\n"),),
    "early": (send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"), close),
    "switch": (send(_SWITCH), _echo),
    "hints": (send(b"HTTP/1.1 103 \r\n\r\n" * 20),),
}


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with Front(SCRIPTS, "--drain-seconds", "5", strict=False) as running:
        yield running


def _get(client: Client, name: bytes, *fields: bytes) -> None:
    client.send(b"\r\n".join((b"GET /script/%b HTTP/1.1" % name, b"Host: app", *fields, b"", b"")))


def _reset(client: Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def leaves_while_waiting(client: Client, _: Front) -> None:
    _get(client, b"hold")


def resets_in_the_answer(client: Client, _: Front) -> None:
    _get(client, b"half")
    client.read_until(lambda raw: raw.endswith(b"abc"))
    _reset(client)


def leaves_in_its_head(client: Client, _: Front) -> None:
    client.send(b"GET / HT")


def leaves_in_its_body(client: Client, _: Front) -> None:
    client.send(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\nabc")


def resets_in_its_chunks(client: Client, _: Front) -> None:
    client.send(b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    _reset(client)


def leaves_in_silence(_: Client, __: Front) -> None:
    pass


def leaves_in_a_hello(client: Client, _: Front) -> None:
    client.send(client_hello("shop.example")[:100])


def says_something_odd(client: Client, _: Front) -> None:
    client.send(b"\x00\x01\x02")


def app_fails(name: bytes) -> Callable[[Client, Front], None]:
    def scene(client: Client, _: Front) -> None:
        _get(client, name)
        client.read_until(lambda raw: b"\r\n\r\n" in raw)

    scene.__name__ = f"app_{name.decode()}"
    return scene


def is_answered_early(client: Client, _: Front) -> None:
    client.send(b"POST /early/early HTTP/1.1\r\nHost: app\r\nContent-Length: 1000\r\n\r\nabc")
    client.read_to_end()


def leaves_a_tunnel(client: Client, _: Front) -> None:
    _get(client, b"switch", b"Connection: upgrade", b"Upgrade: echo")
    client.read_until(lambda raw: raw.endswith(b"\r\n\r\n"))
    client.send(b"x")
    client.read_until(lambda raw: raw.endswith(b"x"))


def is_served(client: Client, _: Front) -> None:
    client.send(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
    assert client.replies((b"GET",), 1)[0].status == 200


def breaks_the_rules(client: Client, _: Front) -> None:
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    client.read_to_end()


SCENES = [
    leaves_while_waiting,
    resets_in_the_answer,
    leaves_in_its_head,
    leaves_in_its_body,
    resets_in_its_chunks,
    leaves_in_silence,
    leaves_in_a_hello,
    says_something_odd,
    *[app_fails(name) for name in (b"cut", b"reset", b"broken", b"late", b"hints")],
    is_answered_early,
    leaves_a_tunnel,
    breaks_the_rules,
    is_served,
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
@pytest.mark.parametrize("way", ["inbound", "tunnel"])
def test_nothing_is_left(front: Front, scene: Callable[[Client, Front], None], way: str) -> None:
    """The same end TIMES over; ``tunnel``: through a CONNECT of the outbound proxy."""
    authority = b"127.0.0.1:%d" % front.app.port

    def play() -> None:
        with Client(front.sidecar.ports["inbound" if way == "inbound" else "outbound"]) as client:
            if way == "tunnel":
                client.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority))
                client.read_until(lambda raw: raw.endswith(b"\r\n\r\n"))
                client.heard.raw.clear()
            scene(client, front)

    play()
    before = _rest(front, lambda memory: True)
    for _ in range(TIMES):
        play()
    # The app's connections that stay in the pool are no more than one; it may have had none before.
    _rest(
        front,
        lambda memory: memory["tasks"] <= before["tasks"] and memory["descriptors"] <= before["descriptors"] + 2,
    )


def _rest(front: Front, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    last: dict[str, Any] = {}

    def rests() -> bool:
        nonlocal last
        last = front.sidecar.memory()
        page = front.sidecar.admin_get("/metrics")[1]
        idle = "\nsidecar_connections_active 0.0\n" in page and "\nsidecar_requests_active 0.0\n" in page
        return idle and enough(last)

    try:
        wait_until(rests, "the proxy is at rest", 5)
    except AssertionError as error:
        raise AssertionError(f"{error}; last seen: {last}") from None
    return last
