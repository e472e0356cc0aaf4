"""What stands in for the sidecar where only the rules are tried: listeners that say for whom a connection was meant."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.netns.environment import PROXY_ID
from tests.netns.pod import Pod

FAMILIES = ("v4", "v6")
_LONGEST = 5.0
_WILDCARD = {"v4": "0.0.0.0", "v6": "::"}


def address(pod: Pod, family: str) -> str:
    """The pod's address of a family."""
    return pod.v4 if family == "v4" else pod.v6


class Doors:
    """Listeners by name; ``where`` tells by which of them a connection came in, and for whom it was meant."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._doors: dict[int, tuple[str, socket.socket]] = {}

    def close(self) -> None:
        self._stack.close()

    def open(self, name: str, pod: Pod, port: int, *, uid: int = 1000) -> None:
        """A listener on every address of both families."""
        for family in FAMILIES:
            kind = socket.AF_INET if family == "v4" else socket.AF_INET6
            listener = self._stack.enter_context(pod.make_socket(kind, uid))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == "v6":
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((_WILDCARD[family], port))
            listener.listen(64)
            self._doors[listener.fileno()] = name, listener

    def sidecar(self, pod: Pod, outbound: int = 15001, inbound: int = 15006) -> None:
        """The two doors of a sidecar."""
        self.open("outbound", pod, outbound, uid=PROXY_ID)
        self.open("inbound", pod, inbound, uid=PROXY_ID)

    def where(self) -> tuple[str, str, int]:
        """(the listener's name, the destination that its client named: address and port) of the one connection made."""
        ready, _, _ = select.select(list(self._doors), [], [], _LONGEST)
        assert len(ready) == 1, [self._doors[found][0] for found in ready]
        name, listener = self._doors[ready[0]]
        accepted, _ = listener.accept()
        with accepted:
            return name, *original_destination(accepted)


def original_destination(accepted: socket.socket) -> tuple[str, int]:
    """What SO_ORIGINAL_DST says, or the address itself where nothing was changed."""
    try:
        if accepted.family == socket.AF_INET:
            port, packed = struct.unpack_from("!2xH4s", accepted.getsockopt(socket.SOL_IP, 80, 16))
        else:
            port, packed = struct.unpack_from("!2xH4x16s", accepted.getsockopt(socket.IPPROTO_IPV6, 80, 28))
    except OSError:
        host, port = accepted.getsockname()[:2]
        return host, port
    return socket.inet_ntop(accepted.family, packed), port


@contextmanager
def doors() -> Iterator[Doors]:
    """Doors that are closed at the end."""
    made = Doors()
    try:
        yield made
    finally:
        made.close()
