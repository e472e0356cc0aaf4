"""One conversation with the kernel over netlink: questions, and batches that are done whole or not at all.

Who calls it: ``init.netlink`` and ``init.loopback``. The messages are pyroute2's; only their exchange is here. Its
sockets would run an event loop inside, and can't say which message of a batch was refused: an answer names the message
by its sequence number, so each message of a batch has one of its own.

A batch goes to the kernel by one ``send``: whoever is killed before it has changed nothing, and after it everything.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Protocol

from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST

_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR, _DONE = 2, 3
_CAPPED, _HAS_WORDS = 0x100, 0x200  # flags of an answer: without the question; with the kernel's own words
_WORDS = 1
_DUMP_INTERRUPTED = 0x10
_PATIENCE = 20.0  # seconds; the kernel answers within milliseconds, or after a grace period when it has much to undo
_LARGEST = 1 << 20


class Refused(Exception):
    """The kernel said no: ``code`` is the errno, ``at`` the number of the message in its batch (-1: all of it)."""

    def __init__(self, code: int, words: str, at: int = -1) -> None:
        super().__init__(code, words, at)
        self.code = code
        self.words = words
        self.at = at


class Changing(Exception):
    """What was asked for changed while the kernel told it: ask again."""


class Message(Protocol):
    """What pyroute2's messages are to this module."""

    data: bytes

    def __setitem__(self, key: str, value: object) -> None: ...
    def __getitem__(self, key: str) -> dict[str, int]: ...
    def encode(self) -> None: ...


class Conversation:
    """A netlink socket of one protocol; a context manager. All methods wait for the kernel, and raise Refused."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.settimeout(_PATIENCE)
        self._socket.bind((0, 0))
        for option in (_CAP_ACK, _EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._sequence = 1

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def dump(self, message: Message, kind: int) -> Iterator[bytes]:
        """All that the kernel has of a kind, a message each; Changing when it changed meanwhile."""
        first = self._sequence
        self._send([_encoded(message, kind, NLM_F_DUMP, self._next())])
        for kind_seen, flags, sequence, data in self._answers():
            if sequence != first:
                continue
            if flags & _DUMP_INTERRUPTED:
                raise Changing
            if kind_seen in (_ERROR, _DONE):
                _look(data, flags)
                return
            yield data

    def ask(self, message: Message, kind: int, flags: int = 0) -> None:
        """One message, and the kernel's word that it was done."""
        self.batch([(message, kind, flags)])

    def batch(self, messages: Sequence[tuple[Message, int, int]]) -> None:
        """(message, type, flags), sent at once; returns when the kernel has done the last that asks for an answer.

        The first of those that it refused is in the Refused that is raised.
        """
        first = self._sequence
        encoded = [_encoded(message, kind, flags, self._next()) for message, kind, flags in messages]
        last = first + max(at for at, (_, _, flags) in enumerate(messages) if flags & NLM_F_ACK or len(messages) == 1)
        self._send(encoded)
        refused: Refused | None = None
        for _, flags, sequence, data in self._answers():
            at = sequence - first
            if not 0 <= at < len(messages):
                continue
            try:
                _look(data, flags)
            except Refused as error:
                refused = refused or Refused(error.code, error.words, at)
            if sequence == last or (refused is not None and at == 0):
                break
        if refused is not None:
            raise refused

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence - 1

    def _send(self, encoded: list[bytes]) -> None:
        data = b"".join(encoded)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(2 * len(data), 1 << 17))
        self._socket.sendall(data)

    def _answers(self) -> Iterator[tuple[int, int, int, bytes]]:
        """(type, flags, sequence number, the message with its header), as long as somebody asks."""
        while True:
            try:
                data = self._socket.recv(_LARGEST)
            except TimeoutError:
                raise Refused(0, f"no answer within {_PATIENCE:g} s") from None
            except OSError as error:
                raise Refused(error.errno or 0, error.strerror or str(error)) from None
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
                yield kind, flags, sequence, data[at : at + length]
                at += (max(length, _HEADER.size) + 3) & ~3


def _encoded(message: Message, kind: int, flags: int, sequence: int) -> bytes:
    header = message["header"]
    header["type"] = kind
    header["flags"] = flags | NLM_F_REQUEST
    header["sequence_number"] = sequence
    message.encode()
    return bytes(message.data)


def _look(data: bytes, flags: int) -> None:
    """Raises Refused where an answer is one."""
    (code,) = struct.unpack_from("=i", data, _HEADER.size) if len(data) >= _HEADER.size + 4 else (0,)
    if code < 0:
        raise Refused(-code, _words(data, flags))


def _words(data: bytes, flags: int) -> str:
    """The kernel's own words for a refusal, where it has any."""
    if not flags & _HAS_WORDS:
        return ""
    at = _HEADER.size + 4
    (length,) = struct.unpack_from("=I", data, at)
    at += _HEADER.size if flags & _CAPPED else (length + 3) & ~3
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if kind & 0x3FFF == _WORDS:
            return data[at + _ATTRIBUTE.size : at + length].rstrip(b"\0").decode("ascii", "replace")
        at += (max(length, _ATTRIBUTE.size) + 3) & ~3
    return ""
