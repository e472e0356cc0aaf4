"""Makes sockets in a pod, under a uid of the pod, and hands them to the test process. A program.

A socket stays in the namespace, and keeps the uid, that it was made in. So a test can be an app inside a pod, with
plain Python, while its process stays where it is. Standard input is a Unix socket: 8 bytes (family, type) are an order,
and the answer is one byte with the new socket. It ends when that socket does.
"""

from __future__ import annotations

import socket
import struct


def main() -> None:
    with socket.socket(fileno=0) as orders:
        while order := orders.recv(8):
            family, kind = struct.unpack("ii", order)
            with socket.socket(family, kind) as made:
                socket.send_fds(orders, [b"."], [made.fileno()])


if __name__ == "__main__":
    main()
