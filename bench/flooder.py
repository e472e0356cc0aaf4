"""One peer that opens handshakes without end: ``python -m bench.flooder PORT SOURCE KEY CHAIN AT-ONCE``.

Started by ``flood``, on the load's core and, where that has a priority, with what the load leaves of it, so that what
the load sees is the proxy's doing. Each handshake is a full one, with our certificate; it is closed as soon as our
part is said, and the next begins. Prints how many it said so far, ten times a second, until it is killed. With PORT 0
it only burns the core in the same way: what a quiet run is held against.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from collections.abc import Sequence

from OpenSSL import SSL

_ALPN = [b"istio-http/1.1"]
_TOLD_SECONDS = 0.1


class Flood:
    """Some handshakes at once, in one thread."""

    def __init__(self, port: int, source: str, key: str, chain: str) -> None:
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.use_certificate_chain_file(chain)
        self._context.use_privatekey_file(key)
        self._port, self._source = port, source
        self._selector = selectors.DefaultSelector()
        self.said = 0

    def begin(self) -> None:
        """Opens one more."""
        plain = socket.socket()
        plain.bind((self._source, 0))
        plain.connect(("127.0.0.1", self._port))
        plain.setblocking(False)
        connection = SSL.Connection(self._context, plain)
        connection.set_alpn_protos(_ALPN)
        connection.set_connect_state()
        self._selector.register(plain, selectors.EVENT_READ, (connection, plain))
        self._go_on(connection, plain)

    def turn(self) -> None:
        """Goes on with those that were answered."""
        for key, _ in self._selector.select(_TOLD_SECONDS):
            self._go_on(*key.data)

    def _go_on(self, connection: SSL.Connection, plain: socket.socket) -> None:
        try:
            connection.do_handshake()
            connection.shutdown()
            self.said += 1
        except SSL.WantReadError:
            return
        except (SSL.Error, OSError):
            pass  # refused: the next one
        self._selector.unregister(plain)
        plain.close()
        self.begin()


def main(words: Sequence[str]) -> None:
    port, source, key, chain, at_once = words
    flood = Flood(int(port), source, key, chain)
    left = int(at_once) if int(port) else 0
    told = 0.0
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    while True:
        if left:
            flood.begin()
            left -= 1
        if int(port):
            flood.turn()
        now = time.monotonic()
        if now - told >= _TOLD_SECONDS:
            told = now
            print(flood.said, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
