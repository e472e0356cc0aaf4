"""Which ClientHello is ours, and what becomes of all else: each mode with each way to begin, under each protocol."""

from __future__ import annotations

import select
import ssl
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import pytest

from tests.support.member import SNI, Shop
from tests.support.raw import Client
from tests.support.secure import HTTP, client_context
from tests.support.tls import client_hello
from tests.support.upstream import wait_until

MODES: Final = ("strict", "permissive", "disable")
PROTOCOLS: Final = ("auto", "http", "http2", "tcp")
GET: Final = b"GET /mode HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SILENCE: Final = 0.3  # well beyond that after which the app is dialed
PACE: Final = 0.0005
_MANY_NAMES: Final = tuple(f"padding-{number:03}-{'x' * 40}" for number in range(40))  # a hello of 2,500 bytes

T = TypeVar("T")
Way = Callable[[Shop, "Spoken"], bytes]

SERVED, RELAYED, REFUSED, ANSWERED = "served", "relayed", "refused", "answered"


@pytest.fixture(scope="module", params=[(mode, protocol) for mode in MODES for protocol in PROTOCOLS], ids="-".join)
def shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    mode, protocol = request.param
    with Shop(mode=mode, protocol=protocol, strict=False) as shop:
        yield shop


class Spoken(Client):
    """A client whose TLS, if it has any, goes over the wire in pieces of ``piece`` bytes."""

    def __init__(self, shop: Shop, *, piece: int = 65536) -> None:
        super().__init__(shop.web.inbound, deadline=12)
        self.piece = piece

    def pause(self) -> None:
        """Says nothing for a while; what comes meanwhile is heard."""
        self.sock.settimeout(SILENCE)
        try:
            self.heard.raw += self.sock.recv(65536)
        except TimeoutError:
            pass
        except ConnectionError:
            self.heard.end = "reset"

    def ask_within(self, context: ssl.SSLContext) -> bytes:
        """One request within TLS; the reply, or b"" where there was none."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname=SNI[80])

        def drive(step: Callable[[], T]) -> T:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    self._say(outgoing.read())
                    self.sock.settimeout(max(self.left, 0.01))
                    incoming.write(self.sock.recv(65536) or _gone())
                finally:
                    self._say(outgoing.read())

        reply = b""
        try:
            drive(tls.do_handshake)
            drive(lambda: tls.write(GET))
            while not _whole(reply) and (data := drive(lambda: tls.read(65536))):
                reply += data
        except (ssl.SSLError, OSError):
            return b""
        return reply

    def _say(self, data: bytes) -> None:
        for at in range(0, len(data), self.piece):
            self.sock.settimeout(max(self.left, 0.01))
            self.sock.sendall(data[at : at + self.piece])
            if len(data) > self.piece:
                select.select([self.sock], [], [], PACE)  # lets the other end look at each


def _whole(reply: bytes | bytearray) -> bool:
    """Whether there is all that the app says to ``GET``."""
    return b"GET /mode 0" in reply or b"}" in reply


def _gone() -> bytes:
    raise ConnectionResetError


def _mesh(shop: Shop, *more: str) -> ssl.SSLContext:
    papers = shop.papers["caller"]
    return client_context(papers.key, papers.chain, papers.roots, (*more, *HTTP))


def _own() -> ssl.SSLContext:
    return client_context(None, None, None, ("h2", "http/1.1"))


def _mesh_tls(shop: Shop, client: Spoken) -> bytes:
    if shop.mode == "disable":
        client.give_up_in(1)  # it goes to an app that does not answer
    return client.ask_within(_mesh(shop))


def _mesh_tls_in_pieces(shop: Shop, client: Spoken) -> bytes:
    client.piece = 97
    if shop.mode == "disable":
        client.give_up_in(1)
    return client.ask_within(_mesh(shop, *_MANY_NAMES))


def _own_tls(shop: Shop, client: Spoken) -> bytes:
    client.send(client_hello("app.example", (b"h2", b"http/1.1")))
    return _rest(client)


def _own_tls_in_pieces(shop: Shop, client: Spoken) -> bytes:
    hello = client_hello("app.example", (b"h2", b"http/1.1"))
    for at in range(0, len(hello), 97):
        client.send(hello[at : at + 97])
        select.select([client.sock], [], [], PACE)
    return _rest(client)


def _plaintext(shop: Shop, client: Spoken) -> bytes:
    client.send(GET)
    client.read_until(_whole)
    return bytes(client.heard.raw)


def _silent_then_plaintext(shop: Shop, client: Spoken) -> bytes:
    client.pause()
    return _plaintext(shop, client)


def _silent_then_mesh_tls(shop: Shop, client: Spoken) -> bytes:
    client.pause()
    return _mesh_tls(shop, client)


def _silent_then_own_tls(shop: Shop, client: Spoken) -> bytes:
    client.pause()
    return _own_tls(shop, client)


def _half_a_hello(shop: Shop, client: Spoken) -> bytes:
    client.send(client_hello("app.example", (b"istio",))[:300])
    return _rest(client)


def _preface(shop: Shop, client: Spoken) -> bytes:
    client.send(PREFACE)
    return _rest(client)


def _rest(client: Spoken) -> bytes:
    """What comes back once nothing more is said."""
    client.finish()
    return bytes(client.read_to_end().raw)


def _expected(mode: str, protocol: str, way: Way) -> str:
    """As the contract has it."""
    name = way.__name__
    plain = RELAYED if protocol == "tcp" else SERVED
    opaque = ANSWERED if protocol == "http" or (protocol == "auto" and way is _preface) else RELAYED  # a 4xx, or 505
    if mode == "strict":
        return SERVED if "mesh" in name and protocol != "tcp" else RELAYED if "mesh" in name else REFUSED
    if mode == "permissive" and "mesh" in name:
        return plain
    if "half" in name and (mode == "permissive" or protocol in ("auto", "http2")):
        return REFUSED  # what it is was never known
    if "mesh" in name and protocol == "http":
        return REFUSED  # a 4xx, in plaintext, which is no TLS
    return plain if "plaintext" in name else opaque


WAYS: Final[tuple[Way, ...]] = (
    _mesh_tls, _mesh_tls_in_pieces, _own_tls, _own_tls_in_pieces, _plaintext, _silent_then_plaintext,
    _silent_then_mesh_tls, _silent_then_own_tls, _half_a_hello, _preface,
)  # fmt: skip


def _outcome(shop: Shop, heard: bytes, reached: int) -> str:
    """In a word: what the client heard and what the app saw."""
    if heard.startswith(b"HTTP/1.1 200") and b"GET /mode" in heard:
        (request,) = shop.app.take().requests
        return SERVED if request.get(b"x-request-id") else RELAYED
    if heard.startswith(b"HTTP/1.1"):
        return ANSWERED if not reached else "both"
    return RELAYED if reached else REFUSED


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
def test_each_beginning_comes_to_its_end(shop: Shop, way: Way) -> None:
    shop.app.take()
    before = shop.seen()
    with Spoken(shop) as client:
        heard = way(shop, client)
    wait_until(lambda: not any(each.mid_request for each in shop.app.live()), "what was relayed has ended")
    outcome = _outcome(shop, heard, shop.seen() - before)
    assert outcome == _expected(shop.mode, shop.protocol, way), (heard[:200], shop.app.take())
