"""What goes over an interface, read by a packet socket: the bytes of each TCP connection and direction."""

from __future__ import annotations

import socket
import struct
from collections import defaultdict
from types import TracebackType

from tests.netns.pod import Pod

_ALL = 0x0003  # ETH_P_ALL, <linux/if_ether.h>
_SOL_PACKET, _STATISTICS, _IGNORE_OUTGOING = 263, 6, 23  # <linux/if_packet.h>
_RCVBUFFORCE = 33  # <asm-generic/socket.h>; whoever may listen may also have room
_BUFFER = 8 << 20


class Sniffer:
    """A context manager that listens to ``interface`` of ``pod``; ``flows`` is what has gone by, by (from, to) port.

    Each packet is seen once: on loopback the same one would leave and arrive. What was sent again stands there twice.
    """

    def __init__(self, pod: Pod, interface: str) -> None:
        self._sock = pod.make_socket(socket.AF_PACKET, uid=0, kind=socket.SOCK_RAW)
        self._sock.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _BUFFER)
        if interface == "lo":
            self._sock.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        self._sock.bind((interface, _ALL))
        self._sock.setblocking(False)
        self._flows: defaultdict[tuple[int, int], bytearray] = defaultdict(bytearray)

    def __enter__(self) -> Sniffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    def flows(self) -> dict[tuple[int, int], bytes]:
        """All that came until now; AssertionError where the kernel had to drop some of it."""
        while True:
            try:
                frame = self._sock.recv(1 << 17)
            except BlockingIOError:
                break
            self._note(frame)
        _, dropped = struct.unpack("II", self._sock.getsockopt(_SOL_PACKET, _STATISTICS, 8))
        assert not dropped, f"{dropped} packets were not seen"
        return {ports: bytes(data) for ports, data in self._flows.items()}

    def between(self, port: int) -> bytes:
        """What went to and from this port, both ways, whole connections one after the other."""
        return b"".join(data for ports, data in sorted(self.flows().items()) if port in ports)

    def _note(self, frame: bytes) -> None:
        kind, packet = int.from_bytes(frame[12:14], "big"), frame[14:]
        if kind == 0x0800 and packet[9] == socket.IPPROTO_TCP:
            segment = packet[(packet[0] & 15) * 4 : int.from_bytes(packet[2:4], "big")]
        elif kind == 0x86DD and packet[6] == socket.IPPROTO_TCP:  # no extension headers: none are sent here
            segment = packet[40 : 40 + int.from_bytes(packet[4:6], "big")]
        else:
            return
        ports = struct.unpack("!HH", segment[:4])
        self._flows[ports] += segment[(segment[12] >> 4) * 4 :]


def is_tls(data: bytes) -> bool:
    """Whether the bytes of one direction are TLS records from the first to the last (RFC 8446 section 5.1)."""
    at = 0
    while at + 5 <= len(data):
        if data[at] not in (20, 21, 22, 23) or data[at + 1] != 3:
            return False
        at += 5 + int.from_bytes(data[at + 3 : at + 5], "big")
    return at == len(data)
