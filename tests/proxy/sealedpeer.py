"""The other end of a ``TlsSocket``, over loopback TCP: a peer that says whatever it likes, from both secrets on."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from sidecar.tls.records import SUITES, Keys
from sidecar.tls.tls_socket import TlsSocket
from tests.support.sealing import ALERT, CLOSE_NOTIFY, DATA, HANDSHAKE, UPDATE, UPDATE_ASKING, Hand, Plain

SUITE = "TLS_AES_128_GCM_SHA256"
DEADLINE = 30.0


class SealedPeer:
    """Seals and opens by another hand. ``heard`` has all records so far; ``ended`` is eof or reset after the last."""

    def __init__(self, sock: socket.socket, reading: Hand, writing: Hand) -> None:
        self.sock = sock
        self._reading = reading
        self.writing = writing
        self._wire = b""
        self.heard: list[Plain] = []
        self.ended = ""

    def sealed(self, *parts: tuple[int, bytes] | tuple[int, bytes, int]) -> bytes:
        """Records with these; keys follow."""
        wire = b""
        for part in parts:
            wire += self.writing.seal(*part)
            if part[0] == HANDSHAKE and part[1].endswith((UPDATE, UPDATE_ASKING)):
                self.writing.update()
        return wire

    def say(self, *parts: tuple[int, bytes] | tuple[int, bytes, int]) -> None:
        """All of it in one write."""
        self.write(self.sealed(*parts))

    def write(self, wire: bytes) -> None:
        """These bytes, as they are."""
        self.sock.settimeout(DEADLINE)
        self.sock.sendall(wire)
        self.sock.setblocking(False)

    def take(self, most: int = 1 << 20) -> bool:
        """Reads once and opens what is whole; False where nothing is there, or the end is."""
        try:
            data = self.sock.recv(most)
        except BlockingIOError:
            return False
        except ConnectionError:
            self.ended = "reset"
            return False
        if not data:
            self.ended = "eof"
            return False
        self._wire += data
        at = 0
        while len(self._wire) - at >= 5:
            size = 5 + int.from_bytes(self._wire[at + 3 : at + 5], "big")
            if len(self._wire) - at < size:
                break
            self.heard += self._reading.open_all(self._wire[at : at + size])
            at += size
        self._wire = self._wire[at:]
        return True

    def take_all(self) -> None:
        while self.take():
            pass

    def wait(self) -> None:
        """Until there is something to take."""
        assert readable(self.sock), "nothing comes"

    def wait_end(self) -> None:
        while not self.ended:
            self.wait()
            self.take()

    def hear_end(self, near: TlsSocket) -> None:
        """``near`` ends what it says, and we hear the rest, close_notify and FIN, each once."""
        while True:
            try:
                near.shutdown(socket.SHUT_WR)
                break
            except BlockingIOError:
                self.wait()
                self.take()
        self.wait_end()
        assert (self.ended, self.told(ALERT), self.partial) == ("eof", [CLOSE_NOTIFY], 0)

    @property
    def data(self) -> bytes:
        return b"".join(each.content for each in self.heard if each.kind == DATA)

    @property
    def partial(self) -> int:
        """Bytes of a record that is not whole."""
        return len(self._wire)

    def told(self, kind: int) -> list[bytes]:
        """The contents of the records of this type."""
        return [each.content for each in self.heard if each.kind == kind]


def readable(sock: socket.socket | TlsSocket, seconds: float = DEADLINE) -> bool:
    """Whether a poll tells of something within that time."""
    return bool(select.select([sock], [], [], seconds)[0])


def read(near: TlsSocket, size: int = 65_536, flags: int = 0) -> bytes:
    """As ``recv``, once there is something."""
    while True:
        try:
            return near.recv(size, flags)
        except BlockingIOError:
            assert readable(near), "nothing comes"


@contextmanager
def taken_over(
    *, serves: bool = True, room: int = 0, suite: str = SUITE, most: int = 16_384
) -> Iterator[tuple[TlsSocket, SealedPeer]]:
    """A ``TlsSocket`` and its peer. ``room``: bytes that the kernel holds for either, roughly (0: its default)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if room:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        raw = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    if room:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    for sock in (raw, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.setblocking(False)
    far.setblocking(False)
    size = 48 if suite.endswith("384") else 32
    ours, theirs = os.urandom(size), os.urandom(size)
    keys = SUITES[suite]
    near = TlsSocket(raw, Keys(keys, theirs), Keys(keys, ours), serves=serves, most=most)
    try:
        yield near, SealedPeer(far, Hand(suite, ours), Hand(suite, theirs))
    finally:
        raw.close()
        far.close()
