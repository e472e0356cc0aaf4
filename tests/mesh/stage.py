"""A client and an app with both sidecars between them, and the test speaks for both, line by line.

    with stage.client() as client:
        client.say(GET)
        with stage.app() as app:
            app.hears_head()
            app.say(b"HTTP/1.1 204 No Content\r\n\r\n")
        client.hears(...)

What passes goes from the client to the caller's outbound listener, from there over mutual TLS to web's inbound
listener, and on to the app. Nothing happens that is not written in the test, so nothing has to be waited for by time.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from tests.support.member import Member, Shop
from tests.support.raw import DEADLINE, Reply, parse_replies
from tests.support.strict import Request, StrictReader
from tests.support.upstream import wait_until

HOST = b"web.shop"
ASKS = (b"Connection: Upgrade", b"Upgrade: chat")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\nX-App: 1\r\n\r\n"


def request(
    path: bytes, *lines: bytes, method: bytes = b"GET", body: bytes = b"", version: bytes = b"HTTP/1.1"
) -> bytes:
    """A request to ``path`` of web, as an app that was told of a proxy sends it."""
    first = b"%b http://%b%b %b" % (method, HOST, path, version)
    return b"\r\n".join((first, b"Host: " + HOST, *lines, b"", body))


class End:
    """One end of what goes through: a connected socket, and all that it heard and nobody has looked at yet."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.port: int = sock.getsockname()[1]
        self.unread = b""
        sock.settimeout(DEADLINE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def say(self, data: bytes) -> None:
        self.sock.sendall(data)

    @contextmanager
    def saying(self, data: bytes | Iterable[bytes]) -> Iterator[None]:
        """Says it meanwhile, piece by piece, and has said it, or was cut short, at the end of the block."""

        def run() -> None:
            try:
                for piece in [data] if isinstance(data, bytes) else data:
                    self.sock.sendall(piece)
            except OSError:
                pass  # whether it was heard, the other end knows

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield
        thread.join(DEADLINE)
        assert not thread.is_alive(), "nobody takes it"

    def finish(self) -> None:
        """FIN: nothing more from this end, which still listens."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def take(self, count: int) -> bytes:
        """That many bytes; fewer where the end comes before."""
        pieces, missing = [self.unread], count - len(self.unread)
        while missing > 0 and (data := self.sock.recv(1 << 18)):
            pieces.append(data)
            missing -= len(data)
        data = b"".join(pieces)
        self.unread = data[count:]
        return data[:count]

    def take_some(self) -> bytes:
        """What is there, or comes next; nothing at the end."""
        data, self.unread = self.unread, b""
        return data or self.sock.recv(1 << 18)

    def hears(self, data: bytes) -> None:
        """These bytes are the next."""
        assert self.take(len(data)) == data

    def hears_head(self) -> bytes:
        """The next head, with the empty line at its end."""
        data = self.unread
        while b"\r\n\r\n" not in data:
            more = self.sock.recv(65536)
            assert more, f"an end instead of a head: {data[-200:]!r}"
            data += more
        head, end, self.unread = data.partition(b"\r\n\r\n")
        return head + end

    def hears_request(self) -> Request:
        """The next request, whole and in the form in which alone it may reach an app."""
        reader = StrictReader(mesh=True)
        done = reader.feed(self.unread)
        while not done:
            data = self.sock.recv(65536)
            assert data, f"an end within a request for {reader.target!r}"
            done = reader.feed(data)
        (found,) = done
        self.unread = b""
        return found

    def hears_reply(self, method: bytes = b"GET") -> Reply:
        """The next reply to a request with ``method``, whole or broken off, to its own end or the connection's."""
        ended = False
        while not (found := parse_replies(self.unread, (method,), ended=ended)) and not ended:
            data = self.sock.recv(65536)
            self.unread += data
            ended = not data
        self.unread = b""
        (reply,) = found
        return reply

    def hears_end(self) -> str:
        """Nothing more comes; how it ended: `eof`, or `reset`."""
        data, end = self.hears_out()
        assert not data, data[:200]
        return end

    def hears_out(self) -> tuple[bytes, str]:
        """All that still comes, and how it ended."""
        pieces = [self.unread]
        self.unread = b""
        try:
            while data := self.sock.recv(1 << 18):
                pieces.append(data)
        except ConnectionError:
            return b"".join(pieces), "reset"
        return b"".join(pieces), "eof"


def status(head: bytes) -> int:
    """That of an answer's head."""
    found = re.match(rb"HTTP/1\.1 ([0-9]{3}) ", head)
    assert found, head
    return int(found[1])


def fields(head: bytes) -> dict[bytes, bytes]:
    """Those of a head, by lower-case name."""
    pairs = (line.partition(b": ") for line in head.split(b"\r\n")[1:] if line)
    return {name.lower(): value for name, _, value in pairs}


class Stage:
    """A shop whose app is the test itself. A context manager."""

    def __init__(self, *, web_flags: Sequence[str] = (), caller_flags: Sequence[str] = ()) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(DEADLINE)
        try:
            self.shop = Shop(app=self._listener.getsockname()[1], web_flags=web_flags, caller_flags=caller_flags)
        except BaseException:
            self._listener.close()
            raise

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.shop.__exit__(kind, error, trace)

    def client(self, *, receive_buffer: int = 0) -> End:
        """A connection of the app beside the caller's sidecar."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(DEADLINE)
        sock.connect(("127.0.0.1", self.shop.caller.outbound))
        return End(sock)

    def app(self) -> End:
        """The next connection that web's sidecar makes to its app."""
        sock, _ = self._listener.accept()
        return End(sock)

    def records(self, path: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the caller's log and web's say of the one request for ``path``."""
        return self.record(self.shop.caller, path), self.record(self.shop.web, path)

    @staticmethod
    def record(member: Member, path: bytes) -> dict[str, Any]:
        """What this one's log says of the one request for ``path``."""

        def found() -> list[dict[str, Any]]:
            return [each for each in member.log_records() if each["path"] == path.decode()]

        wait_until(lambda: bool(found()), f"a record of {path!r}")
        (record,) = found()
        return record

    def said(self, path: bytes) -> list[tuple[int, str, int, int]]:
        """Of both logs, the caller's first: status, flag, bytes of the body that came, bytes of the one that went."""
        return [
            (each["response_code"], each["response_flags"], each["bytes_received"], each["bytes_sent"])
            for each in self.records(path)
        ]


def at_rest(member: Member) -> bool:
    """Whether no request or connection is in progress there."""
    return "\nsidecar_requests_active 0.0\n" in member.admin_get("/metrics")[1]


def asked(stage: Stage, client: End, path: bytes) -> End:
    """The app, which has a request for ``path`` at hand."""
    client.say(request(path))
    app = stage.app()
    assert app.hears_request().target == path
    return app


@contextmanager
def switched(stage: Stage, path: bytes) -> Iterator[tuple[End, End]]:
    """A client and an app with a tunnel between them, of the kind that WebSockets run in."""
    with stage.client() as client:
        client.say(request(path, *ASKS))
        with stage.app() as app:
            heard = fields(app.hears_head())
            assert (heard[b"connection"], heard[b"upgrade"]) == (b"upgrade", b"chat")
            app.say(SWITCH)
            told = client.hears_head()
            assert status(told) == 101 and fields(told)[b"upgrade"] == b"chat" and fields(told)[b"x-app"] == b"1"
            yield client, app
