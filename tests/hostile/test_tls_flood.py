"""TLS-12: one peer that opens handshakes without end. Others' handshakes and requests go on, and the room that there is
for handshakes is given up by whoever takes most of it."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.hostile.coverage import covers
from tests.support.member import SNI, Shop
from tests.support.papers import Papers
from tests.support.raw import DEADLINE
from tests.support.secure import SecureClient, client_context
from tests.support.upstream import wait_until

GET = b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n"
FLOOD, CALLER = "127.0.0.2", "127.0.0.3"
TRIES = 10  # a machine that is busy elsewhere may let a whole flood pass before we look


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as shop:
        yield shop


class Slow:
    """A handshake that begins when it is told to, and goes on when it is told to."""

    def __init__(self, shop: Shop, source: str, papers: Papers) -> None:
        context = client_context(papers.key, papers.chain, papers.roots)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=SNI[80])
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        self.hello = self._out.read()
        self.sock = socket.create_connection(("127.0.0.1", shop.web.inbound), DEADLINE, (source, 0))

    def __enter__(self) -> Slow:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def ask(self, rest_of_hello: bytes) -> bytes:
        """Ends the handshake, and asks; the head of the answer, or b"" where it was reset."""
        try:
            self.sock.sendall(rest_of_hello)
            self._go_on(self._tls.do_handshake)
            self._tls.write(GET)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += self._go_on(lambda: self._tls.read(65536)) or b""
            return answer
        except (ConnectionError, ssl.SSLError):
            return b""

    def _go_on(self, step: Callable[[], bytes | None]) -> bytes | None:
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._out.read())
                said = self.sock.recv(65536)
                if not said:
                    raise ConnectionResetError from None
                self._in.write(said)
            else:
                self.sock.sendall(self._out.read())
                return done


def flood(shop: Shop, stack: contextlib.ExitStack, count: int, hello: bytes) -> list[socket.socket]:
    """So many connections of one peer, each of which has said this."""
    socks = []
    for _ in range(count):
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", shop.web.inbound), DEADLINE, (FLOOD, 0)))
        sock.sendall(hello)
        socks.append(sock)
    return socks


def answered(socks: list[socket.socket]) -> int:
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLIN)
    return len(poll.poll(0))


@contextlib.contextmanager
def requests_going_on(client: SecureClient) -> Iterator[list[int]]:
    """One after the other on this connection; their statuses."""
    stop, statuses = threading.Event(), list[int]()

    def ask() -> None:
        while not stop.is_set():
            client.heard.raw.clear()
            client.send(GET)
            replies = client.replies((b"GET",), 1)
            statuses.append(replies[0].status if replies else 0)
            if statuses[-1] != 200:
                return

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        wait_until(lambda: len(statuses) > 3, "requests go on")
        yield statuses
    finally:
        stop.set()
        thread.join()


@covers("TLS-12")
def test_a_new_caller_and_open_connections_pass_a_flood(shop: Shop) -> None:
    """A caller that comes after 200 handshakes of one peer is served while most of those still wait."""
    papers = shop.papers["caller"]
    waiting: list[int] = []
    with shop.stranger(papers) as client, requests_going_on(client) as statuses:
        while max(waiting, default=0) < 100 and len(waiting) < TRIES:
            with contextlib.ExitStack() as stack:
                some = stack.enter_context(Slow(shop, FLOOD, papers))
                caller = stack.enter_context(Slow(shop, CALLER, papers))
                socks = flood(shop, stack, 200, some.hello)
                assert caller.ask(caller.hello).startswith(b"HTTP/1.1 200 ")
                waiting.append(len(socks) - answered(socks))
                wait_until(lambda socks=socks: answered(socks) > 0, "the flood is served, too")  # type: ignore[misc]
            wait_until(lambda: shop.web.tell("look")["under_way"] == 0, "none is left")
    assert max(waiting) >= 100, waiting
    assert set(statuses) == {200}
    assert "too_many_connections" not in shop.web.tell("look")["outcomes"]


@covers("TLS-12")
def test_who_takes_most_room_makes_room(shop: Shop) -> None:
    """The oldest handshake of all is one of a peer that has no other, and it can be ended."""
    with contextlib.ExitStack() as stack:
        oldest = stack.enter_context(Slow(shop, CALLER, shop.papers["caller"]))
        oldest.sock.sendall(oldest.hello[:4])
        wait_until(lambda: shop.web.tell("look")["under_way"] == 1, "it is under way")
        flood(shop, stack, 600, b"\x16\x03\x01\x02")
        wait_until(
            lambda: shop.web.tell("look")["outcomes"].get("too_many_connections", 0) >= 80, "the flood has made room"
        )
        assert oldest.ask(oldest.hello[4:]).startswith(b"HTTP/1.1 200 ")
